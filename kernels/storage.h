// storage.h - narrow storage, float arithmetic. Every value is widened to float as it is read and rounded to the
// storage type T (float, half, bfloat) as it is written. A vector access wants its address aligned to its own size.
#pragma once
#include <metal_stdlib>
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

inline float dot8(Eight a, Eight b) { return dot(a.lo, b.lo) + dot(a.hi, b.hi); }
