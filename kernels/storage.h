// storage.h - narrow storage, float arithmetic. Every value is widened to float as it is read and rounded to the
// storage type T (float, half, bfloat) as it is written. A vector access wants its address aligned to its own size.
#pragma once
#include <metal_stdlib>
#include "loads.h"
using namespace metal;

// Four consecutive elements.
template <typename T>
inline float4 load4(device const T* p) {
    return float4(*(device const vec<T, 4>*)p);
}

template <typename T>
inline void store4(device T* p, float4 v) {
    vec<T, 4> narrow;
    narrow.x = T(v.x);
    narrow.y = T(v.y);
    narrow.z = T(v.z);
    narrow.w = T(v.w);
    *(device vec<T, 4>*)p = narrow;
}

// Eight consecutive elements: one load of 16 bytes when T is half or bfloat.
struct Eight {
    float4 lo;
    float4 hi;
};

template <typename T>
inline Eight widen8(uint4 bits) {
    Eight v;
    v.lo = float4(float2(as_type<vec<T, 2>>(bits.x)), float2(as_type<vec<T, 2>>(bits.y)));
    v.hi = float4(float2(as_type<vec<T, 2>>(bits.z)), float2(as_type<vec<T, 2>>(bits.w)));
    return v;
}

// A bfloat is the upper half of a float.
template <>
inline Eight widen8<bfloat>(uint4 bits) {
    const uint4 even = bits << 16, odd = bits & 0xffff0000u;
    Eight v;
    v.lo = as_type<float4>(uint4(even.x, odd.x, even.y, odd.y));
    v.hi = as_type<float4>(uint4(even.z, odd.z, even.w, odd.w));
    return v;
}

template <typename T>
inline Eight load8(device const T* p) { return widen8<T>(*(device const uint4*)p); }

template <typename T>
inline Eight load8_tile(threadgroup const T* p) { return widen8<T>(*(threadgroup const uint4*)p); }   // half, bfloat

inline Eight load8(device const float* p) {
    Eight v;
    v.lo = *(device const float4*)p;
    v.hi = *(device const float4*)(p + 4);
    return v;
}

// Eight consecutive elements as they are stored, of an array that is read once.
template <typename T>
struct Piece {
    uint4 bits[sizeof(T) / 2];
};

template <typename T>
inline Piece<T> piece8(device const T* p) {
    Piece<T> piece;
    #pragma unroll
    for (uint i = 0; i < sizeof(T) / 2; ++i) piece.bits[i] = load_once((device const uint4*)p + i);
    return piece;
}

template <typename T>
inline Eight widen(Piece<T> piece) { return widen8<T>(piece.bits[0]); }

inline Eight widen(Piece<float> piece) {
    Eight v;
    v.lo = as_type<float4>(piece.bits[0]);
    v.hi = as_type<float4>(piece.bits[1]);
    return v;
}

// sum + dot8(a, b), in one chain of fused steps.
inline float add_dot8(float sum, Eight a, Eight b) {
    sum = fma(a.lo.x, b.lo.x, sum);
    sum = fma(a.lo.y, b.lo.y, sum);
    sum = fma(a.lo.z, b.lo.z, sum);
    sum = fma(a.lo.w, b.lo.w, sum);
    sum = fma(a.hi.x, b.hi.x, sum);
    sum = fma(a.hi.y, b.hi.y, sum);
    sum = fma(a.hi.z, b.hi.z, sum);
    return fma(a.hi.w, b.hi.w, sum);
}

inline float dot8(Eight a, Eight b) { return dot(a.lo, b.lo) + dot(a.hi, b.hi); }
