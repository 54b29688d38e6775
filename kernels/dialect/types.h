// types.h - Metal's scalar and vector types as plain C++ classes, for host compilers and for NVRTC.
// Whoever includes this file has defined METAL_FN, the prefix of every function, and in namespace dialect the
// conversions half_bits(float), half_value(ushort), bfloat_bits(float) and bfloat_value(ushort).
#pragma once

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long long ulong; // `unsigned long` has 32 bits under Windows
static_assert(sizeof(ulong) == 8, "Metal's ulong has 64 bits");

namespace metal {
template <bool B, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { typedef T type; };
template <bool B, class T = void> using enable_if_t = typename enable_if<B, T>::type;
template <class A, class B> struct is_same { static constexpr bool value = false; };
template <class A> struct is_same<A, A> { static constexpr bool value = true; };
template <bool C, class A, class B> struct conditional { typedef A type; };
template <class A, class B> struct conditional<false, A, B> { typedef B type; };
template <bool C, class A, class B> using conditional_t = typename conditional<C, A, B>::type;
} // namespace metal

namespace dialect {
using metal::enable_if_t;

// How a type behaves beside a 16-bit float: an integer is converted to it, a float widens it.
enum Rank { NOT_ARITHMETIC, INTEGER, FLOATING, NARROW };
template <class T> struct rank_of { static constexpr Rank value = NOT_ARITHMETIC; };
#define DIALECT_RANK(T, R) template <> struct rank_of<T> { static constexpr Rank value = R; };
DIALECT_RANK(bool, INTEGER) DIALECT_RANK(char, INTEGER) DIALECT_RANK(signed char, INTEGER)
DIALECT_RANK(uchar, INTEGER) DIALECT_RANK(short, INTEGER) DIALECT_RANK(ushort, INTEGER)
DIALECT_RANK(int, INTEGER) DIALECT_RANK(uint, INTEGER) DIALECT_RANK(long, INTEGER) DIALECT_RANK(unsigned long, INTEGER)
DIALECT_RANK(long long, INTEGER) DIALECT_RANK(ulong, INTEGER)
DIALECT_RANK(float, FLOATING) DIALECT_RANK(double, FLOATING)

template <class T> using if_arithmetic = enable_if_t<rank_of<T>::value != NOT_ARITHMETIC>;
template <class T, Rank R, class Result> using if_rank = enable_if_t<rank_of<T>::value == R, Result>;

// ---- half and bfloat: 16 bits of storage, float arithmetic rounded after every operation.
enum Format { HALF, BFLOAT };

template <Format F> struct narrow {
    ushort bits;

    narrow() = default;
    template <class T, class = if_arithmetic<T>> METAL_FN narrow(T v) : bits(encode((float)v)) {}
    METAL_FN explicit narrow(narrow<F == HALF ? BFLOAT : HALF> other) : bits(encode(float(other))) {}
    METAL_FN operator float() const { return F == HALF ? half_value(bits) : bfloat_value(bits); }

    template <class T> METAL_FN narrow& operator+=(T o) { return *this = narrow(float(*this) + float(o)); }
    template <class T> METAL_FN narrow& operator-=(T o) { return *this = narrow(float(*this) - float(o)); }
    template <class T> METAL_FN narrow& operator*=(T o) { return *this = narrow(float(*this) * float(o)); }
    template <class T> METAL_FN narrow& operator/=(T o) { return *this = narrow(float(*this) / float(o)); }
    METAL_FN narrow operator-() const { return from_bits(bits ^ 0x8000); }

    static METAL_FN constexpr narrow from_bits(ushort b) { return narrow(b, Bits()); }

private:
    struct Bits {};
    METAL_FN constexpr narrow(ushort b, Bits) : bits(b) {}
    static METAL_FN ushort encode(float v) { return F == HALF ? half_bits(v) : bfloat_bits(v); }
};

#define DIALECT_ARITHMETIC(op)                                                                               \
    template <Format F> METAL_FN narrow<F> operator op(narrow<F> a, narrow<F> b) {                           \
        return narrow<F>(float(a) op float(b));                                                              \
    }                                                                                                        \
    template <Format F, class T> METAL_FN if_rank<T, INTEGER, narrow<F>> operator op(narrow<F> a, T b) {     \
        return a op narrow<F>(b);                                                                            \
    }                                                                                                        \
    template <Format F, class T> METAL_FN if_rank<T, INTEGER, narrow<F>> operator op(T a, narrow<F> b) {     \
        return narrow<F>(a) op b;                                                                            \
    }                                                                                                        \
    template <Format F, class T> METAL_FN if_rank<T, FLOATING, float> operator op(narrow<F> a, T b) {        \
        return float(a) op float(b);                                                                         \
    }                                                                                                        \
    template <Format F, class T> METAL_FN if_rank<T, FLOATING, float> operator op(T a, narrow<F> b) {        \
        return float(a) op float(b);                                                                         \
    }
DIALECT_ARITHMETIC(+) DIALECT_ARITHMETIC(-) DIALECT_ARITHMETIC(*) DIALECT_ARITHMETIC(/)

#define DIALECT_COMPARISON(op)                                                                               \
    template <Format F> METAL_FN bool operator op(narrow<F> a, narrow<F> b) { return float(a) op float(b); } \
    template <Format F, class T, class = if_arithmetic<T>> METAL_FN bool operator op(narrow<F> a, T b) {     \
        return float(a) op float(b);                                                                         \
    }                                                                                                        \
    template <Format F, class T, class = if_arithmetic<T>> METAL_FN bool operator op(T a, narrow<F> b) {     \
        return float(a) op float(b);                                                                         \
    }
DIALECT_COMPARISON(<) DIALECT_COMPARISON(>) DIALECT_COMPARISON(<=)
DIALECT_COMPARISON(>=) DIALECT_COMPARISON(==) DIALECT_COMPARISON(!=)

DIALECT_RANK(narrow<HALF>, NARROW) DIALECT_RANK(narrow<BFLOAT>, NARROW)

// The bits of a non-negative decimal literal as half, rounded to nearest even.
METAL_FN constexpr ushort half_literal(double value) {
    int exponent = -14;
    double unit = 1.0 / 16777216.0; // 2^(exponent - 10)
    while (exponent < 16 && value >= 2048.0 * unit) { unit *= 2.0; ++exponent; }
    if (exponent > 15) return 0x7c00;
    const double scaled = value / unit;
    int mantissa = (int)scaled;
    const double rest = scaled - mantissa;
    if (rest > 0.5 || (rest == 0.5 && (mantissa & 1))) ++mantissa;
    return (ushort)(((exponent + 14) << 10) + mantissa);
}
} // namespace dialect

typedef dialect::narrow<dialect::HALF> half;
typedef dialect::narrow<dialect::BFLOAT> bfloat;
METAL_FN constexpr half operator""h(long double value) { return half::from_bits(dialect::half_literal((double)value)); }

// ---- vec<T, N>. Contiguous swizzles (.xy .zw .xyz .lo .hi) are members: they cost nothing and are lvalues.
namespace metal {
template <class T, int N> struct vec;
template <class S, class T> using if_other_scalar =
    enable_if_t<dialect::rank_of<S>::value != dialect::NOT_ARITHMETIC && !is_same<S, T>::value>;

template <class T> struct alignas(2 * sizeof(T)) vec<T, 2> {
    union {
        T v[2];
        struct { T x, y; };
        struct { T r, g; };
    };
    vec() = default;
    METAL_FN vec(T s) : x(s), y(s) {}
    template <class S, class = if_other_scalar<S, T>> METAL_FN vec(S s) : x(T(s)), y(T(s)) {}
    METAL_FN vec(T a, T b) : x(a), y(b) {}
    template <class U> METAL_FN explicit vec(vec<U, 2> o) : x(T(o.x)), y(T(o.y)) {}
    METAL_FN T& operator[](int i) { return v[i]; }
    METAL_FN const T& operator[](int i) const { return v[i]; }
};

template <class T> struct alignas(4 * sizeof(T)) vec<T, 3> {
    union {
        T v[4];
        struct { T x, y, z; };
        struct { T r, g, b; };
        vec<T, 2> xy;
    };
    vec() = default;
    METAL_FN vec(T s) : x(s), y(s), z(s) {}
    template <class S, class = if_other_scalar<S, T>> METAL_FN vec(S s) : x(T(s)), y(T(s)), z(T(s)) {}
    METAL_FN vec(T a, T b, T c) : x(a), y(b), z(c) {}
    METAL_FN vec(vec<T, 2> a, T c) : x(a.x), y(a.y), z(c) {}
    template <class U> METAL_FN explicit vec(vec<U, 3> o) : x(T(o.x)), y(T(o.y)), z(T(o.z)) {}
    METAL_FN T& operator[](int i) { return v[i]; }
    METAL_FN const T& operator[](int i) const { return v[i]; }
};

template <class T> struct alignas(4 * sizeof(T)) vec<T, 4> {
    union {
        T v[4];
        struct { T x, y, z, w; };
        struct { T r, g, b, a; };
        struct { vec<T, 2> xy, zw; };
        struct { vec<T, 2> lo, hi; };
        vec<T, 3> xyz;
        vec<T, 3> rgb;
    };
    vec() = default;
    METAL_FN vec(T s) : x(s), y(s), z(s), w(s) {}
    template <class S, class = if_other_scalar<S, T>> METAL_FN vec(S s) : x(T(s)), y(T(s)), z(T(s)), w(T(s)) {}
    METAL_FN vec(T a, T b, T c, T d) : x(a), y(b), z(c), w(d) {}
    METAL_FN vec(vec<T, 2> a, vec<T, 2> b) : x(a.x), y(a.y), z(b.x), w(b.y) {}
    METAL_FN vec(vec<T, 2> a, T c, T d) : x(a.x), y(a.y), z(c), w(d) {}
    METAL_FN vec(vec<T, 3> a, T d) : x(a.x), y(a.y), z(a.z), w(d) {}
    template <class U> METAL_FN explicit vec(vec<U, 4> o) : x(T(o.x)), y(T(o.y)), z(T(o.z)), w(T(o.w)) {}
    METAL_FN T& operator[](int i) { return v[i]; }
    METAL_FN const T& operator[](int i) const { return v[i]; }
};

template <class S> using if_scalar = dialect::if_arithmetic<S>;
#define DIALECT_ARITHMETIC_VEC(op)                                                                           \
    template <class T, int N> METAL_FN vec<T, N> operator op(vec<T, N> a, vec<T, N> b) {                     \
        vec<T, N> r;                                                                                         \
        _Pragma("unroll") for (int i = 0; i < N; ++i) r[i] = a[i] op b[i];                                   \
        return r;                                                                                            \
    }                                                                                                        \
    template <class T, int N, class S, class = if_scalar<S>> METAL_FN vec<T, N> operator op(vec<T, N> a, S s) { \
        return a op vec<T, N>(s);                                                                            \
    }                                                                                                        \
    template <class T, int N, class S, class = if_scalar<S>> METAL_FN vec<T, N> operator op(S s, vec<T, N> a) { \
        return vec<T, N>(s) op a;                                                                            \
    }                                                                                                        \
    template <class T, int N, class S> METAL_FN vec<T, N>& operator op##=(vec<T, N>& a, S s) { return a = a op s; }
DIALECT_ARITHMETIC_VEC(+) DIALECT_ARITHMETIC_VEC(-) DIALECT_ARITHMETIC_VEC(*) DIALECT_ARITHMETIC_VEC(/)
DIALECT_ARITHMETIC_VEC(%) DIALECT_ARITHMETIC_VEC(&) DIALECT_ARITHMETIC_VEC(|) DIALECT_ARITHMETIC_VEC(^)
DIALECT_ARITHMETIC_VEC(<<) DIALECT_ARITHMETIC_VEC(>>)

#define DIALECT_COMPARISON_VEC(op)                                                                           \
    template <class T, int N> METAL_FN vec<bool, N> operator op(vec<T, N> a, vec<T, N> b) {                  \
        vec<bool, N> r;                                                                                      \
        for (int i = 0; i < N; ++i) r[i] = a[i] op b[i];                                                     \
        return r;                                                                                            \
    }                                                                                                        \
    template <class T, int N, class S, class = if_scalar<S>>                                                 \
    METAL_FN vec<bool, N> operator op(vec<T, N> a, S s) {                                                    \
        return a op vec<T, N>(s);                                                                            \
    }
DIALECT_COMPARISON_VEC(<) DIALECT_COMPARISON_VEC(>) DIALECT_COMPARISON_VEC(<=)
DIALECT_COMPARISON_VEC(>=) DIALECT_COMPARISON_VEC(==) DIALECT_COMPARISON_VEC(!=)

template <class T, int N> METAL_FN vec<T, N> operator-(vec<T, N> a) {
    for (int i = 0; i < N; ++i) a[i] = -a[i];
    return a;
}
template <class T, int N> METAL_FN vec<T, N> operator~(vec<T, N> a) {
    for (int i = 0; i < N; ++i) a[i] = ~a[i];
    return a;
}
template <int N> METAL_FN vec<bool, N> operator!(vec<bool, N> a) {
    for (int i = 0; i < N; ++i) a[i] = !a[i];
    return a;
}

// Three components without padding; reads and writes as vec<T, 3>.
template <class T> struct packed_vec3 {
    T x, y, z;
    packed_vec3() = default;
    METAL_FN packed_vec3(vec<T, 3> o) : x(o.x), y(o.y), z(o.z) {}
    METAL_FN operator vec<T, 3>() const { return vec<T, 3>(x, y, z); }
};
} // namespace metal

#define DIALECT_VECTORS(T)                                                                                   \
    typedef metal::vec<T, 2> T##2;                                                                           \
    typedef metal::vec<T, 3> T##3;                                                                           \
    typedef metal::vec<T, 4> T##4;
DIALECT_VECTORS(float) DIALECT_VECTORS(half) DIALECT_VECTORS(bfloat) DIALECT_VECTORS(bool)
DIALECT_VECTORS(char) DIALECT_VECTORS(uchar) DIALECT_VECTORS(short) DIALECT_VECTORS(ushort)
DIALECT_VECTORS(int) DIALECT_VECTORS(uint) DIALECT_VECTORS(long) DIALECT_VECTORS(ulong)
typedef metal::packed_vec3<float> packed_float3;
typedef metal::packed_vec3<half> packed_half3;

#ifndef INFINITY
#define INFINITY __builtin_huge_valf()
#endif
#define HUGE_VALF INFINITY
#define MAXFLOAT 3.402823466e+38f
#define FLT_MAX MAXFLOAT
#define FLT_MIN 1.175494351e-38f
#define FLT_EPSILON 1.192092896e-07f
#define MAXHALF half(65504.0f)
#define M_PI_F 3.14159265358979323846264338327950288f
#define M_SQRT1_2_F 0.707106781186547524400844362104849039f
