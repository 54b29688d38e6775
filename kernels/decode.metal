// decode.metal - the projections of a decoding step (one new token for each of n sequences) with what stands around them.
//
//   decode_qkv       norm, QKV projection, rotation, cache write: y = W norm(x) + bias; Q and K rotated at positions[n];
//                    K and V written to the cache at slots[n] = block * block_size + offset
//   decode_swiglu    norm, gate and up projection: out = silu(Wg norm(x)) * (Wu norm(x))
//   decode_geglu     the same with the tanh form of GELU
//   decode_up_gelu   norm and up projection: out = gelu(W norm(x) + bias)
//   decode_head      norm and projection: out = W norm(x) + bias
//
// The norm is RMS or layer norm (layernorm.metal), the rotation attention.metal's, the cache paging.metal's; the other
// projections of a step are linear.metal's matvec. Positions and slots are read from device buffers, so that one recorded
// step serves every token.
//
// Shapes    x [n, C], out [n, M], gamma, beta [C], bias [M] float; W [M, C] row-major float, half or bfloat.
// Dispatch  threadgroups (rows of W / (4 * simdgroups a threadgroup) rounded up, n), threadgroup (128) or any multiple of
//           32. threadgroup(0): one float a simdgroup. Every threadgroup finds its row's norm for itself: C floats
//           against the 16 C weights and more that it reads anyway.
// Assumes   x, gamma, beta and W begin at multiples of 16 bytes; C a multiple of 8 is the fast case. A result depends on
//           its own row alone, whatever n is.
#include <metal_stdlib>
#include "activation.h"
#include "cache.h"
#include "matvec.h"
using namespace metal;

// ---- Norm, QKV, rotation, cache write. W [(nh + 2 n_kv_head) * hs, C]: the rows of Q, of K, of V, head by head. A
// simdgroup has two pairs of rows; a pair is what rotates together: channels i and i + hs/2 of one head (hs is even).
// x [n, C]; q_out [n, nh * hs]; V is the norm: RmsNormed (beta is not read) or LayerNormed. bias may be nil; freqs may be
// nil: no rotation. A negative slot writes no cache.
// Threadgroups ((nh + 2 n_kv_head) * hs / (4 * simdgroups a threadgroup) rounded up, n), threadgroup (128), or any multiple
// of 32; threadgroup(0): one float a simdgroup.
constant constexpr int PAIRS = 2;

template <typename E, typename KV, typename V>
kernel void project_qkv(
    device const float* x          [[buffer(0)]],
    device const float* gamma      [[buffer(1)]],
    device const float* beta       [[buffer(2)]],
    device const E*     W          [[buffer(3)]],
    device const float* bias       [[buffer(4)]],
    device const float* freqs      [[buffer(5)]],
    device const int*   positions  [[buffer(6)]],
    device const int*   slots      [[buffer(7)]],
    device float*       q_out      [[buffer(8)]],
    device KV*          k_cache    [[buffer(9)]],
    device KV*          v_cache    [[buffer(10)]],
    constant int&       C          [[buffer(11)]],
    constant int&       nh         [[buffer(12)]],
    constant int&       n_kv_head  [[buffer(13)]],
    constant int&       hs         [[buffer(14)]],
    constant int&       block_size [[buffer(15)]],
    constant float&     eps        [[buffer(16)]],
    threadgroup float*  shared     [[threadgroup(0)]],
    uint2 tg  [[threadgroup_position_in_grid]],
    uint2 tid [[thread_position_in_threadgroup]],
    uint2 gsz [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint n = tg.y;
    V v;
    normalise(v, x + ulong(n) * C, gamma, beta, uint(C), eps, shared, tid.x, gsz.x, lane, sg, nsg);

    const int half_hs = hs / 2, pairs = (nh + 2 * n_kv_head) * half_hs, first = int(tg.x * nsg + sg) * PAIRS;
    if (first >= pairs) return;                              // a whole simdgroup leaves, after the barriers
    Rows<E, 2 * PAIRS> rows;
    #pragma unroll
    for (int p = 0; p < PAIRS; ++p) {
        const int pair = min(first + p, pairs - 1), row = pair / half_hs * hs + pair % half_hs;
        rows.row[2 * p] = W + ulong(row) * C;
        rows.row[2 * p + 1] = W + ulong(row + half_hs) * C;
    }
    const Sums<2 * PAIRS> sums = dot_rows(rows, v, uint(C), lane);
    if (lane != 0) return;

    #pragma unroll
    for (int p = 0; p < PAIRS; ++p) {
        if (first + p >= pairs) continue;
        const int head = (first + p) / half_hs, i = (first + p) % half_hs;
        float lo = sums.of[2 * p], hi = sums.of[2 * p + 1];
        if (bias != nullptr) {
            lo += bias[head * hs + i];
            hi += bias[head * hs + i + half_hs];
        }
        if (freqs != nullptr && head < nh + n_kv_head) {
            device const float* angle = freqs + ulong(positions[n]) * hs + 2 * i;
            const float a = lo, b = hi;
            lo = a * angle[0] - b * angle[1];
            hi = a * angle[1] + b * angle[0];
        }
        if (head < nh) {
            device float* to = q_out + (ulong(n) * nh + head) * hs + i;
            to[0] = lo;
            to[half_hs] = hi;
            continue;
        }
        const int slot = slots[n];
        if (slot < 0) continue;
        const bool is_key = head < nh + n_kv_head;
        const int kv_head = head - nh - (is_key ? 0 : n_kv_head);
        device KV* to = (is_key ? k_cache : v_cache) + cache_row(slot / block_size, kv_head, slot % block_size, n_kv_head, block_size, hs) + i;
        to[0] = KV(lo);
        to[half_hs] = KV(hi);
    }
}
template [[host_name("decode_qkv_rms_f32_f32")]]    kernel decltype(project_qkv<float, float, RmsNormed>)     project_qkv<float, float, RmsNormed>;
template [[host_name("decode_qkv_rms_f32_f16")]]    kernel decltype(project_qkv<float, half, RmsNormed>)      project_qkv<float, half, RmsNormed>;
template [[host_name("decode_qkv_rms_f16_f16")]]    kernel decltype(project_qkv<half, half, RmsNormed>)       project_qkv<half, half, RmsNormed>;
template [[host_name("decode_qkv_rms_bf16_f16")]]   kernel decltype(project_qkv<bfloat, half, RmsNormed>)     project_qkv<bfloat, half, RmsNormed>;
template [[host_name("decode_qkv_rms_bf16_bf16")]]  kernel decltype(project_qkv<bfloat, bfloat, RmsNormed>)   project_qkv<bfloat, bfloat, RmsNormed>;
template [[host_name("decode_qkv_layer_f32_f32")]]  kernel decltype(project_qkv<float, float, LayerNormed>)   project_qkv<float, float, LayerNormed>;
template [[host_name("decode_qkv_layer_f32_f16")]]  kernel decltype(project_qkv<float, half, LayerNormed>)    project_qkv<float, half, LayerNormed>;
template [[host_name("decode_qkv_layer_f16_f16")]]  kernel decltype(project_qkv<half, half, LayerNormed>)     project_qkv<half, half, LayerNormed>;
template [[host_name("decode_qkv_layer_bf16_f16")]] kernel decltype(project_qkv<bfloat, half, LayerNormed>)   project_qkv<bfloat, half, LayerNormed>;
template [[host_name("decode_qkv_layer_bf16_bf16")]] kernel decltype(project_qkv<bfloat, bfloat, LayerNormed>) project_qkv<bfloat, bfloat, LayerNormed>;

// ---- Norm (RMS), gate and up: W_gate, W_up [M, C]; out [n, M]. A simdgroup has two rows of each.
// Threadgroups (M / (2 * simdgroups a threadgroup) rounded up, n), threadgroup (128); threadgroup(0): one float a simdgroup.
constant constexpr int GATED_ROWS = 2;

template <typename E, typename F>
kernel void gate_up(
    device const float* x      [[buffer(0)]],
    device const float* gamma  [[buffer(1)]],
    device const E*     W_gate [[buffer(2)]],
    device const E*     W_up   [[buffer(3)]],
    device float*       out    [[buffer(4)]],
    constant int&       C      [[buffer(5)]],
    constant int&       M      [[buffer(6)]],
    constant float&     eps    [[buffer(7)]],
    threadgroup float*  shared [[threadgroup(0)]],
    uint2 tg  [[threadgroup_position_in_grid]],
    uint2 tid [[thread_position_in_threadgroup]],
    uint2 gsz [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint n = tg.y;
    RmsNormed v;
    normalise(v, x + ulong(n) * C, gamma, gamma, uint(C), eps, shared, tid.x, gsz.x, lane, sg, nsg);

    const int first = int(tg.x * nsg + sg) * GATED_ROWS;
    if (first >= M) return;
    Rows<E, 2 * GATED_ROWS> rows;
    #pragma unroll
    for (int r = 0; r < GATED_ROWS; ++r) {
        const ulong row = ulong(min(first + r, M - 1)) * C;
        rows.row[r] = W_gate + row;
        rows.row[GATED_ROWS + r] = W_up + row;
    }
    const Sums<2 * GATED_ROWS> sums = dot_rows(rows, v, uint(C), lane);
    if (lane != 0) return;
    #pragma unroll
    for (int r = 0; r < GATED_ROWS; ++r) {
        if (first + r < M) out[ulong(n) * M + first + r] = F()(sums.of[r]) * sums.of[GATED_ROWS + r];
    }
}
template [[host_name("decode_swiglu_f32")]]  kernel decltype(gate_up<float, Silu>)  gate_up<float, Silu>;
template [[host_name("decode_swiglu_f16")]]  kernel decltype(gate_up<half, Silu>)   gate_up<half, Silu>;
template [[host_name("decode_swiglu_bf16")]] kernel decltype(gate_up<bfloat, Silu>) gate_up<bfloat, Silu>;
template [[host_name("decode_geglu_f32")]]   kernel decltype(gate_up<float, Gelu>)  gate_up<float, Gelu>;
template [[host_name("decode_geglu_f16")]]   kernel decltype(gate_up<half, Gelu>)   gate_up<half, Gelu>;
template [[host_name("decode_geglu_bf16")]]  kernel decltype(gate_up<bfloat, Gelu>) gate_up<bfloat, Gelu>;

// ---- Norm and one projection: W [M, C]; bias [M], may be nil; out [n, M]. A simdgroup has four rows.
// Threadgroups (M / (4 * simdgroups a threadgroup) rounded up, n), threadgroup (128); threadgroup(0): one float a simdgroup.
constant constexpr int ROWS = 4;

template <typename E, typename F, typename V>
kernel void project(
    device const float* x      [[buffer(0)]],
    device const float* gamma  [[buffer(1)]],
    device const float* beta   [[buffer(2)]],
    device const E*     W      [[buffer(3)]],
    device const float* bias   [[buffer(4)]],
    device float*       out    [[buffer(5)]],
    constant int&       C      [[buffer(6)]],
    constant int&       M      [[buffer(7)]],
    constant float&     eps    [[buffer(8)]],
    threadgroup float*  shared [[threadgroup(0)]],
    uint2 tg  [[threadgroup_position_in_grid]],
    uint2 tid [[thread_position_in_threadgroup]],
    uint2 gsz [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint n = tg.y;
    V v;
    normalise(v, x + ulong(n) * C, gamma, beta, uint(C), eps, shared, tid.x, gsz.x, lane, sg, nsg);

    const int first = int(tg.x * nsg + sg) * ROWS;
    if (first >= M) return;
    Rows<E, ROWS> rows;
    #pragma unroll
    for (int r = 0; r < ROWS; ++r) rows.row[r] = W + ulong(min(first + r, M - 1)) * C;
    const Sums<ROWS> sums = dot_rows(rows, v, uint(C), lane);
    if (lane != 0) return;
    #pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (first + r >= M) continue;
        const float b = bias != nullptr ? bias[first + r] : 0.0f;
        out[ulong(n) * M + first + r] = F()(sums.of[r] + b);
    }
}
template [[host_name("decode_up_gelu_f32")]]    kernel decltype(project<float, Gelu, LayerNormed>)  project<float, Gelu, LayerNormed>;
template [[host_name("decode_up_gelu_f16")]]    kernel decltype(project<half, Gelu, LayerNormed>)   project<half, Gelu, LayerNormed>;
template [[host_name("decode_up_gelu_bf16")]]   kernel decltype(project<bfloat, Gelu, LayerNormed>) project<bfloat, Gelu, LayerNormed>;
template [[host_name("decode_head_layer_f32")]]  kernel decltype(project<float, None, LayerNormed>)  project<float, None, LayerNormed>;
template [[host_name("decode_head_layer_f16")]]  kernel decltype(project<half, None, LayerNormed>)   project<half, None, LayerNormed>;
template [[host_name("decode_head_layer_bf16")]] kernel decltype(project<bfloat, None, LayerNormed>) project<bfloat, None, LayerNormed>;
template [[host_name("decode_head_rms_f32")]]    kernel decltype(project<float, None, RmsNormed>)    project<float, None, RmsNormed>;
template [[host_name("decode_head_rms_f16")]]    kernel decltype(project<half, None, RmsNormed>)     project<half, None, RmsNormed>;
template [[host_name("decode_head_rms_bf16")]]   kernel decltype(project<bfloat, None, RmsNormed>)   project<bfloat, None, RmsNormed>;
