// residual.metal - adding a block's output to the residual stream, alone and fused with the norm that follows.
//
//   residual_add         residual += x
//   residual_layernorm   residual += x; out = layernorm(residual)     (formulas: layernorm.metal)
//   residual_rmsnorm     residual += x; out = rmsnorm(residual)
//   rmsnorm_add          residual += rmsnorm(x): Gemma's norms behind its blocks
//
// Shapes    residual, x [N] or [N, C] float; gamma, beta [C] float; out [N, C] float, half (_f16) or bfloat (_bf16).
// Dispatch  residual_add: threads (N), threadgroup (1024). _v4: threads (N / 4 rounded up), the last covers the tail.
//           The norms: one threadgroup a row: threadgroups (N), threadgroup (min(C rounded up to 32, 1024)), any
//           multiple of 32; threadgroup(0): one float a simdgroup. Their _v4: C % 4 == 0, C / 4 instead of C.
// Assumes   residual and x do not overlap. A thread reads back only the sums that it wrote itself, so the norms need
//           no barrier on device memory.
#include <metal_stdlib>
#include "reduce.h"
#include "row.h"
#include "storage.h"
using namespace metal;

kernel void residual_add(
    device float*       residual [[buffer(0)]],
    device const float* x        [[buffer(1)]],
    constant int&       N        [[buffer(2)]],
    uint i [[thread_position_in_grid]])
{
    if (i < uint(N)) residual[i] += x[i];
}

template <typename T>
kernel void add_layernorm(
    device float*       residual [[buffer(0)]],
    device const float* x        [[buffer(1)]],
    device const float* gamma    [[buffer(2)]],
    device const float* beta     [[buffer(3)]],
    device T*           out      [[buffer(4)]],
    constant int&       C        [[buffer(5)]],
    constant float&     eps      [[buffer(6)]],
    threadgroup float*  shared   [[threadgroup(0)]],
    uint row  [[threadgroup_position_in_grid]],
    uint tid  [[thread_position_in_threadgroup]],
    uint gsz  [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint n = uint(C);
    const ulong first = ulong(row) * n;
    device float* r = residual + first;

    float sum = 0.0f;
    for (uint c = tid; c < n; c += gsz) {
        const float v = r[c] + x[first + c];
        r[c] = v;
        sum += v;
    }
    const float mu = threadgroup_sum(sum, shared, lane, sg, nsg) / float(n);

    float squares = 0.0f;
    for (uint c = tid; c < n; c += gsz) {
        const float d = r[c] - mu;
        squares = fma(d, d, squares);
    }
    const float rs = rsqrt(threadgroup_sum(squares, shared, lane, sg, nsg) / float(n) + eps);

    for (uint c = tid; c < n; c += gsz) out[first + c] = T(fma((r[c] - mu) * rs, gamma[c], beta[c]));
}
template [[host_name("residual_layernorm")]]      kernel decltype(add_layernorm<float>)  add_layernorm<float>;
template [[host_name("residual_layernorm_f16")]]  kernel decltype(add_layernorm<half>)   add_layernorm<half>;
template [[host_name("residual_layernorm_bf16")]] kernel decltype(add_layernorm<bfloat>) add_layernorm<bfloat>;

template <typename T>
kernel void add_rmsnorm(
    device float*       residual [[buffer(0)]],
    device const float* x        [[buffer(1)]],
    device const float* gamma    [[buffer(2)]],
    device T*           out      [[buffer(3)]],
    constant int&       C        [[buffer(4)]],
    constant float&     eps      [[buffer(5)]],
    threadgroup float*  shared   [[threadgroup(0)]],
    uint row  [[threadgroup_position_in_grid]],
    uint tid  [[thread_position_in_threadgroup]],
    uint gsz  [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint n = uint(C);
    const ulong first = ulong(row) * n;
    device float* r = residual + first;

    float squares = 0.0f;
    for (uint c = tid; c < n; c += gsz) {
        const float v = r[c] + x[first + c];
        r[c] = v;
        squares = fma(v, v, squares);
    }
    const float rs = rsqrt(threadgroup_sum(squares, shared, lane, sg, nsg) / float(n) + eps);

    for (uint c = tid; c < n; c += gsz) out[first + c] = T(r[c] * rs * gamma[c]);
}
template [[host_name("residual_rmsnorm")]]      kernel decltype(add_rmsnorm<float>)  add_rmsnorm<float>;
template [[host_name("residual_rmsnorm_f16")]]  kernel decltype(add_rmsnorm<half>)   add_rmsnorm<half>;
template [[host_name("residual_rmsnorm_bf16")]] kernel decltype(add_rmsnorm<bfloat>) add_rmsnorm<bfloat>;

// The same, four elements at a time.
kernel void residual_add_v4(
    device float*       residual [[buffer(0)]],
    device const float* x        [[buffer(1)]],
    constant int&       N        [[buffer(2)]],
    uint gid [[thread_position_in_grid]])
{
    const ulong i = ulong(gid) * 4, n = ulong(N);
    if (i + 4 <= n) {
        store4(residual + i, load4(residual + i) + load4(x + i));
    } else {
        for (ulong j = i; j < n; ++j) residual[j] += x[j];
    }
}

template <typename T>
kernel void add_layernorm_v4(
    device float*       residual [[buffer(0)]],
    device const float* x        [[buffer(1)]],
    device const float* gamma    [[buffer(2)]],
    device const float* beta     [[buffer(3)]],
    device T*           out      [[buffer(4)]],
    constant int&       C        [[buffer(5)]],
    constant float&     eps      [[buffer(6)]],
    threadgroup float*  shared   [[threadgroup(0)]],
    uint index [[threadgroup_position_in_grid]],
    uint tid   [[thread_position_in_threadgroup]],
    uint gsz   [[threads_per_threadgroup]],
    uint lane  [[thread_index_in_simdgroup]],
    uint sg    [[simdgroup_index_in_threadgroup]],
    uint nsg   [[simdgroups_per_threadgroup]])
{
    const uint n = uint(C);
    const ulong first = ulong(index) * n;
    const Row row = row_of_sums(residual + first, x + first, n, tid, gsz);
    const float mu = threadgroup_sum(row_sum(row), shared, lane, sg, nsg) / float(n);
    const float rs = rsqrt(threadgroup_sum(row_squares(row, mu), shared, lane, sg, nsg) / float(n) + eps);
    row_store(row, out + first, mu, rs, gamma, beta);
}
template [[host_name("residual_layernorm_v4")]]      kernel decltype(add_layernorm_v4<float>)  add_layernorm_v4<float>;
template [[host_name("residual_layernorm_f16_v4")]]  kernel decltype(add_layernorm_v4<half>)   add_layernorm_v4<half>;
template [[host_name("residual_layernorm_bf16_v4")]] kernel decltype(add_layernorm_v4<bfloat>) add_layernorm_v4<bfloat>;

template <typename T>
kernel void add_rmsnorm_v4(
    device float*       residual [[buffer(0)]],
    device const float* x        [[buffer(1)]],
    device const float* gamma    [[buffer(2)]],
    device T*           out      [[buffer(3)]],
    constant int&       C        [[buffer(4)]],
    constant float&     eps      [[buffer(5)]],
    threadgroup float*  shared   [[threadgroup(0)]],
    uint index [[threadgroup_position_in_grid]],
    uint tid   [[thread_position_in_threadgroup]],
    uint gsz   [[threads_per_threadgroup]],
    uint lane  [[thread_index_in_simdgroup]],
    uint sg    [[simdgroup_index_in_threadgroup]],
    uint nsg   [[simdgroups_per_threadgroup]])
{
    const uint n = uint(C);
    const ulong first = ulong(index) * n;
    const Row row = row_of_sums(residual + first, x + first, n, tid, gsz);
    const float rs = rsqrt(threadgroup_sum(row_squares(row, 0.0f), shared, lane, sg, nsg) / float(n) + eps);
    row_store(row, out + first, rs, gamma);
}
template [[host_name("residual_rmsnorm_v4")]]      kernel decltype(add_rmsnorm_v4<float>)  add_rmsnorm_v4<float>;
template [[host_name("residual_rmsnorm_f16_v4")]]  kernel decltype(add_rmsnorm_v4<half>)   add_rmsnorm_v4<half>;
template [[host_name("residual_rmsnorm_bf16_v4")]] kernel decltype(add_rmsnorm_v4<bfloat>) add_rmsnorm_v4<bfloat>;

kernel void rmsnorm_add(
    device float*       residual [[buffer(0)]],
    device const float* x        [[buffer(1)]],
    device const float* gamma    [[buffer(2)]],
    constant int&       C        [[buffer(3)]],
    constant float&     eps      [[buffer(4)]],
    threadgroup float*  shared   [[threadgroup(0)]],
    uint row  [[threadgroup_position_in_grid]],
    uint tid  [[thread_position_in_threadgroup]],
    uint gsz  [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint n = uint(C);
    const ulong first = ulong(row) * n;

    float squares = 0.0f;
    for (uint c = tid; c < n; c += gsz) squares = fma(x[first + c], x[first + c], squares);
    const float rs = rsqrt(threadgroup_sum(squares, shared, lane, sg, nsg) / float(n) + eps);

    for (uint c = tid; c < n; c += gsz) residual[first + c] += x[first + c] * rs * gamma[c];
}
