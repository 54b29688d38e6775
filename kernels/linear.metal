// linear.metal - multiplication by a weight matrix: a bias, one row; matmul.metal has many.
//
//   bias_add         x[n, m] += bias[m]
//   narrow           out[i] = x[i], rounded to half or bfloat: what the vendor's product takes beside narrow weights
//   linear_forward   out[n, m] = sum over k of x[n, k] W[m, k]
//   matvec           out[n, m] = f(sum over k of x[n, k] W[m, k] + bias[m]) + residual[n, m],  f: none, gelu, silu, relu
//
// Shapes    W [M, K] row-major, a row an output: float, half (_f16) or bfloat (_bf16); x [N, K], out, residual [N, M]
//           float; bias [M] float. bias and residual may be nil; out may be residual. Any N, M, K.
// Dispatch  bias_add: threads (N, C), threadgroup (1, min(C rounded up to 32, 1024)), with C = M. linear_forward:
//           threads (N, M), threadgroup (1, min(M rounded up to 32, 1024)). narrow: threads (N / 4 rounded up), the last
//           covers the tail, threadgroup (1024) or any. The others stand at their kernels.
// Assumes   matvec: x and W begin at multiples of 16 bytes. K a multiple of 8 is the fast case.
#include <metal_stdlib>
#include "activation.h"
#include "matvec.h"
#include "storage.h"
using namespace metal;

kernel void bias_add(
    device float*       x    [[buffer(0)]],
    device const float* bias [[buffer(1)]],
    constant int&       C    [[buffer(2)]],
    uint2 gid [[thread_position_in_grid]])
{
    const uint n = gid.x, c = gid.y;
    if (c < uint(C)) x[ulong(n) * C + c] += bias[c];
}

template <typename E>
kernel void narrow(
    device const float* x   [[buffer(0)]],
    device E*           out [[buffer(1)]],
    constant int&       N   [[buffer(2)]],
    uint gid [[thread_position_in_grid]])
{
    const ulong i = ulong(gid) * 4, n = ulong(N);
    if (i + 4 <= n) {
        store4(out + i, load4(x + i));
    } else {
        for (ulong j = i; j < n; ++j) out[j] = E(x[j]);
    }
}
template [[host_name("narrow_f16_v4")]]  kernel decltype(narrow<half>)   narrow<half>;
template [[host_name("narrow_bf16_v4")]] kernel decltype(narrow<bfloat>) narrow<bfloat>;

template <typename E>
kernel void linear(
    device const float* x   [[buffer(0)]],
    device const E*     W   [[buffer(1)]],
    device float*       out [[buffer(2)]],
    constant int&       K   [[buffer(3)]],
    constant int&       M   [[buffer(4)]],
    uint2 gid [[thread_position_in_grid]])
{
    const uint n = gid.x, m = gid.y;
    if (m >= uint(M)) return;
    device const float* a = x + ulong(n) * K;
    device const E* w = W + ulong(m) * K;
    float sum = 0.0f;
    for (int k = 0; k < K; ++k) sum = fma(a[k], float(w[k]), sum);
    out[ulong(n) * M + m] = sum;
}
template [[host_name("linear_forward")]]      kernel decltype(linear<float>)  linear<float>;
template [[host_name("linear_forward_f16")]]  kernel decltype(linear<half>)   linear<half>;
template [[host_name("linear_forward_bf16")]] kernel decltype(linear<bfloat>) linear<bfloat>;

// ---- One row: bound by memory, W is read once. A simdgroup has R rows of W (matvec.h): one, which has most loads under
// way when M is small, or four (_rows4), which read x less often.
// Threadgroups (M / (R * simdgroups a threadgroup) rounded up, N), threadgroup any multiple of 32, say 128. N is for a few
// rows; each is computed as if it were alone.

template <typename E, typename F, int R>
kernel void matvec(
    device const float* x        [[buffer(0)]],
    device const E*     W        [[buffer(1)]],
    device float*       out      [[buffer(2)]],
    device const float* bias     [[buffer(3)]],
    device const float* residual [[buffer(4)]],
    constant int&       K        [[buffer(5)]],
    constant int&       M        [[buffer(6)]],
    uint2 tg   [[threadgroup_position_in_grid]],
    uint  lane [[thread_index_in_simdgroup]],
    uint  sg   [[simdgroup_index_in_threadgroup]],
    uint  nsg  [[simdgroups_per_threadgroup]])
{
    const int first = int(tg.x * nsg + sg) * R;
    Rows<E, R> rows;
    #pragma unroll
    for (int r = 0; r < R; ++r) rows.row[r] = W + ulong(min(first + r, M - 1)) * K;   // past the end: not stored
    Plain v;
    v.x = x + ulong(tg.y) * K;
    const Sums<R> sums = dot_rows(rows, v, uint(K), lane);
    if (lane != 0) return;
    #pragma unroll
    for (int r = 0; r < R; ++r) {
        const int m = first + r;
        if (m >= M) continue;
        const ulong at = ulong(tg.y) * M + m;
        float y = sums.of[r];
        if (bias != nullptr) y += bias[m];
        y = F()(y);
        if (residual != nullptr) y += residual[at];
        out[at] = y;
    }
}
template [[host_name("matvec_f32")]]        kernel decltype(matvec<float, None, 1>)  matvec<float, None, 1>;
template [[host_name("matvec_f32_gelu")]]   kernel decltype(matvec<float, Gelu, 1>)  matvec<float, Gelu, 1>;
template [[host_name("matvec_f32_silu")]]   kernel decltype(matvec<float, Silu, 1>)  matvec<float, Silu, 1>;
template [[host_name("matvec_f32_relu")]]   kernel decltype(matvec<float, Relu, 1>)  matvec<float, Relu, 1>;
template [[host_name("matvec_f32_rows4")]]  kernel decltype(matvec<float, None, 4>)  matvec<float, None, 4>;
template [[host_name("matvec_f16")]]        kernel decltype(matvec<half, None, 1>)   matvec<half, None, 1>;
template [[host_name("matvec_f16_gelu")]]   kernel decltype(matvec<half, Gelu, 1>)   matvec<half, Gelu, 1>;
template [[host_name("matvec_f16_silu")]]   kernel decltype(matvec<half, Silu, 1>)   matvec<half, Silu, 1>;
template [[host_name("matvec_f16_relu")]]   kernel decltype(matvec<half, Relu, 1>)   matvec<half, Relu, 1>;
template [[host_name("matvec_f16_rows4")]]  kernel decltype(matvec<half, None, 4>)   matvec<half, None, 4>;
template [[host_name("matvec_bf16")]]       kernel decltype(matvec<bfloat, None, 1>) matvec<bfloat, None, 1>;
template [[host_name("matvec_bf16_gelu")]]  kernel decltype(matvec<bfloat, Gelu, 1>) matvec<bfloat, Gelu, 1>;
template [[host_name("matvec_bf16_silu")]]  kernel decltype(matvec<bfloat, Silu, 1>) matvec<bfloat, Silu, 1>;
template [[host_name("matvec_bf16_relu")]]  kernel decltype(matvec<bfloat, Relu, 1>) matvec<bfloat, Relu, 1>;
template [[host_name("matvec_bf16_rows4")]] kernel decltype(matvec<bfloat, None, 4>) matvec<bfloat, None, 4>;
