// activation.h - the activations of one float: what activation.metal applies to arrays and other kernels fuse.
#pragma once
#include <metal_stdlib>
using namespace metal;

// tanh that cannot overflow: from |x| = 10 on it is 1 in float. A NaN stays NaN.
inline float tanh_bounded(float x) {
    return x > 10.0f ? 1.0f : (x < -10.0f ? -1.0f : precise::tanh(x));
}

// The tanh form of GELU: Hendrycks and Gimpel, "Gaussian Error Linear Units", arXiv 1606.08415, section 2.
inline float gelu(float x) {
    const float inner = 0.79788456080286535588f * (x + 0.044715f * x * x * x);   // sqrt(2 / pi) (x + ...)
    return 0.5f * x * (1.0f + tanh_bounded(inner));
}

// For x -> -inf the exponential becomes inf and the quotient 0.
inline float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }
inline float silu(float x) { return x / (1.0f + exp(-x)); }
inline float relu(float x) { return x < 0.0f ? 0.0f : x; }   // a NaN stays NaN

// c tanh(x / c): Gemma's cap on attention scores and on logits.
inline float softcap(float x, float cap) { return cap * tanh_bounded(x / cap); }

// As types, for templates.
struct None    { float operator()(float x) const { return x; } };
struct Gelu    { float operator()(float x) const { return gelu(x); } };
struct Silu    { float operator()(float x) const { return silu(x); } };
struct Relu    { float operator()(float x) const { return relu(x); } };
struct Sigmoid { float operator()(float x) const { return sigmoid(x); } };
