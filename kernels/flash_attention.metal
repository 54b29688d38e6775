// flash_attention.metal - causal attention without the T x T matrix: keys and values pass by in tiles, the softmax is
// carried along. Dao et al., "FlashAttention", arXiv 2205.14135; the running rescale is Milakov and Gimelshein,
// "Online normalizer calculation for softmax", arXiv 1805.02867.
//
//   out[q] = sum over k <= q of p[q, k] V[k],   p = softmax over k of dot(Q[q], K[k]) / sqrt(hs)
//   for each tile of keys:   m' = max(m, s);  l = l e^(m - m') + sum of e^(s - m');  o = o e^(m - m') + e^(s - m') V
//   at the end:              out = o / l, or zeros where every key was masked
//   flash_attention_masked   the same with the window and the cap of attention_mask (attention.metal)
//
// Shapes    Q, K, V, out [B*nh, T, hs] float; any T, any hs.
// Dispatch  threadgroups (B*nh, T / Br rounded up), threadgroup (Br): a thread carries one query row. Five tiles:
//           threadgroup(0) Q, Br * hs floats; (1) K and (2) V, Bc * hs each; (3) scores, Br * Bc; (4) out, Br * hs.
//           The host chooses Br and Bc so that they fit its device (hs = 128 in 32 KB: Br = 16, Bc = 15); any Br, Bc >= 1.
// Assumes   nothing more. Rows past T are not read.
//
// The simdgroup-matrix kernels follow: flash_attention_simd (same layout, half or bfloat), flash_attention_paged (a ragged
// batch over the paged cache) and flash_attention_pieces (the same in pieces: a row has the same bits in any batch).
#include <metal_stdlib>
#include "cache.h"
#include "flash.h"
#include "pieces.h"
#include "storage.h"
using namespace metal;

// The tiles of a threadgroup.
struct Tiles {
    threadgroup float* q;
    threadgroup float* k;
    threadgroup float* v;
    threadgroup float* scores;
    threadgroup float* out;
};

// The block of queries of threadgroup tg: Br of them, of which a thread carries the r-th.
inline void attend_block(device const float* Q, device const float* K, device const float* V, device float* out,
                         uint T, uint n, uint wide, Mask mask, Tiles tiles, uint2 tg, uint r, uint Br) {
    const uint first = tg.y * Br;                       // the block's first query
    const uint rows = min(Br, T - first);
    const ulong head = ulong(tg.x) * T * n;
    const ulong block = head + ulong(first) * n;
    threadgroup float* q = tiles.q + r * n;
    threadgroup float* s = tiles.scores + r * wide;
    threadgroup float* o = tiles.out + r * n;

    for (uint i = r; i < rows * n; i += Br) tiles.q[i] = Q[block + i];
    for (uint d = 0; d < n; ++d) o[d] = 0.0f;
    float largest = -INFINITY, sum = 0.0f;

    const uint end = first + rows;                      // later keys are masked for the whole block
    for (uint k0 = uint(mask.first_seen(int(first))), keys = 0; k0 != end; k0 += keys) {
        keys = min(wide, end - k0);
        threadgroup_barrier(mem_flags::mem_threadgroup);   // everyone is done with the tiles before
        for (uint i = r; i < keys * n; i += Br) {
            tiles.k[i] = K[head + ulong(k0) * n + i];
            tiles.v[i] = V[head + ulong(k0) * n + i];
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (r < rows && first + r >= k0) {                 // the row sees some of these keys, or later ones
            const uint from = uint(max(mask.first_seen(int(first + r)) - int(k0), 0));
            const uint seen = min(keys, first + r - k0 + 1);   // k <= q
            float top = largest;
            for (uint j = from; j < seen; ++j) {
                float dot = 0.0f;
                for (uint d = 0; d < n; ++d) dot = fma(q[d], tiles.k[j * n + d], dot);
                s[j] = mask.score(dot);
                top = max(top, s[j]);
            }
            const float base = top == -INFINITY ? 0.0f : top;
            const float shrink = exp(largest - base);
            largest = top;
            sum *= shrink;
            for (uint d = 0; d < n; ++d) o[d] *= shrink;
            for (uint j = from; j < seen; ++j) {
                const float p = exp(s[j] - base);
                sum += p;
                for (uint d = 0; d < n; ++d) o[d] = fma(p, tiles.v[j * n + d], o[d]);
            }
        }
    }

    const float scale_out = sum == 0.0f ? 0.0f : 1.0f / sum;
    for (uint d = 0; d < n; ++d) o[d] *= scale_out;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = r; i < rows * n; i += Br) out[block + i] = tiles.out[i];
}

kernel void flash_attention_forward(
    device const float* Q      [[buffer(0)]],
    device const float* K      [[buffer(1)]],
    device const float* V      [[buffer(2)]],
    device float*       out    [[buffer(3)]],
    constant int&       T      [[buffer(4)]],
    constant int&       hs     [[buffer(5)]],
    constant int&       Bc     [[buffer(6)]],
    threadgroup float*  q_tile [[threadgroup(0)]],
    threadgroup float*  k_tile [[threadgroup(1)]],
    threadgroup float*  v_tile [[threadgroup(2)]],
    threadgroup float*  scores [[threadgroup(3)]],
    threadgroup float*  o_tile [[threadgroup(4)]],
    uint2 tg  [[threadgroup_position_in_grid]],
    uint2 tid [[thread_position_in_threadgroup]],
    uint2 gsz [[threads_per_threadgroup]])
{
    const Mask mask = { 1.0f / sqrt(float(hs)), 0, 0.0f };
    const Tiles tiles = { q_tile, k_tile, v_tile, scores, o_tile };
    attend_block(Q, K, V, out, uint(T), uint(hs), uint(Bc), mask, tiles, tg, tid.x, gsz.x);
}

kernel void flash_attention_masked(
    device const float* Q      [[buffer(0)]],
    device const float* K      [[buffer(1)]],
    device const float* V      [[buffer(2)]],
    device float*       out    [[buffer(3)]],
    constant int&       T      [[buffer(4)]],
    constant int&       hs     [[buffer(5)]],
    constant int&       Bc     [[buffer(6)]],
    constant int&       window [[buffer(7)]],
    constant float&     cap    [[buffer(8)]],
    threadgroup float*  q_tile [[threadgroup(0)]],
    threadgroup float*  k_tile [[threadgroup(1)]],
    threadgroup float*  v_tile [[threadgroup(2)]],
    threadgroup float*  scores [[threadgroup(3)]],
    threadgroup float*  o_tile [[threadgroup(4)]],
    uint2 tg  [[threadgroup_position_in_grid]],
    uint2 tid [[thread_position_in_threadgroup]],
    uint2 gsz [[threads_per_threadgroup]])
{
    const Mask mask = { 1.0f / sqrt(float(hs)), window, cap };
    const Tiles tiles = { q_tile, k_tile, v_tile, scores, o_tile };
    attend_block(Q, K, V, out, uint(T), uint(hs), uint(Bc), mask, tiles, tg, tid.x, gsz.x);
}

// ---- The same over simdgroup matrices (flash.h).

// Attention of a sequence's queries, of which this threadgroup has first .. first + 63, over its `length` tokens.
template <typename E, int D, int BK, typename S, typename Place>
inline void attend_all(Queries<S> queried, int first, int length, device const E* k, device const E* v, device S* out,
                       ulong out_stride, Place place, Mask mask, threadgroup E* tiles, ushort tid, ushort lane, ushort sg) {
    const int position = queried.of(first), begin = mask.first_seen(position) / BK * BK, end = min(length, position + FLASH_ROWS);
    Attended<D> rows;
    AllAtOnce tiling;
    attend<E, D, BK>(rows, tiling, queried, first, k, v, place, mask, begin, end, tiles, tid, lane, sg);
    #pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float sum = simd_row_sum(rows.l[r]);
        const float scale = sum == 0.0f ? 0.0f : 1.0f / sum;
        const int i = first + sg * 16 + simd_row(lane) + r * 8;
        if (i >= queried.count) continue;
        device S* to = out + ulong(i) * out_stride + simd_col(lane);
        #pragma unroll
        for (int n = 0; n < D / 8; ++n) {
            to[n * 8] = S(rows.o[r][n].thread_elements()[0] * scale);
            to[n * 8 + 1] = S(rows.o[r][n].thread_elements()[1] * scale);
        }
    }
}

// Q, K, V, out [B*nh, T, hs], half or bfloat. Threadgroups (B*nh, T / 64 rounded up), threadgroup (128);
// threadgroup(0): max(64, 2 BK) * (hs + 8) elements. Addresses aligned to 16 bytes.
template <typename E, int D, int BK>
[[max_total_threads_per_threadgroup(FLASH_THREADS)]]
kernel void flash_simd(
    device const E* Q     [[buffer(0)]],
    device const E* K     [[buffer(1)]],
    device const E* V     [[buffer(2)]],
    device E*       out   [[buffer(3)]],
    constant int&   T     [[buffer(4)]],
    threadgroup E*  tiles [[threadgroup(0)]],
    uint2  tg   [[threadgroup_position_in_grid]],
    ushort tid  [[thread_index_in_threadgroup]],
    ushort lane [[thread_index_in_simdgroup]],
    ushort sg   [[simdgroup_index_in_threadgroup]])
{
    const ulong head = ulong(tg.x) * T * D;
    Mask mask;
    mask.scale = 1.0f / sqrt(float(D));
    mask.window = 0;
    mask.cap = 0.0f;
    const Queries<E> queried = { Q + head, ulong(D), T, 0, 1 };
    attend_all<E, D, BK>(queried, int(tg.y) * FLASH_ROWS, T, K + head, V + head, out + head, D, Contiguous<D>(), mask,
                         tiles, tid, lane, sg);
}
template [[host_name("flash_attention_simd_f16_hs32")]]   kernel decltype(flash_simd<half, 32, 64>)    flash_simd<half, 32, 64>;
template [[host_name("flash_attention_simd_f16_hs64")]]   kernel decltype(flash_simd<half, 64, 64>)    flash_simd<half, 64, 64>;
template [[host_name("flash_attention_simd_f16_hs80")]]   kernel decltype(flash_simd<half, 80, 64>)    flash_simd<half, 80, 64>;
template [[host_name("flash_attention_simd_f16_hs128")]]  kernel decltype(flash_simd<half, 128, 32>)   flash_simd<half, 128, 32>;
template [[host_name("flash_attention_simd_bf16_hs32")]]  kernel decltype(flash_simd<bfloat, 32, 64>)  flash_simd<bfloat, 32, 64>;
template [[host_name("flash_attention_simd_bf16_hs64")]]  kernel decltype(flash_simd<bfloat, 64, 64>)  flash_simd<bfloat, 64, 64>;
template [[host_name("flash_attention_simd_bf16_hs80")]]  kernel decltype(flash_simd<bfloat, 80, 64>)  flash_simd<bfloat, 80, 64>;
template [[host_name("flash_attention_simd_bf16_hs128")]] kernel decltype(flash_simd<bfloat, 128, 32>) flash_simd<bfloat, 128, 32>;

// A ragged batch: sequence i has the rows first_row[i] .. first_row[i + 1] of Q and out, the last of its lengths[i]
// tokens, whose K and V are in the paged cache (paging.metal). Q float, q_stride floats from row to row, head h at
// column h * hs; out [N, nh * hs] float; caches half or bfloat; block_table [n_seqs, max_blocks]. window: keys that a
// query sees, its own among them; softcap: the scores' cap; 0 turns either off.
// Threadgroups (nh, most rows of a sequence / 64 rounded up, n_seqs), threadgroup (128); threadgroup(0) as above.
// Assumes q_stride % 4 == 0 and addresses aligned to 16 bytes.
template <typename E, int D, int BK>
[[max_total_threads_per_threadgroup(FLASH_THREADS)]]
kernel void flash_paged(
    device const float* Q           [[buffer(0)]],
    device const E*     k_cache     [[buffer(1)]],
    device const E*     v_cache     [[buffer(2)]],
    device const int*   block_table [[buffer(3)]],
    device const int*   lengths     [[buffer(4)]],
    device const int*   first_row   [[buffer(5)]],
    device float*       out         [[buffer(6)]],
    constant int&       q_stride    [[buffer(7)]],
    constant int&       nh          [[buffer(8)]],
    constant int&       n_kv_head   [[buffer(9)]],
    constant int&       block_size  [[buffer(10)]],
    constant int&       max_blocks  [[buffer(11)]],
    constant float&     scale       [[buffer(12)]],
    constant int&       window      [[buffer(13)]],
    constant float&     cap         [[buffer(14)]],
    threadgroup E*      tiles       [[threadgroup(0)]],
    uint3  tg   [[threadgroup_position_in_grid]],
    ushort tid  [[thread_index_in_threadgroup]],
    ushort lane [[thread_index_in_simdgroup]],
    ushort sg   [[simdgroup_index_in_threadgroup]])
{
    const uint h = tg.x, seq = tg.z;
    const int first = first_row[seq], rows = first_row[seq + 1] - first, q0 = int(tg.y) * FLASH_ROWS, length = lengths[seq];
    if (q0 >= rows) return;
    const Paged<D> place = { block_table + ulong(seq) * max_blocks, n_kv_head, int(h) / (nh / n_kv_head), block_size };
    const Mask mask = { scale, window, cap };
    const Queries<float> queried = { Q + ulong(first) * q_stride + h * D, ulong(q_stride), rows, length - rows, 1 };
    const ulong out_stride = ulong(nh) * D;
    attend_all<E, D, BK>(queried, q0, length, k_cache, v_cache, out + ulong(first) * out_stride + h * D, out_stride, place, mask,
                         tiles, tid, lane, sg);
}
template [[host_name("flash_attention_paged_f16_hs32")]]   kernel decltype(flash_paged<half, 32, 64>)    flash_paged<half, 32, 64>;
template [[host_name("flash_attention_paged_f16_hs64")]]   kernel decltype(flash_paged<half, 64, 64>)    flash_paged<half, 64, 64>;
template [[host_name("flash_attention_paged_f16_hs80")]]   kernel decltype(flash_paged<half, 80, 64>)    flash_paged<half, 80, 64>;
template [[host_name("flash_attention_paged_f16_hs128")]]  kernel decltype(flash_paged<half, 128, 32>)   flash_paged<half, 128, 32>;
template [[host_name("flash_attention_paged_bf16_hs32")]]  kernel decltype(flash_paged<bfloat, 32, 64>)  flash_paged<bfloat, 32, 64>;
template [[host_name("flash_attention_paged_bf16_hs64")]]  kernel decltype(flash_paged<bfloat, 64, 64>)  flash_paged<bfloat, 64, 64>;
template [[host_name("flash_attention_paged_bf16_hs80")]]  kernel decltype(flash_paged<bfloat, 80, 64>)  flash_paged<bfloat, 80, 64>;
template [[host_name("flash_attention_paged_bf16_hs128")]] kernel decltype(flash_paged<bfloat, 128, 32>) flash_paged<bfloat, 128, 32>;

// ---- In pieces, put together in their order (pieces.h): a row's bits depend neither on the rows beside it nor on whether one
// threadgroup goes through its pieces or each has its own.
// With out: all pieces of up to 64 rows, as flash_attention_paged; threadgroups (nh, most rows of a sequence / 64 rounded up,
// n_seqs). Without: piece tg.y of sequences that have one row each, all query heads of a KV head together, to partial [N, nh,
// pieces, hs] and part_stats [N, nh, pieces, 2] for attention_decode_combine; of a piece without tokens stats alone.
// Threadgroups (n_kv_head, pieces, n_seqs), nh / n_kv_head at most 64. Threadgroup and memory as above.

// Puts the pieces of a lane's rows together where one ends.
template <int D>
struct InPieces {
    int piece[2];                                            // tokens that a piece of the row's cache holds
    Gathered all[2];
    float o[2][D / 8][2];
    void clear() {
        #pragma unroll
        for (int r = 0; r < 2; ++r) {
            all[r] = nothing_gathered();
            #pragma unroll
            for (int n = 0; n < D / 8; ++n) o[r][n][0] = o[r][n][1] = 0.0f;
        }
    }
    // weights: the row's, of what `rows` has; none changes nothing.
    void add(int r, float weights, thread Attended<D>& rows) {
        if (weights == 0.0f) return;
        const Shares shares = all[r].add(rows.m[r], weights);
        #pragma unroll
        for (int n = 0; n < D / 8; ++n)
            #pragma unroll
            for (int e = 0; e < 2; ++e) o[r][n][e] = shares.sum(o[r][n][e], rows.o[r][n].thread_elements()[e]);
    }
    void before(int j0, thread Attended<D>& rows) {
        if (j0 % PIECE != 0) return;                         // the same for all
        #pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float weights = simd_row_sum(rows.l[r]);
            if (j0 % piece[r] != 0) continue;
            add(r, weights, rows);
            rows.reset(r);
        }
    }
};

template <typename E, int D, int BK>
[[max_total_threads_per_threadgroup(FLASH_THREADS)]]
kernel void flash_pieces(
    device const float* Q           [[buffer(0)]],
    device const E*     k_cache     [[buffer(1)]],
    device const E*     v_cache     [[buffer(2)]],
    device const int*   block_table [[buffer(3)]],
    device const int*   lengths     [[buffer(4)]],
    device const int*   first_row   [[buffer(5)]],
    device float*       out         [[buffer(6)]],
    device float*       partial     [[buffer(7)]],
    device float*       part_stats  [[buffer(8)]],
    constant int&       q_stride    [[buffer(9)]],
    constant int&       nh          [[buffer(10)]],
    constant int&       n_kv_head   [[buffer(11)]],
    constant int&       block_size  [[buffer(12)]],
    constant int&       max_blocks  [[buffer(13)]],
    constant float&     scale       [[buffer(14)]],
    constant int&       window      [[buffer(15)]],
    constant float&     cap         [[buffer(16)]],
    threadgroup E*      tiles       [[threadgroup(0)]],
    uint3  tg     [[threadgroup_position_in_grid]],
    uint3  groups [[threadgroups_per_grid]],
    ushort tid    [[thread_index_in_threadgroup]],
    ushort lane   [[thread_index_in_simdgroup]],
    ushort sg     [[simdgroup_index_in_threadgroup]])
{
    const uint seq = tg.z;
    const int first = first_row[seq], rows = first_row[seq + 1] - first, sharing = nh / n_kv_head, length = lengths[seq];
    const bool whole = out != nullptr;
    const int head = whole ? int(tg.x) : int(tg.x) * sharing, q0 = whole ? int(tg.y) * FLASH_ROWS : 0;
    if (q0 >= rows) return;
    const Mask mask = { scale, window, cap };
    const Paged<D> place = { block_table + ulong(seq) * max_blocks, n_kv_head, head / sharing, block_size };
    Queries<float> queried = { Q + ulong(first) * q_stride + head * D, ulong(q_stride), rows, length - rows, 1 };
    int begin = mask.first_seen(queried.of(q0)) / BK * BK, end = min(length, queried.of(q0) + FLASH_ROWS);
    if (!whole) {
        queried.stride = D;
        queried.count = sharing;
        queried.step = 0;
        const int piece = piece_of(length);
        begin = max(begin, int(tg.y) * piece);
        end = min(end, (int(tg.y) + 1) * piece);
    }
    const int mine = q0 + sg * 16 + simd_row(lane);
    Attended<D> attended;
    InPieces<D> pieces;
    #pragma unroll
    for (int r = 0; r < 2; ++r) pieces.piece[r] = piece_of(max(queried.of(mine + r * 8), 0) + 1);
    pieces.clear();
    attend<E, D, BK>(attended, pieces, queried, q0, k_cache, v_cache, place, mask, begin, end, tiles, tid, lane, sg);

    #pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float weights = simd_row_sum(attended.l[r]);
        const int i = mine + r * 8;
        if (i >= queried.count) continue;
        if (whole) {
            pieces.add(r, weights, attended);
            const float scale_out = pieces.all[r].divisor();
            device float* to = out + (ulong(first + i) * nh + head) * D + simd_col(lane);
            #pragma unroll
            for (int n = 0; n < D / 8; ++n) {
                to[n * 8] = pieces.o[r][n][0] * scale_out;
                to[n * 8 + 1] = pieces.o[r][n][1] * scale_out;
            }
            continue;
        }
        const ulong slot = (ulong(first) * nh + head + i) * groups.y + tg.y;
        device float* to = partial + slot * D + simd_col(lane);
        #pragma unroll
        for (int n = 0; n < D / 8 && weights != 0.0f; ++n) {
            to[n * 8] = attended.o[r][n].thread_elements()[0];
            to[n * 8 + 1] = attended.o[r][n].thread_elements()[1];
        }
        if (simd_col(lane) == 0) {
            part_stats[2 * slot] = attended.m[r];
            part_stats[2 * slot + 1] = weights;
        }
    }
}
template [[host_name("flash_attention_pieces_f16_hs32")]]            kernel decltype(flash_pieces<half, 32, 64>) flash_pieces<half, 32, 64>;
template [[host_name("flash_attention_pieces_f16_hs64")]]            kernel decltype(flash_pieces<half, 64, 64>) flash_pieces<half, 64, 64>;
template [[host_name("flash_attention_pieces_f16_hs80")]]            kernel decltype(flash_pieces<half, 80, 64>) flash_pieces<half, 80, 64>;
template [[host_name("flash_attention_pieces_f16_hs128")]]           kernel decltype(flash_pieces<half, 128, 32>) flash_pieces<half, 128, 32>;
template [[host_name("flash_attention_pieces_bf16_hs32")]]           kernel decltype(flash_pieces<bfloat, 32, 64>) flash_pieces<bfloat, 32, 64>;
template [[host_name("flash_attention_pieces_bf16_hs64")]]           kernel decltype(flash_pieces<bfloat, 64, 64>) flash_pieces<bfloat, 64, 64>;
template [[host_name("flash_attention_pieces_bf16_hs80")]]           kernel decltype(flash_pieces<bfloat, 80, 64>) flash_pieces<bfloat, 80, 64>;
template [[host_name("flash_attention_pieces_bf16_hs128")]]          kernel decltype(flash_pieces<bfloat, 128, 32>) flash_pieces<bfloat, 128, 32>;
