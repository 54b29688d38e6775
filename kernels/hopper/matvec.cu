// matvec.cu - matvec over 16-bit weights (its _rows4) of linear.metal on Hopper: the threadgroups stay, one a multiprocessor,
// and each warp's rows come through a ring in shared memory by bulk copies. The first are asked for before the launch ahead
// in the queue has ended.
//
//   matvec   out[n, m] = sum over k of x[n, k] W[m, k] + bias[m] + residual[n, m]
//
// Shapes    as in linear.metal; K a multiple of 8, of which a vector has room in shared memory. Matrices of more than some
//           128 MB are read faster by the kernel there, whose threadgroups come and go; so are short rows.
// Dispatch  threadgroups (one a multiprocessor, or fewer; N) of THREADS; shared memory: the vector, WARPS rings of `slots`
//           slots, a barrier a slot.
// Assumes   that no launch before it in the queue writes W.
#include "numbers.h"

constexpr uint WARPS = 8;
constexpr uint THREADS = 32 * WARPS;
constexpr uint PIECE = 1024;                            // elements of a row that come together,
constexpr uint ROWS = 2;                                // of neighbouring rows
constexpr uint SLOT = ROWS * PIECE * 2;                 // bytes
constexpr uint EIGHTS = PIECE / 8 / 32;                 // of a lane

// A warp's pieces of rows, in their order.
struct Pieces {
    uint pair;                                          // of rows
    uint k;
    uint step;
    uint K;
    FN uint elements() const { return min(PIECE, K - k); }
    FN void next() {
        k += PIECE;
        if (k >= K) k = 0, pair += step;
    }
};

template <class Weight>
FN void matvec(const float* x, const Weight* W, float* out, const float* bias, const float* residual, uint K, uint M, uint slots) {
    const uint lane = threadIdx.x % 32, warp = threadIdx.x / 32, pairs = (M + ROWS - 1) / ROWS;
    float* vector = (float*)dynamic_shared();
    const Shared rings = shared_address(vector) + (4 * K + 127) / 128 * 128;
    const Shared ring = rings + warp * slots * SLOT, filled = rings + WARPS * slots * SLOT + warp * slots * 8;
    if (lane < slots) barrier_init(filled + lane * 8, 1);
    barrier_init_done();
    __syncwarp();
    let_dependents_start();

    const ulong policy = evict_first();
    Pieces asked = {warp * gridDim.x + blockIdx.x, 0, WARPS * gridDim.x, K};
    Pieces at = asked;
    const auto ask = [&](uint slot) {
        if (asked.pair >= pairs) return;
        if (lane == 0) {
            const uint row = asked.pair * ROWS, rows = min(ROWS, M - row), bytes = asked.elements() * 2;
            arrive_expecting(filled + slot * 8, rows * bytes);
            for (uint r = 0; r < rows; ++r) {
                copy(ring + slot * SLOT + r * PIECE * 2, W + (ulong)(row + r) * K + asked.k, bytes, filled + slot * 8, policy);
            }
        }
        asked.next();
    };
    for (uint slot = 0; slot < slots; ++slot) ask(slot);

    await_dependency();
    const float4* from = (const float4*)(x + (ulong)blockIdx.y * K);
    for (uint q = threadIdx.x; q < K / 4; q += THREADS) put(vector, K, q, from[q]);
    __syncthreads();

    Turn turn;
    float one = 0.0f, two = 0.0f;
    for (; at.pair < pairs; at.next()) {
        const Shared slot = ring + turn.slot * SLOT + lane * 16;
        const float4* low = (const float4*)vector + at.k / 8 + lane;
        const float4* high = low + K / 8;
        const uint eights = at.elements() / 8;
        wait(filled + turn.slot * 8, turn.parity);
        #pragma unroll
        for (uint j = 0; j < 32 * EIGHTS; j += 32) {
            if (lane + j >= eights) continue;
            const float4 a = low[j], b = high[j];
            const Eight v = {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
            one += dot8(widen8<Weight>(load_shared(slot + j * 16)), v);
            two += dot8(widen8<Weight>(load_shared(slot + j * 16 + PIECE * 2)), v);
        }
        __syncwarp();
        ask(turn.slot);
        turn.next(slots);
        if (at.k + PIECE < K) continue;
        // the upper lanes go on with the second row
        const bool upper = lane >= 16;
        float y = (upper ? two : one) + __shfl_xor_sync(~0u, upper ? one : two, 16);
        #pragma unroll
        for (uint m = 8; m > 0; m /= 2) y += __shfl_xor_sync(~0u, y, m);
        const uint row = at.pair * ROWS + upper;
        if (lane % 16 == 0 && row < M) {
            const ulong place = (ulong)blockIdx.y * M + row;
            if (bias) y += bias[row];
            if (residual) y += residual[place];
            out[place] = y;
        }
        one = two = 0.0f;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
thermite_matvec_f16_rows4(const float* x, const half* W, float* out, const float* bias, const float* residual, int K, int M, int slots) {
    matvec(x, W, out, bias, residual, K, M, slots);
}
extern "C" __global__ void __launch_bounds__(THREADS)
thermite_matvec_bf16_rows4(const float* x, const bfloat* W, float* out, const float* bias, const float* residual, int K, int M, int slots) {
    matvec(x, W, out, bias, residual, K, M, slots);
}
