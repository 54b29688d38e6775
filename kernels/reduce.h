// reduce.h - sums and maxima over a threadgroup in two levels: over each simdgroup by a simdgroup operation, then
// over the simdgroups' results through threadgroup memory. Any number of threads that is a multiple of 32, up to
// 1,024; powers of two or not. `shared` holds one value a simdgroup; every thread calls, every thread gets the result.
#pragma once
#include <metal_stdlib>
using namespace metal;

// The simdgroups' results, each simdgroup having one: lane i gets simdgroup i's, or `none` where there is no such simdgroup.
template <typename T>
inline T simdgroup_results(T result, T none, threadgroup T* shared, uint lane, uint sg, uint nsg) {
    threadgroup_barrier(mem_flags::mem_threadgroup);   // `shared` may still be read from an earlier call
    if (lane == 0) shared[sg] = result;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return lane < nsg ? shared[lane] : none;
}

template <typename T>
inline T threadgroup_sum(T v, threadgroup T* shared, uint lane, uint sg, uint nsg) {
    return simd_sum(simdgroup_results(simd_sum(v), T(0), shared, lane, sg, nsg));
}

inline float threadgroup_max(float v, threadgroup float* shared, uint lane, uint sg, uint nsg) {
    return simd_max(simdgroup_results(simd_max(v), -INFINITY, shared, lane, sg, nsg));
}

inline float sum4(float4 v) { return (v.x + v.y) + (v.z + v.w); }
inline float max4(float4 v) { return max(max(v.x, v.y), max(v.z, v.w)); }
