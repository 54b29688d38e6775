// decode_attention.metal - attention of one new token for each of n sequences over the paged KV cache.
//
//   attention_decode           out[n, h] = sum over j of p[j] V[j],  p = softmax over j of f(dot(Q[n, h], K[j]) * scale)
//                              f: none, or cap tanh(s / cap)
//   attention_decode_split     the same for each piece of the cache, not yet divided by the sum of weights
//   attention_decode_combine   the pieces together. Dao et al., "Flash-Decoding for long-context inference", 2023
//
// Shapes    Q float: q_stride floats from sequence to sequence, head h at column h * hs; out [n, nh * hs] float;
//           caches [n_blocks, n_kv_head, block_size, hs] float, half (_f16) or bfloat (_bf16); query head h reads KV head
//           h / (nh / n_kv_head); block_table [n, max_blocks], lengths [n] int: lengths[n] tokens are in the cache, the
//           query's own the last. A sequence of length 0 gets zeros.
// Dispatch  threadgroups (nh, n), threadgroup (32 * s), say 128; threadgroup(0): s * (hs + 2) floats.
// Assumes   block numbers lie inside the cache. window: how many tokens a query sees, its own among them; window and cap
//           are off at 0. A result depends on its own sequence alone, whatever n is.
#include <metal_stdlib>
#include "cache.h"
#include "storage.h"
using namespace metal;

// Plain: any hs. Keys go round the simdgroups, each with a softmax of its own until the end; a lane has the channels
// lane, lane + 32, ...
template <typename E>
kernel void attention_any(
    device const float* Q           [[buffer(0)]],
    device const E*     k_cache     [[buffer(1)]],
    device const E*     v_cache     [[buffer(2)]],
    device const int*   block_table [[buffer(3)]],
    device const int*   lengths     [[buffer(4)]],
    device float*       out         [[buffer(5)]],
    constant int&       q_stride    [[buffer(6)]],
    constant int&       nh          [[buffer(7)]],
    constant int&       n_kv_head   [[buffer(8)]],
    constant int&       hs          [[buffer(9)]],
    constant int&       block_size  [[buffer(10)]],
    constant int&       max_blocks  [[buffer(11)]],
    constant float&     scale       [[buffer(12)]],
    constant int&       window      [[buffer(13)]],
    constant float&     cap         [[buffer(14)]],
    threadgroup float*  shared      [[threadgroup(0)]],
    uint2 tg  [[threadgroup_position_in_grid]],
    uint2 tid [[thread_position_in_threadgroup]],
    uint2 gsz [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint h = tg.x, seq = tg.y, n = uint(hs);
    const int length = lengths[seq], kv_head = int(h) / (nh / n_kv_head);
    device const int* blocks = block_table + ulong(seq) * max_blocks;
    device const float* q = Q + ulong(seq) * q_stride + h * n;
    const Mask mask = { scale, window, cap };
    threadgroup float* sums = shared + sg * n;               // this simdgroup's weighted sum of values
    threadgroup float* stats = shared + nsg * n;             // and its largest score and sum of weights

    for (uint d = lane; d < n; d += 32) sums[d] = 0.0f;
    float largest = -INFINITY, weights = 0.0f;
    for (int j = mask.first_seen(length - 1) + int(sg); j < length; j += int(nsg)) {
        const ulong row = cache_row(blocks[j / block_size], kv_head, j % block_size, n_kv_head, block_size, hs);
        float dot = 0.0f;
        for (uint d = lane; d < n; d += 32) dot = fma(q[d], float(k_cache[row + d]), dot);
        const float score = mask.score(simd_sum(dot)), top = max(largest, score);
        const float base = top == -INFINITY ? 0.0f : top;
        const float shrink = exp(largest - base), p = exp(score - base);
        for (uint d = lane; d < n; d += 32) sums[d] = fma(p, float(v_cache[row + d]), sums[d] * shrink);
        weights = weights * shrink + p;
        largest = top;
    }
    if (lane == 0) {
        stats[2 * sg] = largest;
        stats[2 * sg + 1] = weights;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);

    const float mine = lane < nsg ? stats[2 * lane] : -INFINITY, top = simd_max(mine);
    const float base = top == -INFINITY ? 0.0f : top;
    const float total = simd_sum(lane < nsg ? stats[2 * lane + 1] * exp(mine - base) : 0.0f);
    const float scale_out = total == 0.0f ? 0.0f : 1.0f / total;
    for (uint d = tid.x; d < n; d += gsz.x) {
        float y = 0.0f;
        for (uint s = 0; s < nsg; ++s) y = fma(shared[s * n + d], exp(stats[2 * s] - base), y);
        out[(ulong(seq) * nh + h) * n + d] = y * scale_out;
    }
}
template [[host_name("attention_decode")]]      kernel decltype(attention_any<float>)  attention_any<float>;
template [[host_name("attention_decode_f16")]]  kernel decltype(attention_any<half>)   attention_any<half>;
template [[host_name("attention_decode_bf16")]] kernel decltype(attention_any<bfloat>) attention_any<bfloat>;

// Fast: hs = D, a multiple of 8; Q, q_stride and caches aligned to 16 bytes. G lanes have a key: a lane its pieces of eight
// channels part, part + G, ..., in registers; 32 / G keys are under way in a simdgroup, with as many softmaxes.
struct Stats {
    float largest;
    float weights;
};

// Of the keys begin .. end: the weighted sum of the values in shared[0 .. D), not yet divided by the sum of weights.
// shared: (D + 2) floats a simdgroup.
template <typename E, int D, int G>
inline Stats attend_cache(device const float* q, device const E* k_cache, device const E* v_cache, device const int* blocks,
                          int kv_head, int n_kv_head, int block_size, Mask mask, int begin, int end,
                          threadgroup float* shared, uint tid, uint gsz, uint lane, uint sg, uint nsg) {
    constexpr int PIECES = D / 8, MINE = (PIECES + G - 1) / G, KEYS = 32 / G;
    const int part = int(lane) % G;
    Eight query[MINE], sums[MINE];
    #pragma unroll
    for (int i = 0; i < MINE; ++i) {
        const int c = part + i * G;
        sums[i].lo = float4(0.0f);
        sums[i].hi = float4(0.0f);
        query[i] = sums[i];
        if (c < PIECES) query[i] = load8(q + c * 8);
    }
    float largest = -INFINITY, weights = 0.0f;
    const int step = int(nsg) * KEYS;
    for (int j0 = begin + int(sg) * KEYS; j0 < end; j0 += step) {   // the same for a whole simdgroup
        const int j = j0 + int(lane) / G, in = min(j, end - 1);     // past the end: the last key again, not counted
        const ulong row = cache_row(blocks[in / block_size], kv_head, in % block_size, n_kv_head, block_size, D);
        float dot = 0.0f;
        #pragma unroll
        for (int i = 0; i < MINE; ++i) {
            const int c = part + i * G;
            if (c < PIECES) dot += dot8(load8(k_cache + row + c * 8), query[i]);
        }
        #pragma unroll
        for (ushort m = 1; m < G; m *= 2) dot += simd_shuffle_xor(dot, m);
        const float score = j < end ? mask.score(dot) : -INFINITY, top = max(largest, score);
        const float base = top == -INFINITY ? 0.0f : top;
        const float shrink = exp(largest - base), p = exp(score - base);
        #pragma unroll
        for (int i = 0; i < MINE; ++i) {
            const int c = part + i * G;
            if (c < PIECES) {
                const Eight v = load8(v_cache + row + c * 8);
                sums[i].lo = fma(v.lo, float4(p), sums[i].lo * shrink);
                sums[i].hi = fma(v.hi, float4(p), sums[i].hi * shrink);
            }
        }
        weights = weights * shrink + p;
        largest = top;
    }

    // The keys of a simdgroup: the lanes part, part + G, ... hold the same channels.
    const float top = simd_max(largest), base = top == -INFINITY ? 0.0f : top, factor = exp(largest - base);
    weights = simd_sum(part == 0 ? weights * factor : 0.0f);
    #pragma unroll
    for (int i = 0; i < MINE; ++i) {
        sums[i].lo *= factor;
        sums[i].hi *= factor;
        #pragma unroll
        for (ushort m = G; m < 32; m *= 2) {
            sums[i].lo += simd_shuffle_xor(sums[i].lo, m);
            sums[i].hi += simd_shuffle_xor(sums[i].hi, m);
        }
        const int c = part + i * G;
        if (lane < G && c < PIECES) {
            threadgroup float* to = shared + sg * D + c * 8;
            *(threadgroup float4*)to = sums[i].lo;
            *(threadgroup float4*)(to + 4) = sums[i].hi;
        }
    }
    // The simdgroups.
    threadgroup float* stats = shared + nsg * D;
    if (lane == 0) {
        stats[2 * sg] = top;
        stats[2 * sg + 1] = weights;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const float other = lane < nsg ? stats[2 * lane] : -INFINITY;
    Stats all;
    all.largest = simd_max(other);
    const float all_base = all.largest == -INFINITY ? 0.0f : all.largest;
    all.weights = simd_sum(lane < nsg ? stats[2 * lane + 1] * exp(other - all_base) : 0.0f);
    for (uint d = tid; d < uint(D); d += gsz) {                      // a thread reads and writes its own column
        float y = 0.0f;
        for (uint s = 0; s < nsg; ++s) y = fma(shared[s * D + d], exp(stats[2 * s] - all_base), y);
        shared[d] = y;
    }
    return all;
}

// Bindings and dispatch as attention_decode, hs = D.
template <typename E, int D, int G>
kernel void attention_fixed(
    device const float* Q           [[buffer(0)]],
    device const E*     k_cache     [[buffer(1)]],
    device const E*     v_cache     [[buffer(2)]],
    device const int*   block_table [[buffer(3)]],
    device const int*   lengths     [[buffer(4)]],
    device float*       out         [[buffer(5)]],
    constant int&       q_stride    [[buffer(6)]],
    constant int&       nh          [[buffer(7)]],
    constant int&       n_kv_head   [[buffer(8)]],
    constant int&       hs          [[buffer(9)]],
    constant int&       block_size  [[buffer(10)]],
    constant int&       max_blocks  [[buffer(11)]],
    constant float&     scale       [[buffer(12)]],
    constant int&       window      [[buffer(13)]],
    constant float&     cap         [[buffer(14)]],
    threadgroup float*  shared      [[threadgroup(0)]],
    uint2 tg  [[threadgroup_position_in_grid]],
    uint2 tid [[thread_position_in_threadgroup]],
    uint2 gsz [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint h = tg.x, seq = tg.y;
    const int length = lengths[seq];
    const Mask mask = { scale, window, cap };
    const Stats s = attend_cache<E, D, G>(Q + ulong(seq) * q_stride + h * D, k_cache, v_cache, block_table + ulong(seq) * max_blocks,
                                          int(h) / (nh / n_kv_head), n_kv_head, block_size, mask, mask.first_seen(length - 1), length,
                                          shared, tid.x, gsz.x, lane, sg, nsg);
    const float scale_out = s.weights == 0.0f ? 0.0f : 1.0f / s.weights;
    for (uint d = tid.x; d < uint(D); d += gsz.x) out[(ulong(seq) * nh + h) * D + d] = shared[d] * scale_out;
}

// Part p of the cache, its tokens p * chunk .. (p + 1) * chunk: partial [n, nh, parts, hs], stats [n, nh, parts, 2]. The
// parts' bounds do not depend on the length or on n. Threadgroups (nh, n, parts), threadgroup and memory as above.
template <typename E, int D, int G>
kernel void attention_split(
    device const float* Q           [[buffer(0)]],
    device const E*     k_cache     [[buffer(1)]],
    device const E*     v_cache     [[buffer(2)]],
    device const int*   block_table [[buffer(3)]],
    device const int*   lengths     [[buffer(4)]],
    device float*       partial     [[buffer(5)]],
    device float*       stats       [[buffer(6)]],
    constant int&       q_stride    [[buffer(7)]],
    constant int&       nh          [[buffer(8)]],
    constant int&       n_kv_head   [[buffer(9)]],
    constant int&       hs          [[buffer(10)]],
    constant int&       block_size  [[buffer(11)]],
    constant int&       max_blocks  [[buffer(12)]],
    constant float&     scale       [[buffer(13)]],
    constant int&       window      [[buffer(14)]],
    constant float&     cap         [[buffer(15)]],
    constant int&       chunk       [[buffer(16)]],
    threadgroup float*  shared      [[threadgroup(0)]],
    uint3 tg    [[threadgroup_position_in_grid]],
    uint3 parts [[threadgroups_per_grid]],
    uint3 tid   [[thread_position_in_threadgroup]],
    uint3 gsz   [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint h = tg.x, seq = tg.y;
    const int length = lengths[seq];
    const Mask mask = { scale, window, cap };
    const int begin = max(int(tg.z) * chunk, mask.first_seen(length - 1)), end = min((int(tg.z) + 1) * chunk, length);
    const ulong slot = (ulong(seq) * nh + h) * parts.z + tg.z;
    if (begin >= end) {                                              // combine skips it
        if (tid.x == 0) {
            stats[2 * slot] = -INFINITY;
            stats[2 * slot + 1] = 0.0f;
        }
        return;
    }
    const Stats s = attend_cache<E, D, G>(Q + ulong(seq) * q_stride + h * D, k_cache, v_cache, block_table + ulong(seq) * max_blocks,
                                          int(h) / (nh / n_kv_head), n_kv_head, block_size, mask, begin, end,
                                          shared, tid.x, gsz.x, lane, sg, nsg);
    for (uint d = tid.x; d < uint(D); d += gsz.x) partial[slot * D + d] = shared[d];
    if (tid.x == 0) {
        stats[2 * slot] = s.largest;
        stats[2 * slot + 1] = s.weights;
    }
}

// Threadgroups (nh, n), threadgroup (min(hs rounded up to 32, 1024)); no threadgroup memory.
kernel void attention_decode_combine(
    device const float* partial [[buffer(0)]],
    device const float* stats   [[buffer(1)]],
    device float*       out     [[buffer(2)]],
    constant int&       nh      [[buffer(3)]],
    constant int&       hs      [[buffer(4)]],
    constant int&       parts   [[buffer(5)]],
    uint2 tg  [[threadgroup_position_in_grid]],
    uint2 tid [[thread_position_in_threadgroup]],
    uint2 gsz [[threads_per_threadgroup]])
{
    const ulong head = ulong(tg.y) * nh + tg.x;
    device const float* s = stats + head * parts * 2;
    float top = -INFINITY, weights = 0.0f;
    for (int p = 0; p < parts; ++p) top = max(top, s[2 * p]);
    const float base = top == -INFINITY ? 0.0f : top;
    for (int p = 0; p < parts; ++p) weights += s[2 * p + 1] * exp(s[2 * p] - base);
    const float scale_out = weights == 0.0f ? 0.0f : 1.0f / weights;
    for (uint d = tid.x; d < uint(hs); d += gsz.x) {
        float y = 0.0f;
        for (int p = 0; p < parts; ++p) {
            if (s[2 * p + 1] != 0.0f) y = fma(partial[(head * parts + p) * hs + d], exp(s[2 * p] - base), y);
        }
        out[head * hs + d] = y * scale_out;
    }
}

template [[host_name("attention_decode_f16_hs32")]]        kernel decltype(attention_fixed<half, 32, 4>)    attention_fixed<half, 32, 4>;
template [[host_name("attention_decode_f16_hs64")]]        kernel decltype(attention_fixed<half, 64, 8>)    attention_fixed<half, 64, 8>;
template [[host_name("attention_decode_f16_hs80")]]        kernel decltype(attention_fixed<half, 80, 8>)    attention_fixed<half, 80, 8>;
template [[host_name("attention_decode_f16_hs96")]]        kernel decltype(attention_fixed<half, 96, 4>)    attention_fixed<half, 96, 4>;
template [[host_name("attention_decode_f16_hs128")]]       kernel decltype(attention_fixed<half, 128, 8>)   attention_fixed<half, 128, 8>;
template [[host_name("attention_decode_f16_hs256")]]       kernel decltype(attention_fixed<half, 256, 16>)  attention_fixed<half, 256, 16>;
template [[host_name("attention_decode_bf16_hs64")]]       kernel decltype(attention_fixed<bfloat, 64, 8>)  attention_fixed<bfloat, 64, 8>;
template [[host_name("attention_decode_bf16_hs128")]]      kernel decltype(attention_fixed<bfloat, 128, 8>) attention_fixed<bfloat, 128, 8>;
template [[host_name("attention_decode_bf16_hs256")]]      kernel decltype(attention_fixed<bfloat, 256, 16>) attention_fixed<bfloat, 256, 16>;
template [[host_name("attention_decode_split_f16_hs32")]]  kernel decltype(attention_split<half, 32, 4>)    attention_split<half, 32, 4>;
template [[host_name("attention_decode_split_f16_hs64")]]  kernel decltype(attention_split<half, 64, 8>)    attention_split<half, 64, 8>;
template [[host_name("attention_decode_split_f16_hs80")]]  kernel decltype(attention_split<half, 80, 8>)    attention_split<half, 80, 8>;
template [[host_name("attention_decode_split_f16_hs96")]]  kernel decltype(attention_split<half, 96, 4>)    attention_split<half, 96, 4>;
template [[host_name("attention_decode_split_f16_hs128")]] kernel decltype(attention_split<half, 128, 8>)   attention_split<half, 128, 8>;
template [[host_name("attention_decode_split_f16_hs256")]] kernel decltype(attention_split<half, 256, 16>)  attention_split<half, 256, 16>;
template [[host_name("attention_decode_split_bf16_hs64")]]  kernel decltype(attention_split<bfloat, 64, 8>)  attention_split<bfloat, 64, 8>;
template [[host_name("attention_decode_split_bf16_hs128")]] kernel decltype(attention_split<bfloat, 128, 8>) attention_split<bfloat, 128, 8>;
template [[host_name("attention_decode_split_bf16_hs256")]] kernel decltype(attention_split<bfloat, 256, 16>) attention_split<bfloat, 256, 16>;

