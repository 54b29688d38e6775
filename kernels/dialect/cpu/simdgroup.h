// simdgroup.h - barriers, simdgroup operations and atomics on fibers. A simdgroup has 32 lanes.
#pragma once

// The line of the call, for the runtime's messages.
#define CALLER int line = __builtin_LINE()

namespace dialect {
inline uint lane() { return emulator_thread->linear % 32; }

// Every lane's value of one operation.
template <class T> struct Lanes {
    const T* value; // [32], until the next operation
    unsigned active;
    Lanes(T own, int line) {
        static_assert(sizeof(T) <= 16, "a simdgroup operation takes at most 16 bytes");
        value = (const T*)emulator_exchange(&own, sizeof(T), line, &active);
    }
    bool takes_part(uint i) const { return active >> i & 1; }
};

// Folds as a GPU does: lanes 16 apart first. Lanes that do not take part are left out.
template <class T, class Operation> inline T fold(T own, int line, Operation operation) {
    const Lanes<T> lanes(own, line);
    T value[32];
    for (int i = 0; i < 32; ++i) value[i] = lanes.value[i];
    if (lanes.active == ~0u) {
        for (int i = 0; i < 16; ++i) value[i] = operation(value[i], value[i + 16]);
        for (int i = 0; i < 8; ++i) value[i] = operation(value[i], value[i + 8]);
        for (int i = 0; i < 4; ++i) value[i] = operation(value[i], value[i + 4]);
        return operation(operation(value[0], value[2]), operation(value[1], value[3]));
    }
    bool present[32];
    for (int i = 0; i < 32; ++i) present[i] = lanes.takes_part(i);
    for (int half = 16; half > 0; half /= 2) {
        for (int i = 0; i < half; ++i) {
            if (!present[i + half]) continue;
            value[i] = present[i] ? operation(value[i], value[i + half]) : value[i + half];
            present[i] = true;
        }
    }
    return value[0];
}
} // namespace dialect

namespace metal {
inline void threadgroup_barrier(mem_flags flags, CALLER) { emulator_threadgroup_barrier((int)flags, line); }
inline void simdgroup_barrier(mem_flags flags, CALLER) { emulator_simdgroup_barrier((int)flags, line); }

template <class T> inline T simd_shuffle(T v, ushort from, CALLER) { return dialect::Lanes<T>(v, line).value[from % 32]; }
template <class T> inline T simd_broadcast(T v, ushort from, CALLER) { return simd_shuffle(v, from, line); }
template <class T> inline T simd_broadcast_first(T v, CALLER) {
    dialect::Lanes<T> lanes(v, line);
    return lanes.value[__builtin_ctz(lanes.active)];
}
template <class T> inline T simd_shuffle_xor(T v, ushort mask, CALLER) {
    return dialect::Lanes<T>(v, line).value[(dialect::lane() ^ mask) % 32];
}
template <class T> inline T simd_shuffle_up(T v, ushort delta, CALLER) {
    dialect::Lanes<T> lanes(v, line);
    return dialect::lane() >= delta ? lanes.value[dialect::lane() - delta] : v;
}
template <class T> inline T simd_shuffle_down(T v, ushort delta, CALLER) {
    dialect::Lanes<T> lanes(v, line);
    return dialect::lane() + delta < 32 ? lanes.value[dialect::lane() + delta] : v;
}

#define DIALECT_FOLD(name, expression)                                           \
    template <class T> inline T name(T v, CALLER) {                              \
        return dialect::fold(v, line, [](T a, T b) -> T { return expression; }); \
    }
DIALECT_FOLD(simd_sum, T(a + b)) DIALECT_FOLD(simd_product, T(a * b)) DIALECT_FOLD(simd_max, max(a, b))
DIALECT_FOLD(simd_min, min(a, b)) DIALECT_FOLD(simd_and, T(a & b)) DIALECT_FOLD(simd_or, T(a | b))
DIALECT_FOLD(simd_xor, T(a ^ b))

template <class T> inline T simd_prefix_exclusive_sum(T v, CALLER) {
    dialect::Lanes<T> lanes(v, line);
    T sum = T(0);
    for (uint i = 0; i < dialect::lane(); ++i) {
        if (lanes.takes_part(i)) sum = sum + lanes.value[i];
    }
    return sum;
}
template <class T> inline T simd_prefix_inclusive_sum(T v, CALLER) { return simd_prefix_exclusive_sum(v, line) + v; }
inline bool simd_any(bool p, CALLER) { return simd_or((uint)p, line) != 0; }
inline bool simd_all(bool p, CALLER) { return simd_and((uint)p, line) != 0; }
struct simd_vote {
    typedef ulong vote_t;
    vote_t votes;
    explicit operator vote_t() const { return votes; }
};
inline simd_vote simd_ballot(bool p, CALLER) { return simd_vote{simd_or((uint)p << dialect::lane(), line)}; }

// ---- relaxed atomics: fibers never run at the same time, so plain accesses are atomic
template <class T, class U> inline T atomic_fetch_add_explicit(atomic<T>* a, U x, memory_order) {
    return __atomic_fetch_add(&a->value, T(x), __ATOMIC_RELAXED);
}
inline float atomic_fetch_add_explicit(atomic<float>* a, float x, memory_order) {
    float old;
    __atomic_load(&a->value, &old, __ATOMIC_RELAXED);
    float sum = old + x;
    __atomic_store(&a->value, &sum, __ATOMIC_RELAXED);
    return old;
}
template <class T> inline T atomic_load_explicit(const atomic<T>* a, memory_order) {
    T value;
    __atomic_load(&a->value, &value, __ATOMIC_RELAXED);
    return value;
}
template <class T, class U> inline void atomic_store_explicit(atomic<T>* a, U x, memory_order) {
    T value = T(x);
    __atomic_store(&a->value, &value, __ATOMIC_RELAXED);
}
template <class T, class U> inline T atomic_fetch_max_explicit(atomic<T>* a, U x, memory_order order) {
    const T old = atomic_load_explicit(a, order);
    if (old < T(x)) atomic_store_explicit(a, x, order);
    return old;
}
template <class T, class U> inline T atomic_fetch_min_explicit(atomic<T>* a, U x, memory_order order) {
    const T old = atomic_load_explicit(a, order);
    if (T(x) < old) atomic_store_explicit(a, x, order);
    return old;
}
template <class T, class U> inline T atomic_fetch_or_explicit(atomic<T>* a, U x, memory_order) {
    return __atomic_fetch_or(&a->value, T(x), __ATOMIC_RELAXED);
}
} // namespace metal
