// hopper.h - ../../hopper/hopper.h on fibers: what kernels of threadgroups that wait for one another need of it.
#pragma once
#include "float_bits.h"
#include "residents.h"
#define FN inline
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define INFINITY __builtin_inff()

typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long long ulong;

struct half { ushort bits; };
struct bfloat { ushort bits; };
struct alignas(8) uint2 { uint x, y; };
struct alignas(16) uint4 { uint x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
FN uint4 make_uint4(uint x, uint y, uint z, uint w) { return {x, y, z, w}; }
FN float2 make_float2(float x, float y) { return {x, y}; }
FN float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

#define threadIdx (resident->thread)
#define blockIdx (resident->group)
#define blockDim (resident->threads)
#define gridDim (resident->groups)

template <class T> FN T __ldg(const T* p) { return *p; }
template <class T> FN T __ldcg(const T* p) { return *p; }
FN uint __float_as_uint(float x) { return dialect::float_bits(x); }
FN float __uint_as_float(uint x) { return dialect::float_of_bits(x); }
template <class A, class B> FN auto min(A a, B b) { return a < b ? a : b; }
template <class A, class B> FN auto max(A a, B b) { return a > b ? a : b; }
FN float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FN float fmaxf(float a, float b) { return __builtin_fmaxf(a, b); }
FN float rsqrtf(float x) { return 1.0f / __builtin_sqrtf(x); }
FN float __fdividef(float x, float y) { return x / y; }
FN float exp2_fast(float x) { return __builtin_exp2f(x); }
FN void fence() {}
FN void prefetch(const void*) {}
FN const float* opaque(const float* p) { return p; }
FN uint opaque(uint x) { return x; }

FN void __syncthreads() { resident_barrier(); }
FN float __shfl_xor_sync(uint, float x, uint mask) {
    uint all[32];
    resident_exchange(__float_as_uint(x), all);
    return __uint_as_float(all[threadIdx.x % 32 ^ mask]);
}
FN float warp_sum(float x) {
    uint all[32];
    float sums[2][32];
    resident_exchange(__float_as_uint(x), all);
    for (uint i = 0; i < 32; ++i) sums[0][i] = __uint_as_float(all[i]);
    for (uint m = 16, turn = 0; m > 0; m /= 2, turn ^= 1) {
        for (uint i = 0; i < 32; ++i) sums[turn ^ 1][i] = sums[turn][i] + sums[turn][i ^ m];
    }
    return sums[1][threadIdx.x % 32];
}
FN uint __reduce_max_sync(uint, uint x) {
    uint all[32];
    resident_exchange(x, all);
    for (uint i = 0; i < 32; ++i) x = max(x, all[i]);
    return x;
}

typedef unsigned char* Shared;
FN Shared shared_address(const void* p) { return (Shared)p; }
FN unsigned char* dynamic_shared() { return resident_shared(); }
FN uint4 load_shared(Shared p) { return *(const uint4*)p; }
template <uint BYTES> FN const volatile float* aligned(const void* p) {
    if ((size_t)p % BYTES != 0) __builtin_trap();
    return (const volatile float*)p;
}

FN void barrier_init(Shared barrier, uint arrivals) {
    CountingBarrier b = {0};
    b.arrivals = b.pending = (short)arrivals;
    *(CountingBarrier*)barrier = b;
}
FN void barrier_init_done() {}
FN void arrive(Shared barrier) { resident_arrive((ulong*)barrier, 1, 0); }
FN void arrive_expecting(Shared barrier, uint bytes) { resident_arrive((ulong*)barrier, 1, (int)bytes); }
FN void wait(Shared barrier, uint parity) {
    while (((volatile CountingBarrier*)barrier)->phase == parity) resident_yield();
}
FN ulong evict_first() { return 0; }
FN void copy(Shared to, const void* from, uint bytes, Shared barrier, ulong) {
    aligned<16>(to), aligned<16>(from);
    if (bytes % 16 != 0) __builtin_trap();
    resident_copy(to, from, bytes, (ulong*)barrier);
}

FN float2 widen2(uint two, bfloat) { return {dialect::bfloat_value(two & 0xffff), dialect::bfloat_value(two >> 16)}; }
FN float2 widen2(uint two, half) { return {dialect::half_value(two & 0xffff), dialect::half_value(two >> 16)}; }
FN uint pack(float low, float high, bfloat) { return dialect::bfloat_bits(low) | (uint)dialect::bfloat_bits(high) << 16; }
FN uint pack(float low, float high, half) { return dialect::half_bits(low) | (uint)dialect::half_bits(high) << 16; }

FN void load_relaxed(float4& v, const float* p) {
    const volatile float* q = aligned<16>(p);
    v = {q[0], q[1], q[2], q[3]};
}
FN void load_relaxed(float2& v, const float* p) {
    const volatile float* q = aligned<8>(p);
    v = {q[0], q[1]};
}
FN void load_relaxed(ulong& a, ulong& b, const void* p) { a = ((const volatile ulong*)p)[0], b = ((const volatile ulong*)p)[1]; }
FN void store_relaxed(float* p, float x) { *(volatile float*)p = x; }
FN void store_relaxed(void* p, ulong a, ulong b) { ((volatile ulong*)p)[0] = a, ((volatile ulong*)p)[1] = b; }
FN void look_again(uint) { resident_yield(); }
