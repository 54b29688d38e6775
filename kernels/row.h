// row.h - a row of floats over the threads of a threadgroup, four elements at a time: a thread keeps its first HELD fours
// in registers, so that a row of up to 4 HELD elements a thread is read once; the rest is read again when it is wanted.
// Row and length are multiples of four elements.
#pragma once
#include <metal_stdlib>
#include "reduce.h"
#include "storage.h"
using namespace metal;

constant constexpr uint HELD = 4;

// This thread's fours begin at first, first + step, ... below n.
struct Row {
    device const float* x;
    uint   n;
    uint   first;
    uint   step;
    float4 held[HELD];
};

// Reads what is held; `absent` stands where the row is over.
inline Row row_of(device const float* x, uint n, uint tid, uint gsz, float absent) {
    Row row;
    row.x = x;
    row.n = n;
    row.first = 4 * tid;
    row.step = 4 * gsz;
    #pragma unroll
    for (uint i = 0; i < HELD; ++i) {
        const uint c = row.first + i * row.step;
        row.held[i] = c < n ? load4(x + c) : float4(absent);
    }
    return row;
}

// r += x, and the row of the sums.
inline Row row_of_sums(device float* r, device const float* x, uint n, uint tid, uint gsz) {
    Row row = row_of(r, n, tid, gsz, 0.0f);
    const Row added = row_of(x, n, tid, gsz, 0.0f);
    #pragma unroll
    for (uint i = 0; i < HELD; ++i) {
        const uint c = row.first + i * row.step;
        row.held[i] += added.held[i];
        if (c < n) store4(r + c, row.held[i]);
    }
    for (uint c = row.first + HELD * row.step; c < n; c += row.step) store4(r + c, load4(r + c) + load4(x + c));
    return row;
}

// Over this thread's elements; absent ones are 0.
inline float row_sum(thread const Row& row) {
    float4 sum = float4(0.0f);
    #pragma unroll
    for (uint i = 0; i < HELD; ++i) sum += row.held[i];
    for (uint c = row.first + HELD * row.step; c < row.n; c += row.step) sum += load4(row.x + c);
    return sum4(sum);
}

// The sum of (x - mean)^2 over this thread's elements.
inline float row_squares(thread const Row& row, float mean) {
    float4 squares = float4(0.0f);
    #pragma unroll
    for (uint i = 0; i < HELD; ++i) {
        const float4 d = row.held[i] - mean;
        if (row.first + i * row.step < row.n) squares = fma(d, d, squares);
    }
    for (uint c = row.first + HELD * row.step; c < row.n; c += row.step) {
        const float4 d = load4(row.x + c) - mean;
        squares = fma(d, d, squares);
    }
    return sum4(squares);
}

// out = (x - mean) * rstd * gamma + beta.
template <typename T>
inline void row_store(thread const Row& row, device T* out, float mean, float rstd, device const float* gamma,
                      device const float* beta) {
    float4 y[HELD];                   // all are computed before the first is stored: the loads need not wait for stores
    #pragma unroll
    for (uint i = 0; i < HELD; ++i) {
        const uint c = row.first + i * row.step;
        if (c < row.n) y[i] = fma((row.held[i] - mean) * rstd, load4(gamma + c), load4(beta + c));
    }
    #pragma unroll
    for (uint i = 0; i < HELD; ++i) {
        const uint c = row.first + i * row.step;
        if (c < row.n) store4(out + c, y[i]);
    }
    for (uint c = row.first + HELD * row.step; c < row.n; c += row.step) {
        store4(out + c, fma((load4(row.x + c) - mean) * rstd, load4(gamma + c), load4(beta + c)));
    }
}

// out = x * rstd * gamma.
template <typename T>
inline void row_store(thread const Row& row, device T* out, float rstd, device const float* gamma) {
    float4 y[HELD];
    #pragma unroll
    for (uint i = 0; i < HELD; ++i) {
        const uint c = row.first + i * row.step;
        if (c < row.n) y[i] = row.held[i] * rstd * load4(gamma + c);
    }
    #pragma unroll
    for (uint i = 0; i < HELD; ++i) {
        const uint c = row.first + i * row.step;
        if (c < row.n) store4(out + c, y[i]);
    }
    for (uint c = row.first + HELD * row.step; c < row.n; c += row.step) {
        store4(out + c, load4(row.x + c) * rstd * load4(gamma + c));
    }
}
