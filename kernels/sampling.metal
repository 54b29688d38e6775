// sampling.metal - from logits to a token: penalties, soft cap, temperature, top-k, argmax.
//
//   penalize_logits     for each distinct token t seen c times: x = x > 0 ? x / repeat : x * repeat;
//                       x -= presence + frequency * c        (repeat: Keskar et al., "CTRL", arXiv 1909.05858, section 4.1)
//   softcap_logits      x = cap tanh(x / cap)
//   temperature_scale   x = x / temperature
//   topk_mask           the k largest of a row stay, exactly k, ties by lowest index; the others become -inf
//   argmax_sample       out = index of the largest, ties by lowest index; 0 where all are NaN or all are -inf
//
// Everywhere NaN counts as lowest, below -inf, and -0 equals 0.
//
// Shapes    logits [rows, V] float, any V >= 1; out int [rows]; tokens, counts int [M].
// Dispatch  penalize_logits: threads (M), threadgroup (min(M rounded up to 32, 1024)). The others: one threadgroup a
//           row: threadgroups (rows), threadgroup (min(V rounded up to 32, 1024)), any multiple of 32.
//           softcap and temperature take threadgroups (rows, n) as well, to spread a row over n of them.
//           Threadgroup memory: topk_mask (0): one uint a simdgroup. argmax_sample (0): one float, (1): one int a
//           simdgroup (the reference's one a thread is enough).
// Assumes   temperature > 0, cap > 0, repeat > 0.
//
// A row may also be split over P threadgroups (the _parts kernels at the end): argmax_parts, argmax_final; and
// topk_parts, topk_threshold, topk_apply. Their results are the same to the bit.
#include <metal_stdlib>
#include "activation.h"
#include "reduce.h"
using namespace metal;

// Unsigned integers in the order of the floats: NaN is 0, then -inf, ..., -0 = 0, ..., inf.
inline uint order_key(float x) {
    const uint bits = as_type<uint>(x == 0.0f ? 0.0f : x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0u;
    return (bits >> 31) != 0u ? ~bits : bits | 0x80000000u;
}

// The float of a key (NaN for key 0).
inline float key_value(uint key) {
    return as_type<float>((key >> 31) != 0u ? key & 0x7fffffffu : ~key);
}

// A threadgroup's thread, for the functions that all its threads call together.
struct Thread {
    uint id;
    uint count;
    uint lane;
    uint sg;
    uint nsg;
};

// The part-th of `parts` equal pieces of n elements, each in one stretch, so that ranks follow the index.
struct Segment {
    uint begin;
    uint end;
};

inline Segment segment_of(uint n, uint part, uint parts) {
    const uint size = (n + parts - 1) / parts;
    Segment s;
    s.begin = min(part * size, n);
    s.end = min(s.begin + size, n);
    return s;
}

kernel void penalize_logits(
    device float*     logits    [[buffer(0)]],
    device const int* tokens    [[buffer(1)]],
    device const int* counts    [[buffer(2)]],
    constant int&     V         [[buffer(3)]],
    constant int&     M         [[buffer(4)]],
    constant float&   repeat    [[buffer(5)]],
    constant float&   presence  [[buffer(6)]],
    constant float&   frequency [[buffer(7)]],
    uint i [[thread_position_in_grid]])
{
    if (i >= uint(M)) return;
    const int t = tokens[i];
    if (t < 0 || t >= V) return;
    const float x = logits[t];
    logits[t] = (x > 0.0f ? x / repeat : x * repeat) - presence - frequency * float(counts[i]);
}

kernel void softcap_logits(
    device float*   logits [[buffer(0)]],
    constant int&   V      [[buffer(1)]],
    constant float& cap    [[buffer(2)]],
    uint2 tg     [[threadgroup_position_in_grid]],
    uint2 groups [[threadgroups_per_grid]],
    uint2 tid    [[thread_position_in_threadgroup]],
    uint2 gsz    [[threads_per_threadgroup]])
{
    device float* x = logits + ulong(tg.x) * V;
    for (uint i = tg.y * gsz.x + tid.x; i < uint(V); i += groups.y * gsz.x) x[i] = softcap(x[i], cap);
}

kernel void temperature_scale(
    device float*   logits      [[buffer(0)]],
    constant int&   V           [[buffer(1)]],
    constant float& temperature [[buffer(2)]],
    uint2 tg     [[threadgroup_position_in_grid]],
    uint2 groups [[threadgroups_per_grid]],
    uint2 tid    [[thread_position_in_threadgroup]],
    uint2 gsz    [[threads_per_threadgroup]])
{
    device float* x = logits + ulong(tg.x) * V;
    for (uint i = tg.y * gsz.x + tid.x; i < uint(V); i += groups.y * gsz.x) x[i] = x[i] / temperature;
}

// ---- argmax

constant constexpr uint NO_INDEX = 0x7fffffffu;

struct Best {
    uint key;
    uint index;
};

// Over x[i], i = begin + id, begin + id + count, ... < end. Indices rise, so the first of equals is kept.
inline Best thread_best(device const float* x, Segment s, Thread t) {
    Best best;
    best.key = 0u;
    best.index = NO_INDEX;
    for (uint i = s.begin + t.id; i < s.end; i += t.count) {
        const uint key = order_key(x[i]);
        if (key > best.key || best.index == NO_INDEX) {
            best.key = key;
            best.index = i;
        }
    }
    return best;
}

inline Best simd_best(uint key, uint index) {
    Best best;
    best.key = simd_max(key);
    best.index = simd_min(key == best.key ? index : NO_INDEX);
    return best;
}

// The largest key of a threadgroup and the lowest index that has it; the same in every thread.
inline Best threadgroup_best(Best mine, threadgroup float* values, threadgroup int* indices, Thread t) {
    const Best best = simd_best(mine.key, mine.index);
    if (t.lane == 0) {
        values[t.sg] = key_value(best.key);
        indices[t.sg] = int(best.index);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const bool in = t.lane < t.nsg;
    return simd_best(in ? order_key(values[t.lane]) : 0u, in ? uint(indices[t.lane]) : NO_INDEX);
}

kernel void argmax_sample(
    device const float* logits  [[buffer(0)]],
    device int*         out     [[buffer(1)]],
    constant int&       V       [[buffer(2)]],
    threadgroup float*  values  [[threadgroup(0)]],
    threadgroup int*    indices [[threadgroup(1)]],
    uint row  [[threadgroup_position_in_grid]],
    uint tid  [[thread_position_in_threadgroup]],
    uint gsz  [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const Thread t = { tid, gsz, lane, sg, nsg };
    const Best mine = thread_best(logits + ulong(row) * V, segment_of(uint(V), 0, 1), t);
    const Best best = threadgroup_best(mine, values, indices, t);
    if (tid == 0) out[row] = int(best.index);
}

// ---- top-k

// How many of n keys are at least `least`; the same in every thread.
inline uint count_at_least(device const float* x, uint n, uint least, threadgroup uint* shared, Thread t) {
    uint count = 0;
    for (uint i = t.id; i < n; i += t.count) count += order_key(x[i]) >= least ? 1u : 0u;
    return threadgroup_sum(count, shared, t.lane, t.sg, t.nsg);
}

// What stays of a row: the keys above the threshold, and the first `ties` of those that equal it.
struct Selection {
    uint threshold;
    uint ties;
};

// The k largest of n. The threshold is the largest key that at least k keys reach, found bit by bit from the top. For
// k = 0 it is all ones, which no key reaches.
inline Selection select_largest(device const float* x, uint n, uint k, threadgroup uint* shared, Thread t) {
    Selection s;
    s.threshold = 0;
    for (uint bit = 0x80000000u; bit != 0u; bit >>= 1) {
        if (count_at_least(x, n, s.threshold | bit, shared, t) >= k) s.threshold |= bit;
    }
    s.ties = k == 0 ? 0 : k - count_at_least(x, n, s.threshold + 1, shared, t);
    return s;
}

// The sum of v over the threads before this one.
inline uint threadgroup_sum_before(uint v, threadgroup uint* shared, Thread t) {
    const uint before = simd_prefix_exclusive_sum(v);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (t.lane == 31) shared[t.sg] = before + v;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return before + simd_sum(t.lane < t.sg ? shared[t.lane] : 0u);
}

// Of n elements, how many equal the threshold before this thread's segment.
inline uint ties_before(device const float* x, uint n, uint threshold, threadgroup uint* shared, Thread t) {
    const Segment mine = segment_of(n, t.id, t.count);
    uint count = 0;
    for (uint i = mine.begin; i < mine.end; ++i) count += order_key(x[i]) == threshold ? 1u : 0u;
    return threadgroup_sum_before(count, shared, t);
}

// Whether an element stays; `rank` counts the ties that went before it.
inline bool stays(float x, Selection s, thread uint& rank) {
    const uint key = order_key(x);
    return key > s.threshold || (key == s.threshold && rank++ < s.ties);
}

inline void mask_others(device float* x, uint n, Selection s, threadgroup uint* shared, Thread t) {
    const Segment mine = segment_of(n, t.id, t.count);
    uint rank = ties_before(x, n, s.threshold, shared, t);
    for (uint i = mine.begin; i < mine.end; ++i) {
        if (!stays(x[i], s, rank)) x[i] = -INFINITY;
    }
}

kernel void topk_mask(
    device float*     logits [[buffer(0)]],
    constant int&     V      [[buffer(1)]],
    constant int&     k      [[buffer(2)]],
    threadgroup uint* shared [[threadgroup(0)]],
    uint row  [[threadgroup_position_in_grid]],
    uint tid  [[thread_position_in_threadgroup]],
    uint gsz  [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const Thread t = { tid, gsz, lane, sg, nsg };
    device float* x = logits + ulong(row) * V;
    const Selection s = select_largest(x, uint(V), uint(max(k, 0)), shared, t);
    threadgroup_barrier(mem_flags::mem_device);   // all have read what a thread now overwrites
    mask_others(x, uint(V), s, shared, t);
}

// ---- One row over P threadgroups. Threadgroups (P, rows): part p has the p-th of P equal pieces of the row.

// Best value and lowest index of each part: part_values, part_indices [rows, P]. A part past V gets NaN.
kernel void argmax_parts(
    device const float* logits       [[buffer(0)]],
    device float*       part_values  [[buffer(1)]],
    device int*         part_indices [[buffer(2)]],
    constant int&       V            [[buffer(3)]],
    threadgroup float*  values       [[threadgroup(0)]],
    threadgroup int*    indices      [[threadgroup(1)]],
    uint2 tg    [[threadgroup_position_in_grid]],
    uint2 parts [[threadgroups_per_grid]],
    uint2 tid   [[thread_position_in_threadgroup]],
    uint2 gsz   [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const Thread t = { tid.x, gsz.x, lane, sg, nsg };
    const Best mine = thread_best(logits + ulong(tg.y) * V, segment_of(uint(V), tg.x, parts.x), t);
    const Best best = threadgroup_best(mine, values, indices, t);
    if (tid.x == 0) {
        part_values[ulong(tg.y) * parts.x + tg.x] = key_value(best.key);
        part_indices[ulong(tg.y) * parts.x + tg.x] = int(best.index);
    }
}

// Parts stand in the order of their indices, so the first of equal parts has the lowest index.
// Threadgroups (rows), threadgroup (min(P rounded up to 32, 1024)).
kernel void argmax_final(
    device const float* part_values  [[buffer(0)]],
    device const int*   part_indices [[buffer(1)]],
    device int*         out          [[buffer(2)]],
    constant int&       P            [[buffer(3)]],
    threadgroup float*  values       [[threadgroup(0)]],
    threadgroup int*    indices      [[threadgroup(1)]],
    uint row  [[threadgroup_position_in_grid]],
    uint tid  [[thread_position_in_threadgroup]],
    uint gsz  [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const Thread t = { tid, gsz, lane, sg, nsg };
    const Best mine = thread_best(part_values + ulong(row) * P, segment_of(uint(P), 0, 1), t);
    const Best best = threadgroup_best(mine, values, indices, t);
    if (tid == 0) out[row] = part_indices[ulong(row) * P + best.index];
}

// The k largest of each part in the order of their indices, filled up with NaN: candidates [rows, P, k].
kernel void topk_parts(
    device const float* logits     [[buffer(0)]],
    device float*       candidates [[buffer(1)]],
    constant int&       V          [[buffer(2)]],
    constant int&       k          [[buffer(3)]],
    threadgroup uint*   shared     [[threadgroup(0)]],
    uint2 tg    [[threadgroup_position_in_grid]],
    uint2 parts [[threadgroups_per_grid]],
    uint2 tid   [[thread_position_in_threadgroup]],
    uint2 gsz   [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const Thread t = { tid.x, gsz.x, lane, sg, nsg };
    const Segment part = segment_of(uint(V), tg.x, parts.x);
    const uint n = part.end - part.begin, wanted = uint(max(k, 0)), kept = min(wanted, n);
    device const float* x = logits + ulong(tg.y) * V + part.begin;
    device float* to = candidates + (ulong(tg.y) * parts.x + tg.x) * wanted;

    const Selection s = select_largest(x, n, kept, shared, t);
    const Segment mine = segment_of(n, t.id, t.count);
    const uint first_rank = ties_before(x, n, s.threshold, shared, t);
    uint rank = first_rank, count = 0;
    for (uint i = mine.begin; i < mine.end; ++i) count += stays(x[i], s, rank) ? 1u : 0u;
    uint place = threadgroup_sum_before(count, shared, t);
    rank = first_rank;
    for (uint i = mine.begin; i < mine.end; ++i) {
        if (stays(x[i], s, rank)) to[place++] = x[i];
    }
    for (uint i = kept + t.id; i < wanted; i += t.count) to[i] = NAN;
}

// From the candidates: the row's threshold key, and how many of its equals each part keeps.
// thresholds uint [rows], ties uint [rows, P]. Threadgroups (rows), threadgroup (1024); P at most its size.
kernel void topk_threshold(
    device const float* candidates [[buffer(0)]],
    device uint*        thresholds [[buffer(1)]],
    device uint*        ties       [[buffer(2)]],
    constant int&       V          [[buffer(3)]],
    constant int&       k          [[buffer(4)]],
    constant int&       P          [[buffer(5)]],
    threadgroup uint*   shared     [[threadgroup(0)]],
    uint row  [[threadgroup_position_in_grid]],
    uint tid  [[thread_position_in_threadgroup]],
    uint gsz  [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const Thread t = { tid, gsz, lane, sg, nsg };
    const uint kept = uint(max(k, 0)), n = uint(P) * kept;
    device const float* x = candidates + ulong(row) * n;
    const Selection s = select_largest(x, n, kept, shared, t);

    // Thread p counts the equals among part p's candidates; what fills the part up does not count. Part P is empty.
    uint equal = 0;
    const Segment part = segment_of(uint(V), min(tid, uint(P)), uint(P));
    const uint filled = min(kept, part.end - part.begin);
    for (uint i = 0; i < filled; ++i) equal += order_key(x[ulong(tid) * kept + i]) == s.threshold ? 1u : 0u;
    const uint before = min(threadgroup_sum_before(equal, shared, t), s.ties);
    if (tid < uint(P)) ties[ulong(row) * P + tid] = min(equal, s.ties - before);
    if (tid == 0) thresholds[row] = s.threshold;
}

// Masks what topk_threshold leaves out. threadgroup(0) as topk_mask.
kernel void topk_apply(
    device float*      logits     [[buffer(0)]],
    device const uint* thresholds [[buffer(1)]],
    device const uint* ties       [[buffer(2)]],
    constant int&      V          [[buffer(3)]],
    threadgroup uint*  shared     [[threadgroup(0)]],
    uint2 tg    [[threadgroup_position_in_grid]],
    uint2 parts [[threadgroups_per_grid]],
    uint2 tid   [[thread_position_in_threadgroup]],
    uint2 gsz   [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const Thread t = { tid.x, gsz.x, lane, sg, nsg };
    const Segment part = segment_of(uint(V), tg.x, parts.x);
    Selection s;
    s.threshold = thresholds[tg.y];
    s.ties = ties[ulong(tg.y) * parts.x + tg.x];
    mask_others(logits + ulong(tg.y) * V + part.begin, part.end - part.begin, s, shared, t);
}
