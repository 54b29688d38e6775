// matmul.metal - multiplication of many rows by a weight matrix, over simdgroup matrices.
//
//   matmul_simd         out[n, m] = sum over k of x[n, k] W[m, k] + bias[m] + residual[n, m]
//   matmul_few          the same, for few rows; a row has the same bits from both
//   matmul_few_swiglu   out[n, m] = silu(sum over k of x[n, k] W_gate[m, k]) * sum over k of x[n, k] W_up[m, k]
//   matmul_few_geglu    the same with the tanh form of GELU
//
// Shapes    W [M, K] row-major, a row an output: half (_f16) or bfloat (_bf16); x [N, K], out, residual [N, M], bias [M]
//           float. bias and residual may be nil; out may be residual. Any N, M, K.
// Dispatch  at each kernel.
// Assumes   x and W begin at multiples of 16 bytes. K a multiple of 8 is the fast case. A row's result does not depend on N.
#include <metal_stdlib>
#include <metal_simdgroup_matrix>
#include "activation.h"
#include "ahead.h"
#include "copies.h"
#include "simd_mma.h"
#include "storage.h"
using namespace metal;

// ---- Many rows: a threadgroup computes 64 x 64 outputs, each of its four simdgroups 32 x 32;
// 32 elements of K at a time pass through threadgroup memory, the next tile on its way while one is multiplied.
// x float (rounded to W's type as it is read) or, in the _f16_f16 and _bf16_bf16 instances, already W's type.
// Threadgroups (M / 64 rounded up, N / 64 rounded up), threadgroup (128); threadgroup(0): 2 * (64 + 64) * 40 elements.

constant constexpr int TILE = 64;       // outputs a side
constant constexpr int DEPTH = 32;      // of K at a time
constant constexpr int PITCH = 40;      // elements from row to row: 8 more than DEPTH spread the rows over the banks
constant constexpr int THREADS = 128;

// A sum over k is added up from four, each over a quarter of K, whole tiles: where one simdgroup goes through all of K, and
// where four share it.
constant constexpr uint QUARTERS = 4;
inline uint quarter_of(uint K) { return (K + QUARTERS * DEPTH - 1) / (QUARTERS * DEPTH) * DEPTH; }

// Rows first .. first + ROWS - 1 of p, columns k0 .. k0 + 31, as a tile; zeros outside [rows, K]. COPYING threads call.
template <int ROWS, int COPYING, typename E>
inline void copy_tile(threadgroup E* tile, device const E* p, uint first, uint rows, uint k0, uint K, uint tid) {
    #pragma unroll
    for (uint i = tid; i < ROWS * DEPTH / 8; i += COPYING) {
        const uint r = i / (DEPTH / 8), c = (i % (DEPTH / 8)) * 8;
        const bool in = first + r < rows && k0 + c < K;
        threadgroup E* to = tile + r * PITCH + c;
        device const E* from = p + (in ? ulong(first + r) * K + k0 + c : 0);
        if (K % 8 == 0) {
            tg_copy16(to, from, in);
        } else {                        // rows are not aligned, and one may end inside the eight
            for (uint j = 0; j < 8; ++j) to[j] = in && k0 + c + j < K ? from[j] : E(0.0f);
        }
    }
}

// The same, rounding floats.
template <int ROWS, int COPYING, typename E>
inline void copy_tile(threadgroup E* tile, device const float* p, uint first, uint rows, uint k0, uint K, uint tid) {
    #pragma unroll
    for (uint i = tid; i < ROWS * DEPTH / 4; i += COPYING) {
        const uint r = i / (DEPTH / 4), c = (i % (DEPTH / 4)) * 4;
        const bool in = first + r < rows && k0 + c < K;
        threadgroup E* to = tile + r * PITCH + c;
        device const float* from = p + (in ? ulong(first + r) * K + k0 + c : 0);
        if (K % 4 == 0) {
            const float4 v = in ? load4(from) : float4(0.0f);
            to[0] = E(v.x);
            to[1] = E(v.y);
            to[2] = E(v.z);
            to[3] = E(v.w);
        } else {
            for (uint j = 0; j < 4; ++j) to[j] = in && k0 + c + j < K ? E(from[j]) : E(0.0f);
        }
    }
}

// One output, its sum over K given.
inline void finish(device float* out, float sum, device const float* bias, device const float* residual, uint m, ulong at) {
    if (bias != nullptr) sum += bias[m];
    if (residual != nullptr) sum += residual[at];
    out[at] = sum;
}

template <typename X, typename E>
[[max_total_threads_per_threadgroup(THREADS)]]
kernel void matmul_simd(
    device const X*     x        [[buffer(0)]],
    device const E*     W        [[buffer(1)]],
    device float*       out      [[buffer(2)]],
    device const float* bias     [[buffer(3)]],
    device const float* residual [[buffer(4)]],
    constant int&       N        [[buffer(5)]],
    constant int&       K        [[buffer(6)]],
    constant int&       M        [[buffer(7)]],
    threadgroup E*      tiles    [[threadgroup(0)]],
    uint2  tg   [[threadgroup_position_in_grid]],
    ushort tid  [[thread_index_in_threadgroup]],
    ushort lane [[thread_index_in_simdgroup]],
    ushort sg   [[simdgroup_index_in_threadgroup]])
{
    constexpr uint HALF = TILE * PITCH, BOTH = 2 * HALF;
    const uint n0 = tg.y * TILE, m0 = tg.x * TILE, depth = uint(K);
    const uint row = (sg / 2) * 32, column = (sg % 2) * 32;     // of this simdgroup's 32 x 32
    const uint quarter = quarter_of(depth);
    simdgroup_matrix<float, 8, 8> c[4][4];                      // of this quarter
    float sums[4][4][2];                                        // of those before
    #pragma unroll
    for (int i = 0; i < 4; ++i)
        #pragma unroll
        for (int j = 0; j < 4; ++j) {
            c[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
            sums[i][j][0] = 0.0f;
            sums[i][j][1] = 0.0f;
        }

    copy_tile<TILE, THREADS>(tiles + HALF, W, m0, uint(M), 0, depth, tid);
    copy_tile<TILE, THREADS>(tiles, x, n0, uint(N), 0, depth, tid);
    tg_copy_commit();
    for (uint k0 = 0, turn = 0; k0 < depth; k0 += DEPTH, turn ^= 1) {
        tg_copy_wait<0>();
        threadgroup_barrier(mem_flags::mem_threadgroup);        // this tile is there, the other is no longer read
        if (k0 + DEPTH < depth) {
            threadgroup E* next = tiles + (turn ^ 1) * BOTH;
            copy_tile<TILE, THREADS>(next + HALF, W, m0, uint(M), k0 + DEPTH, depth, tid);
            copy_tile<TILE, THREADS>(next, x, n0, uint(N), k0 + DEPTH, depth, tid);
        }
        tg_copy_commit();
        threadgroup const E* a_tile = tiles + turn * BOTH + row * PITCH;
        threadgroup const E* b_tile = tiles + turn * BOTH + HALF + column * PITCH;
        #pragma unroll
        for (int k = 0; k < DEPTH; k += 16) {
            simdgroup_matrix<E, 8, 8> a[4][2], b[2][4];
            simd_load_a(a, a_tile + k, PITCH);
            simd_load_bt(b, b_tile + k, PITCH);
            simd_mma(c, a, b);
        }
        if ((k0 + DEPTH) % quarter != 0 && k0 + DEPTH < depth) continue;
        #pragma unroll
        for (int i = 0; i < 4; ++i)
            #pragma unroll
            for (int j = 0; j < 4; ++j) {
                sums[i][j][0] += c[i][j].thread_elements()[0];
                sums[i][j][1] += c[i][j].thread_elements()[1];
                c[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
            }
    }

    #pragma unroll
    for (int i = 0; i < 4; ++i)
        #pragma unroll
        for (int j = 0; j < 4; ++j)
            #pragma unroll
            for (int e = 0; e < 2; ++e) {
                const uint n = n0 + row + i * 8 + simd_row(lane), m = m0 + column + j * 8 + simd_col(lane) + e;
                if (n >= uint(N) || m >= uint(M)) continue;
                finish(out, sums[i][j][e], bias, residual, m, ulong(n) * M + m);
            }
}
template [[host_name("matmul_simd_f16")]]       kernel decltype(matmul_simd<float, half>)    matmul_simd<float, half>;
template [[host_name("matmul_simd_bf16")]]      kernel decltype(matmul_simd<float, bfloat>)  matmul_simd<float, bfloat>;
template [[host_name("matmul_simd_f16_f16")]]   kernel decltype(matmul_simd<half, half>)     matmul_simd<half, half>;
template [[host_name("matmul_simd_bf16_bf16")]] kernel decltype(matmul_simd<bfloat, bfloat>) matmul_simd<bfloat, bfloat>;

// ---- Few rows: bound by the reads of W, which are under way before the kernel that makes x has ended (ahead.h). A threadgroup
// has 16 rows and 16 outputs, each of its four simdgroups a quarter of K: W in tiles of threadgroup memory, x in registers.
// Threadgroups (M / 16 rounded up, N / 16 rounded up), where there are two matrices (M / 8 rounded up, ..); threadgroup (128);
// threadgroup(0): 4 * 5 * 16 * 40 elements; threadgroup(1): 4 * 256 floats.
constant constexpr int FEW = 16;        // rows, and outputs
constant constexpr int STAGES = 5;      // tiles of W that a simdgroup has under way
constant constexpr int ABREAST = 4;     // tiles of x

// x[n, k] and x[n, k + 1]; zeros outside [N, K].
inline float2 two_of(device const float* x, uint n, uint N, uint k, uint K) {
    if (n >= N || k >= K) return float2(0.0f);
    device const float* p = x + ulong(n) * K + k;
    if (K % 2 == 0) return *(device const float2*)p;
    return float2(p[0], k + 1 < K ? p[1] : 0.0f);
}

// What a threadgroup's sixteen outputs are: of one matrix, or eight of each of two.
template <typename E>
struct OneMatrix {
    device const E* W;
    void copy(threadgroup E* tile, uint m0, uint M, uint k0, uint K, uint lane) {
        copy_tile<FEW, 32>(tile, W, m0, M, k0, K, lane);
    }
};
template <typename E>
struct TwoMatrices {
    device const E* gate;
    device const E* up;
    void copy(threadgroup E* tile, uint m0, uint M, uint k0, uint K, uint lane) {
        copy_tile<FEW / 2, 32>(tile, gate, m0, M, k0, K, lane);
        copy_tile<FEW / 2, 32>(tile + FEW / 2 * PITCH, up, m0, M, k0, K, lane);
    }
};

// A tile from column k0 on, if a simdgroup's quarter goes as far.
template <typename E, typename Weights>
inline void ask_for(Weights weights, threadgroup E* tile, uint m0, uint M, uint k0, uint end, uint K, uint lane) {
    if (k0 < end) weights.copy(tile, m0, M, k0, K, lane);
    tg_copy_commit();
}

// The rows n0 .. n0 + 15 of x times the outputs from m0 on: each quarter's sums in shared [4, 16, 16]. The whole threadgroup
// calls.
template <typename E, typename Weights>
inline void multiply_few(Weights weights, device const float* x, uint n0, uint N, uint m0, uint M, uint K,
                         threadgroup E* tiles, threadgroup float* shared, ushort lane, ushort sg) {
    const uint quarter = quarter_of(K), begin = sg * quarter, end = min(begin + quarter, K);
    threadgroup E* mine = tiles + sg * STAGES * FEW * PITCH;
    #pragma unroll
    for (uint s = 0; s < STAGES; ++s) ask_for<E>(weights, mine + s * FEW * PITCH, m0, M, begin + s * DEPTH, end, K, lane);
    await_dependency();

    simdgroup_matrix<float, 8, 8> c[2][2];
    #pragma unroll
    for (int i = 0; i < 2; ++i)
        #pragma unroll
        for (int j = 0; j < 2; ++j) c[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    uint stage = 0;
    for (uint k0 = begin; k0 < end; k0 += ABREAST * DEPTH) {
        float2 read[ABREAST][2][4];
        #pragma unroll
        for (uint t = 0; t < ABREAST; ++t)
            #pragma unroll
            for (uint i = 0; i < 2; ++i)
                #pragma unroll
                for (uint k = 0; k < 4; ++k) {
                    const uint column = k0 + t * DEPTH + k * 8 + simd_col(lane);
                    read[t][i][k] = two_of(x, n0 + i * 8 + simd_row(lane), N, column, K);
                }
        #pragma unroll
        for (uint t = 0; t < ABREAST; ++t) {
            if (k0 + t * DEPTH >= end) break;                   // the same for the whole simdgroup
            simdgroup_matrix<E, 8, 8> a[2][4], b[4][2];
            #pragma unroll
            for (int i = 0; i < 2; ++i)
                #pragma unroll
                for (int k = 0; k < 4; ++k) {
                    a[i][k] = make_filled_simdgroup_matrix<E, 8, 8>(E(0.0f));
                    a[i][k].thread_elements()[0] = E(read[t][i][k].x);
                    a[i][k].thread_elements()[1] = E(read[t][i][k].y);
                }
            threadgroup E* tile = mine + stage * FEW * PITCH;
            tg_copy_wait<STAGES - 1>();
            simdgroup_barrier(mem_flags::mem_threadgroup);      // the tile is there
            simd_load_bt(b, tile, PITCH);
            simd_mma(c, a, b);
            simdgroup_barrier(mem_flags::mem_threadgroup);      // it is no longer read
            ask_for<E>(weights, tile, m0, M, k0 + (t + STAGES) * DEPTH, end, K, lane);
            stage = stage + 1 == STAGES ? 0 : stage + 1;
        }
    }

    #pragma unroll
    for (int i = 0; i < 2; ++i)
        #pragma unroll
        for (int j = 0; j < 2; ++j)
            #pragma unroll
            for (int e = 0; e < 2; ++e) {
                const uint at = (i * 8 + simd_row(lane)) * FEW + j * 8 + simd_col(lane) + e;
                shared[sg * FEW * FEW + at] = c[i][j].thread_elements()[e];
            }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

// The sum over K of output i of the 16 x 16. A quarter that a short K leaves empty has given zeros.
inline float all_quarters(threadgroup const float* shared, uint i) {
    float sum = 0.0f;
    #pragma unroll
    for (uint q = 0; q < QUARTERS; ++q) sum += shared[q * FEW * FEW + i];
    return sum;
}

template <typename E>
[[max_total_threads_per_threadgroup(THREADS)]]
kernel void matmul_few(
    device const float* x        [[buffer(0)]],
    device const E*     W        [[buffer(1)]],
    device float*       out      [[buffer(2)]],
    device const float* bias     [[buffer(3)]],
    device const float* residual [[buffer(4)]],
    constant int&       N        [[buffer(5)]],
    constant int&       K        [[buffer(6)]],
    constant int&       M        [[buffer(7)]],
    threadgroup E*      tiles    [[threadgroup(0)]],
    threadgroup float*  shared   [[threadgroup(1)]],
    uint2  tg   [[threadgroup_position_in_grid]],
    ushort tid  [[thread_index_in_threadgroup]],
    ushort lane [[thread_index_in_simdgroup]],
    ushort sg   [[simdgroup_index_in_threadgroup]])
{
    const uint n0 = tg.y * FEW, m0 = tg.x * FEW;
    OneMatrix<E> weights = { W };
    multiply_few<E>(weights, x, n0, uint(N), m0, uint(M), uint(K), tiles, shared, lane, sg);
    for (uint i = tid; i < FEW * FEW; i += THREADS) {
        const uint n = n0 + i / FEW, m = m0 + i % FEW;
        if (n < uint(N) && m < uint(M)) finish(out, all_quarters(shared, i), bias, residual, m, ulong(n) * M + m);
    }
}
template [[host_name("matmul_few_f16")]]  kernel decltype(matmul_few<half>)   matmul_few<half>;
template [[host_name("matmul_few_bf16")]] kernel decltype(matmul_few<bfloat>) matmul_few<bfloat>;

template <typename E, typename F>
[[max_total_threads_per_threadgroup(THREADS)]]
kernel void gate_few(
    device const float* x      [[buffer(0)]],
    device const E*     W_gate [[buffer(1)]],
    device const E*     W_up   [[buffer(2)]],
    device float*       out    [[buffer(3)]],
    constant int&       N      [[buffer(4)]],
    constant int&       K      [[buffer(5)]],
    constant int&       M      [[buffer(6)]],
    threadgroup E*      tiles  [[threadgroup(0)]],
    threadgroup float*  shared [[threadgroup(1)]],
    uint2  tg   [[threadgroup_position_in_grid]],
    ushort tid  [[thread_index_in_threadgroup]],
    ushort lane [[thread_index_in_simdgroup]],
    ushort sg   [[simdgroup_index_in_threadgroup]])
{
    constexpr uint PAIRS = FEW / 2;
    const uint n0 = tg.y * FEW, m0 = tg.x * PAIRS;
    TwoMatrices<E> weights = { W_gate, W_up };
    multiply_few<E>(weights, x, n0, uint(N), m0, uint(M), uint(K), tiles, shared, lane, sg);
    const uint r = tid / PAIRS, c = tid % PAIRS, n = n0 + r, m = m0 + c;
    if (n >= uint(N) || m >= uint(M)) return;
    const float gate = all_quarters(shared, r * FEW + c), up = all_quarters(shared, r * FEW + PAIRS + c);
    out[ulong(n) * M + m] = F()(gate) * up;
}
template [[host_name("matmul_few_swiglu_f16")]]  kernel decltype(gate_few<half, Silu>)   gate_few<half, Silu>;
template [[host_name("matmul_few_swiglu_bf16")]] kernel decltype(gate_few<bfloat, Silu>) gate_few<bfloat, Silu>;
template [[host_name("matmul_few_geglu_f16")]]   kernel decltype(gate_few<half, Gelu>)   gate_few<half, Gelu>;
template [[host_name("matmul_few_geglu_bf16")]]  kernel decltype(gate_few<bfloat, Gelu>) gate_few<bfloat, Gelu>;
