// functions.h - Metal's functions over scalars and vectors, written once. Before it, the including file has brought the
// float and integer functions (exp, max, fma, ...) into namespace metal.
#pragma once

namespace dialect {
template <class D, class S> METAL_FN D bits(S source) {
    static_assert(sizeof(D) == sizeof(S), "as_type: sizes differ");
    union Both { D to; S from; METAL_FN Both() {} } both;
    both.from = source;
    return both.to;
}
} // namespace dialect
template <class D, class S> METAL_FN D as_type(S source) { return dialect::bits<D>(source); }

namespace metal {
// From the float function: half, bfloat, and vectors of anything it takes.
#define DIALECT_UNARY(f)                                                                                     \
    METAL_FN half f(half x) { return half(f(float(x))); }                                                    \
    METAL_FN bfloat f(bfloat x) { return bfloat(f(float(x))); }                                              \
    template <class T, int N> METAL_FN vec<T, N> f(vec<T, N> a) {                                            \
        _Pragma("unroll") for (int i = 0; i < N; ++i) a[i] = f(a[i]);                                        \
        return a;                                                                                            \
    }
#define DIALECT_BINARY(f)                                                                                    \
    METAL_FN half f(half x, half y) { return half(f(float(x), float(y))); }                                  \
    METAL_FN bfloat f(bfloat x, bfloat y) { return bfloat(f(float(x), float(y))); }                          \
    template <class T, int N> METAL_FN vec<T, N> f(vec<T, N> a, vec<T, N> b) {                               \
        _Pragma("unroll") for (int i = 0; i < N; ++i) a[i] = f(a[i], b[i]);                                  \
        return a;                                                                                            \
    }
DIALECT_UNARY(exp) DIALECT_UNARY(exp2) DIALECT_UNARY(log) DIALECT_UNARY(log2) DIALECT_UNARY(sqrt)
DIALECT_UNARY(rsqrt) DIALECT_UNARY(tanh) DIALECT_UNARY(sin) DIALECT_UNARY(cos) DIALECT_UNARY(fabs)
DIALECT_UNARY(abs) DIALECT_UNARY(floor) DIALECT_UNARY(ceil) DIALECT_UNARY(rint) DIALECT_UNARY(round)
DIALECT_UNARY(trunc)
DIALECT_BINARY(pow) DIALECT_BINARY(fmin) DIALECT_BINARY(fmax) DIALECT_BINARY(min) DIALECT_BINARY(max)

template <class T, int N, class S, class = if_scalar<S>> METAL_FN vec<T, N> max(vec<T, N> a, S s) {
    return max(a, vec<T, N>(T(s)));
}
template <class T, int N, class S, class = if_scalar<S>> METAL_FN vec<T, N> min(vec<T, N> a, S s) {
    return min(a, vec<T, N>(T(s)));
}

METAL_FN half fma(half a, half b, half c) { return half(fma(float(a), float(b), float(c))); }
template <class T, int N> METAL_FN vec<T, N> fma(vec<T, N> a, vec<T, N> b, vec<T, N> c) {
    _Pragma("unroll") for (int i = 0; i < N; ++i) a[i] = fma(a[i], b[i], c[i]);
    return a;
}
template <class T, int N> METAL_FN T dot(vec<T, N> a, vec<T, N> b) {
    T sum = a[0] * b[0];
    _Pragma("unroll") for (int i = 1; i < N; ++i) sum = sum + a[i] * b[i];
    return sum;
}
template <int N> METAL_FN float dot(vec<float, N> a, vec<float, N> b) {
    float sum = a[0] * b[0];
    _Pragma("unroll") for (int i = 1; i < N; ++i) sum = fma(a[i], b[i], sum);
    return sum;
}

template <class T> METAL_FN T select(T a, T b, bool c) { return c ? b : a; }
template <class T, int N> METAL_FN vec<T, N> select(vec<T, N> a, vec<T, N> b, vec<bool, N> c) {
    for (int i = 0; i < N; ++i) a[i] = c[i] ? b[i] : a[i];
    return a;
}
template <int N> METAL_FN bool any(vec<bool, N> a) {
    bool r = false;
    for (int i = 0; i < N; ++i) r |= a[i];
    return r;
}
template <int N> METAL_FN bool all(vec<bool, N> a) {
    bool r = true;
    for (int i = 0; i < N; ++i) r &= a[i];
    return r;
}
template <class T> METAL_FN T clamp(T x, T low, T high) { return min(max(x, low), high); }
template <class T> METAL_FN T mix(T x, T y, T a) { return x + (y - x) * a; }
template <class T> METAL_FN T sign(T x) { return x > T(0) ? T(1) : (x < T(0) ? T(-1) : T(0)); }
template <class T> METAL_FN T saturate(T x) { return clamp(x, T(0), T(1)); }
METAL_FN float sincos(float x, float& cosine) { cosine = cos(x); return sin(x); }

template <class T> struct numeric_limits {};
template <> struct numeric_limits<float> {
    static METAL_FN constexpr float lowest() { return -FLT_MAX; }
    static METAL_FN constexpr float max() { return FLT_MAX; }
    static METAL_FN float infinity() { return INFINITY; }
};
template <> struct numeric_limits<int> {
    static METAL_FN constexpr int lowest() { return -2147483647 - 1; }
    static METAL_FN constexpr int max() { return 2147483647; }
};
template <> struct numeric_limits<uint> {
    static METAL_FN constexpr uint lowest() { return 0u; }
    static METAL_FN constexpr uint max() { return 4294967295u; }
};

// The same functions under the name that forbids approximation.
namespace precise {
using metal::exp; using metal::exp2; using metal::log; using metal::log2; using metal::sqrt; using metal::rsqrt;
using metal::tanh; using metal::sin; using metal::cos; using metal::pow; using metal::fma; using metal::min;
using metal::max; using metal::fmin; using metal::fmax; using metal::sincos;
METAL_FN float divide(float a, float b) { return a / b; }
} // namespace precise

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
METAL_FN constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }
enum memory_order { memory_order_relaxed };
template <class T> struct atomic { T value; };
} // namespace metal
typedef metal::atomic<uint> atomic_uint;
typedef metal::atomic<int> atomic_int;
typedef metal::atomic<float> atomic_float;
using metal::memory_order;
using metal::memory_order_relaxed;
using metal::mem_flags;

// What a wrapper passes for a position attribute; it converts to whatever type the parameter has.
namespace dialect {
struct Position {
    uint x, y, z;
    METAL_FN operator uint() const { return x; }
    METAL_FN operator ushort() const { return (ushort)x; }
    METAL_FN operator uint2() const { return uint2(x, y); }
    METAL_FN operator uint3() const { return uint3(x, y, z); }
    METAL_FN operator ushort2() const { return ushort2((ushort)x, (ushort)y); }
    METAL_FN operator ushort3() const { return ushort3((ushort)x, (ushort)y, (ushort)z); }
};
} // namespace dialect
