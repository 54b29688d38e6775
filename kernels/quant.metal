// quant.metal - weights in ggml's quantised blocks, widened to float as they are read: Q8_0, Q4_0, Q4_1, Q4_K, Q6_K.
//
//   embedding_forward          out[n, c] = weight[tokens[n], c]
//   positional_embedding_add   x[n, c]  += weight[positions[n], c]
//   matvec                     out[n, m] = sum over k of x[n, k] W[m, k] + bias[m] + residual[n, m]
//   decode_head                norm and projection: out = W norm(x) + bias
//   decode_up_gelu             norm and projection: out = gelu(W norm(x) + bias)
//   decode_swiglu              norm, gate and up projection: out = silu(Wg norm(x)) * (Wu norm(x))
//   decode_geglu               the same with the tanh form of GELU
//   dequantize                 out[m, k] = W[m, k] as half: for products of many rows
//
// The kernels are those of embedding.metal, linear.metal and decode.metal, their names with the block type behind.
//
// Shapes    W [M, K] (weight [vocab, C] and [n_positions, C]): row-major, a row its K / WEIGHTS blocks one after another; x
//           [N, K], out, residual [N, M], bias [M], gamma, beta [C] float; tokens, positions [N] int. bias and residual may
//           be nil; out may be residual.
// Dispatch  embedding_forward, positional_embedding_add, dequantize: a thread has sixteen weights: threads (N, C / 16), or
//           (M, K / 16), threadgroup (1, min(C / 16 rounded up to 32, 1024)). The others: a simdgroup has four rows of W
//           (two of each matrix where there are two): threadgroups (rows / (4 * simdgroups a threadgroup) rounded up, N),
//           threadgroup (128) or any multiple of 32; those with a norm have threadgroup(0): one float a simdgroup.
// Assumes   K and C are whole blocks; x, gamma and beta begin at multiples of 16 bytes, W at a multiple of 2; indices lie
//           inside their tables. A result depends on its own row alone, whatever N is. The products' weights are read ahead.
#include <metal_stdlib>
#include "activation.h"
#include "quant.h"
using namespace metal;

template <typename T>
inline void store8(device T* p, Eight v) {
    store4(p, v.lo);
    store4(p + 4, v.hi);
}

inline void add8(device float* p, Eight v) {
    store4(p, load4(p) + v.lo);
    store4(p + 4, load4(p + 4) + v.hi);
}

template <typename Q>
kernel void embed(
    device const uchar* weight [[buffer(0)]],
    device const int*   tokens [[buffer(1)]],
    device float*       out    [[buffer(2)]],
    constant int&       C      [[buffer(3)]],
    uint2 gid [[thread_position_in_grid]])
{
    const uint n = gid.x, p = gid.y;
    if (p >= uint(C) / 16) return;
    const Sixteen w = sixteen_of<Q>(weight + ulong(tokens[n]) * bytes_of_row<Q>(uint(C)), p);
    const uint2 runs = runs_of<Q>(p);
    store8(out + ulong(n) * C + runs.x, w.first);
    store8(out + ulong(n) * C + runs.y, w.second);
}
template [[host_name("embedding_forward_q8_0")]] kernel decltype(embed<Q8_0>) embed<Q8_0>;
template [[host_name("embedding_forward_q4_0")]] kernel decltype(embed<Q4_0>) embed<Q4_0>;
template [[host_name("embedding_forward_q4_1")]] kernel decltype(embed<Q4_1>) embed<Q4_1>;
template [[host_name("embedding_forward_q4_k")]] kernel decltype(embed<Q4_K>) embed<Q4_K>;
template [[host_name("embedding_forward_q6_k")]] kernel decltype(embed<Q6_K>) embed<Q6_K>;

template <typename Q>
kernel void embed_position(
    device const uchar* weight    [[buffer(0)]],
    device const int*   positions [[buffer(1)]],
    device float*       x         [[buffer(2)]],
    constant int&       C         [[buffer(3)]],
    uint2 gid [[thread_position_in_grid]])
{
    const uint n = gid.x, p = gid.y;
    if (p >= uint(C) / 16) return;
    const Sixteen w = sixteen_of<Q>(weight + ulong(positions[n]) * bytes_of_row<Q>(uint(C)), p);
    const uint2 runs = runs_of<Q>(p);
    add8(x + ulong(n) * C + runs.x, w.first);
    add8(x + ulong(n) * C + runs.y, w.second);
}
template [[host_name("positional_embedding_add_q8_0")]] kernel decltype(embed_position<Q8_0>) embed_position<Q8_0>;
template [[host_name("positional_embedding_add_q4_0")]] kernel decltype(embed_position<Q4_0>) embed_position<Q4_0>;
template [[host_name("positional_embedding_add_q4_1")]] kernel decltype(embed_position<Q4_1>) embed_position<Q4_1>;
template [[host_name("positional_embedding_add_q4_k")]] kernel decltype(embed_position<Q4_K>) embed_position<Q4_K>;
template [[host_name("positional_embedding_add_q6_k")]] kernel decltype(embed_position<Q6_K>) embed_position<Q6_K>;

template <typename Q>
kernel void halve(
    device const uchar* W   [[buffer(0)]],
    device half*        out [[buffer(1)]],
    constant int&       K   [[buffer(2)]],
    uint2 gid [[thread_position_in_grid]])
{
    const uint m = gid.x, p = gid.y;
    if (p >= uint(K) / 16) return;
    const Sixteen w = sixteen_of<Q>(W + ulong(m) * bytes_of_row<Q>(uint(K)), p);
    const uint2 runs = runs_of<Q>(p);
    store8(out + ulong(m) * K + runs.x, w.first);
    store8(out + ulong(m) * K + runs.y, w.second);
}
template [[host_name("dequantize_q8_0")]] kernel decltype(halve<Q8_0>) halve<Q8_0>;
template [[host_name("dequantize_q4_0")]] kernel decltype(halve<Q4_0>) halve<Q4_0>;
template [[host_name("dequantize_q4_1")]] kernel decltype(halve<Q4_1>) halve<Q4_1>;
template [[host_name("dequantize_q4_k")]] kernel decltype(halve<Q4_K>) halve<Q4_K>;
template [[host_name("dequantize_q6_k")]] kernel decltype(halve<Q6_K>) halve<Q6_K>;

constant constexpr int ROWS = 4;   // of W that a simdgroup has: they share what it reads of x

template <typename Q>
kernel void matvec(
    device const float* x        [[buffer(0)]],
    device const uchar* W        [[buffer(1)]],
    device float*       out      [[buffer(2)]],
    device const float* bias     [[buffer(3)]],
    device const float* residual [[buffer(4)]],
    constant int&       K        [[buffer(5)]],
    constant int&       M        [[buffer(6)]],
    uint2 tg   [[threadgroup_position_in_grid]],
    uint  lane [[thread_index_in_simdgroup]],
    uint  sg   [[simdgroup_index_in_threadgroup]],
    uint  nsg  [[simdgroups_per_threadgroup]])
{
    const int first = int(tg.x * nsg + sg) * ROWS;
    BlockRows<Q, ROWS> rows;
    #pragma unroll
    for (int r = 0; r < ROWS; ++r) rows.row[r] = W + ulong(min(first + r, M - 1)) * bytes_of_row<Q>(uint(K));   // past the end: not stored
    rows.read_ahead(uint(K), lane);
    await_dependency();
    Plain v;
    v.x = x + ulong(tg.y) * K;
    const Sums<ROWS> sums = dot_blocks(rows, v, uint(K), lane);
    if (lane != 0) return;
    #pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const int m = first + r;
        if (m >= M) continue;
        const ulong at = ulong(tg.y) * M + m;
        float y = sums.of[r];
        if (bias != nullptr) y += bias[m];
        if (residual != nullptr) y += residual[at];
        out[at] = y;
    }
}
template [[host_name("matvec_q8_0")]] kernel decltype(matvec<Q8_0>) matvec<Q8_0>;
template [[host_name("matvec_q4_0")]] kernel decltype(matvec<Q4_0>) matvec<Q4_0>;
template [[host_name("matvec_q4_1")]] kernel decltype(matvec<Q4_1>) matvec<Q4_1>;
template [[host_name("matvec_q4_k")]] kernel decltype(matvec<Q4_K>) matvec<Q4_K>;
template [[host_name("matvec_q6_k")]] kernel decltype(matvec<Q6_K>) matvec<Q6_K>;

template <typename Q, typename F, typename V>
kernel void project(
    device const float* x      [[buffer(0)]],
    device const float* gamma  [[buffer(1)]],
    device const float* beta   [[buffer(2)]],
    device const uchar* W      [[buffer(3)]],
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
    const int first = int(tg.x * nsg + sg) * ROWS;
    BlockRows<Q, ROWS> rows;
    #pragma unroll
    for (int r = 0; r < ROWS; ++r) rows.row[r] = W + ulong(min(first + r, M - 1)) * bytes_of_row<Q>(uint(C));
    rows.read_ahead(uint(C), lane);
    await_dependency();
    V v;
    normalise(v, x + ulong(n) * C, gamma, beta, uint(C), eps, shared, tid.x, gsz.x, lane, sg, nsg);
    const Sums<ROWS> sums = dot_blocks(rows, v, uint(C), lane);
    if (lane != 0) return;
    #pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        const int m = first + r;
        if (m >= M) continue;
        out[ulong(n) * M + m] = F()(bias != nullptr ? sums.of[r] + bias[m] : sums.of[r]);
    }
}
template [[host_name("decode_head_rms_q8_0")]] kernel decltype(project<Q8_0, None, RmsNormed>) project<Q8_0, None, RmsNormed>;
template [[host_name("decode_head_rms_q4_0")]] kernel decltype(project<Q4_0, None, RmsNormed>) project<Q4_0, None, RmsNormed>;
template [[host_name("decode_head_rms_q4_1")]] kernel decltype(project<Q4_1, None, RmsNormed>) project<Q4_1, None, RmsNormed>;
template [[host_name("decode_head_rms_q4_k")]] kernel decltype(project<Q4_K, None, RmsNormed>) project<Q4_K, None, RmsNormed>;
template [[host_name("decode_head_rms_q6_k")]] kernel decltype(project<Q6_K, None, RmsNormed>) project<Q6_K, None, RmsNormed>;
template [[host_name("decode_head_layer_q8_0")]] kernel decltype(project<Q8_0, None, LayerNormed>) project<Q8_0, None, LayerNormed>;
template [[host_name("decode_head_layer_q4_0")]] kernel decltype(project<Q4_0, None, LayerNormed>) project<Q4_0, None, LayerNormed>;
template [[host_name("decode_head_layer_q4_1")]] kernel decltype(project<Q4_1, None, LayerNormed>) project<Q4_1, None, LayerNormed>;
template [[host_name("decode_head_layer_q4_k")]] kernel decltype(project<Q4_K, None, LayerNormed>) project<Q4_K, None, LayerNormed>;
template [[host_name("decode_head_layer_q6_k")]] kernel decltype(project<Q6_K, None, LayerNormed>) project<Q6_K, None, LayerNormed>;
template [[host_name("decode_up_gelu_q8_0")]] kernel decltype(project<Q8_0, Gelu, LayerNormed>) project<Q8_0, Gelu, LayerNormed>;
template [[host_name("decode_up_gelu_q4_0")]] kernel decltype(project<Q4_0, Gelu, LayerNormed>) project<Q4_0, Gelu, LayerNormed>;
template [[host_name("decode_up_gelu_q4_1")]] kernel decltype(project<Q4_1, Gelu, LayerNormed>) project<Q4_1, Gelu, LayerNormed>;
template [[host_name("decode_up_gelu_q4_k")]] kernel decltype(project<Q4_K, Gelu, LayerNormed>) project<Q4_K, Gelu, LayerNormed>;
template [[host_name("decode_up_gelu_q6_k")]] kernel decltype(project<Q6_K, Gelu, LayerNormed>) project<Q6_K, Gelu, LayerNormed>;

template <typename Q, typename F>
kernel void gate_up(
    device const float* x      [[buffer(0)]],
    device const float* gamma  [[buffer(1)]],
    device const uchar* W_gate [[buffer(2)]],
    device const uchar* W_up   [[buffer(3)]],
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
    constexpr int PAIRS = ROWS / 2;
    const uint n = tg.y;
    const int first = int(tg.x * nsg + sg) * PAIRS;
    BlockRows<Q, ROWS> rows;
    #pragma unroll
    for (int r = 0; r < PAIRS; ++r) {
        const ulong at = ulong(min(first + r, M - 1)) * bytes_of_row<Q>(uint(C));
        rows.row[r] = W_gate + at;
        rows.row[PAIRS + r] = W_up + at;
    }
    rows.read_ahead(uint(C), lane);
    await_dependency();
    RmsNormed v;
    normalise(v, x + ulong(n) * C, gamma, gamma, uint(C), eps, shared, tid.x, gsz.x, lane, sg, nsg);
    const Sums<ROWS> sums = dot_blocks(rows, v, uint(C), lane);
    if (lane != 0) return;
    #pragma unroll
    for (int r = 0; r < PAIRS; ++r) {
        const int m = first + r;
        if (m >= M) continue;
        out[ulong(n) * M + m] = F()(sums.of[r]) * sums.of[PAIRS + r];
    }
}
template [[host_name("decode_swiglu_q8_0")]] kernel decltype(gate_up<Q8_0, Silu>) gate_up<Q8_0, Silu>;
template [[host_name("decode_swiglu_q4_0")]] kernel decltype(gate_up<Q4_0, Silu>) gate_up<Q4_0, Silu>;
template [[host_name("decode_swiglu_q4_1")]] kernel decltype(gate_up<Q4_1, Silu>) gate_up<Q4_1, Silu>;
template [[host_name("decode_swiglu_q4_k")]] kernel decltype(gate_up<Q4_K, Silu>) gate_up<Q4_K, Silu>;
template [[host_name("decode_swiglu_q6_k")]] kernel decltype(gate_up<Q6_K, Silu>) gate_up<Q6_K, Silu>;
template [[host_name("decode_geglu_q8_0")]] kernel decltype(gate_up<Q8_0, Gelu>) gate_up<Q8_0, Gelu>;
template [[host_name("decode_geglu_q4_0")]] kernel decltype(gate_up<Q4_0, Gelu>) gate_up<Q4_0, Gelu>;
template [[host_name("decode_geglu_q4_1")]] kernel decltype(gate_up<Q4_1, Gelu>) gate_up<Q4_1, Gelu>;
template [[host_name("decode_geglu_q4_k")]] kernel decltype(gate_up<Q4_K, Gelu>) gate_up<Q4_K, Gelu>;
template [[host_name("decode_geglu_q6_k")]] kernel decltype(gate_up<Q6_K, Gelu>) gate_up<Q6_K, Gelu>;
