// decode_attention.metal - attention of one new token for each of n sequences over the paged KV cache.
//
//   attention_decode           out[n, h] = sum over j of p[j] V[j],  p = softmax over j of f(dot(Q[n, h], K[j]) * scale)
//                              f: none, or cap tanh(s / cap)
//   attention_paged            the same for more than one new token: out[n, h] sees what is not behind its own token
//   attention_decode_split     attention_decode for each piece of the cache, not yet divided by the sum of weights
//   attention_decode_combine   the pieces together. Dao et al., "Flash-Decoding for long-context inference", 2023
//
// Shapes    Q float: q_stride floats from sequence to sequence, head h at column h * hs; out [n, nh * hs] float;
//           caches [n_blocks, n_kv_head, block_size, hs] float, half (_f16) or bfloat (_bf16); query head h reads KV head
//           h / (nh / n_kv_head); block_table [n, max_blocks], lengths [n] int: lengths[n] tokens are in the cache, the
//           query's own the last. A sequence of length 0 gets zeros.
// Dispatch  threadgroups (nh, n), threadgroup (32 * s), say 128; threadgroup(0): s * (hs + 2) floats. The fast ones differ.
// Assumes   block numbers lie inside the cache. window: how many tokens a query sees, its own among them; window and cap
//           are off at 0. A result depends on its own sequence alone, whatever n is.
#include <metal_stdlib>
#include "cache.h"
#include "copies.h"
#include "pieces.h"
#include "simd_mma.h"
#include "storage.h"
using namespace metal;

// Plain: any hs. Keys go round the simdgroups, each with a softmax of its own until the end; a lane has the channels
// lane, lane + 32, ...
template <typename E>
inline void attend_row(device const float* q, device const E* k_cache, device const E* v_cache, device const int* blocks,
                       device float* out, int length, int kv_head, int n_kv_head, int hs, int block_size, Mask mask,
                       threadgroup float* shared, uint tid, uint gsz, uint lane, uint sg, uint nsg) {
    const uint n = uint(hs);
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
    for (uint d = tid; d < n; d += gsz) {
        float y = 0.0f;
        for (uint s = 0; s < nsg; ++s) y = fma(shared[s * n + d], exp(stats[2 * s] - base), y);
        out[d] = y * scale_out;
    }
}

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
    const uint h = tg.x, seq = tg.y;
    const Mask mask = { scale, window, cap };
    attend_row(Q + ulong(seq) * q_stride + h * uint(hs), k_cache, v_cache, block_table + ulong(seq) * max_blocks,
               out + (ulong(seq) * nh + h) * hs, lengths[seq], int(h) / (nh / n_kv_head), n_kv_head, hs, block_size, mask,
               shared, tid.x, gsz.x, lane, sg, nsg);
}
template [[host_name("attention_decode")]]      kernel decltype(attention_any<float>)  attention_any<float>;
template [[host_name("attention_decode_f16")]]  kernel decltype(attention_any<half>)   attention_any<half>;
template [[host_name("attention_decode_bf16")]] kernel decltype(attention_any<bfloat>) attention_any<bfloat>;

// A ragged batch, as flash_attention_paged has it: sequence i has the rows first_row[i] .. first_row[i + 1] of Q and out,
// the last of its lengths[i] tokens. Threadgroups (nh, most rows of a sequence, n_seqs).
template <typename E>
kernel void attention_ragged(
    device const float* Q           [[buffer(0)]],
    device const E*     k_cache     [[buffer(1)]],
    device const E*     v_cache     [[buffer(2)]],
    device const int*   block_table [[buffer(3)]],
    device const int*   lengths     [[buffer(4)]],
    device const int*   first_row   [[buffer(5)]],
    device float*       out         [[buffer(6)]],
    constant int&       q_stride    [[buffer(7)]],
    constant int&       nh          [[buffer(8)]],
    constant int&       n_kv_head   [[buffer(9)]],
    constant int&       hs          [[buffer(10)]],
    constant int&       block_size  [[buffer(11)]],
    constant int&       max_blocks  [[buffer(12)]],
    constant float&     scale       [[buffer(13)]],
    constant int&       window      [[buffer(14)]],
    constant float&     cap         [[buffer(15)]],
    threadgroup float*  shared      [[threadgroup(0)]],
    uint3 tg  [[threadgroup_position_in_grid]],
    uint3 tid [[thread_position_in_threadgroup]],
    uint3 gsz [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint h = tg.x, seq = tg.z;
    const int row = first_row[seq] + int(tg.y), after = first_row[seq + 1];
    if (row >= after) return;
    const Mask mask = { scale, window, cap };
    attend_row(Q + ulong(row) * q_stride + h * uint(hs), k_cache, v_cache, block_table + ulong(seq) * max_blocks,
               out + (ulong(row) * nh + h) * hs, lengths[seq] - (after - 1 - row), int(h) / (nh / n_kv_head), n_kv_head, hs,
               block_size, mask, shared, tid.x, gsz.x, lane, sg, nsg);
}
template [[host_name("attention_paged")]]      kernel decltype(attention_ragged<float>)  attention_ragged<float>;
template [[host_name("attention_paged_f16")]]  kernel decltype(attention_ragged<half>)   attention_ragged<half>;
template [[host_name("attention_paged_bf16")]] kernel decltype(attention_ragged<bfloat>) attention_ragged<bfloat>;

// Fast: half or bfloat; hs = D, a multiple of 8; Q, q_stride and caches aligned to 16 bytes.
// A threadgroup has nh / g query heads, all of one KV head, for threadgroups (g, n): g is nh (most threadgroups), n_kv_head
// (K and V come from memory once), or between. KEYS keys at a time pass through threadgroup memory; simdgroup sg has head
// sg % heads and, of the keys, set sg / heads. In a simdgroup G lanes have a key: a lane its pieces of eight channels part,
// part + G, ..., and as many softmaxes run side by side.
// Threadgroup (32 * s), heads <= s <= 16, best a multiple of heads; threadgroup(0): 2 * KEYS * (hs + 8) elements, KEYS = 32,
// for hs = 256 16; threadgroup(1): s * (hs + 2) floats.
struct Softmax {
    float largest;   // score, times log2(e)
    float weights;   // their sum, of 2^(score - largest)
};

// What must be subtracted from scores: nothing where all are -inf, since -inf - -inf would be NaN.
inline float base_of(float largest) { return largest == -INFINITY ? 0.0f : largest; }

// Where this threadgroup's keys are.
struct Keys {
    device const int* blocks;
    int kv_head;
    int n_kv_head;
    int block_size;
    int begin;
    int end;
    ulong row(int j, int D) const { return cache_row(blocks[j / block_size], kv_head, j % block_size, n_kv_head, block_size, D); }
};

// The whole threadgroup calls. A simdgroup leaves its set's weighted sum of values in sums[0 .. D), its softmax in stats[0 .. 2);
// one whose set is none of the `sets` leaves those of no keys.
template <typename E, int D, int G, int KEYS>
inline void attend_set(device const float* q, device const E* k_cache, device const E* v_cache, Keys keys, Mask mask,
                       int set, int sets, threadgroup E* tiles, threadgroup float* sums, threadgroup float* stats,
                       uint tid, uint gsz, uint lane) {
    constexpr int PIECES = D / 8, MINE = (PIECES + G - 1) / G, LD = D + 8, ABREAST = 32 / G;
    const int part = int(lane) % G, key = int(lane) / G;
    threadgroup E* k_tile = tiles;
    threadgroup E* v_tile = tiles + KEYS * LD;
    Eight query[MINE], total[MINE];
    #pragma unroll
    for (int i = 0; i < MINE; ++i) {
        const int c = part + i * G;
        total[i].lo = float4(0.0f);
        total[i].hi = float4(0.0f);
        query[i] = total[i];
        if (c < PIECES) query[i] = load8(q + c * 8);
    }
    Softmax mine = { -INFINITY, 0.0f };
    for (int j0 = keys.begin; j0 < keys.end; j0 += KEYS) {
        threadgroup_barrier(mem_flags::mem_threadgroup);                 // all are done with the tile before
        for (int i = int(tid); i < KEYS * PIECES; i += int(gsz)) {
            const int r = i / PIECES, c = i % PIECES * 8;
            const bool in = j0 + r < keys.end;                            // else zeros
            const ulong from = keys.row(in ? j0 + r : j0, D) + c;
            tg_copy16(k_tile + r * LD + c, k_cache + from, in);
            tg_copy16(v_tile + r * LD + c, v_cache + from, in);
        }
        tg_copy_commit();
        tg_copy_wait<0>();
        threadgroup_barrier(mem_flags::mem_threadgroup);
        #pragma unroll(2)
        for (int r0 = set * ABREAST; r0 < KEYS && set < sets; r0 += sets * ABREAST) {   // the same for the whole simdgroup
            const int at = (r0 + key) * LD + part * 8;
            float dot = 0.0f;
            #pragma unroll
            for (int i = 0; i < MINE; ++i) {
                if (part + i * G < PIECES) dot += dot8(load8_tile(k_tile + at + i * G * 8), query[i]);
            }
            #pragma unroll
            for (ushort m = 1; m < G; m *= 2) dot += simd_shuffle_xor(dot, m);
            const float score = j0 + r0 + key < keys.end ? mask.score(dot) * 1.44269504088896f : -INFINITY;
            const float top = max(mine.largest, score), base = base_of(top);
            const float shrink = fast::exp2(mine.largest - base), p = fast::exp2(score - base);
            mine.weights = fma(mine.weights, shrink, p);
            mine.largest = top;
            #pragma unroll
            for (int i = 0; i < MINE; ++i) {
                if (part + i * G < PIECES) {
                    const Eight v = load8_tile(v_tile + at + i * G * 8);
                    total[i].lo = fma(v.lo, float4(p), total[i].lo * shrink);
                    total[i].hi = fma(v.hi, float4(p), total[i].hi * shrink);
                }
            }
        }
    }

    // Together: the lanes part, part + G, ... hold the same channels of different keys.
    const float top = simd_max(mine.largest), shrink = fast::exp2(mine.largest - base_of(top));
    const float weights = simd_sum(part == 0 ? mine.weights * shrink : 0.0f);
    #pragma unroll
    for (int i = 0; i < MINE; ++i) {
        const int c = part + i * G;
        total[i].lo *= shrink;
        total[i].hi *= shrink;
        #pragma unroll
        for (ushort m = G; m < 32; m *= 2) {
            total[i].lo += simd_shuffle_xor(total[i].lo, m);
            total[i].hi += simd_shuffle_xor(total[i].hi, m);
        }
        if (lane < G && c < PIECES) {
            *(threadgroup float4*)(sums + c * 8) = total[i].lo;
            *(threadgroup float4*)(sums + c * 8 + 4) = total[i].hi;
        }
    }
    if (lane == 0) {
        stats[0] = top;
        stats[1] = weights;
    }
}

// The sets of one head together.
inline Softmax merge(threadgroup const float* stats, uint head, uint heads, uint sets) {
    Softmax all = { -INFINITY, 0.0f };
    for (uint s = 0; s < sets; ++s) all.largest = max(all.largest, stats[2 * (s * heads + head)]);
    for (uint s = 0; s < sets; ++s) {
        threadgroup const float* one = stats + 2 * (s * heads + head);
        all.weights = fma(one[1], fast::exp2(one[0] - base_of(all.largest)), all.weights);
    }
    return all;
}

inline float merge_channel(threadgroup const float* sums, threadgroup const float* stats, Softmax all,
                           uint head, uint heads, uint sets, uint D, uint d) {
    float y = 0.0f;
    for (uint s = 0; s < sets; ++s) {
        const uint i = s * heads + head;
        y = fma(sums[i * D + d], fast::exp2(stats[2 * i] - base_of(all.largest)), y);
    }
    return y;
}

// Bindings as attention_decode.
template <typename E, int D, int G, int KEYS>
kernel void attention_grouped(
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
    threadgroup E*      tiles       [[threadgroup(0)]],
    threadgroup float*  shared      [[threadgroup(1)]],
    uint2 tg     [[threadgroup_position_in_grid]],
    uint2 groups [[threadgroups_per_grid]],
    uint2 tid    [[thread_position_in_threadgroup]],
    uint2 gsz    [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint seq = tg.y, heads = uint(nh) / groups.x, sets = nsg / heads, kv_head = tg.x * uint(n_kv_head) / groups.x;
    const ulong first_head = ulong(seq) * nh + tg.x * heads;
    const int length = lengths[seq];
    const Mask mask = { scale, window, cap };
    threadgroup float* stats = shared + nsg * D;
    const Keys keys = { block_table + ulong(seq) * max_blocks, int(kv_head), n_kv_head, block_size, mask.first_seen(length - 1), length };
    attend_set<E, D, G, KEYS>(Q + ulong(seq) * q_stride + (tg.x * heads + sg % heads) * D, k_cache, v_cache, keys, mask,
                              int(sg / heads), int(sets), tiles, shared + sg * D, stats + 2 * sg, tid.x, gsz.x, lane);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = tid.x; i < heads * D; i += gsz.x) {
        const Softmax all = merge(stats, i / D, heads, sets);
        const float y = merge_channel(shared, stats, all, i / D, heads, sets, D, i % D);
        out[first_head * D + i] = all.weights == 0.0f ? 0.0f : y / all.weights;
    }
}

// Part p of the cache, its tokens p * chunk .. (p + 1) * chunk: partial [n, nh, parts, hs], stats [n, nh, parts, 2]; of a
// part without keys, stats alone. The parts' bounds do not depend on lengths or n. Threadgroups (g, n, parts).
template <typename E, int D, int G, int KEYS>
kernel void attention_split(
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
    constant int&       hs          [[buffer(10)]],
    constant int&       block_size  [[buffer(11)]],
    constant int&       max_blocks  [[buffer(12)]],
    constant float&     scale       [[buffer(13)]],
    constant int&       window      [[buffer(14)]],
    constant float&     cap         [[buffer(15)]],
    constant int&       chunk       [[buffer(16)]],
    threadgroup E*      tiles       [[threadgroup(0)]],
    threadgroup float*  shared      [[threadgroup(1)]],
    uint3 tg     [[threadgroup_position_in_grid]],
    uint3 groups [[threadgroups_per_grid]],
    uint3 tid    [[thread_position_in_threadgroup]],
    uint3 gsz    [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint seq = tg.y, heads = uint(nh) / groups.x, sets = nsg / heads, kv_head = tg.x * uint(n_kv_head) / groups.x;
    const ulong first_head = ulong(seq) * nh + tg.x * heads;
    const int length = lengths[seq];
    const Mask mask = { scale, window, cap };
    const int begin = max(int(tg.z) * chunk, mask.first_seen(length - 1)), end = min((int(tg.z) + 1) * chunk, length);
    threadgroup float* stats = shared + nsg * D;
    if (begin >= end) {                                                  // the whole threadgroup
        for (uint h = tid.x; h < heads; h += gsz.x) {
            const ulong slot = (first_head + h) * groups.z + tg.z;
            part_stats[2 * slot] = -INFINITY;
            part_stats[2 * slot + 1] = 0.0f;
        }
        return;
    }
    const Keys keys = { block_table + ulong(seq) * max_blocks, int(kv_head), n_kv_head, block_size, begin, end };
    attend_set<E, D, G, KEYS>(Q + ulong(seq) * q_stride + (tg.x * heads + sg % heads) * D, k_cache, v_cache, keys, mask,
                              int(sg / heads), int(sets), tiles, shared + sg * D, stats + 2 * sg, tid.x, gsz.x, lane);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = tid.x; i < heads * D; i += gsz.x) {
        const uint h = i / D, d = i % D;
        const ulong slot = (first_head + h) * groups.z + tg.z;
        const Softmax all = merge(stats, h, heads, sets);
        partial[slot * D + d] = merge_channel(shared, stats, all, h, heads, sets, D, d);
        if (d == 0) {
            part_stats[2 * slot] = all.largest;
            part_stats[2 * slot + 1] = all.weights;
        }
    }
}

// The parts one after another (pieces.h), a thread a channel. Threadgroups (nh, n), threadgroup (hs rounded up to 32) or any.
kernel void attention_decode_combine(
    device const float* partial    [[buffer(0)]],
    device const float* part_stats [[buffer(1)]],
    device float*       out        [[buffer(2)]],
    constant int&       nh         [[buffer(3)]],
    constant int&       hs         [[buffer(4)]],
    constant int&       parts      [[buffer(5)]],
    uint2 tg  [[threadgroup_position_in_grid]],
    uint2 tid [[thread_position_in_threadgroup]],
    uint2 gsz [[threads_per_threadgroup]])
{
    constexpr int ABREAST = 8;                               // parts that are read at once
    const ulong head = ulong(tg.y) * nh + tg.x;
    device const float2* stats = (device const float2*)part_stats + head * parts;
    device const float* pieces = partial + head * parts * hs;
    for (uint d = tid.x; d < uint(hs); d += gsz.x) {
        Gathered all = nothing_gathered();
        float y = 0.0f;
        for (int p0 = 0; p0 < parts; p0 += ABREAST) {
            float2 softmax[ABREAST];
            float sum[ABREAST];
            #pragma unroll
            for (int i = 0; i < ABREAST; ++i) softmax[i] = p0 + i < parts ? stats[p0 + i] : float2(-INFINITY, 0.0f);
            #pragma unroll
            for (int i = 0; i < ABREAST; ++i) sum[i] = softmax[i].y != 0.0f ? pieces[ulong(p0 + i) * hs + d] : 0.0f;
            #pragma unroll
            for (int i = 0; i < ABREAST; ++i) {
                if (softmax[i].y != 0.0f) y = all.add(softmax[i].x, softmax[i].y).sum(y, sum[i]);
            }
        }
        out[head * hs + d] = y * all.divisor();
    }
}

template [[host_name("attention_decode_f16_hs32")]]        kernel decltype(attention_grouped<half, 32, 4, 32>)    attention_grouped<half, 32, 4, 32>;
template [[host_name("attention_decode_f16_hs64")]]        kernel decltype(attention_grouped<half, 64, 8, 32>)    attention_grouped<half, 64, 8, 32>;
template [[host_name("attention_decode_f16_hs80")]]        kernel decltype(attention_grouped<half, 80, 8, 32>)    attention_grouped<half, 80, 8, 32>;
template [[host_name("attention_decode_f16_hs96")]]        kernel decltype(attention_grouped<half, 96, 4, 32>)    attention_grouped<half, 96, 4, 32>;
template [[host_name("attention_decode_f16_hs128")]]       kernel decltype(attention_grouped<half, 128, 8, 32>)   attention_grouped<half, 128, 8, 32>;
template [[host_name("attention_decode_f16_hs256")]]       kernel decltype(attention_grouped<half, 256, 16, 16>)  attention_grouped<half, 256, 16, 16>;
template [[host_name("attention_decode_bf16_hs64")]]       kernel decltype(attention_grouped<bfloat, 64, 8, 32>)  attention_grouped<bfloat, 64, 8, 32>;
template [[host_name("attention_decode_bf16_hs128")]]      kernel decltype(attention_grouped<bfloat, 128, 8, 32>) attention_grouped<bfloat, 128, 8, 32>;
template [[host_name("attention_decode_bf16_hs256")]]      kernel decltype(attention_grouped<bfloat, 256, 16, 16>) attention_grouped<bfloat, 256, 16, 16>;
template [[host_name("attention_decode_split_f16_hs32")]]  kernel decltype(attention_split<half, 32, 4, 32>)    attention_split<half, 32, 4, 32>;
template [[host_name("attention_decode_split_f16_hs64")]]  kernel decltype(attention_split<half, 64, 8, 32>)    attention_split<half, 64, 8, 32>;
template [[host_name("attention_decode_split_f16_hs80")]]  kernel decltype(attention_split<half, 80, 8, 32>)    attention_split<half, 80, 8, 32>;
template [[host_name("attention_decode_split_f16_hs96")]]  kernel decltype(attention_split<half, 96, 4, 32>)    attention_split<half, 96, 4, 32>;
template [[host_name("attention_decode_split_f16_hs128")]] kernel decltype(attention_split<half, 128, 8, 32>)   attention_split<half, 128, 8, 32>;
template [[host_name("attention_decode_split_f16_hs256")]] kernel decltype(attention_split<half, 256, 16, 16>)  attention_split<half, 256, 16, 16>;
template [[host_name("attention_decode_split_bf16_hs64")]]  kernel decltype(attention_split<bfloat, 64, 8, 32>)  attention_split<bfloat, 64, 8, 32>;
template [[host_name("attention_decode_split_bf16_hs128")]] kernel decltype(attention_split<bfloat, 128, 8, 32>) attention_split<bfloat, 128, 8, 32>;
template [[host_name("attention_decode_split_bf16_hs256")]] kernel decltype(attention_split<bfloat, 256, 16, 16>) attention_split<bfloat, 256, 16, 16>;

