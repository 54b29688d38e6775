// decode_layer.metal - what follows decode.metal's projections in a layer of a decoding step (one new token for each of n
// sequences): attention split over the cache, and the projections that add to the residual stream.
//
//   decode_attend   piece p of the cache of each sequence: sums over its tokens j of 2^(s[j] - top) V[j], not yet divided by
//                   the sum of weights; s = f(dot(Q, K[j]) * scale) log2(e), f: none, or cap tanh(s / cap)
//   decode_output   residual += W a + bias, a the pieces together. Dao et al., "Flash-Decoding for long-context inference", 2023
//   decode_down     residual += W x + bias
//
// Shapes    Q float: q_stride floats from row to row, head h at column h * hs; partial [n, nh, parts, hs], part_stats [n, nh, parts, 2] (top and the sum of weights), residual
//           [n, M], x [n, K], bias [M] float, bias may be nil; W [M, nh * hs] or [M, K] row-major float, half or bfloat;
//           caches [n_blocks, n_kv_head, block_size, hs] half or bfloat; block_table [n, max_blocks], lengths [n] int: the
//           query's own token is the last of lengths[n].
// Dispatch  at each kernel. The cache but for the newest token, weights and what the step's inputs say are read ahead (ahead.h).
// Assumes   block numbers lie inside the cache. window: how many tokens a query sees, its own among them; window and cap are
//           off at 0. Everything begins at multiples of 16 bytes. A result depends on its own row alone, whatever n is.
#include <metal_stdlib>
#include "cache.h"
#include "decode.h"
#include "pieces.h"
using namespace metal;

// What must be subtracted from scores: nothing where all are -inf, since -inf - -inf would be NaN.
inline float finite_base(float top) { return top == -INFINITY ? 0.0f : top; }

// ---- A threadgroup has a piece of one sequence for one query head. A token lies over D / 8 lanes, so that a simdgroup has
// ABREAST tokens side by side. Each simdgroup keeps a softmax.
// Threadgroups (nh, n, parts): parts at least the pieces of the longest sequence, and no more than MOST_PIECES. Threadgroup
// (256); threadgroup(0): 8 * (hs + 2) floats.
constant constexpr uint ATTENDING = 8;      // simdgroups
constant constexpr ulong NOWHERE = 0xffffffffffffffff;

// A lane's share of sixty-four tokens.
template <int ROUNDS>
struct Tokens {
    uint4 k[ROUNDS];
    uint4 v[ROUNDS];
    bool  in[ROUNDS];
};

// A softmax over keys, as it goes: largest score, and the sums over the weights and the weighted values.
struct Running {
    float top;
    float weights;
    Eight total;                                             // of this lane's channels
};

// Adds a simdgroup's tokens; the same in the lanes of the same channels.
template <typename E, int D, int ROUNDS>
inline void attend_tokens(thread Running& all, thread const Tokens<ROUNDS>& tokens, Eight query, Mask mask) {
    constexpr uint LANES = D / 8;
    float score[ROUNDS], top = all.top;
    #pragma unroll
    for (int r = 0; r < ROUNDS; ++r) {
        float dot = dot8(widen8<E>(tokens.k[r]), query);
        #pragma unroll
        for (ushort m = 1; m < LANES; m *= 2) dot += simd_shuffle_xor(dot, m);
        score[r] = tokens.in[r] ? mask.score(dot) * 1.44269504088896f : -INFINITY;
        top = max(top, score[r]);
    }
    #pragma unroll
    for (ushort m = LANES; m < 32; m *= 2) top = max(top, simd_shuffle_xor(top, m));
    const float base = finite_base(top), shrink = fast::exp2(all.top - base);
    float weights = 0.0f;
    Eight total;
    total.lo = float4(0.0f);
    total.hi = float4(0.0f);
    #pragma unroll
    for (int r = 0; r < ROUNDS; ++r) {
        const float p = fast::exp2(score[r] - base);
        const Eight v = widen8<E>(tokens.v[r]);
        weights += p;
        total.lo = fma(v.lo, float4(p), total.lo);
        total.hi = fma(v.hi, float4(p), total.hi);
    }
    #pragma unroll
    for (ushort m = LANES; m < 32; m *= 2) {
        weights += simd_shuffle_xor(weights, m);
        total.lo += simd_shuffle_xor(total.lo, m);
        total.hi += simd_shuffle_xor(total.hi, m);
    }
    all.top = top;
    all.weights = fma(all.weights, shrink, weights);
    all.total.lo = fma(all.total.lo, float4(shrink), total.lo);
    all.total.hi = fma(all.total.hi, float4(shrink), total.hi);
}

template <typename E, int D>
[[max_total_threads_per_threadgroup(256)]]
kernel void attend(
    device const float* Q           [[buffer(0)]],
    device const E*     k_cache     [[buffer(1)]],
    device const E*     v_cache     [[buffer(2)]],
    device const int*   block_table [[buffer(3)]],
    device const int*   lengths     [[buffer(4)]],
    device float*       partial     [[buffer(5)]],
    device float*       part_stats  [[buffer(6)]],
    constant int&       q_stride    [[buffer(7)]],
    constant int&       nh          [[buffer(8)]],
    constant int&       n_kv_head   [[buffer(9)]],
    constant int&       block_size  [[buffer(10)]],
    constant int&       max_blocks  [[buffer(11)]],
    constant float&     scale       [[buffer(12)]],
    constant int&       window      [[buffer(13)]],
    constant float&     cap         [[buffer(14)]],
    threadgroup float*  shared      [[threadgroup(0)]],
    uint3 tg     [[threadgroup_position_in_grid]],
    uint3 groups [[threadgroups_per_grid]],
    uint3 tid    [[thread_position_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]])
{
    constexpr int LANES = D / 8, ABREAST = 32 / LANES, ROUND = ABREAST * int(ATTENDING), ROUNDS = PIECE / ROUND;
    const uint part = lane % LANES;
    const int length = lengths[tg.y], piece = piece_of(length), kv_head = int(tg.x) / (nh / n_kv_head);
    const Mask mask = { scale, window, cap };
    const int begin = max(int(tg.z) * piece, mask.first_seen(length - 1)), end = min((int(tg.z) + 1) * piece, length);
    device const int* blocks = block_table + ulong(tg.y) * max_blocks;
    Eight query;
    Running all;
    all.top = -INFINITY;
    all.weights = 0.0f;
    all.total.lo = float4(0.0f);
    all.total.hi = float4(0.0f);

    bool waited = false;
    for (int j0 = begin; j0 < end; j0 += PIECE) {                            // the same for the whole threadgroup
        Tokens<ROUNDS> tokens;
        ulong from[ROUNDS];
        #pragma unroll
        for (int r = 0; r < ROUNDS; ++r) {
            const int j = j0 + r * ROUND + int(sg) * ABREAST + int(lane) / LANES;
            tokens.in[r] = j < end;
            tokens.k[r] = uint4(0u);
            tokens.v[r] = uint4(0u);
            from[r] = NOWHERE;
            if (!tokens.in[r]) continue;
            const ulong at = cache_row(blocks[j / block_size], kv_head, j % block_size, n_kv_head, block_size, D) + part * 8;
            if (!waited && j == length - 1) {
                from[r] = at;                                                // the newest token is not there yet
            } else {
                tokens.k[r] = *(device const uint4*)(k_cache + at);
                tokens.v[r] = *(device const uint4*)(v_cache + at);
            }
        }
        if (!waited) {
            await_dependency();
            waited = true;
            query = load8(Q + ulong(tg.y) * q_stride + tg.x * D + part * 8);
            #pragma unroll
            for (int r = 0; r < ROUNDS; ++r) {
                if (from[r] == NOWHERE) continue;
                tokens.k[r] = *(device const uint4*)(k_cache + from[r]);
                tokens.v[r] = *(device const uint4*)(v_cache + from[r]);
            }
        }
        attend_tokens<E, D, ROUNDS>(all, tokens, query, mask);
    }
    if (!waited) await_dependency();
    threadgroup float* stats = shared + ATTENDING * D;
    if (lane < LANES) {
        *(threadgroup float4*)(shared + sg * D + part * 8) = all.total.lo;
        *(threadgroup float4*)(shared + sg * D + part * 8 + 4) = all.total.hi;
    }
    if (lane == 0) {
        stats[2 * sg] = all.top;
        stats[2 * sg + 1] = all.weights;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);

    const uint d = tid.x;
    if (d >= D) return;
    const ulong slot = (ulong(tg.y) * nh + tg.x) * groups.z + tg.z;
    float top = -INFINITY, weights = 0.0f, y = 0.0f;
    #pragma unroll
    for (uint s = 0; s < ATTENDING; ++s) top = max(top, stats[2 * s]);
    #pragma unroll
    for (uint s = 0; s < ATTENDING; ++s) {
        const float share = fast::exp2(stats[2 * s] - finite_base(top));
        weights = fma(stats[2 * s + 1], share, weights);
        y = fma(shared[s * D + d], share, y);
    }
    if (begin < end) partial[slot * D + d] = y;
    if (d == 0) {
        part_stats[2 * slot] = top;
        part_stats[2 * slot + 1] = weights;
    }
}
template [[host_name("decode_attend_f16_hs32")]]   kernel decltype(attend<half, 32>)    attend<half, 32>;
template [[host_name("decode_attend_f16_hs64")]]   kernel decltype(attend<half, 64>)    attend<half, 64>;
template [[host_name("decode_attend_f16_hs128")]]  kernel decltype(attend<half, 128>)   attend<half, 128>;
template [[host_name("decode_attend_f16_hs256")]]  kernel decltype(attend<half, 256>)    attend<half, 256>;
template [[host_name("decode_attend_bf16_hs32")]]  kernel decltype(attend<bfloat, 32>)  attend<bfloat, 32>;
template [[host_name("decode_attend_bf16_hs64")]]  kernel decltype(attend<bfloat, 64>)  attend<bfloat, 64>;
template [[host_name("decode_attend_bf16_hs128")]] kernel decltype(attend<bfloat, 128>) attend<bfloat, 128>;
template [[host_name("decode_attend_bf16_hs256")]] kernel decltype(attend<bfloat, 256>) attend<bfloat, 256>;

// ---- The pieces of a head's output together: its four channels from d on. partial [parts, hs], stats [parts, 2] of the head.
// Pieces without tokens were not written. All that is read is on its way at once.
inline float4 together(device const float* partial, device const float2* stats, int parts, uint hs, uint d) {
    float2 s[MOST_PIECES];
    float top = -INFINITY, weights = 0.0f;
    #pragma unroll
    for (int p = 0; p < MOST_PIECES; ++p) s[p] = p < parts ? stats[p] : float2(-INFINITY, 0.0f);
    #pragma unroll
    for (int p = 0; p < MOST_PIECES; ++p) top = max(top, s[p].x);
    float4 y = float4(0.0f);
    #pragma unroll
    for (int p0 = 0; p0 < MOST_PIECES; p0 += MOST_PIECES / 2) {
        float4 one[MOST_PIECES / 2];
        #pragma unroll
        for (int i = 0; i < MOST_PIECES / 2; ++i) {
            one[i] = s[p0 + i].y != 0.0f ? load4(partial + uint(p0 + i) * hs + d) : float4(0.0f);
        }
        #pragma unroll
        for (int i = 0; i < MOST_PIECES / 2; ++i) {
            const float share = fast::exp2(s[p0 + i].x - finite_base(top));
            weights = fma(s[p0 + i].y, share, weights);
            y = fma(one[i], float4(share), y);
        }
    }
    return y * (weights == 0.0f ? 0.0f : 1.0f / weights);
}

// ---- residual[first ..] += W v + bias: the threads of a threadgroup share ADDED rows of W [M, n], read ahead.
constant constexpr int ADDED = 4;

template <typename E>
struct AddedRows {
    RowsAhead<E, ADDED> rows;
    float y;                                                 // of the output that this thread writes
    int m;
    bool writes;
    void read_ahead(device const E* W, device const float* bias, int first, int M, uint n, Group t) {
        #pragma unroll
        for (int r = 0; r < ADDED; ++r) rows.rows.row[r] = W + ulong(min(first + r, M - 1)) * n;   // past the end: not stored
        const Share mine = { t.tid, t.gsz };
        rows.read_ahead(n, mine);
        m = first + int(t.tid);
        writes = t.tid < uint(ADDED) && m < M;
        y = writes && bias != nullptr ? bias[m] : 0.0f;
    }
    // shared: ADDED floats a simdgroup.
    template <typename V>
    void add(V v, device float* residual, uint n, threadgroup float* shared, Group t) {
        if (writes) y += residual[m];
        const Share mine = { t.tid, t.gsz };
        Sums<ADDED> sums = dot_share(rows, v, n, mine);
        #pragma unroll
        for (int r = 0; r < ADDED; ++r) {
            sums.of[r] = simd_sum(sums.of[r]);
            if (t.lane == 0) shared[t.sg * ADDED + r] = sums.of[r];
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (!writes) return;
        float sum = 0.0f;
        #pragma unroll(4)
        for (uint s = 0; s < t.nsg; ++s) sum += shared[s * ADDED + t.tid];
        residual[m] = y + sum;
    }
};

// Threadgroups (M / 4 rounded up, n), threadgroup (256) or any multiple of 32; threadgroup(0): nh * hs floats, and 4 a simdgroup.
template <typename E>
kernel void add_output(
    device const float* partial    [[buffer(0)]],
    device const float* part_stats [[buffer(1)]],
    device const E*     W          [[buffer(2)]],
    device const float* bias       [[buffer(3)]],
    device float*       residual   [[buffer(4)]],
    constant int&       nh         [[buffer(5)]],
    constant int&       hs         [[buffer(6)]],
    constant int&       parts      [[buffer(7)]],
    constant int&       M          [[buffer(8)]],
    threadgroup float*  shared     [[threadgroup(0)]],
    uint2 tg  [[threadgroup_position_in_grid]],
    uint2 tid [[thread_position_in_threadgroup]],
    uint2 gsz [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const Group group = { tid.x, gsz.x, lane, sg, nsg };
    const uint n = uint(nh) * uint(hs), channels = uint(hs);
    AddedRows<E> rows;
    rows.read_ahead(W, bias, int(tg.x) * ADDED, M, n, group);
    await_dependency();
    device const float* pieces = partial + ulong(tg.y) * n * parts;
    device const float2* stats = (device const float2*)part_stats + ulong(tg.y) * nh * parts;
    #pragma unroll(1)
    for (uint q = tid.x; q < n / 4; q += gsz.x) {
        const uint h = 4 * q / channels;
        *(threadgroup float4*)(shared + fours(q, n)) =
            together(pieces + ulong(h) * parts * channels, stats + h * parts, parts, channels, 4 * q % channels);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const SharedVector v = { shared, n };
    rows.add(v, residual + ulong(tg.y) * M, n, shared + n, group);
}
template [[host_name("decode_output_f32")]]  kernel decltype(add_output<float>)  add_output<float>;
template [[host_name("decode_output_f16")]]  kernel decltype(add_output<half>)   add_output<half>;
template [[host_name("decode_output_bf16")]] kernel decltype(add_output<bfloat>) add_output<bfloat>;

// Threadgroups (M / 4 rounded up, n), threadgroup (128) or any multiple of 32; threadgroup(0): 4 floats a simdgroup.
template <typename E>
kernel void add_down(
    device const float* x        [[buffer(0)]],
    device const E*     W        [[buffer(1)]],
    device const float* bias     [[buffer(2)]],
    device float*       residual [[buffer(3)]],
    constant int&       K        [[buffer(4)]],
    constant int&       M        [[buffer(5)]],
    threadgroup float*  shared   [[threadgroup(0)]],
    uint2 tg  [[threadgroup_position_in_grid]],
    uint2 tid [[thread_position_in_threadgroup]],
    uint2 gsz [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const Group group = { tid.x, gsz.x, lane, sg, nsg };
    AddedRows<E> rows;
    rows.read_ahead(W, bias, int(tg.x) * ADDED, M, uint(K), group);
    await_dependency();
    PlainVector v;
    v.x = x + ulong(tg.y) * K;
    rows.add(v, residual + ulong(tg.y) * M, uint(K), shared, group);
}
template [[host_name("decode_down_f32")]]  kernel decltype(add_down<float>)  add_down<float>;
template [[host_name("decode_down_f16")]]  kernel decltype(add_down<half>)   add_down<half>;
template [[host_name("decode_down_bf16")]] kernel decltype(add_down<bfloat>) add_down<bfloat>;
