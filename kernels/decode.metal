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
// Dispatch  at each kernel; threadgroup (128) or any multiple of 32; threadgroup(0): one float a simdgroup. The norm is
//           found anew wherever it is needed: its C floats are few beside the weights.
// Assumes   x, gamma, beta and W begin at multiples of 16 bytes; C a multiple of 8 is the fast case. A result depends on
//           its own row alone, whatever n is.
#include <metal_stdlib>
#include "activation.h"
#include "cache.h"
#include "matvec.h"
using namespace metal;

// ---- Norm, QKV, rotation, cache write. W [(nh + 2 n_kv_head) * hs, C]: the rows of Q, of K, of V, head by head. A
// simdgroup has the pair of rows that rotates together: channels i and i + hs/2 of one head (hs is even).
// x [n, C]; q_out [n, nh * hs]; V is the norm: RmsNormed (beta is not read) or LayerNormed. bias may be nil; freqs may be
// nil: no rotation. A negative slot writes no cache.
// Threadgroups ((nh + 2 n_kv_head) * hs / 2 / simdgroups a threadgroup, rounded up, n).
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

    const int half_hs = hs / 2, pair = int(tg.x * nsg + sg), head = pair / half_hs, i = pair % half_hs;
    if (head >= nh + 2 * n_kv_head) return;                  // a whole simdgroup leaves, after the barriers
    Rows<E, 2> rows;
    rows.row[0] = W + ulong(head * hs + i) * C;
    rows.row[1] = rows.row[0] + ulong(half_hs) * C;
    const Sums<2> sums = dot_rows(rows, v, uint(C), lane);
    if (lane != 0) return;

    float lo = sums.of[0], hi = sums.of[1];
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
        return;
    }
    const int slot = slots[n];
    if (slot < 0) return;
    const bool is_key = head < nh + n_kv_head;
    const int kv_head = head - nh - (is_key ? 0 : n_kv_head);
    device KV* to = (is_key ? k_cache : v_cache) + cache_row(slot / block_size, kv_head, slot % block_size, n_kv_head, block_size, hs) + i;
    to[0] = KV(lo);
    to[half_hs] = KV(hi);
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

// ---- Norm (RMS), gate and up: W_gate, W_up [M, C]; out [n, M]. A simdgroup has a row of each.
// Threadgroups (M / simdgroups a threadgroup, rounded up, n).
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

    const int m = int(tg.x * nsg + sg);
    if (m >= M) return;
    Rows<E, 2> rows;
    rows.row[0] = W_gate + ulong(m) * C;
    rows.row[1] = W_up + ulong(m) * C;
    const Sums<2> sums = dot_rows(rows, v, uint(C), lane);
    if (lane == 0) out[ulong(n) * M + m] = F()(sums.of[0]) * sums.of[1];
}
template [[host_name("decode_swiglu_f32")]]  kernel decltype(gate_up<float, Silu>)  gate_up<float, Silu>;
template [[host_name("decode_swiglu_f16")]]  kernel decltype(gate_up<half, Silu>)   gate_up<half, Silu>;
template [[host_name("decode_swiglu_bf16")]] kernel decltype(gate_up<bfloat, Silu>) gate_up<bfloat, Silu>;
template [[host_name("decode_geglu_f32")]]   kernel decltype(gate_up<float, Gelu>)  gate_up<float, Gelu>;
template [[host_name("decode_geglu_f16")]]   kernel decltype(gate_up<half, Gelu>)   gate_up<half, Gelu>;
template [[host_name("decode_geglu_bf16")]]  kernel decltype(gate_up<bfloat, Gelu>) gate_up<bfloat, Gelu>;

// ---- Norm and one projection: W [M, C]; bias [M], may be nil; out [n, M]. A simdgroup has a row.
// Threadgroups (M / simdgroups a threadgroup, rounded up, n).
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

    const int m = int(tg.x * nsg + sg);
    if (m >= M) return;
    Rows<E, 1> rows;
    rows.row[0] = W + ulong(m) * C;
    const float sum = dot_rows(rows, v, uint(C), lane).of[0];
    if (lane == 0) out[ulong(n) * M + m] = F()(bias != nullptr ? sum + bias[m] : sum);
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
