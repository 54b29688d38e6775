// metal.h - Metal Shading Language for NVRTC, with attributes blanked. Options: -default-device -std=c++17. No CUDA
// headers are needed.
#pragma once
#define __METAL_VERSION__ 310
#define METAL_FN __device__ __forceinline__
#define METAL_FUNC inline
#define kernel
#define device
#define constant const
#define threadgroup
#define thread

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;

// CUDA has vectors of these names, which are not Metal's.
#define char2 metal_char2
#define char3 metal_char3
#define char4 metal_char4
#define uchar2 metal_uchar2
#define uchar3 metal_uchar3
#define uchar4 metal_uchar4
#define short2 metal_short2
#define short3 metal_short3
#define short4 metal_short4
#define ushort2 metal_ushort2
#define ushort3 metal_ushort3
#define ushort4 metal_ushort4
#define int2 metal_int2
#define int3 metal_int3
#define int4 metal_int4
#define uint2 metal_uint2
#define uint3 metal_uint3
#define uint4 metal_uint4
#define long2 metal_long2
#define long3 metal_long3
#define long4 metal_long4
#define ulong2 metal_ulong2
#define ulong3 metal_ulong3
#define ulong4 metal_ulong4
#define float2 metal_float2
#define float3 metal_float3
#define float4 metal_float4

#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)

namespace dialect {
METAL_FN unsigned short half_bits(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
METAL_FN float half_value(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
METAL_FN unsigned short bfloat_bits(float value) {
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
METAL_FN float bfloat_value(unsigned short bits) { return __uint_as_float((unsigned)bits << 16); }
} // namespace dialect

#include "types.h"

// CUDA's own functions, by using-declaration: `using namespace metal` then finds one and the same function twice, and
// no call is ambiguous.
namespace metal {
using ::exp; using ::exp2; using ::exp10; using ::log; using ::log2; using ::log10; using ::sqrt; using ::rsqrt;
using ::tanh; using ::sin; using ::cos; using ::fabs; using ::floor; using ::ceil; using ::rint; using ::round;
using ::trunc; using ::pow; using ::fmod; using ::fmin; using ::fmax; using ::min; using ::max; using ::abs; using ::fma;
using ::isnan; using ::isinf;
METAL_FN float powr(float x, float y) { return powf(x, y); }
METAL_FN uint popcount(uint x) { return __popc(x); }
METAL_FN uint clz(uint x) { return __clz(x); }
METAL_FN uint ctz(uint x) { return x ? __ffs(x) - 1 : 32; }
METAL_FN uint mulhi(uint a, uint b) { return __umulhi(a, b); }
} // namespace metal

#include "functions.h"

namespace metal {
// The approximations of the hardware.
namespace fast {
using namespace precise;
METAL_FN float exp(float x) { return __expf(x); }
METAL_FN float exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
METAL_FN float log(float x) { return __logf(x); }
METAL_FN float log2(float x) { return __log2f(x); }
METAL_FN float sin(float x) { return __sinf(x); }
METAL_FN float cos(float x) { return __cosf(x); }
METAL_FN float tanh(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
METAL_FN float divide(float a, float b) { return __fdividef(a, b); }
} // namespace fast
} // namespace metal

#include "positions.h"
#include "simdgroup.h"
#include "simdgroup_matrix.h"
