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
// Dispatch  at each kernel; threadgroup (256) or any multiple of 32; threadgroup(0): C floats rounded up to a multiple of 4,
//           and two a simdgroup. The norm is found anew in every threadgroup: its C floats are few beside the weights. Weights, and what a step's inputs say, are read ahead (ahead.h).
// Assumes   x, gamma, beta and W begin at multiples of 16 bytes; C a multiple of 8 is the fast case. A result depends on
//           its own row alone, whatever n is.
#include <metal_stdlib>
#include "activation.h"
#include "cache.h"
#include "decode.h"
using namespace metal;

// ---- Norm, QKV, rotation, cache write. W [(nh + 2 n_kv_head) * hs, C]: the rows of Q, of K, of V, head by head. A
// simdgroup has the pair of rows that rotates together: channels i and i + hs/2 of one head (hs is even).
// x [n, C]; q_out [n, nh * hs]; V is the norm: RmsNorm (beta is not read) or LayerNorm. bias may be nil; freqs may be
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
    const int half_hs = hs / 2, pair = int(tg.x * nsg + sg), head = pair / half_hs, i = pair % half_hs;
    const Share mine = { lane, 32 };
    const Group group = { tid.x, gsz.x, lane, sg, nsg };
    V norm;
    norm.read_ahead(gamma, beta, uint(C), group);
    RowsAhead<E, 2> rows;
    float add_lo = 0.0f, add_hi = 0.0f, cosine = 1.0f, sine = 0.0f;
    const bool in = head < nh + 2 * n_kv_head;               // else a simdgroup over
    if (in) {
        rows.rows.row[0] = W + ulong(head * hs + i) * C;
        rows.rows.row[1] = rows.rows.row[0] + ulong(half_hs) * C;
        rows.read_ahead(uint(C), mine);
        if (bias != nullptr) {
            add_lo = bias[head * hs + i];
            add_hi = bias[head * hs + i + half_hs];
        }
        if (freqs != nullptr && head < nh + n_kv_head) {
            device const float* angle = freqs + ulong(positions[n]) * hs + 2 * i;
            cosine = angle[0];
            sine = angle[1];
        }
    }
    const int slot = slots[n];
    await_dependency();
    norm.apply(x + ulong(n) * C, shared, uint(C), eps, group);
    if (!in) return;                                         // after the barriers
    const SharedVector v = { shared, uint(C) };
    const Sums<2> sums = dot_ahead(rows, v, uint(C), mine);
    if (lane != 0) return;

    const float a = fma(sums.of[0], norm.scale, add_lo), b = fma(sums.of[1], norm.scale, add_hi);
    const float lo = a * cosine - b * sine, hi = a * sine + b * cosine;
    if (head < nh) {
        device float* to = q_out + (ulong(n) * nh + head) * hs + i;
        to[0] = lo;
        to[half_hs] = hi;
        return;
    }
    if (slot < 0) return;
    const bool is_key = head < nh + n_kv_head;
    const int kv_head = head - nh - (is_key ? 0 : n_kv_head);
    device KV* to = (is_key ? k_cache : v_cache) + cache_row(slot / block_size, kv_head, slot % block_size, n_kv_head, block_size, hs) + i;
    to[0] = KV(lo);
    to[half_hs] = KV(hi);
}
template [[host_name("decode_qkv_rms_f32_f32")]]    kernel decltype(project_qkv<float, float, RmsNorm>)     project_qkv<float, float, RmsNorm>;
template [[host_name("decode_qkv_rms_f32_f16")]]    kernel decltype(project_qkv<float, half, RmsNorm>)      project_qkv<float, half, RmsNorm>;
template [[host_name("decode_qkv_rms_f16_f16")]]    kernel decltype(project_qkv<half, half, RmsNorm>)       project_qkv<half, half, RmsNorm>;
template [[host_name("decode_qkv_rms_bf16_f16")]]   kernel decltype(project_qkv<bfloat, half, RmsNorm>)     project_qkv<bfloat, half, RmsNorm>;
template [[host_name("decode_qkv_rms_bf16_bf16")]]  kernel decltype(project_qkv<bfloat, bfloat, RmsNorm>)   project_qkv<bfloat, bfloat, RmsNorm>;
template [[host_name("decode_qkv_layer_f32_f32")]]  kernel decltype(project_qkv<float, float, LayerNorm>)   project_qkv<float, float, LayerNorm>;
template [[host_name("decode_qkv_layer_f32_f16")]]  kernel decltype(project_qkv<float, half, LayerNorm>)    project_qkv<float, half, LayerNorm>;
template [[host_name("decode_qkv_layer_f16_f16")]]  kernel decltype(project_qkv<half, half, LayerNorm>)     project_qkv<half, half, LayerNorm>;
template [[host_name("decode_qkv_layer_bf16_f16")]] kernel decltype(project_qkv<bfloat, half, LayerNorm>)   project_qkv<bfloat, half, LayerNorm>;
template [[host_name("decode_qkv_layer_bf16_bf16")]] kernel decltype(project_qkv<bfloat, bfloat, LayerNorm>) project_qkv<bfloat, bfloat, LayerNorm>;

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
    threadgroup float*  shared     [[threadgroup(0)]],
    uint2 tg  [[threadgroup_position_in_grid]],
    uint2 tid [[thread_position_in_threadgroup]],
    uint2 gsz [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint n = tg.y;
    const int m = int(tg.x * nsg + sg);
    const Share mine = { lane, 32 };
    const Group group = { tid.x, gsz.x, lane, sg, nsg };
    RmsNorm norm;
    norm.read_ahead(gamma, gamma, uint(C), group);
    RowsAhead<E, 2> rows;
    if (m < M) {
        rows.rows.row[0] = W_gate + ulong(m) * C;
        rows.rows.row[1] = W_up + ulong(m) * C;
        rows.read_ahead(uint(C), mine);
    }
    await_dependency();
    norm.apply(x + ulong(n) * C, shared, uint(C), eps, group);
    if (m >= M) return;                                      // a whole simdgroup leaves, after the barriers
    const SharedVector v = { shared, uint(C) };
    const Sums<2> sums = dot_ahead(rows, v, uint(C), mine);
    if (lane == 0) out[ulong(n) * M + m] = F()(sums.of[0] * norm.scale) * (sums.of[1] * norm.scale);
}
template [[host_name("decode_swiglu_f32")]]  kernel decltype(gate_up<float, Silu>)  gate_up<float, Silu>;
template [[host_name("decode_swiglu_f16")]]  kernel decltype(gate_up<half, Silu>)   gate_up<half, Silu>;
template [[host_name("decode_swiglu_bf16")]] kernel decltype(gate_up<bfloat, Silu>) gate_up<bfloat, Silu>;
template [[host_name("decode_geglu_f32")]]   kernel decltype(gate_up<float, Gelu>)  gate_up<float, Gelu>;
template [[host_name("decode_geglu_f16")]]   kernel decltype(gate_up<half, Gelu>)   gate_up<half, Gelu>;
template [[host_name("decode_geglu_bf16")]]  kernel decltype(gate_up<bfloat, Gelu>) gate_up<bfloat, Gelu>;

// ---- Norm and one projection: W [M, C]; bias [M], may be nil; out [n, M]. A simdgroup has R rows at a
// time, TIMES times: 2 and 1 of decode_up_gelu, 4 and 4 of decode_head.
// Threadgroups (M / (R * TIMES * simdgroups a threadgroup), rounded up, n).
template <typename E, typename F, typename V, int R, int TIMES>
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
    threadgroup float*  shared     [[threadgroup(0)]],
    uint2 tg  [[threadgroup_position_in_grid]],
    uint2 tid [[thread_position_in_threadgroup]],
    uint2 gsz [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint sg   [[simdgroup_index_in_threadgroup]],
    uint nsg  [[simdgroups_per_threadgroup]])
{
    const uint n = tg.y;
    const int rows_of_group = R * TIMES * int(nsg), first = int(tg.x) * rows_of_group + int(sg) * R;
    const Share mine = { lane, 32 };
    const Group group = { tid.x, gsz.x, lane, sg, nsg };
    V norm;
    norm.read_ahead(gamma, beta, uint(C), group);
    RowsAhead<E, R> rows;
    #pragma unroll
    for (int r = 0; r < R; ++r) rows.rows.row[r] = W + ulong(min(first + r, M - 1)) * C;       // past the end: not stored
    rows.read_ahead(uint(C), mine);
    await_dependency();
    norm.apply(x + ulong(n) * C, shared, uint(C), eps, group);
    const SharedVector v = { shared, uint(C) };
    for (int time = 0; time < TIMES; ++time) {
        const int begin = first + time * R * int(nsg), m = begin + int(lane);                  // the output that this lane writes
        if (begin >= M) return;                              // a whole simdgroup leaves
        const Sums<R> sums = dot_ahead(rows, v, uint(C), mine);
        if (time + 1 < TIMES) {
            #pragma unroll
            for (int r = 0; r < R; ++r) rows.rows.row[r] = W + ulong(min(begin + R * int(nsg) + r, M - 1)) * C;
            rows.read_ahead(uint(C), mine);
        }
        float sum = sums.of[0];
        #pragma unroll
        for (int r = 1; r < R; ++r) sum = int(lane) == r ? sums.of[r] : sum;
        if (int(lane) < R && m < M) {
            const float y = sum * norm.scale;
            out[ulong(n) * M + m] = F()(bias != nullptr ? y + bias[m] : y);
        }
    }
}
template [[host_name("decode_up_gelu_f32")]]    kernel decltype(project<float, Gelu, LayerNorm, 2, 1>)  project<float, Gelu, LayerNorm, 2, 1>;
template [[host_name("decode_up_gelu_f16")]]    kernel decltype(project<half, Gelu, LayerNorm, 2, 1>)   project<half, Gelu, LayerNorm, 2, 1>;
template [[host_name("decode_up_gelu_bf16")]]   kernel decltype(project<bfloat, Gelu, LayerNorm, 2, 1>) project<bfloat, Gelu, LayerNorm, 2, 1>;
template [[host_name("decode_head_layer_f32")]]  kernel decltype(project<float, None, LayerNorm, 4, 4>)  project<float, None, LayerNorm, 4, 4>;
template [[host_name("decode_head_layer_f16")]]  kernel decltype(project<half, None, LayerNorm, 4, 4>)   project<half, None, LayerNorm, 4, 4>;
template [[host_name("decode_head_layer_bf16")]] kernel decltype(project<bfloat, None, LayerNorm, 4, 4>) project<bfloat, None, LayerNorm, 4, 4>;
template [[host_name("decode_head_rms_f32")]]    kernel decltype(project<float, None, RmsNorm, 4, 4>)    project<float, None, RmsNorm, 4, 4>;
template [[host_name("decode_head_rms_f16")]]    kernel decltype(project<half, None, RmsNorm, 4, 4>)     project<half, None, RmsNorm, 4, 4>;
template [[host_name("decode_head_rms_bf16")]]   kernel decltype(project<bfloat, None, RmsNorm, 4, 4>)   project<bfloat, None, RmsNorm, 4, 4>;
