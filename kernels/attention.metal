// attention.metal - causal attention in four steps, for sequences up to about 512 tokens (flash_attention.metal is for
// longer ones), and the rotation of positions.
//
//   rope_forward       (x[i], x[i + hs/2]) rotated by the angle whose cos and sin are freqs[t, 2i] and freqs[t, 2i + 1]
//                      Su et al., "RoFormer", arXiv 2104.09864; halves are paired, as in GPT-NeoX and the HF checkpoints
//   attention_scores   att[q, k] = dot(Q[q], K[k]) / sqrt(hs) for k <= q, -inf for k > q
//   attention_mask     att[q, k] = cap tanh(att[q, k] / cap) for the keys that q sees, -inf for the others: k > q, and
//                      k <= q - window; 0 turns window or cap off. Gemma 2 and 3, Mistral
//   softmax_inplace    x = e^(x - max) / sum of e^(x - max); a row that is all -inf becomes zeros
//   attention_mix      out[q] = sum over k of att[q, k] V[k]
//                      Vaswani et al., "Attention Is All You Need", arXiv 1706.03762, section 3.2.1
//
// Shapes    Q, K, V, out, x of rope [B*nh, T, hs]; att [B*nh, T, T]; x of softmax [N, T]; freqs [T, hs]; all float.
// Dispatch  attention_scores, attention_mask: threads (B*nh, T, T) = (head, q, k). attention_mix: threads (B*nh, T, hs).
//           rope_forward: threads (B*nh, T, hs / 2). All four: threadgroup (1, 1, 1), or any (1, y, z); no threadgroup memory.
//           softmax_inplace: one threadgroup a row: threadgroups (N), threadgroup (min(T rounded up to 32, 1024)),
//           any multiple of 32; threadgroup(0): one float a simdgroup.
// Assumes   hs even for rope.
#include <metal_stdlib>
#include "cache.h"
#include "reduce.h"
#include "row.h"
#include "storage.h"
using namespace metal;

kernel void attention_scores(
    device const float* Q   [[buffer(0)]],
    device const float* K   [[buffer(1)]],
    device float*       att [[buffer(2)]],
    constant int&       T   [[buffer(3)]],
    constant int&       hs  [[buffer(4)]],
    uint3 gid [[thread_position_in_grid]])
{
    const uint bh = gid.x, q = gid.y, k = gid.z;
    if (q >= uint(T) || k >= uint(T)) return;
    const ulong row = ulong(bh) * T + q;
    if (k > q) {
        att[row * T + k] = -INFINITY;
        return;
    }
    device const float* a = Q + row * hs;
    device const float* b = K + (ulong(bh) * T + k) * hs;
    float sum = 0.0f;
    for (int d = 0; d < hs; ++d) sum = fma(a[d], b[d], sum);
    att[row * T + k] = sum / sqrt(float(hs));
}

kernel void attention_mask(
    device float*   att    [[buffer(0)]],
    constant int&   T      [[buffer(1)]],
    constant int&   window [[buffer(2)]],
    constant float& cap    [[buffer(3)]],
    uint3 gid [[thread_position_in_grid]])
{
    const uint bh = gid.x, q = gid.y, k = gid.z;
    if (q >= uint(T) || k >= uint(T)) return;
    const Mask mask = { 1.0f, window, cap };
    device float* x = att + (ulong(bh) * T + q) * T + k;
    *x = mask.sees(int(q), int(k)) ? mask.score(*x) : -INFINITY;
}

kernel void softmax_inplace(
    device float*      x      [[buffer(0)]],
    constant int&      T      [[buffer(1)]],
    threadgroup float* shared [[threadgroup(0)]],
    uint row  [[threadgroup_position_in_grid]],
    uint tid  [[thread_position_in_threadgroup]],
    uint gsz  [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint n = uint(T);
    device float* xr = x + ulong(row) * n;

    float largest = -INFINITY;
    for (uint i = tid; i < n; i += gsz) largest = max(largest, xr[i]);
    largest = threadgroup_max(largest, shared, lane, sg, nsg);
    const float base = largest == -INFINITY ? 0.0f : largest;   // -inf - -inf would be NaN

    float sum = 0.0f;
    for (uint i = tid; i < n; i += gsz) {
        const float e = exp(xr[i] - base);
        xr[i] = e;
        sum += e;
    }
    sum = threadgroup_sum(sum, shared, lane, sg, nsg);
    const float scale = sum == 0.0f ? 0.0f : 1.0f / sum;

    for (uint i = tid; i < n; i += gsz) xr[i] *= scale;
}

kernel void attention_mix(
    device const float* att [[buffer(0)]],
    device const float* V   [[buffer(1)]],
    device float*       out [[buffer(2)]],
    constant int&       T   [[buffer(3)]],
    constant int&       hs  [[buffer(4)]],
    uint3 gid [[thread_position_in_grid]])
{
    const uint bh = gid.x, q = gid.y, d = gid.z;
    if (q >= uint(T) || d >= uint(hs)) return;
    const ulong row = ulong(bh) * T + q;
    device const float* a = att + row * T;
    device const float* v = V + ulong(bh) * T * hs + d;
    float sum = 0.0f;
    for (int k = 0; k < T; ++k) sum = fma(a[k], v[ulong(k) * hs], sum);
    out[row * hs + d] = sum;
}

kernel void rope_forward(
    device float*       x     [[buffer(0)]],
    device const float* freqs [[buffer(1)]],
    constant int&       T     [[buffer(2)]],
    constant int&       hs    [[buffer(3)]],
    uint3 gid [[thread_position_in_grid]])
{
    const uint bh = gid.x, t = gid.y, i = gid.z, pairs = uint(hs) / 2;
    if (t >= uint(T) || i >= pairs) return;
    device const float* angle = freqs + ulong(t) * hs + 2 * i;
    device float* lo = x + (ulong(bh) * T + t) * hs + i;
    device float* hi = lo + pairs;
    const float c = angle[0], s = angle[1], a = *lo, b = *hi;
    *lo = a * c - b * s;
    *hi = a * s + b * c;
}

// Four channels at a time, hs % 4 == 0. Threads as above.
kernel void attention_scores_v4(
    device const float* Q   [[buffer(0)]],
    device const float* K   [[buffer(1)]],
    device float*       att [[buffer(2)]],
    constant int&       T   [[buffer(3)]],
    constant int&       hs  [[buffer(4)]],
    uint3 gid [[thread_position_in_grid]])
{
    const uint bh = gid.x, q = gid.y, k = gid.z;
    if (q >= uint(T) || k >= uint(T)) return;
    const ulong row = ulong(bh) * T + q;
    if (k > q) {
        att[row * T + k] = -INFINITY;
        return;
    }
    device const float* a = Q + row * hs;
    device const float* b = K + (ulong(bh) * T + k) * hs;
    float4 sum = float4(0.0f);
    for (int d = 0; d < hs; d += 4) sum = fma(load4(a + d), load4(b + d), sum);
    att[row * T + k] = sum4(sum) / sqrt(float(hs));
}

// Four entries at a time, a row of up to 16 a thread read once (row.h). T % 4 == 0; threadgroup (min(T / 16 rounded up to
// 32, 1024)).
kernel void softmax_inplace_v4(
    device float*      x      [[buffer(0)]],
    constant int&      T      [[buffer(1)]],
    threadgroup float* shared [[threadgroup(0)]],
    uint index [[threadgroup_position_in_grid]],
    uint tid   [[thread_position_in_threadgroup]],
    uint gsz   [[threads_per_threadgroup]],
    uint lane  [[thread_index_in_simdgroup]],
    uint sg    [[simdgroup_index_in_threadgroup]],
    uint nsg   [[simdgroups_per_threadgroup]])
{
    const uint n = uint(T);
    device float* xr = x + ulong(index) * n;
    Row row = row_of(xr, n, tid, gsz, -INFINITY);
    const uint rest = row.first + HELD * row.step;

    float largest = -INFINITY;
    #pragma unroll
    for (uint i = 0; i < HELD; ++i) largest = max(largest, max4(row.held[i]));
    for (uint c = rest; c < n; c += row.step) largest = max(largest, max4(load4(xr + c)));
    largest = threadgroup_max(largest, shared, lane, sg, nsg);
    const float base = largest == -INFINITY ? 0.0f : largest;

    #pragma unroll
    for (uint i = 0; i < HELD; ++i) row.held[i] = exp(row.held[i] - base);   // 0 where the row is over
    for (uint c = rest; c < n; c += row.step) store4(xr + c, exp(load4(xr + c) - base));
    const float sum = threadgroup_sum(row_sum(row), shared, lane, sg, nsg);
    const float scale = sum == 0.0f ? 0.0f : 1.0f / sum;

    #pragma unroll
    for (uint i = 0; i < HELD; ++i) {
        const uint c = row.first + i * row.step;
        if (c < n) store4(xr + c, row.held[i] * scale);
    }
    for (uint c = rest; c < n; c += row.step) store4(xr + c, load4(xr + c) * scale);
}

// Four channels a thread, hs % 4 == 0; threads (B*nh, T, hs / 4).
kernel void attention_mix_v4(
    device const float* att [[buffer(0)]],
    device const float* V   [[buffer(1)]],
    device float*       out [[buffer(2)]],
    constant int&       T   [[buffer(3)]],
    constant int&       hs  [[buffer(4)]],
    uint3 gid [[thread_position_in_grid]])
{
    const uint bh = gid.x, q = gid.y, d = gid.z * 4;
    if (q >= uint(T) || d >= uint(hs)) return;
    const ulong row = ulong(bh) * T + q;
    device const float* a = att + row * T;
    device const float* v = V + ulong(bh) * T * hs + d;
    float4 sum = float4(0.0f);
    for (int k = 0; k < T; ++k) sum += load4(v + ulong(k) * hs) * a[k];
    store4(out + row * hs + d, sum);
}
