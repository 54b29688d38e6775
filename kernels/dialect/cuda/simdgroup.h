// simdgroup.h - barriers, simdgroup operations (a simdgroup is a warp, and all of its lanes take part) and atomics.
#pragma once

namespace dialect {
enum Shuffle { FROM, XOR, UP, DOWN };

// Any type of 1 to 16 bytes, word by word.
template <Shuffle KIND, class T> METAL_FN T shuffle(T value, uint lane_or_distance) {
    constexpr int WORDS = (sizeof(T) + 3) / 4;
    union Words { T value; uint word[WORDS]; METAL_FN Words() {} } words;
    words.value = value;
    _Pragma("unroll") for (int i = 0; i < WORDS; ++i) {
        const uint word = words.word[i];
        words.word[i] = KIND == FROM  ? __shfl_sync(~0u, word, lane_or_distance)
                        : KIND == XOR ? __shfl_xor_sync(~0u, word, lane_or_distance)
                        : KIND == UP  ? __shfl_up_sync(~0u, word, lane_or_distance)
                                      : __shfl_down_sync(~0u, word, lane_or_distance);
    }
    return words.value;
}
} // namespace dialect

namespace metal {
METAL_FN void threadgroup_barrier(mem_flags) { __syncthreads(); }
METAL_FN void simdgroup_barrier(mem_flags) { __syncwarp(); }

template <class T> METAL_FN T simd_shuffle(T v, ushort from) { return dialect::shuffle<dialect::FROM>(v, from); }
template <class T> METAL_FN T simd_broadcast(T v, ushort from) { return dialect::shuffle<dialect::FROM>(v, from); }
template <class T> METAL_FN T simd_broadcast_first(T v) { return dialect::shuffle<dialect::FROM>(v, 0); }
template <class T> METAL_FN T simd_shuffle_xor(T v, ushort mask) { return dialect::shuffle<dialect::XOR>(v, mask); }
template <class T> METAL_FN T simd_shuffle_up(T v, ushort delta) { return dialect::shuffle<dialect::UP>(v, delta); }
template <class T> METAL_FN T simd_shuffle_down(T v, ushort delta) { return dialect::shuffle<dialect::DOWN>(v, delta); }

#define DIALECT_FOLD(name, expression)                              \
    template <class T> METAL_FN T name(T a) {                       \
        _Pragma("unroll") for (int mask = 16; mask > 0; mask /= 2) { \
            const T b = dialect::shuffle<dialect::XOR>(a, mask);    \
            a = expression;                                         \
        }                                                           \
        return a;                                                   \
    }
DIALECT_FOLD(simd_sum, T(a + b)) DIALECT_FOLD(simd_product, T(a * b)) DIALECT_FOLD(simd_max, max(a, b))
DIALECT_FOLD(simd_min, min(a, b)) DIALECT_FOLD(simd_and, T(a & b)) DIALECT_FOLD(simd_or, T(a | b))
DIALECT_FOLD(simd_xor, T(a ^ b))

template <class T> METAL_FN T simd_prefix_inclusive_sum(T sum) {
    _Pragma("unroll") for (int distance = 1; distance < 32; distance *= 2) {
        const T before = dialect::shuffle<dialect::UP>(sum, distance);
        if (dialect::lane() >= distance) sum = sum + before;
    }
    return sum;
}
template <class T> METAL_FN T simd_prefix_exclusive_sum(T v) {
    const T before = dialect::shuffle<dialect::UP>(simd_prefix_inclusive_sum(v), 1);
    return dialect::lane() == 0 ? T(0) : before;
}
METAL_FN bool simd_any(bool p) { return __any_sync(~0u, p); }
METAL_FN bool simd_all(bool p) { return __all_sync(~0u, p); }
struct simd_vote {
    typedef ulong vote_t;
    vote_t votes;
    METAL_FN explicit operator vote_t() const { return votes; }
};
METAL_FN simd_vote simd_ballot(bool p) { return simd_vote{__ballot_sync(~0u, p)}; }

// ---- relaxed atomics
template <class T, class U> METAL_FN T atomic_fetch_add_explicit(atomic<T>* a, U x, memory_order) {
    return atomicAdd(&a->value, T(x));
}
template <class T, class U> METAL_FN T atomic_fetch_max_explicit(atomic<T>* a, U x, memory_order) {
    return atomicMax(&a->value, T(x));
}
template <class T, class U> METAL_FN T atomic_fetch_min_explicit(atomic<T>* a, U x, memory_order) {
    return atomicMin(&a->value, T(x));
}
template <class T, class U> METAL_FN T atomic_fetch_or_explicit(atomic<T>* a, U x, memory_order) {
    return atomicOr(&a->value, T(x));
}
template <class T> METAL_FN T atomic_load_explicit(const atomic<T>* a, memory_order) {
    return *(const volatile T*)&a->value;
}
template <class T, class U> METAL_FN void atomic_store_explicit(atomic<T>* a, U x, memory_order) {
    *(volatile T*)&a->value = T(x);
}
} // namespace metal
