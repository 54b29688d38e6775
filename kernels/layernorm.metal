// layernorm.metal - normalisation of rows.
//
//   layernorm_forward   out = (x - mean) * rstd * gamma + beta,  rstd = 1 / sqrt(mean((x - mean)^2) + eps)
//                       Ba, Kiros and Hinton, "Layer Normalization", arXiv 1607.06450
//   rmsnorm_forward     out = x * gamma / sqrt(mean(x^2) + eps)
//                       Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv 1910.07467
//   rmsnorm_heads       rmsnorm_forward of each head on its own, in place: Qwen 3 and Gemma 3, before the rotation
//
// Shapes    x [N, C] float; gamma, beta [C] float; out [N, C] float, half (_f16) or bfloat (_bf16); mean, rstd [N]
//           float, each may be nil. Any C. rmsnorm_heads stands at its kernel.
// Dispatch  one threadgroup a row: threadgroups (N), threadgroup (min(C rounded up to 32, 1024)); any multiple of 32
//           is right. threadgroup(0): one float a simdgroup is used (the reference's one a thread is enough).
// Assumes   the sum of a row's squares stays finite in float (below 3.4e38). The variance takes a second pass over the
//           row: the difference of mean(x^2) and mean^2 would lose all digits where the mean is large.
#include <metal_stdlib>
#include "reduce.h"
#include "row.h"
#include "storage.h"
using namespace metal;

template <typename T>
kernel void layernorm(
    device const float* x      [[buffer(0)]],
    device const float* gamma  [[buffer(1)]],
    device const float* beta   [[buffer(2)]],
    device T*           out    [[buffer(3)]],
    device float*       mean   [[buffer(4)]],
    device float*       rstd   [[buffer(5)]],
    constant int&       C      [[buffer(6)]],
    constant float&     eps    [[buffer(7)]],
    threadgroup float*  shared [[threadgroup(0)]],
    uint row  [[threadgroup_position_in_grid]],
    uint tid  [[thread_position_in_threadgroup]],
    uint gsz  [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint n = uint(C);
    device const float* xr = x + ulong(row) * n;
    device T* yr = out + ulong(row) * n;

    float sum = 0.0f;
    for (uint c = tid; c < n; c += gsz) sum += xr[c];
    const float mu = threadgroup_sum(sum, shared, lane, sg, nsg) / float(n);

    float squares = 0.0f;
    for (uint c = tid; c < n; c += gsz) {
        const float d = xr[c] - mu;
        squares = fma(d, d, squares);
    }
    const float rs = rsqrt(threadgroup_sum(squares, shared, lane, sg, nsg) / float(n) + eps);

    for (uint c = tid; c < n; c += gsz) yr[c] = T(fma((xr[c] - mu) * rs, gamma[c], beta[c]));
    if (tid == 0 && mean != nullptr) mean[row] = mu;
    if (tid == 0 && rstd != nullptr) rstd[row] = rs;
}
template [[host_name("layernorm_forward")]]      kernel decltype(layernorm<float>)  layernorm<float>;
template [[host_name("layernorm_forward_f16")]]  kernel decltype(layernorm<half>)   layernorm<half>;
template [[host_name("layernorm_forward_bf16")]] kernel decltype(layernorm<bfloat>) layernorm<bfloat>;

template <typename T>
kernel void rmsnorm(
    device const float* x      [[buffer(0)]],
    device const float* gamma  [[buffer(1)]],
    device T*           out    [[buffer(2)]],
    constant int&       C      [[buffer(3)]],
    constant float&     eps    [[buffer(4)]],
    threadgroup float*  shared [[threadgroup(0)]],
    uint row  [[threadgroup_position_in_grid]],
    uint tid  [[thread_position_in_threadgroup]],
    uint gsz  [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint n = uint(C);
    device const float* xr = x + ulong(row) * n;
    device T* yr = out + ulong(row) * n;

    float squares = 0.0f;
    for (uint c = tid; c < n; c += gsz) squares = fma(xr[c], xr[c], squares);
    const float rs = rsqrt(threadgroup_sum(squares, shared, lane, sg, nsg) / float(n) + eps);

    for (uint c = tid; c < n; c += gsz) yr[c] = T(xr[c] * rs * gamma[c]);
}
template [[host_name("rmsnorm_forward")]]      kernel decltype(rmsnorm<float>)  rmsnorm<float>;
template [[host_name("rmsnorm_forward_f16")]]  kernel decltype(rmsnorm<half>)   rmsnorm<half>;
template [[host_name("rmsnorm_forward_bf16")]] kernel decltype(rmsnorm<bfloat>) rmsnorm<bfloat>;

// The same, four channels at a time, a row of up to 16 a thread read once (row.h). C % 4 == 0; threadgroup
// (min(C / 16 rounded up to 32, 1024)).
template <typename T>
kernel void layernorm_v4(
    device const float* x      [[buffer(0)]],
    device const float* gamma  [[buffer(1)]],
    device const float* beta   [[buffer(2)]],
    device T*           out    [[buffer(3)]],
    device float*       mean   [[buffer(4)]],
    device float*       rstd   [[buffer(5)]],
    constant int&       C      [[buffer(6)]],
    constant float&     eps    [[buffer(7)]],
    threadgroup float*  shared [[threadgroup(0)]],
    uint index [[threadgroup_position_in_grid]],
    uint tid   [[thread_position_in_threadgroup]],
    uint gsz   [[threads_per_threadgroup]],
    uint lane  [[thread_index_in_simdgroup]],
    uint sg    [[simdgroup_index_in_threadgroup]],
    uint nsg   [[simdgroups_per_threadgroup]])
{
    const uint n = uint(C);
    const Row row = row_of(x + ulong(index) * n, n, tid, gsz, 0.0f);
    const float mu = threadgroup_sum(row_sum(row), shared, lane, sg, nsg) / float(n);
    const float rs = rsqrt(threadgroup_sum(row_squares(row, mu), shared, lane, sg, nsg) / float(n) + eps);
    row_store(row, out + ulong(index) * n, mu, rs, gamma, beta);
    if (tid == 0 && mean != nullptr) mean[index] = mu;
    if (tid == 0 && rstd != nullptr) rstd[index] = rs;
}
template [[host_name("layernorm_forward_v4")]]      kernel decltype(layernorm_v4<float>)  layernorm_v4<float>;
template [[host_name("layernorm_forward_f16_v4")]]  kernel decltype(layernorm_v4<half>)   layernorm_v4<half>;
template [[host_name("layernorm_forward_bf16_v4")]] kernel decltype(layernorm_v4<bfloat>) layernorm_v4<bfloat>;

template <typename T>
kernel void rmsnorm_v4(
    device const float* x      [[buffer(0)]],
    device const float* gamma  [[buffer(1)]],
    device T*           out    [[buffer(2)]],
    constant int&       C      [[buffer(3)]],
    constant float&     eps    [[buffer(4)]],
    threadgroup float*  shared [[threadgroup(0)]],
    uint index [[threadgroup_position_in_grid]],
    uint tid   [[thread_position_in_threadgroup]],
    uint gsz   [[threads_per_threadgroup]],
    uint lane  [[thread_index_in_simdgroup]],
    uint sg    [[simdgroup_index_in_threadgroup]],
    uint nsg   [[simdgroups_per_threadgroup]])
{
    const uint n = uint(C);
    const Row row = row_of(x + ulong(index) * n, n, tid, gsz, 0.0f);
    const float rs = rsqrt(threadgroup_sum(row_squares(row, 0.0f), shared, lane, sg, nsg) / float(n) + eps);
    row_store(row, out + ulong(index) * n, rs, gamma);
}
template [[host_name("rmsnorm_forward_v4")]]      kernel decltype(rmsnorm_v4<float>)  rmsnorm_v4<float>;
template [[host_name("rmsnorm_forward_f16_v4")]]  kernel decltype(rmsnorm_v4<half>)   rmsnorm_v4<half>;
template [[host_name("rmsnorm_forward_bf16_v4")]] kernel decltype(rmsnorm_v4<bfloat>) rmsnorm_v4<bfloat>;

// The heads of some columns: x [N, W], head h at column + h * hs; gamma [hs]. A simdgroup has a head.
// Threadgroups (n_head / simdgroups a threadgroup, rounded up, N), threadgroup (128) or any multiple of 32; no threadgroup
// memory.
kernel void rmsnorm_heads(
    device float*       x      [[buffer(0)]],
    device const float* gamma  [[buffer(1)]],
    constant int&       W      [[buffer(2)]],
    constant int&       column [[buffer(3)]],
    constant int&       n_head [[buffer(4)]],
    constant int&       hs     [[buffer(5)]],
    constant float&     eps    [[buffer(6)]],
    uint2 tg   [[threadgroup_position_in_grid]],
    uint  lane [[thread_index_in_simdgroup]],
    uint  sg   [[simdgroup_index_in_threadgroup]],
    uint  nsg  [[simdgroups_per_threadgroup]])
{
    const uint h = tg.x * nsg + sg, n = uint(hs);
    if (h >= uint(n_head)) return;                  // a whole simdgroup leaves
    device float* head = x + ulong(tg.y) * W + column + ulong(h) * n;

    float squares = 0.0f;
    for (uint d = lane; d < n; d += 32) squares = fma(head[d], head[d], squares);
    const float rs = rsqrt(simd_sum(squares) / float(n) + eps);

    for (uint d = lane; d < n; d += 32) head[d] = head[d] * rs * gamma[d];
}
