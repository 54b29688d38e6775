// sampling.cu - argmax_sample and topk_mask of sampling.metal on Hopper, each in one launch: argmax through atomics, top-k
// with a row in the registers of a cluster, whose threadgroups reach each other's shared memory.
//
//   argmax_sample   out = index of the largest, ties by lowest index
//   topk_mask       the k largest of a row stay, exactly k, ties by lowest index; the others become -inf
//
// NaN counts as lowest, below -inf, and -0 equals 0.
//
// Shapes    logits [rows, V] float; out int [rows]. argmax_sample: at most ROWS rows; topk_mask: V at most 262,144.
// Dispatch  argmax_sample: threadgroups (one a multiprocessor, or fewer; rows) of ARGMAX_THREADS. topk_mask: threadgroups
//           (CLUSTER * rows) of THREADS, in clusters of CLUSTER.
#include "hopper.h"
#include "order.h"

constexpr uint ROWS = 1024;
constexpr uint ARGMAX_THREADS = 256;
constexpr uint ARGMAX_ITEMS = 8;                        // loads of a thread under way

constexpr uint CLUSTER = 16;
constexpr uint THREADS = 1024;
constexpr uint WARPS = THREADS / 32 * CLUSTER;          // of a cluster
constexpr uint LOWEST = 0x007fffffu;                    // the key of -inf
constexpr uint ITEMS = 16;                              // of a thread

// The row's elements of this thread, neighbours in neighbouring threads.
struct Items {
    uint key[ITEMS];
    FN static uint index(uint i) { return (i * CLUSTER + cluster_rank()) * THREADS + threadIdx.x; }
    FN void load(const float* row, uint V) {
        float x[ITEMS];                                 // all on their way before the first is used
        #pragma unroll
        for (uint i = 0; i < ITEMS; ++i) x[i] = index(i) < V ? row[index(i)] : 0.0f;
        #pragma unroll
        for (uint i = 0; i < ITEMS; ++i) key[i] = index(i) < V ? order_key(x[i]) : 0u;
    }
};

// The largest place of each row so far, and how many threadgroups have added theirs; zeros between launches, which follow
// one another.
__device__ ulong largest[ROWS];
__device__ uint added[ROWS];

// Threadgroups (parts, rows): each takes a part of the row, and the last one that is done answers.
extern "C" __global__ void __launch_bounds__(ARGMAX_THREADS)
thermite_argmax_sample(const float* logits, int* out, int V) {
    let_dependents_start();
    await_dependency();
    __shared__ ulong best[ARGMAX_THREADS / 32];
    const uint row = blockIdx.y, step = gridDim.x * ARGMAX_THREADS, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float* x = logits + (ulong)row * V;
    ulong mine = 0;
    for (uint first = blockIdx.x * ARGMAX_THREADS + threadIdx.x; first < V; first += ARGMAX_ITEMS * step) {
        float v[ARGMAX_ITEMS];
        #pragma unroll
        for (uint i = 0; i < ARGMAX_ITEMS; ++i) v[i] = first + i * step < V ? x[first + i * step] : 0.0f;
        #pragma unroll
        for (uint i = 0; i < ARGMAX_ITEMS; ++i)
            if (first + i * step < V) mine = max(mine, place(order_key(v[i]), first + i * step));
    }
    const uint top = __reduce_max_sync(~0u, (uint)(mine >> 32));
    const uint low = __reduce_max_sync(~0u, (uint)(mine >> 32) == top ? (uint)mine : 0u);
    if (lane == 0) best[warp] = (ulong)top << 32 | low;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (uint i = 1; i < ARGMAX_THREADS / 32; ++i) best[0] = max(best[0], best[i]);
    atomicMax(&largest[row], best[0]);
    __threadfence();
    if (atomicInc(&added[row], gridDim.x - 1) + 1 < gridDim.x) return;
    __threadfence();
    out[row] = ~(uint)atomicExch(&largest[row], 0ull);
}

// How many items of the cluster are at `least` or above it; `sums` has two rows, used in turn.
FN uint count_from(const Items& items, uint V, ulong least, uint (*sums)[CLUSTER * 32], uint turn) {
    uint count = 0;
    #pragma unroll
    for (uint i = 0; i < ITEMS; ++i) {
        const uint at = Items::index(i);
        count += at < V && place(items.key[i], at) >= least ? 1 : 0;
    }
    count = __reduce_add_sync(~0u, count);
    const uint lane = threadIdx.x % 32;
    if (lane < CLUSTER) cluster_store(in_group(&sums[turn][cluster_rank() * 32 + threadIdx.x / 32], lane), count);
    cluster_sync();
    uint all = 0;
    #pragma unroll
    for (uint i = 0; i < CLUSTER; ++i) all += sums[turn][i * 32 + lane];
    return __reduce_add_sync(~0u, all);
}

// The k-th largest place, bit by bit from the top: right for any row, and slow.
FN ulong search(const Items& items, uint V, uint k, uint (*sums)[CLUSTER * 32]) {
    ulong least = 0;
    for (int bit = 63; bit >= 0; --bit) {
        const ulong more = least | 1ull << bit;
        if (count_from(items, V, more, sums, bit & 1) >= k) least = more;
    }
    return least;
}

// The k-th largest of the warps' maxima is at most the k-th largest element, and little below it: the few items from there
// on are ranked in one threadgroup. Where they are many (equals, a large k), the bits are searched.
extern "C" __global__ void __cluster_dims__(16, 1, 1) __launch_bounds__(1024, 1)
thermite_topk_mask(float* logits, int V, int k) {
    let_dependents_start();
    await_dependency();
    __shared__ uint maxima[2][WARPS];
    __shared__ ulong found[THREADS];
    __shared__ uint least, count;
    __shared__ ulong kth;
    if (k >= V) return;
    const uint kept = max(k, 0), lane = threadIdx.x % 32, warp = threadIdx.x / 32, rank = cluster_rank();
    float* row = logits + (ulong)(blockIdx.x / CLUSTER) * V;
    if (threadIdx.x == 0) least = 0, count = 0, kth = 0;
    cluster_arrive();
    Items items;
    items.load(row, V);
    uint top = 0;
    #pragma unroll
    for (uint i = 0; i < ITEMS; ++i) top = max(top, items.key[i]);
    top = __reduce_max_sync(~0u, top);
    cluster_wait();
    if (lane < CLUSTER) cluster_store(in_group(&maxima[0][rank * 32 + warp], lane), top);
    cluster_sync();

    uint larger = 0;                                    // than this warp's, or equal and before it
    #pragma unroll
    for (uint i = 0; i < WARPS / 32; ++i) {
        const uint at = i * 32 + lane, other = maxima[0][at];
        larger += other > top || (other == top && at < rank * 32 + warp) ? 1 : 0;
    }
    larger = __reduce_add_sync(~0u, larger);
    if (larger + 1 == kept && lane < CLUSTER) cluster_store(in_group(&least, lane), top);
    cluster_sync();

    // What is -inf is the same whether it stays or not: only more than that is worth ranking.
    const uint from = max(least, LOWEST + 1);
    #pragma unroll
    for (uint i = 0; i < ITEMS; ++i) {
        const bool in = Items::index(i) < V && items.key[i] >= from;
        const uint votes = __ballot_sync(~0u, in);
        if (votes == 0) continue;
        uint first = 0;
        if (lane == 0) first = cluster_add(in_group(&count, 0), __popc(votes));
        const uint slot = __shfl_sync(~0u, first, 0) + __popc(votes & ((1u << lane) - 1));
        if (in && slot < THREADS) cluster_store(in_group(&found[slot], 0), place(items.key[i], Items::index(i)));
    }
    cluster_sync();

    const ulong infinite = (ulong)LOWEST << 32;         // below every -inf
    if (rank == 0 && count <= THREADS && threadIdx.x < max(count, 1)) {
        const ulong mine = found[threadIdx.x];
        uint before = 0;
        for (uint i = 0; i < count; ++i) before += found[i] > mine ? 1 : 0;
        const bool few = count < kept && threadIdx.x == 0;
        if (few || (before + 1 == kept && count > 0))
            for (uint i = 0; i < CLUSTER; ++i) cluster_store(in_group(&kth, i), few ? infinite : mine);
    }
    cluster_sync();

    ulong threshold = kept == 0 ? ~0ull : kth;          // 0: too many to be ranked
    // With too few above -inf they all stay, and so may every -inf, unless NaNs would have to stay as well.
    const bool found_all = threshold != 0 && (threshold != infinite || count_from(items, V, infinite, maxima, 0) >= kept);
    if (!found_all) threshold = search(items, V, kept, maxima);
    #pragma unroll
    for (uint i = 0; i < ITEMS; ++i) {
        const uint at = Items::index(i);
        if (at < V && place(items.key[i], at) < threshold) row[at] = -INFINITY;
    }
    cluster_sync();                                     // nobody leaves while its memory is written
}
