// decode.h - products of rows of a weight matrix with the one vector of a decoding step, read ahead: a thread fetches its
// first pieces of the rows, and a norm's parameters, before it awaits the kernel that makes the vector (ahead.h).
// A row is shared out in pieces of eight elements: to the lanes of a simdgroup, or to the threads of a threadgroup. The order
// of the sums depends on the length and on the number of threads alone. Rows and vectors begin at multiples of 16 bytes when
// the length is a multiple of 8, the fast case; else everything is read element by element, after the wait.
#pragma once
#include <metal_stdlib>
#include "ahead.h"
#include "matvec.h"
using namespace metal;

// Pieces that a thread reads ahead.
constant constexpr uint AHEAD = 4;

// Which pieces a thread has: first, first + threads, ...
struct Share {
    uint first;
    uint threads;
    uint at(uint piece) const { return (first + piece * threads) * 8; }
    uint step() const { return threads * 8; }
};

// How many of n elements lie in whole pieces.
inline uint in_pieces(uint n) { return n % 8 == 0 ? n : 0; }

// Eight elements as they are stored.
template <typename E>
struct Stored8 {
    uint4 bits;
};
template <>
struct Stored8<float> {
    Eight value;
};
template <typename E>
inline Stored8<E> stored8(device const E* p) {
    Stored8<E> s;
    s.bits = *(device const uint4*)p;
    return s;
}
inline Stored8<float> stored8(device const float* p) {
    Stored8<float> s;
    s.value = load8(p);
    return s;
}
template <typename E>
inline Eight widen(Stored8<E> s) { return widen8<E>(s.bits); }
inline Eight widen(Stored8<float> s) { return s.value; }

// ---- Vectors: at8 and at read elements.

struct PlainVector {
    device const float* x;
    Eight at8(uint k) const { return load8(x + k); }
    float at(uint k) const { return x[k]; }
};

// In threadgroup memory, its pieces' first and second halves apart: then neighbouring lanes read neighbouring banks.
struct SharedVector {
    threadgroup const float* y;
    uint n;
    Eight at8(uint k) const {
        Eight v;
        v.lo = *(threadgroup const float4*)(y + k / 2);
        v.hi = *(threadgroup const float4*)(y + n / 2 + k / 2);
        return v;
    }
    float at(uint k) const { return y[k]; }
};

// ---- A norm of a row of n floats, left in threadgroup memory: y, n floats rounded up to a multiple of 4, then two floats a
// simdgroup. A thread has four elements at a time: 4 tid .., 4 (tid + gsz) .. The loops are short and not unrolled: between two
// kernels of a step the instructions are read anew, and cost more than the work.
struct Group {
    uint tid;
    uint gsz;
    uint lane;
    uint sg;
    uint nsg;
};

// Where the q-th four elements of a SharedVector of n, a multiple of 8, stand.
inline uint fours(uint q, uint n) { return q % 2 * (n / 2) + q / 2 * 4; }

// The sum over the threadgroup, the same in every thread; `shared` holds a float a simdgroup and is used by one call.
inline float sum_once(float v, threadgroup float* shared, Group t) {
    v = simd_sum(v);
    if (t.lane == 0) shared[t.sg] = v;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return simd_sum(t.lane < t.nsg ? shared[t.lane] : 0.0f);
}

struct RmsNorm {
    device const float* gamma;
    float scale;                                             // of every sum over the vector
    void read_ahead(device const float* scales, device const float*, uint, Group) { gamma = scales; }
    void apply(device const float* x, threadgroup float* y, uint n, float eps, Group t) {
        float squares = 0.0f;
        if (n % 8 == 0) {
            #pragma unroll(1)
            for (uint q = t.tid; q < n / 4; q += t.gsz) {
                const float4 v = load4(x + 4 * q);
                squares += dot(v, v);
                *(threadgroup float4*)(y + fours(q, n)) = v * load4(gamma + 4 * q);
            }
        } else {
            #pragma unroll(1)
            for (uint k = t.tid; k < n; k += t.gsz) {
                squares = fma(x[k], x[k], squares);
                y[k] = x[k] * gamma[k];
            }
        }
        scale = rsqrt(sum_once(squares, y + (n + 3) / 4 * 4, t) / float(n) + eps);
    }
};

struct LayerNorm {
    device const float* gamma;
    device const float* beta;
    float4 g;                                                // of the first four elements
    float4 b;
    float scale;
    void read_ahead(device const float* scales, device const float* shifts, uint n, Group t) {
        gamma = scales;
        beta = shifts;
        g = float4(0.0f);
        b = float4(0.0f);
        if (n % 8 == 0 && t.tid < n / 4) {
            g = load4(gamma + 4 * t.tid);
            b = load4(beta + 4 * t.tid);
        }
    }
    void apply(device const float* x, threadgroup float* y, uint n, float eps, Group t) {
        threadgroup float* shared = y + (n + 3) / 4 * 4;
        float sum = 0.0f, squares = 0.0f;
        if (n % 8 == 0) {
            #pragma unroll(1)
            for (uint q = t.tid; q < n / 4; q += t.gsz) {
                const float4 v = load4(x + 4 * q);
                sum += sum4(v);
                *(threadgroup float4*)(y + fours(q, n)) = v;
            }
            const float mean = sum_once(sum, shared, t) / float(n);
            #pragma unroll(1)
            for (uint q = t.tid; q < n / 4; q += t.gsz) {
                const float4 v = *(threadgroup const float4*)(y + fours(q, n)) - mean;
                squares += dot(v, v);
            }
            const float rstd = rsqrt(sum_once(squares, shared + t.nsg, t) / float(n) + eps);
            #pragma unroll(1)
            for (uint q = t.tid; q < n / 4; q += t.gsz) {
                threadgroup float4* to = (threadgroup float4*)(y + fours(q, n));
                *to = fma((*to - mean) * rstd, g, b);
                if (q + t.gsz < n / 4) {                     // of the next four
                    g = load4(gamma + 4 * (q + t.gsz));
                    b = load4(beta + 4 * (q + t.gsz));
                }
            }
        } else {
            #pragma unroll(1)
            for (uint k = t.tid; k < n; k += t.gsz) sum += x[k];
            const float mean = sum_once(sum, shared, t) / float(n);
            #pragma unroll(1)
            for (uint k = t.tid; k < n; k += t.gsz) squares = fma(x[k] - mean, x[k] - mean, squares);
            const float rstd = rsqrt(sum_once(squares, shared + t.nsg, t) / float(n) + eps);
            #pragma unroll(1)
            for (uint k = t.tid; k < n; k += t.gsz) y[k] = fma((x[k] - mean) * rstd, gamma[k], beta[k]);
        }
        scale = 1.0f;
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
};

// ---- products

template <typename E, int R>
struct RowsAhead {
    Rows<E, R> rows;
    Stored8<E> piece[AHEAD][R];
    void read_ahead(uint n, Share mine) {
        #pragma unroll
        for (uint i = 0; i < AHEAD; ++i) {
            if (mine.at(i) >= in_pieces(n)) continue;
            #pragma unroll
            for (int r = 0; r < R; ++r) piece[i][r] = stored8(rows.row[r] + mine.at(i));
        }
    }
};

// What this thread's share adds to dot(rows[r], v) over n elements, for every r.
template <typename E, int R, typename V>
inline Sums<R> dot_share(thread const RowsAhead<E, R>& a, V v, uint n, Share mine) {
    Sums<R> sums;
    #pragma unroll
    for (int r = 0; r < R; ++r) sums.of[r] = 0.0f;
    const uint whole = in_pieces(n);
    #pragma unroll
    for (uint i = 0; i < AHEAD; ++i) {
        if (mine.at(i) >= whole) continue;
        const Eight x = v.at8(mine.at(i));
        #pragma unroll
        for (int r = 0; r < R; ++r) sums.of[r] += dot8(widen(a.piece[i][r]), x);
    }
    #pragma unroll(2)
    for (uint k = mine.at(AHEAD); k < whole; k += mine.step()) {
        const Eight x = v.at8(k);
        #pragma unroll
        for (int r = 0; r < R; ++r) sums.of[r] += dot8(load8(a.rows.row[r] + k), x);
    }
    #pragma unroll(1)
    for (uint k = whole + mine.first; k < n; k += mine.threads) {
        const float x = v.at(k);
        #pragma unroll
        for (int r = 0; r < R; ++r) sums.of[r] = fma(float(a.rows.row[r][k]), x, sums.of[r]);
    }
    return sums;
}

// dot(rows[r], v) over n elements, for every r, by the lanes of a simdgroup; the same in every lane.
template <typename E, int R, typename V>
inline Sums<R> dot_ahead(thread const RowsAhead<E, R>& a, V v, uint n, Share mine) {
    Sums<R> sums = dot_share(a, v, n, mine);
    #pragma unroll
    for (int r = 0; r < R; ++r) sums.of[r] = simd_sum(sums.of[r]);
    return sums;
}
