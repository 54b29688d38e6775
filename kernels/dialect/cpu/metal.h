// metal.h - Metal Shading Language for host compilers (g++ or clang), with attributes blanked. Every GPU thread is a
// fiber (fibers.cpp); barriers and simdgroup operations hand over to the runtime declared in runtime.h.
#pragma once
#include "runtime.h"

#define __METAL_VERSION__ 310
#define kernel
#define device
#define constant const
#define threadgroup
#define thread
#define METAL_FUNC inline
#define METAL_FN inline

typedef __SIZE_TYPE__ size_t;
typedef __INT8_TYPE__ int8_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __INT16_TYPE__ int16_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __INT32_TYPE__ int32_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __INT64_TYPE__ int64_t;
typedef __UINT64_TYPE__ uint64_t;

#include "float_bits.h"
#include "types.h"

#define NAN __builtin_nanf("")
namespace metal {
#define DIALECT_FROM_C(NAME) \
    inline float NAME(float x) { return __builtin_##NAME##f(x); }
DIALECT_FROM_C(exp) DIALECT_FROM_C(exp2) DIALECT_FROM_C(log) DIALECT_FROM_C(log2) DIALECT_FROM_C(log10)
DIALECT_FROM_C(sqrt) DIALECT_FROM_C(tanh) DIALECT_FROM_C(sin) DIALECT_FROM_C(cos) DIALECT_FROM_C(fabs)
DIALECT_FROM_C(floor) DIALECT_FROM_C(ceil) DIALECT_FROM_C(rint) DIALECT_FROM_C(round) DIALECT_FROM_C(trunc)
inline float rsqrt(float x) { return 1.0f / __builtin_sqrtf(x); }
inline float exp10(float x) { return __builtin_powf(10.0f, x); }
inline float pow(float x, float y) { return __builtin_powf(x, y); }
inline float powr(float x, float y) { return __builtin_powf(x, y); }
inline float fmod(float x, float y) { return __builtin_fmodf(x, y); }
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float fmin(float x, float y) { return __builtin_fminf(x, y); }
inline float fmax(float x, float y) { return __builtin_fmaxf(x, y); }
inline float min(float x, float y) { return __builtin_fminf(x, y); }
inline float max(float x, float y) { return __builtin_fmaxf(x, y); }
inline float abs(float x) { return __builtin_fabsf(x); }
inline int abs(int x) { return x < 0 ? -x : x; }
inline bool isnan(float x) { return x != x; }
inline bool isinf(float x) { return __builtin_isinf(x); }
#define DIALECT_MIN_MAX(T)                          \
    inline T min(T a, T b) { return b < a ? b : a; } \
    inline T max(T a, T b) { return a < b ? b : a; }
DIALECT_MIN_MAX(int) DIALECT_MIN_MAX(uint) DIALECT_MIN_MAX(short) DIALECT_MIN_MAX(ushort)
DIALECT_MIN_MAX(char) DIALECT_MIN_MAX(uchar) DIALECT_MIN_MAX(long) DIALECT_MIN_MAX(ulong)
inline uint popcount(uint x) { return __builtin_popcount(x); }
inline uint clz(uint x) { return x ? __builtin_clz(x) : 32; }
inline uint ctz(uint x) { return x ? __builtin_ctz(x) : 32; }
inline uint mulhi(uint a, uint b) { return (uint)((ulong)a * b >> 32); }
} // namespace metal

#include "functions.h"

namespace metal {
namespace fast {
using namespace precise;
} // namespace fast
} // namespace metal

#include "simdgroup.h"
#include "simdgroup_matrix.h"

// ---- one launchable kernel, as the generated wrappers register it
namespace dialect {
inline Position position(uint first) {
    const uint* p = emulator_thread->position + first;
    return Position{p[0], p[1], p[2]};
}
inline uint linear_thread() { return emulator_thread->linear; }
inline Position threadgroup_position_in_grid() { return position(EmulatorThread::GROUP); }
inline Position thread_position_in_threadgroup() { return position(EmulatorThread::THREAD); }
inline Position threads_per_threadgroup() { return position(EmulatorThread::GROUP_SIZE); }
inline Position threadgroups_per_grid() { return position(EmulatorThread::GRID); }
inline Position thread_position_in_grid() {
    const Position g = threadgroup_position_in_grid(), t = thread_position_in_threadgroup(), n = threads_per_threadgroup();
    return Position{g.x * n.x + t.x, g.y * n.y + t.y, g.z * n.z + t.z};
}
inline Position threads_per_grid() {
    const Position g = threadgroups_per_grid(), n = threads_per_threadgroup();
    return Position{g.x * n.x, g.y * n.y, g.z * n.z};
}
inline Position thread_index_in_threadgroup() { return Position{linear_thread(), 0, 0}; }
inline Position thread_index_in_simdgroup() { return Position{linear_thread() % 32, 0, 0}; }
inline Position simdgroup_index_in_threadgroup() { return Position{linear_thread() / 32, 0, 0}; }
inline Position threads_per_simdgroup() { return Position{32, 0, 0}; }
inline Position simdgroups_per_threadgroup() {
    const Position n = threads_per_threadgroup();
    return Position{(n.x * n.y * n.z + 31) / 32, 0, 0};
}

struct Registration {
    Registration(const char* name, EmulatorEntry entry) { emulator_register(name, entry); }
};
} // namespace dialect
