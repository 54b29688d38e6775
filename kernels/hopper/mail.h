// mail.h - vectors from threadgroup to threadgroup: a float's last bit says in which of two rounds it was sent, and a reader
// asks until all that it wants is of this round. That costs one way through the L2 cache, where a barrier for all and the read
// behind it cost two or three, and half a rounding error. After NCCL's LL protocol, which sends a flag beside each word: Hu et
// al., "Demystifying NCCL", arXiv 2507.04786.
#pragma once
#include "program.h"

FN uint stale(float x, uint round) { return __float_as_uint(x) ^ round; }
FN bool fresh(float2 v, uint round) { return ((stale(v.x, round) | stale(v.y, round)) & 1) == 0; }
FN bool fresh(float4 v, uint round) {
    return ((stale(v.x, round) | stale(v.y, round) | stale(v.z, round) | stale(v.w, round)) & 1) == 0;
}

// As everybody reads it: without its last bit.
FN float as_read(float x) { return __uint_as_float(__float_as_uint(x) & ~1u); }
FN float2 as_read(float2 v) { return make_float2(as_read(v.x), as_read(v.y)); }
FN float4 as_read(float4 v) { return make_float4(as_read(v.x), as_read(v.y), as_read(v.z), as_read(v.w)); }

FN void send(float* p, float x, uint round) {
    store_relaxed(p, __uint_as_float((__float_as_uint(x) & ~1u) | (round & 1)));
}

// The quads first, first + THREADS, ... of a vector of `quads`; all are asked for at once.
template <uint N> FN void receive_quads(float4 (&v)[N], const float* p, uint quads, uint first, uint round) {
    for (uint looks = 0;; look_again(++looks)) {
        bool all = true;
        #pragma unroll
        for (uint i = 0; i < N; ++i) {
            if (first + i * THREADS < quads) load_relaxed(v[i], p + 4 * (first + i * THREADS));
        }
        #pragma unroll
        for (uint i = 0; i < N; ++i) all = all && (first + i * THREADS >= quads || fresh(v[i], round));
        if (all) break;
    }
    #pragma unroll
    for (uint i = 0; i < N; ++i) v[i] = as_read(v[i]);
}
FN Eight receive8(const float* p, uint round) {
    float4 a, b;
    for (uint looks = 0;; look_again(++looks)) {
        load_relaxed(a, p);
        load_relaxed(b, p + 4);
        if (fresh(a, round) && fresh(b, round)) break;
    }
    a = as_read(a), b = as_read(b);
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}
// Tops and weights [count, 2] and values [count, HS] of parts; no weight where there is no part.
FN void receive_parts(float2 (&s)[AT_ONCE], float4 (&v)[AT_ONCE], const float* stats, const float* values, uint count, uint round) {
    #pragma unroll
    for (uint i = 0; i < AT_ONCE; ++i) s[i] = make_float2(-INFINITY, 0.0f), v[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (uint looks = 0;; look_again(++looks)) {
        bool all = true;
        #pragma unroll
        for (uint i = 0; i < AT_ONCE; ++i) {
            if (i < count) load_relaxed(s[i], stats + i * 2), load_relaxed(v[i], values + i * HS);
        }
        #pragma unroll
        for (uint i = 0; i < AT_ONCE; ++i) all = all && (i >= count || fresh(s[i], round) && fresh(v[i], round));
        if (all) break;
    }
    #pragma unroll
    for (uint i = 0; i < AT_ONCE; ++i) s[i] = as_read(s[i]), v[i] = as_read(v[i]);
}

// ---- Votes: 64 bits, a half beside the ballot's number each.

FN void vote(uint4* p, ulong value, uint ballot) {
    const ulong number = (ulong)ballot << 32;
    store_relaxed(p, number | value >> 32, number | (uint)value);
}
FN ulong count_vote(const uint4* p, uint ballot) {
    for (uint looks = 0;; look_again(++looks)) {
        ulong high, low;
        load_relaxed(high, low, p);
        if ((uint)(high >> 32) == ballot && (uint)(low >> 32) == ballot) return high << 32 | (uint)low;
    }
}
