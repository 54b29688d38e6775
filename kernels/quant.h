// quant.h - dot products with rows of ggml's quantised blocks: what matvec.h is for plain weights. A block type Q says how
// its blocks are read, sixteen weights at a time: two runs of eight that lie in the same bytes. d, m: half; q: a weight's
// small integer. Blocks: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md and ggml-common.h.
#pragma once
#include <metal_stdlib>
#include "ahead.h"
#include "matvec.h"
#include "storage.h"
using namespace metal;

// ---- bytes. Blocks begin at even addresses.

inline float half_at(device const uchar* p) { return float(as_type<half>(*(device const ushort*)p)); }

inline uint2 eight_bytes(device const uchar* p) {
    device const ushort* h = (device const ushort*)p;
    return uint2(uint(h[0]) | uint(h[1]) << 16, uint(h[2]) | uint(h[3]) << 16);
}

inline float4 unsigned_bytes(uint w) {
    return float4(float(w & 255u), float((w >> 8) & 255u), float((w >> 16) & 255u), float(w >> 24));
}

// scale * q + offset for eight q.
inline Eight affine(uint2 q, float scale, float offset) {
    Eight v;
    v.lo = fma(unsigned_bytes(q.x), float4(scale), float4(offset));
    v.hi = fma(unsigned_bytes(q.y), float4(scale), float4(offset));
    return v;
}

constant constexpr uint LOW_NIBBLES = 0x0f0f0f0fu;

inline uint2 low_nibbles(uint2 bytes) { return uint2(bytes.x & LOW_NIBBLES, bytes.y & LOW_NIBBLES); }
inline uint2 high_nibbles(uint2 bytes) { return uint2((bytes.x >> 4) & LOW_NIBBLES, (bytes.y >> 4) & LOW_NIBBLES); }

// ---- block types. first(p) and second(p): where in a block the two runs of its p-th sixteen weights begin.

struct Sixteen {
    Eight first;
    Eight second;
};

// w = d q, q of 8 bits, signed: d, then 32 q.
struct Q8_0 {
    enum { WEIGHTS = 32, BYTES = 34 };
    static uint first(uint p) { return 16 * p; }
    static uint second(uint p) { return 16 * p + 8; }
    // q + 128 is without a sign, and d (q + 128) - 128 d in one step as exact as d q.
    static Eight run(device const uchar* q, float d) {
        const uint2 bytes = eight_bytes(q);
        return affine(uint2(bytes.x ^ 0x80808080u, bytes.y ^ 0x80808080u), d, -128.0f * d);
    }
    static Sixteen read(device const uchar* block, uint p) {
        const float d = half_at(block);
        Sixteen w;
        w.first = run(block + 2 + first(p), d);
        w.second = run(block + 2 + second(p), d);
        return w;
    }
};

// Weight j in the low half of byte j of q, weight j + 16 in the high half.
inline Sixteen nibbles(device const uchar* q, uint p, float scale, float offset) {
    const uint2 bytes = eight_bytes(q + 8 * p);
    Sixteen w;
    w.first = affine(low_nibbles(bytes), scale, offset);
    w.second = affine(high_nibbles(bytes), scale, offset);
    return w;
}

// w = d (q - 8): d, then 32 q of 4 bits.
struct Q4_0 {
    enum { WEIGHTS = 32, BYTES = 18 };
    static uint first(uint p) { return 8 * p; }
    static uint second(uint p) { return 16 + 8 * p; }
    static Sixteen read(device const uchar* block, uint p) {
        const float d = half_at(block);
        return nibbles(block + 2, p, d, -8.0f * d);
    }
};

// w = d q + m: d, m, then 32 q of 4 bits.
struct Q4_1 {
    enum { WEIGHTS = 32, BYTES = 20 };
    static uint first(uint p) { return 8 * p; }
    static uint second(uint p) { return 16 + 8 * p; }
    static Sixteen read(device const uchar* block, uint p) {
        return nibbles(block + 4, p, half_at(block), half_at(block + 2));
    }
};

// w = d s q - m t in 8 groups of 32, q of 4 bits, a group's s and t of 6: d, m, 12 bytes of s and t, then q. Weight 64 c + l
// in the low half of byte 32 c + l of q, weight 64 c + 32 + l in the high half.
struct Q4_K {
    enum { WEIGHTS = 256, BYTES = 144 };
    static uint first(uint p) { return 64 * (p / 4) + 8 * (p % 4); }
    static uint second(uint p) { return first(p) + 32; }
    // s and t of group g < 4: the low six bits of bytes g and g + 4. Of g >= 4: low four bits in the halves of byte g + 4,
    // high two in those of bytes g - 4 and g.
    static float2 scales(device const uchar* b, uint g) {
        if (g < 4) return float2(float(b[g] & 63), float(b[g + 4] & 63));
        return float2(float((b[g + 4] & 15) | (b[g - 4] >> 6) << 4), float((b[g + 4] >> 4) | (b[g] >> 6) << 4));
    }
    static Sixteen read(device const uchar* block, uint p) {
        const float d = half_at(block), m = half_at(block + 2);
        const uint c = p / 4;
        const float2 even = scales(block + 4, 2 * c), odd = scales(block + 4, 2 * c + 1);
        const uint2 bytes = eight_bytes(block + 16 + 32 * c + 8 * (p % 4));
        Sixteen w;
        w.first = affine(low_nibbles(bytes), d * even.x, -m * even.y);
        w.second = affine(high_nibbles(bytes), d * odd.x, -m * odd.y);
        return w;
    }
};

// w = d s (q - 32) in 16 groups of 16, q of 6 bits, a group's s of 8, signed: 128 bytes of q's low four bits, 64 of its high
// two, s, d. Weights 128 h + l and 128 h + 64 + l, l < 64, have the halves of byte 64 h + l; weight 128 h + 32 r + l, l < 32,
// has bits 2 r and 2 r + 1 of high byte 32 h + l.
struct Q6_K {
    enum { WEIGHTS = 256, BYTES = 210 };
    static uint first(uint p) { return 128 * (p / 8) + 8 * (p % 8); }
    static uint second(uint p) { return first(p) + 64; }
    static uint2 high(uint2 bytes, uint shift) {
        return uint2(((bytes.x >> shift) & 0x03030303u) << 4, ((bytes.y >> shift) & 0x03030303u) << 4);
    }
    static float scale(device const uchar* block, uint weight) { return float(int(uint(block[192 + weight / 16]) << 24) >> 24); }
    static Sixteen read(device const uchar* block, uint p) {
        const uint h = p / 8, l = 8 * (p % 8), shift = 2 * (l / 32);
        const float d = half_at(block + 208);
        const uint2 low = eight_bytes(block + 64 * h + l), top = eight_bytes(block + 128 + 32 * h + l % 32);
        const float a = d * scale(block, first(p)), b = d * scale(block, second(p));
        Sixteen w;
        w.first = affine(low_nibbles(low) | high(top, shift), a, -32.0f * a);
        w.second = affine(high_nibbles(low) | high(top, shift + 4), b, -32.0f * b);
        return w;
    }
};

// ---- products

template <typename Q>
inline ulong bytes_of_row(uint n) { return ulong(n / Q::WEIGHTS) * Q::BYTES; }

// The p-th sixteen weights of a row.
template <typename Q>
inline Sixteen sixteen_of(device const uchar* row, uint p) {
    constexpr uint PIECES = Q::WEIGHTS / 16;
    return Q::read(row + ulong(p / PIECES) * Q::BYTES, p % PIECES);
}

// Where their two runs begin.
template <typename Q>
inline uint2 runs_of(uint p) {
    constexpr uint PIECES = Q::WEIGHTS / 16;
    const uint k = p / PIECES * Q::WEIGHTS;
    return uint2(k + Q::first(p % PIECES), k + Q::second(p % PIECES));
}

// Rows of which a lane reads its first sixteen weights ahead (ahead.h).
template <typename Q, int R>
struct BlockRows {
    device const uchar* row[R];
    Sixteen first[R];
    void read_ahead(uint n, uint lane) {
        if (lane >= n / 16) return;
        #pragma unroll
        for (int r = 0; r < R; ++r) first[r] = sixteen_of<Q>(row[r], lane);
    }
};

// dot(rows.row[r], v) over n weights, whole blocks, for every r; the same in every lane. v is fresh: one call, one vector. The
// order of the sums depends on n alone.
template <typename Q, int R, typename V>
inline Sums<R> dot_blocks(thread const BlockRows<Q, R>& rows, V v, uint n, uint lane) {
    Sums<R> sums;
    #pragma unroll
    for (int r = 0; r < R; ++r) sums.of[r] = 0.0f;
    if (lane < n / 16) {
        const uint2 runs = runs_of<Q>(lane);
        const Eight first = v.at8(runs.x), second = v.at8(runs.y);
        #pragma unroll
        for (int r = 0; r < R; ++r) sums.of[r] += dot8(rows.first[r].first, first) + dot8(rows.first[r].second, second);
    }
    #pragma unroll(2)
    for (uint p = lane + 32; p < n / 16; p += 32) {
        const uint2 runs = runs_of<Q>(p);
        const Eight first = v.at8(runs.x), second = v.at8(runs.y);
        #pragma unroll
        for (int r = 0; r < R; ++r) {
            const Sixteen w = sixteen_of<Q>(rows.row[r], p);
            sums.of[r] += dot8(w.first, first) + dot8(w.second, second);
        }
    }
    #pragma unroll
    for (int r = 0; r < R; ++r) sums.of[r] = v.finish(simd_sum(sums.of[r]), n);
    return sums;
}
