// reduce.h - sums and maxima over a threadgroup in two levels: over each simdgroup by a simdgroup operation, then
// over the simdgroups' results through threadgroup memory. Any number of threads that is a multiple of 32, up to
// 1,024; powers of two or not. `shared` holds one value a simdgroup; every thread calls, every thread gets the result.
#pragma once
#include <metal_stdlib>
using namespace metal;

template <typename T>
inline T threadgroup_sum(T v, threadgroup T* shared, uint lane, uint sg, uint nsg) {
    v = simd_sum(v);
    threadgroup_barrier(mem_flags::mem_threadgroup);   // `shared` may still be read from an earlier call
    if (lane == 0) shared[sg] = v;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return simd_sum(lane < nsg ? shared[lane] : T(0));
}

inline float threadgroup_max(float v, threadgroup float* shared, uint lane, uint sg, uint nsg) {
    v = simd_max(v);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (lane == 0) shared[sg] = v;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return simd_max(lane < nsg ? shared[lane] : -INFINITY);
}

inline float sum4(float4 v) { return (v.x + v.y) + (v.z + v.w); }
inline float max4(float4 v) { return max(max(v.x, v.y), max(v.z, v.w)); }
