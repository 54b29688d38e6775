// mail.h - vectors from threadgroup to threadgroup: a float's last bit says in which of two rounds it was sent, and a reader
// asks until all that it wants is of this round. That costs one way through the L2 cache, where a barrier for all and the read
// behind it cost two or three, and half a rounding error. After NCCL's LL protocol, which sends a flag beside each word: Hu et
// al., "Demystifying NCCL", arXiv 2507.04786.
#pragma once
#include "program.h"

// Its last bit is 1 where a float is of another round.
FN uint stale(float x, uint round) { return __float_as_uint(x) ^ round; }
FN uint stale(float2 v, uint round) { return stale(v.x, round) | stale(v.y, round); }
FN uint stale(float4 v, uint round) { return stale(v.x, round) | stale(v.y, round) | stale(v.z, round) | stale(v.w, round); }
FN bool fresh(uint stale) { return (stale & 1) == 0; }

// As everybody reads it: without its last bit.
FN float as_read(float x) { return __uint_as_float(__float_as_uint(x) & ~1u); }
FN float2 as_read(float2 v) { return make_float2(as_read(v.x), as_read(v.y)); }
FN float4 as_read(float4 v) { return make_float4(as_read(v.x), as_read(v.y), as_read(v.z), as_read(v.w)); }

FN void send(float* p, float x, uint round) {
    store_relaxed(p, __uint_as_float((__float_as_uint(x) & ~1u) | (round & 1)));
}

// Looks, until nothing of what `look` has read is of another round; it returns what is stale.
template <class Look> FN void until_fresh(const Look& look) {
    for (uint looks = 0; !fresh(look()); look_again(++looks)) {}
}

// The quads first, first + THREADS, ... of a vector of `quads`; all are asked for at once.
template <uint N> FN void receive_quads(float4 (&v)[N], const float* p, uint quads, uint first, uint round) {
    const float* from = opaque(p + 4 * first);
    until_fresh([&] {
        uint any = 0;
        #pragma unroll
        for (uint i = 0; i < N; ++i) {
            if (first + i * THREADS < quads) load_relaxed(v[i], from + 4 * i * THREADS);
        }
        #pragma unroll
        for (uint i = 0; i < N; ++i) any |= first + i * THREADS < quads ? stale(v[i], round) : 0;
        return any;
    });
    #pragma unroll
    for (uint i = 0; i < N; ++i) v[i] = as_read(v[i]);
}
// The eights first, first + 32, ... of a vector of `count`; zeros behind it.
template <uint N> FN void receive_eights(Eight (&v)[N], const float* p, uint count, uint first, uint round) {
    const float* from = opaque(p + 8 * first);
    float4 low[N], high[N];
    #pragma unroll
    for (uint i = 0; i < N; ++i) low[i] = high[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    until_fresh([&] {
        uint any = 0;
        #pragma unroll
        for (uint i = 0; i < N; ++i) {
            if (first + 32 * i < count) load_relaxed(low[i], from + 256 * i), load_relaxed(high[i], from + 256 * i + 4);
        }
        #pragma unroll
        for (uint i = 0; i < N; ++i) any |= first + 32 * i < count ? stale(low[i], round) | stale(high[i], round) : 0;
        return any;
    });
    #pragma unroll
    for (uint i = 0; i < N; ++i) {
        const float4 a = as_read(low[i]), b = as_read(high[i]);
        v[i] = {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
    }
}

// A quad of each of N places.
template <uint N> FN void receive_each(float4 (&v)[N], const float* const (&p)[N], uint round) {
    until_fresh([&] {
        uint any = 0;
        #pragma unroll
        for (uint i = 0; i < N; ++i) load_relaxed(v[i], p[i]);
        #pragma unroll
        for (uint i = 0; i < N; ++i) any |= stale(v[i], round);
        return any;
    });
    #pragma unroll
    for (uint i = 0; i < N; ++i) v[i] = as_read(v[i]);
}
// Tops and weights [count, 2] of parts; no weight where there is no part.
FN void receive_stats(float2 (&s)[AT_ONCE], const float* stats, uint count, uint round) {
    #pragma unroll
    for (uint i = 0; i < AT_ONCE; ++i) s[i] = make_float2(-INFINITY, 0.0f);
    until_fresh([&] {
        uint any = 0;
        #pragma unroll
        for (uint i = 0; i < AT_ONCE; ++i) {
            if (i < count) load_relaxed(s[i], stats + i * 2);
        }
        #pragma unroll
        for (uint i = 0; i < AT_ONCE; ++i) any |= i < count ? stale(s[i], round) : 0;
        return any;
    });
    #pragma unroll
    for (uint i = 0; i < AT_ONCE; ++i) s[i] = as_read(s[i]);
}
// Their values [count, HS]: a quad of each.
FN void receive_values(float4 (&v)[AT_ONCE], const float* values, uint count, uint round) {
    #pragma unroll
    for (uint i = 0; i < AT_ONCE; ++i) v[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    until_fresh([&] {
        uint any = 0;
        #pragma unroll
        for (uint i = 0; i < AT_ONCE; ++i) {
            if (i < count) load_relaxed(v[i], values + i * HS);
        }
        #pragma unroll
        for (uint i = 0; i < AT_ONCE; ++i) any |= i < count ? stale(v[i], round) : 0;
        return any;
    });
    #pragma unroll
    for (uint i = 0; i < AT_ONCE; ++i) v[i] = as_read(v[i]);
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
