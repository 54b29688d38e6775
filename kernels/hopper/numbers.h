// numbers.h - elements of sixteen bits widened, quads and eights of floats, the functions of activations; vectors in shared
// memory.
#pragma once
#include "hopper.h"

constexpr float LOG2E = 1.44269504088896f;

template <class T> FN float widen(const T* p) { return widen2(__ldg((const ushort*)p), T()).x; }
template <class T> FN float4 widen4(const T* p) {
    const uint2 bits = __ldg((const uint2*)p);
    const float2 a = widen2(bits.x, T()), b = widen2(bits.y, T());
    return make_float4(a.x, a.y, b.x, b.y);
}

struct Eight { float at[8]; };
template <class T> FN Eight widen8(uint4 bits) {
    const float2 a = widen2(bits.x, T()), b = widen2(bits.y, T()), c = widen2(bits.z, T()), d = widen2(bits.w, T());
    return {{a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y}};
}
FN float dot8(const Eight& a, const Eight& b) {
    float even = a.at[0] * b.at[0], odd = a.at[1] * b.at[1];
    #pragma unroll
    for (int i = 2; i < 8; i += 2) even = fmaf(a.at[i], b.at[i], even), odd = fmaf(a.at[i + 1], b.at[i + 1], odd);
    return even + odd;
}

FN float4 operator+(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
FN float4 operator+(float4 a, float b) { return make_float4(a.x + b, a.y + b, a.z + b, a.w + b); }
FN float4 operator*(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }
FN float4 operator*(float4 a, float b) { return make_float4(a.x * b, a.y * b, a.z * b, a.w * b); }
FN float sum4(float4 v) { return (v.x + v.y) + (v.z + v.w); }

FN float reciprocal(float x) { return __fdividef(1.0f, x); }
FN float exp_fast(float x) { return exp2_fast(x * LOG2E); }
FN float sigmoid(float x) { return __fdividef(1.0f, 1.0f + exp_fast(-x)); }
FN float silu(float x) { return __fdividef(x, 1.0f + exp_fast(-x)); }
FN float tanh_fast(float x) { return 1.0f - __fdividef(2.0f, 1.0f + exp_fast(2.0f * x)); }
// The tanh form: 1 + tanh(u) is twice the sigmoid of 2 u.
FN float gelu(float x) { return x * sigmoid(1.5957691216057308f * fmaf(0.044715f * x * x, x, x)); }
// What must be subtracted from scores: nothing where all are -inf, since -inf - -inf would be NaN.
FN float finite(float top) { return top == -INFINITY ? 0.0f : top; }

// ---- Vectors in shared memory: of each eight elements the first four in one half, the last four in the other, so that
// neighbouring lanes read neighbouring banks.
FN void put(float* x, uint n, uint quad, float4 v) { *(float4*)(x + quad % 2 * (n / 2) + quad / 2 * 4) = v; }

// Of a ring of slots: which is next, and in which round.
struct Turn {
    uint slot = 0;
    uint parity = 0;
    FN void next(uint count) {
        if (++slot == count) slot = 0, parity ^= 1;
    }
};
