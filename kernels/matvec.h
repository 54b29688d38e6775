// matvec.h - dot products of R rows of a weight matrix with one vector, by one simdgroup: the inside of every kernel that
// multiplies a single row. The rows share each piece of the vector, which is read as it is or normalised on the way.
// The order of the sums depends on the length alone. Rows and vector begin at multiples of 16 bytes when the length is a
// multiple of 8, the fast case: then a lane reads eight elements at a time, 16 bytes of half or bfloat.
#pragma once
#include <metal_stdlib>
#include "reduce.h"
#include "storage.h"
using namespace metal;

// ---- Vectors. at8 and at read elements; finish turns a sum over all of them into the dot product.

struct Plain {
    device const float* x;
    float at(int k) { return x[k]; }
    Eight at8(int k) { return load8(x + k); }
    float finish(float sum, uint) { return sum; }
};

// x * rstd * gamma, rstd = 1 / sqrt(mean(x^2) + eps): rmsnorm_forward of layernorm.metal. The squares are summed as the
// elements pass by (each lane sees its share of them, once), and rstd multiplies the sums at the end.
struct RmsNormed {
    device const float* x;
    device const float* gamma;
    float eps;
    float squares;
    float at(int k) {
        const float v = x[k];
        squares = fma(v, v, squares);
        return v * gamma[k];
    }
    Eight at8(int k) {
        Eight v = load8(x + k);
        const Eight g = load8(gamma + k);
        squares += dot8(v, v);
        v.lo *= g.lo;
        v.hi *= g.hi;
        return v;
    }
    float finish(float sum, uint n) { return sum * rsqrt(simd_sum(squares) / float(n) + eps); }
};

// (x - mean) * rstd * gamma + beta: layernorm_forward. Its statistics need passes of their own.
struct LayerNormed {
    device const float* x;
    device const float* gamma;
    device const float* beta;
    float mean;
    float rstd;
    float at(int k) { return fma((x[k] - mean) * rstd, gamma[k], beta[k]); }
    Eight at8(int k) {
        Eight v = load8(x + k);
        const Eight g = load8(gamma + k);
        const Eight b = load8(beta + k);
        v.lo = fma((v.lo - mean) * rstd, g.lo, b.lo);
        v.hi = fma((v.hi - mean) * rstd, g.hi, b.hi);
        return v;
    }
    float finish(float sum, uint) { return sum; }
};

// Makes ready to read a row of n floats through a norm. All threads of the threadgroup call; shared as in reduce.h.
inline void normalise(thread RmsNormed& v, device const float* x, device const float* gamma, device const float*, uint,
                      float eps, threadgroup float*, uint, uint, uint, uint, uint) {
    v.x = x;
    v.gamma = gamma;
    v.eps = eps;
    v.squares = 0.0f;
}

inline void normalise(thread LayerNormed& v, device const float* x, device const float* gamma, device const float* beta, uint n,
                      float eps, threadgroup float* shared, uint tid, uint gsz, uint lane, uint sg, uint nsg) {
    float sum = 0.0f, squares = 0.0f;
    for (uint c = tid; c < n; c += gsz) sum += x[c];
    v.mean = threadgroup_sum(sum, shared, lane, sg, nsg) / float(n);
    for (uint c = tid; c < n; c += gsz) squares = fma(x[c] - v.mean, x[c] - v.mean, squares);
    v.x = x;
    v.gamma = gamma;
    v.beta = beta;
    v.rstd = rsqrt(threadgroup_sum(squares, shared, lane, sg, nsg) / float(n) + eps);
}

// ---- products

template <typename E, int R>
struct Rows {
    device const E* row[R];
};

template <int R>
struct Sums {
    float of[R];
};

// Pieces of eight that a lane reads of each row before it uses the first: that many loads are under way.
template <int R>
constexpr int pieces_ahead() { return R < 4 ? 4 : 2; }

// The lane's pieces from k on that lie before n: all of them where ALL is set.
template <bool ALL, typename E, int R, typename V>
inline void add_pieces(thread Sums<R>& sums, thread const Rows<E, R>& rows, thread V& v, int k, int n) {
    constexpr int AHEAD = pieces_ahead<R>();
    Piece<E> w[AHEAD][R];
    #pragma unroll
    for (int i = 0; i < AHEAD; ++i)
        #pragma unroll
        for (int r = 0; r < R; ++r)
            if (ALL || k + i * 32 * 8 < n) w[i][r] = piece8(rows.row[r] + k + i * 32 * 8);
    loaded(w);
    #pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
        if (!ALL && k + i * 32 * 8 >= n) continue;
        const Eight x = v.at8(k + i * 32 * 8);
        #pragma unroll
        for (int r = 0; r < R; ++r) sums.of[r] = add_dot8(sums.of[r], widen(w[i][r]), x);
    }
}

// dot(rows.row[r], v) over n elements, for every r; the same in every lane. v is fresh: one call, one vector.
template <typename E, int R, typename V>
inline Sums<R> dot_rows(Rows<E, R> rows, V v, uint n, uint lane) {
    constexpr int STEP = pieces_ahead<R>() * 32 * 8;
    const int length = int(n);                              // signed: the compiler then folds offsets into the loads
    const int eights = length % 8 == 0 ? length : 0;        // else the rows are not aligned
    Sums<R> sums;
    #pragma unroll
    for (int r = 0; r < R; ++r) sums.of[r] = 0.0f;
    int k = int(lane) * 8;
    for (; k + STEP - 32 * 8 < eights; k += STEP) add_pieces<true>(sums, rows, v, k, eights);
    add_pieces<false>(sums, rows, v, k, eights);
    for (k = eights + int(lane); k < length; k += 32) {
        const float x = v.at(k);
        #pragma unroll
        for (int r = 0; r < R; ++r) sums.of[r] = fma(float(rows.row[r][k]), x, sums.of[r]);
    }
    #pragma unroll
    for (int r = 0; r < R; ++r) sums.of[r] = v.finish(simd_sum(sums.of[r]), n);
    return sums;
}
