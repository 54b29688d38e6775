// draw.metal - a token drawn by the softmax of logits: the same one on every machine, however the kernel is launched.
//
//   draw_sample   out = i with probability p_i / (the sum of those that are kept), p = softmax(logits). Kept are
//                 - by top_p, the likeliest, until they have that share of the probability: each with less than that
//                   before it, and the likeliest at all (Holtzman et al. 2020, arXiv 1904.09751); all for 1
//                 - by min_p, those with p_i >= min_p max(p) (Nguyen et al. 2024, arXiv 2407.01082); all for 0
//                 -1 where nothing can be drawn: where no logit is above -inf, or one is inf. A NaN is never drawn.
//
// A weight is an integer, 2^40 e^(x - max x) rounded down: integers have one sum in whatever order they are added, and
// this e^x is made of operations that are rounded in one way everywhere. Less than 2^-40 of the likeliest is nothing.
//
// No row is sorted. A token is drawn from all, at a random point of their weights in the order of their indices; where it
// is not kept, neither is any that is less likely (of equals, that comes later), and the next one is drawn from those
// before it. What is kept is always among them, each with its own share. The expected number of rounds is at most
// 1 + ln(1 / the probability that is kept).
//
// Random    point n of a row: 64 bits of Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
//           SC 2011) of counter (positions[row], n, 0, 0) under the key seeds[row].
// Shapes    logits [rows, V] float; positions [rows], seeds [rows, 2] (the low half first), out [rows] int.
// Dispatch  one threadgroup a row: threadgroups (rows), threadgroup (min(V rounded up to 32, 1024)), any multiple of 32.
//           Threadgroup memory: (0) one float a simdgroup, (1) one ulong a simdgroup, (2) one int.
// Assumes   V is at most 2^22, that no sum overflows; min_p at most 1.
#include <metal_stdlib>
#include "reduce.h"
using namespace metal;

constant constexpr float ONE = 1099511627776.0f;                    // 2^40, the weight of the likeliest

// 2^40 e^x for x <= 0, rounded down; 0 from x = -28 on, and for a NaN. e^x = 2^n e^r with |r| <= ln 2 / 2, ln 2 in two
// parts so that r is exact; e^r is Taylor's polynomial, off by less than 2^-26.
inline ulong weight_of(float x) {
    if (!(x > -28.0f)) return 0;
    const float n = rint(x * 1.44269504088896340736f);
    const float r = fma(n, 2.12194440e-4f, fma(n, -0.693359375f, x));
    float e = fma(1.0f / 5040.0f, r, 1.0f / 720.0f);
    e = fma(e, r, 1.0f / 120.0f);
    e = fma(e, r, 1.0f / 24.0f);
    e = fma(e, r, 1.0f / 6.0f);
    e = fma(e, r, 0.5f);
    e = fma(e, r, 1.0f);
    e = fma(e, r, 1.0f);
    return ulong(e * as_type<float>(uint(int(n) + 40 + 127) << 23));
}

// The first 64 bits of Philox4x32-10.
inline ulong random_bits(uint position, uint n, uint2 key) {
    uint4 c = uint4(position, n, 0u, 0u);
    for (int i = 0; i < 10; ++i) {
        const ulong a = ulong(0xd2511f53u) * c.x, b = ulong(0xcd9e8d57u) * c.z;
        c = uint4(uint(b >> 32) ^ c.y ^ key.x, uint(b), uint(a >> 32) ^ c.w ^ key.y, uint(a));
        key = uint2(key.x + 0x9e3779b9u, key.y + 0xbb67ae85u);
    }
    return ulong(c.y) << 32 | c.x;
}

// The upper 64 bits of a b: b times the fraction a of 2^64, rounded down.
inline ulong fraction_of(ulong a, ulong b) {
    const ulong a1 = a >> 32, a0 = a & 0xffffffffu, b1 = b >> 32, b0 = b & 0xffffffffu;
    const ulong middle = a1 * b0 + (a0 * b0 >> 32);
    return a1 * b1 + (middle >> 32) + ((a0 * b1 + (middle & 0xffffffffu)) >> 32);
}

// Metal's own operations on a simdgroup end at 32 bits.
inline ulong simd_value_of(ulong v, uint lane) {
    return as_type<ulong>(simd_shuffle(as_type<uint2>(v), ushort(lane)));
}

// The sum of v over the lanes up to this one.
inline ulong simd_sum_up_to(ulong v, uint lane) {
    for (uint step = 1; step < 32; step *= 2) {
        const ulong before = as_type<ulong>(simd_shuffle_up(as_type<uint2>(v), ushort(step)));
        if (lane >= step) v += before;
    }
    return v;
}

// A token that was drawn; at first none, which all that have a weight come before.
struct Drawn {
    int   index;
    ulong weight;
};

// The weight of element i if it comes before `drawn`: is likelier, or as likely and has a lower index.
inline ulong weight_before(float x, int i, Drawn drawn) {
    const ulong w = weight_of(x);
    return w > drawn.weight || (w == drawn.weight && i < drawn.index) ? w : 0;
}

inline bool is_among(ulong point, ulong before, ulong own) { return point >= before && point - before < own; }
inline bool is_likely(Drawn drawn, ulong least) { return drawn.weight >= least; }

kernel void draw_sample(
    device const float* logits    [[buffer(0)]],
    device const int*   positions [[buffer(1)]],
    device const int*   seeds     [[buffer(2)]],
    device int*         out       [[buffer(3)]],
    constant int&       V         [[buffer(4)]],
    constant float&     top_p     [[buffer(5)]],
    constant float&     min_p     [[buffer(6)]],
    threadgroup float*  tops      [[threadgroup(0)]],
    threadgroup ulong*  sums      [[threadgroup(1)]],
    threadgroup int*    chosen    [[threadgroup(2)]],
    uint row  [[threadgroup_position_in_grid]],
    uint tid  [[thread_position_in_threadgroup]],
    uint gsz  [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    device const float* x = logits + ulong(row) * V;
    const uint2 key = uint2(uint(seeds[2 * row]), uint(seeds[2 * row + 1]));
    const uint position = uint(positions[row]);

    float top = -INFINITY;
    for (uint i = tid; i < uint(V); i += gsz) top = x[i] > top ? x[i] : top;
    top = threadgroup_max(top, tops, lane, sg, nsg);

    // A simdgroup has a piece of the row, and its lanes neighbours.
    const uint size = (uint(V) + nsg - 1) / nsg, begin = min(sg * size, uint(V)), end = min(begin + size, uint(V));
    const ulong least = min_p * ONE < 1.0f ? 1 : ulong(min_p * ONE);
    Drawn drawn = { -1, 0 };
    ulong share = 0;
    for (uint n = 0;; ++n) {
        ulong mine = 0;
        for (uint i = begin + lane; i < end; i += 32) mine += weight_before(x[i] - top, int(i), drawn);
        mine = simd_value_of(simd_sum_up_to(mine, lane), 31);
        if (lane == 0) sums[sg] = mine;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const ulong pieces = simd_sum_up_to(lane < nsg ? sums[lane] : 0, lane);
        const ulong all = simd_value_of(pieces, 31), before = simd_value_of(pieces, sg) - mine;
        if (n == 0) share = top_p < 1.0f ? fraction_of(ulong(top_p * ONE) << 24, all) : all;
        if (all == 0 || (is_likely(drawn, least) && share > all)) break;

        const ulong point = fraction_of(random_bits(position, n, key), all);
        if (is_among(point, before, mine)) {                          // a whole simdgroup's
            ulong left = point - before;
            for (uint i = begin; end > i; i += 32) {                  // the piece has the point: it ends by itself
                const ulong own = i + lane < end ? weight_before(x[i + lane] - top, int(i + lane), drawn) : 0;
                const ulong up_to = simd_sum_up_to(own, lane), together = simd_value_of(up_to, 31);
                if (is_among(left, up_to - own, own)) chosen[0] = int(i + lane);
                if (is_among(left, 0, together)) break;
                left -= together;
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        drawn.index = chosen[0];
        drawn.weight = weight_of(x[drawn.index] - top);
        if (is_likely(drawn, least) && top_p >= 1.0f) break;
    }
    if (tid == 0) out[row] = drawn.index;
}
