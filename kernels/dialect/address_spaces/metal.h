// metal.h - Metal with real address spaces, for `clang -fsyntax-only`: rejects what Apple's compiler rejects, such as a
// device pointer where a threadgroup pointer is expected. Nothing here runs, so functions are only declared.
#pragma once
#define __METAL_VERSION__ 310
#define kernel
#define METAL_FUNC inline
#define device __attribute__((address_space(1)))
#define constant const __attribute__((address_space(2)))
#define threadgroup __attribute__((address_space(3)))
#define thread
#pragma clang diagnostic ignored "-Wuser-defined-literals"
#pragma clang diagnostic ignored "-Wundefined-inline"

typedef __SIZE_TYPE__ size_t;
typedef __INT8_TYPE__ int8_t;
typedef __UINT8_TYPE__ uint8_t;
typedef __INT16_TYPE__ int16_t;
typedef __UINT16_TYPE__ uint16_t;
typedef __INT32_TYPE__ int32_t;
typedef __UINT32_TYPE__ uint32_t;
typedef __INT64_TYPE__ int64_t;
typedef __UINT64_TYPE__ uint64_t;
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef _Float16 half;
typedef __bf16 bfloat;
constexpr half operator""h(long double value) { return (half)value; }

// ---- vectors: clang's own have Metal's swizzles and operators; a constructor is a macro over make<T, N>
namespace metal {
template <class T, int N> using vec = T __attribute__((ext_vector_type(N)));
}
namespace dialect {
template <class T> struct width { static constexpr int value = 1; };
template <class T> struct width<metal::vec<T, 2>> { static constexpr int value = 2; };
template <class T> struct width<metal::vec<T, 3>> { static constexpr int value = 3; };
template <class T> struct width<metal::vec<T, 4>> { static constexpr int value = 4; };
template <class... A> struct total { static constexpr int value = 0; };
template <class A, class... Rest> struct total<A, Rest...> { static constexpr int value = width<A>::value + total<Rest...>::value; };
template <class T, int N, class... A> inline metal::vec<T, N> make(A...) {
    static_assert(total<A...>::value == N || (sizeof...(A) == 1 && total<A...>::value == 1),
                  "vector constructor: wrong number of components");
    return metal::vec<T, N>();
}
} // namespace dialect
#define DIALECT_VECTORS(T)             \
    typedef metal::vec<T, 2> T##2;     \
    typedef metal::vec<T, 3> T##3;     \
    typedef metal::vec<T, 4> T##4;
DIALECT_VECTORS(float) DIALECT_VECTORS(half) DIALECT_VECTORS(bfloat) DIALECT_VECTORS(char) DIALECT_VECTORS(uchar)
DIALECT_VECTORS(short) DIALECT_VECTORS(ushort) DIALECT_VECTORS(int) DIALECT_VECTORS(uint) DIALECT_VECTORS(long)
DIALECT_VECTORS(ulong)
typedef int2 bool2;
typedef int3 bool3;
typedef int4 bool4;
#define float2(...) dialect::make<float, 2>(__VA_ARGS__)
#define float3(...) dialect::make<float, 3>(__VA_ARGS__)
#define float4(...) dialect::make<float, 4>(__VA_ARGS__)
#define half2(...) dialect::make<half, 2>(__VA_ARGS__)
#define half3(...) dialect::make<half, 3>(__VA_ARGS__)
#define half4(...) dialect::make<half, 4>(__VA_ARGS__)
#define bfloat2(...) dialect::make<bfloat, 2>(__VA_ARGS__)
#define bfloat3(...) dialect::make<bfloat, 3>(__VA_ARGS__)
#define bfloat4(...) dialect::make<bfloat, 4>(__VA_ARGS__)
#define char4(...) dialect::make<char, 4>(__VA_ARGS__)
#define uchar4(...) dialect::make<uchar, 4>(__VA_ARGS__)
#define ushort2(...) dialect::make<ushort, 2>(__VA_ARGS__)
#define ushort3(...) dialect::make<ushort, 3>(__VA_ARGS__)
#define ushort4(...) dialect::make<ushort, 4>(__VA_ARGS__)
#define int2(...) dialect::make<int, 2>(__VA_ARGS__)
#define int3(...) dialect::make<int, 3>(__VA_ARGS__)
#define int4(...) dialect::make<int, 4>(__VA_ARGS__)
#define uint2(...) dialect::make<uint, 2>(__VA_ARGS__)
#define uint3(...) dialect::make<uint, 3>(__VA_ARGS__)
#define uint4(...) dialect::make<uint, 4>(__VA_ARGS__)
#define ulong2(...) dialect::make<ulong, 2>(__VA_ARGS__)

#define INFINITY __builtin_huge_valf()
#define NAN __builtin_nanf("")
#define HUGE_VALF INFINITY
#define MAXFLOAT 3.402823466e+38f
#define FLT_MAX MAXFLOAT
#define FLT_MIN 1.175494351e-38f
#define FLT_EPSILON 1.192092896e-07f
#define MAXHALF ((half)65504.0f)
#define M_PI_F 3.14159265358979323846264338327950288f
#define M_SQRT1_2_F 0.707106781186547524400844362104849039f

template <class D, class S> inline D as_type(S) {
    static_assert(sizeof(D) == sizeof(S), "as_type: sizes differ");
    return D();
}

namespace metal {
template <class A, class B> struct is_same { static constexpr bool value = false; };
template <class A> struct is_same<A, A> { static constexpr bool value = true; };
template <bool B, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { typedef T type; };
template <bool C, class A, class B> struct conditional { typedef A type; };
template <class A, class B> struct conditional<false, A, B> { typedef B type; };
template <bool C, class A, class B> using conditional_t = typename conditional<C, A, B>::type;

// Every type for itself: a mixed call is as ambiguous as in Metal.
#define DIALECT_UNARY(f)                               \
    float f(float);                                    \
    half f(half);                                      \
    bfloat f(bfloat);                                  \
    template <class T> vec<T, 2> f(vec<T, 2>);         \
    template <class T> vec<T, 3> f(vec<T, 3>);         \
    template <class T> vec<T, 4> f(vec<T, 4>);
#define DIALECT_BINARY(f)                              \
    float f(float, float);                             \
    half f(half, half);                                \
    bfloat f(bfloat, bfloat);                          \
    template <class T> vec<T, 2> f(vec<T, 2>, vec<T, 2>); \
    template <class T> vec<T, 3> f(vec<T, 3>, vec<T, 3>); \
    template <class T> vec<T, 4> f(vec<T, 4>, vec<T, 4>);
#define DIALECT_MIN_MAX(T) \
    T min(T, T);           \
    T max(T, T);           \
    T clamp(T, T, T);
DIALECT_UNARY(exp) DIALECT_UNARY(exp2) DIALECT_UNARY(exp10) DIALECT_UNARY(log) DIALECT_UNARY(log2) DIALECT_UNARY(log10)
DIALECT_UNARY(sqrt) DIALECT_UNARY(rsqrt) DIALECT_UNARY(tanh) DIALECT_UNARY(sin) DIALECT_UNARY(cos) DIALECT_UNARY(fabs)
DIALECT_UNARY(abs) DIALECT_UNARY(floor) DIALECT_UNARY(ceil) DIALECT_UNARY(rint) DIALECT_UNARY(round)
DIALECT_UNARY(trunc) DIALECT_UNARY(sign) DIALECT_UNARY(saturate)
DIALECT_BINARY(pow) DIALECT_BINARY(powr) DIALECT_BINARY(fmod) DIALECT_BINARY(fmin) DIALECT_BINARY(fmax)
DIALECT_BINARY(min) DIALECT_BINARY(max)
DIALECT_MIN_MAX(int) DIALECT_MIN_MAX(uint) DIALECT_MIN_MAX(short) DIALECT_MIN_MAX(ushort) DIALECT_MIN_MAX(char)
DIALECT_MIN_MAX(uchar) DIALECT_MIN_MAX(long) DIALECT_MIN_MAX(ulong)
int abs(int);
float clamp(float, float, float);
half clamp(half, half, half);
float mix(float, float, float);
float fma(float, float, float);
half fma(half, half, half);
template <class T> vec<T, 2> fma(vec<T, 2>, vec<T, 2>, vec<T, 2>);
template <class T> vec<T, 3> fma(vec<T, 3>, vec<T, 3>, vec<T, 3>);
template <class T> vec<T, 4> fma(vec<T, 4>, vec<T, 4>, vec<T, 4>);
template <class T> T dot(vec<T, 2>, vec<T, 2>);
template <class T> T dot(vec<T, 3>, vec<T, 3>);
template <class T> T dot(vec<T, 4>, vec<T, 4>);
template <class T> T select(T, T, bool);
template <class T> vec<T, 2> select(vec<T, 2>, vec<T, 2>, bool2);
template <class T> vec<T, 4> select(vec<T, 4>, vec<T, 4>, bool4);
bool any(bool2);
bool any(bool3);
bool any(bool4);
bool all(bool2);
bool all(bool3);
bool all(bool4);
bool isnan(float);
bool isinf(float);
float sincos(float, thread float&);
uint popcount(uint);
uint clz(uint);
uint ctz(uint);
uint mulhi(uint, uint);
namespace precise {
using metal::exp; using metal::exp2; using metal::log; using metal::log2; using metal::sqrt; using metal::rsqrt;
using metal::tanh; using metal::sin; using metal::cos; using metal::pow; using metal::fma; using metal::min;
using metal::max; using metal::fmin; using metal::fmax; using metal::sincos;
float divide(float, float);
}
namespace fast {
using namespace precise;
}
template <class T> struct numeric_limits {
    static constexpr T lowest() { return T(); }
    static constexpr T max() { return T(); }
    static constexpr T infinity() { return T(); }
};

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }
void threadgroup_barrier(mem_flags);
void simdgroup_barrier(mem_flags);
template <class T> T simd_shuffle(T, ushort);
template <class T> T simd_broadcast(T, ushort);
template <class T> T simd_broadcast_first(T);
template <class T> T simd_shuffle_xor(T, ushort);
template <class T> T simd_shuffle_up(T, ushort);
template <class T> T simd_shuffle_down(T, ushort);
template <class T> T simd_sum(T);
template <class T> T simd_product(T);
template <class T> T simd_max(T);
template <class T> T simd_min(T);
template <class T> T simd_and(T);
template <class T> T simd_or(T);
template <class T> T simd_xor(T);
template <class T> T simd_prefix_inclusive_sum(T);
template <class T> T simd_prefix_exclusive_sum(T);
bool simd_any(bool);
bool simd_all(bool);
struct simd_vote {
    typedef ulong vote_t;
    explicit operator vote_t() const;
};
simd_vote simd_ballot(bool);

enum memory_order { memory_order_relaxed };
template <class T> struct atomic { T value; };
#define DIALECT_ATOMICS(SPACE)                                                                   \
    template <class T, class U> T atomic_fetch_add_explicit(SPACE atomic<T>*, U, memory_order);  \
    template <class T, class U> T atomic_fetch_max_explicit(SPACE atomic<T>*, U, memory_order);  \
    template <class T, class U> T atomic_fetch_min_explicit(SPACE atomic<T>*, U, memory_order);  \
    template <class T, class U> T atomic_fetch_or_explicit(SPACE atomic<T>*, U, memory_order);   \
    template <class T> T atomic_load_explicit(SPACE const atomic<T>*, memory_order);             \
    template <class T, class U> void atomic_store_explicit(SPACE atomic<T>*, U, memory_order);
DIALECT_ATOMICS(device) DIALECT_ATOMICS(threadgroup)

template <class T, int ROWS, int COLUMNS> struct simdgroup_matrix {
    simdgroup_matrix() = default;
    explicit simdgroup_matrix(T diagonal);
    thread vec<T, 2>& thread_elements();
};
template <class T, int ROWS, int COLUMNS> simdgroup_matrix<T, ROWS, COLUMNS> make_filled_simdgroup_matrix(T);
#define DIALECT_MATRIX_MEMORY(SPACE)                                                                             \
    template <class T> void simdgroup_load(thread simdgroup_matrix<T, 8, 8>&, const SPACE T*, ulong = 8,         \
                                           ulong2 = ulong2(0), bool = false);                                    \
    template <class T> void simdgroup_store(simdgroup_matrix<T, 8, 8>, SPACE T*, ulong = 8, ulong2 = ulong2(0),  \
                                            bool = false);
DIALECT_MATRIX_MEMORY(device) DIALECT_MATRIX_MEMORY(threadgroup)
template <class D, class A, class B, class C>
void simdgroup_multiply_accumulate(thread simdgroup_matrix<D, 8, 8>&, simdgroup_matrix<A, 8, 8>, simdgroup_matrix<B, 8, 8>,
                                   simdgroup_matrix<C, 8, 8>);
template <class D, class A, class B>
void simdgroup_multiply(thread simdgroup_matrix<D, 8, 8>&, simdgroup_matrix<A, 8, 8>, simdgroup_matrix<B, 8, 8>);
} // namespace metal
typedef metal::simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef metal::simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef metal::simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;
typedef metal::atomic<uint> atomic_uint;
typedef metal::atomic<int> atomic_int;
typedef metal::atomic<float> atomic_float;
