// activation.metal - elementwise activations, alone and gated, and multiplication by a number.
//
//   gelu_forward      out = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
//   silu_forward      out = x / (1 + e^-x)
//   relu_forward      out = max(0, x)
//   sigmoid_forward   out = 1 / (1 + e^-x)
//   swiglu_forward    out = silu(gate) * up        Shazeer, "GLU Variants Improve Transformer", arXiv 2002.05202
//   geglu_forward     out = gelu(gate) * up
//   scale_inplace     x = x * scale                Gemma's embeddings, and queries whose scale is not 1 / sqrt(hs)
//
// Shapes    all [N], any N; float, half (_f16) or bfloat (_bf16), in float arithmetic; x of scale_inplace float. out may be
//           the input itself.
// Dispatch  plain: threads (N), threadgroup (min(N rounded up to 32, 1024)). _v4: threads (N / 4 rounded up); the
//           last thread covers the tail. No threadgroup memory.
// Assumes   _v4: addresses aligned to four elements. A NaN comes out as NaN, everywhere.
#include <metal_stdlib>
#include "activation.h"
#include "storage.h"
using namespace metal;

template <typename F>
inline float4 apply4(F f, float4 x) { return float4(f(x.x), f(x.y), f(x.z), f(x.w)); }

template <typename F, typename T>
kernel void map(
    device const T* x   [[buffer(0)]],
    device T*       out [[buffer(1)]],
    constant int&   N   [[buffer(2)]],
    uint i [[thread_position_in_grid]])
{
    if (i < uint(N)) out[i] = T(F()(float(x[i])));
}

template <typename F, typename T>
kernel void gated(
    device const T* gate [[buffer(0)]],
    device const T* up   [[buffer(1)]],
    device T*       out  [[buffer(2)]],
    constant int&   N    [[buffer(3)]],
    uint i [[thread_position_in_grid]])
{
    if (i < uint(N)) out[i] = T(F()(float(gate[i])) * float(up[i]));
}

// Four elements a thread.
template <typename F, typename T>
kernel void map_v4(
    device const T* x   [[buffer(0)]],
    device T*       out [[buffer(1)]],
    constant int&   N   [[buffer(2)]],
    uint gid [[thread_position_in_grid]])
{
    const ulong i = ulong(gid) * 4, n = ulong(N);
    if (i + 4 <= n) {
        store4(out + i, apply4(F(), load4(x + i)));
    } else {
        for (ulong j = i; j < n; ++j) out[j] = T(F()(float(x[j])));
    }
}

template <typename F, typename T>
kernel void gated_v4(
    device const T* gate [[buffer(0)]],
    device const T* up   [[buffer(1)]],
    device T*       out  [[buffer(2)]],
    constant int&   N    [[buffer(3)]],
    uint gid [[thread_position_in_grid]])
{
    const ulong i = ulong(gid) * 4, n = ulong(N);
    if (i + 4 <= n) {
        store4(out + i, apply4(F(), load4(gate + i)) * load4(up + i));
    } else {
        for (ulong j = i; j < n; ++j) out[j] = T(F()(float(gate[j])) * float(up[j]));
    }
}

template [[host_name("gelu_forward")]]            kernel decltype(map<Gelu, float>)        map<Gelu, float>;
template [[host_name("gelu_forward_f16")]]        kernel decltype(map<Gelu, half>)         map<Gelu, half>;
template [[host_name("gelu_forward_bf16")]]       kernel decltype(map<Gelu, bfloat>)       map<Gelu, bfloat>;
template [[host_name("gelu_forward_v4")]]         kernel decltype(map_v4<Gelu, float>)     map_v4<Gelu, float>;
template [[host_name("gelu_forward_f16_v4")]]     kernel decltype(map_v4<Gelu, half>)      map_v4<Gelu, half>;
template [[host_name("gelu_forward_bf16_v4")]]    kernel decltype(map_v4<Gelu, bfloat>)    map_v4<Gelu, bfloat>;
template [[host_name("silu_forward")]]            kernel decltype(map<Silu, float>)        map<Silu, float>;
template [[host_name("silu_forward_f16")]]        kernel decltype(map<Silu, half>)         map<Silu, half>;
template [[host_name("silu_forward_bf16")]]       kernel decltype(map<Silu, bfloat>)       map<Silu, bfloat>;
template [[host_name("silu_forward_v4")]]         kernel decltype(map_v4<Silu, float>)     map_v4<Silu, float>;
template [[host_name("silu_forward_f16_v4")]]     kernel decltype(map_v4<Silu, half>)      map_v4<Silu, half>;
template [[host_name("silu_forward_bf16_v4")]]    kernel decltype(map_v4<Silu, bfloat>)    map_v4<Silu, bfloat>;
template [[host_name("relu_forward")]]            kernel decltype(map<Relu, float>)        map<Relu, float>;
template [[host_name("relu_forward_f16")]]        kernel decltype(map<Relu, half>)         map<Relu, half>;
template [[host_name("relu_forward_bf16")]]       kernel decltype(map<Relu, bfloat>)       map<Relu, bfloat>;
template [[host_name("relu_forward_v4")]]         kernel decltype(map_v4<Relu, float>)     map_v4<Relu, float>;
template [[host_name("relu_forward_f16_v4")]]     kernel decltype(map_v4<Relu, half>)      map_v4<Relu, half>;
template [[host_name("relu_forward_bf16_v4")]]    kernel decltype(map_v4<Relu, bfloat>)    map_v4<Relu, bfloat>;
template [[host_name("sigmoid_forward")]]         kernel decltype(map<Sigmoid, float>)     map<Sigmoid, float>;
template [[host_name("sigmoid_forward_f16")]]     kernel decltype(map<Sigmoid, half>)      map<Sigmoid, half>;
template [[host_name("sigmoid_forward_bf16")]]    kernel decltype(map<Sigmoid, bfloat>)    map<Sigmoid, bfloat>;
template [[host_name("sigmoid_forward_v4")]]      kernel decltype(map_v4<Sigmoid, float>)  map_v4<Sigmoid, float>;
template [[host_name("sigmoid_forward_f16_v4")]]  kernel decltype(map_v4<Sigmoid, half>)   map_v4<Sigmoid, half>;
template [[host_name("sigmoid_forward_bf16_v4")]] kernel decltype(map_v4<Sigmoid, bfloat>) map_v4<Sigmoid, bfloat>;
template [[host_name("swiglu_forward")]]          kernel decltype(gated<Silu, float>)      gated<Silu, float>;
template [[host_name("swiglu_forward_f16")]]      kernel decltype(gated<Silu, half>)       gated<Silu, half>;
template [[host_name("swiglu_forward_bf16")]]     kernel decltype(gated<Silu, bfloat>)     gated<Silu, bfloat>;
template [[host_name("swiglu_forward_v4")]]       kernel decltype(gated_v4<Silu, float>)   gated_v4<Silu, float>;
template [[host_name("swiglu_forward_f16_v4")]]   kernel decltype(gated_v4<Silu, half>)    gated_v4<Silu, half>;
template [[host_name("swiglu_forward_bf16_v4")]]  kernel decltype(gated_v4<Silu, bfloat>)  gated_v4<Silu, bfloat>;
template [[host_name("geglu_forward")]]           kernel decltype(gated<Gelu, float>)      gated<Gelu, float>;
template [[host_name("geglu_forward_f16")]]       kernel decltype(gated<Gelu, half>)       gated<Gelu, half>;
template [[host_name("geglu_forward_bf16")]]      kernel decltype(gated<Gelu, bfloat>)     gated<Gelu, bfloat>;
template [[host_name("geglu_forward_v4")]]        kernel decltype(gated_v4<Gelu, float>)   gated_v4<Gelu, float>;
template [[host_name("geglu_forward_f16_v4")]]    kernel decltype(gated_v4<Gelu, half>)    gated_v4<Gelu, half>;
template [[host_name("geglu_forward_bf16_v4")]]   kernel decltype(gated_v4<Gelu, bfloat>)  gated_v4<Gelu, bfloat>;

kernel void scale_inplace(
    device float*   x     [[buffer(0)]],
    constant int&   N     [[buffer(1)]],
    constant float& scale [[buffer(2)]],
    uint i [[thread_position_in_grid]])
{
    if (i < uint(N)) x[i] *= scale;
}

kernel void scale_inplace_v4(
    device float*   x     [[buffer(0)]],
    constant int&   N     [[buffer(1)]],
    constant float& scale [[buffer(2)]],
    uint gid [[thread_position_in_grid]])
{
    const ulong i = ulong(gid) * 4, n = ulong(N);
    if (i + 4 <= n) {
        store4(x + i, load4(x + i) * scale);
    } else {
        for (ulong j = i; j < n; ++j) x[j] *= scale;
    }
}
