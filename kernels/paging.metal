// paging.metal - between the rows of a ragged batch, the [head, token, channel] tensors of the attention kernels, and
// the paged KV cache.
//
//   split_heads    out[h, T - rows + i, d] = x[first_row + i, column + h*hs + d]; the T - rows tokens before are zeros
//   merge_heads    out[first_row + i, h*hs + d] = x[h, T - rows + i, d]
//   rope_rows      rope_forward (attention.metal) on columns of x, row n at position positions[n]
//   cache_write    row n's K and V into the cache at slots[n] = block * block_size + offset; a negative slot is skipped
//   place_heads    what stands between a row's QKV projection and attention, in one: rmsnorm_heads (layernorm.metal) and
//                  rope_rows of its queries, in place, and of its keys; cache_write of keys and values
//   advance_rows   from one decoding step to the next: row n's token is chosen[n], its position and length one more, its
//                  slot what block_table says (-1 behind its end); history[n, position modulo kept] = chosen[n]; where
//                  that is negative, no token, the row goes on with token 0
//   cache_gather   a sequence's first T tokens of K and V out of the cache; query head h reads KV head h / (nh / n_kv_head)
//                  Kwon et al., "Efficient Memory Management ... with PagedAttention", arXiv 2309.06180
//
// Shapes    x of split_heads and rope_rows, qkv [N, W]: W floats from row to row, the wanted columns start at `column`;
//           x of merge_heads, out of split_heads, K, V [nh, T, hs]; freqs [n_positions, hs];
//           caches [n_blocks, n_kv_head, block_size, hs], float, half (_f16) or bfloat (_bf16);
//           block_table [T / block_size rounded up]. All else float or int.
// Dispatch  split_heads, cache_gather: threads (hs, T, nh). merge_heads: threads (hs, rows, nh). rope_rows: threads
//           (hs / 2, n_head, N). cache_write: threads (hs, n_kv_head, N). Threadgroup (min(hs rounded up to 32, 1024),
//           1, 1), or any (x, y, 1); no threadgroup memory.
// Assumes   block numbers, slots and positions lie inside their tables; no two rows of a batch share a slot.
#include <metal_stdlib>
#include "cache.h"
using namespace metal;

kernel void split_heads(
    device const float* x         [[buffer(0)]],
    device float*       out       [[buffer(1)]],
    constant int&       first_row [[buffer(2)]],
    constant int&       rows      [[buffer(3)]],
    constant int&       T         [[buffer(4)]],
    constant int&       W         [[buffer(5)]],
    constant int&       column    [[buffer(6)]],
    constant int&       hs        [[buffer(7)]],
    uint3 gid [[thread_position_in_grid]])
{
    const uint d = gid.x, t = gid.y, h = gid.z;
    if (d >= uint(hs) || t >= uint(T)) return;
    const int i = int(t) - (T - rows);
    float v = 0.0f;
    if (i >= 0) v = x[ulong(first_row + i) * W + column + ulong(h) * hs + d];
    out[(ulong(h) * T + t) * hs + d] = v;
}

kernel void merge_heads(
    device const float* x         [[buffer(0)]],
    device float*       out       [[buffer(1)]],
    constant int&       first_row [[buffer(2)]],
    constant int&       rows      [[buffer(3)]],
    constant int&       T         [[buffer(4)]],
    constant int&       hs        [[buffer(5)]],
    uint3 gid [[thread_position_in_grid]],
    uint3 grid [[threads_per_grid]])
{
    const uint d = gid.x, i = gid.y, h = gid.z, nh = grid.z;
    if (d >= uint(hs) || i >= uint(rows)) return;
    const ulong from = (ulong(h) * T + (T - rows) + i) * hs + d;
    out[(ulong(first_row) + i) * nh * hs + ulong(h) * hs + d] = x[from];
}

kernel void rope_rows(
    device float*       x         [[buffer(0)]],
    device const float* freqs     [[buffer(1)]],
    device const int*   positions [[buffer(2)]],
    constant int&       W         [[buffer(3)]],
    constant int&       column    [[buffer(4)]],
    constant int&       n_head    [[buffer(5)]],
    constant int&       hs        [[buffer(6)]],
    uint3 gid [[thread_position_in_grid]])
{
    const uint i = gid.x, h = gid.y, n = gid.z, pairs = uint(hs) / 2;
    if (i >= pairs || h >= uint(n_head)) return;
    device const float* angle = freqs + ulong(positions[n]) * hs + 2 * i;
    device float* lo = x + ulong(n) * W + column + ulong(h) * hs + i;
    device float* hi = lo + pairs;
    const float c = angle[0], s = angle[1], a = *lo, b = *hi;
    *lo = a * c - b * s;
    *hi = a * s + b * c;
}

template <typename T>
kernel void write_cache(
    device const float* qkv        [[buffer(0)]],
    device const int*   slots      [[buffer(1)]],
    device T*           k_cache    [[buffer(2)]],
    device T*           v_cache    [[buffer(3)]],
    constant int&       W          [[buffer(4)]],
    constant int&       k_column   [[buffer(5)]],
    constant int&       v_column   [[buffer(6)]],
    constant int&       n_kv_head  [[buffer(7)]],
    constant int&       hs         [[buffer(8)]],
    constant int&       block_size [[buffer(9)]],
    uint3 gid [[thread_position_in_grid]])
{
    const uint d = gid.x, h = gid.y, n = gid.z;
    if (d >= uint(hs) || h >= uint(n_kv_head)) return;
    const int slot = slots[n];
    if (slot < 0) return;
    device const float* row = qkv + ulong(n) * W + ulong(h) * hs + d;
    const ulong to = cache_row(slot / block_size, int(h), slot % block_size, n_kv_head, block_size, hs) + d;
    k_cache[to] = T(row[k_column]);
    v_cache[to] = T(row[v_column]);
}
template [[host_name("cache_write")]]      kernel decltype(write_cache<float>)  write_cache<float>;
template [[host_name("cache_write_f16")]]  kernel decltype(write_cache<half>)   write_cache<half>;
template [[host_name("cache_write_bf16")]] kernel decltype(write_cache<bfloat>) write_cache<bfloat>;

// qkv [N, (nh + 2 n_kv_head) * hs]: queries, keys, values, head by head; the columns of keys and values stay as they are.
// gamma_q and gamma_k [hs] may be nil: no norm; freqs may be nil: no rotation. A negative slot writes no cache. hs is even.
// A simdgroup has a head, a lane its pairs of channels i and i + hs/2.
// Threadgroups ((nh + 2 n_kv_head) / simdgroups a threadgroup, rounded up, N), threadgroup (128) or any multiple of 32.
template <typename T>
kernel void place(
    device float*       qkv        [[buffer(0)]],
    device const float* gamma_q    [[buffer(1)]],
    device const float* gamma_k    [[buffer(2)]],
    device const float* freqs      [[buffer(3)]],
    device const int*   positions  [[buffer(4)]],
    device const int*   slots      [[buffer(5)]],
    device T*           k_cache    [[buffer(6)]],
    device T*           v_cache    [[buffer(7)]],
    constant int&       nh         [[buffer(8)]],
    constant int&       n_kv_head  [[buffer(9)]],
    constant int&       hs         [[buffer(10)]],
    constant int&       block_size [[buffer(11)]],
    constant float&     eps        [[buffer(12)]],
    uint2 tg   [[threadgroup_position_in_grid]],
    uint  lane [[thread_index_in_simdgroup]],
    uint  sg   [[simdgroup_index_in_threadgroup]],
    uint  nsg  [[simdgroups_per_threadgroup]])
{
    const int h = int(tg.x * nsg + sg), heads = nh + 2 * n_kv_head, pairs = hs / 2;
    if (h >= heads) return;                                 // a whole simdgroup leaves
    const uint n = tg.y;
    const bool is_query = h < nh, is_value = h >= (nh + n_kv_head);
    device float* head = qkv + (ulong(n) * heads + h) * hs;
    device const float* gamma = is_query ? gamma_q : gamma_k;
    const bool normed = gamma != nullptr && !is_value, rotated = freqs != nullptr && !is_value;
    device const float* angle = rotated ? freqs + ulong(positions[n]) * hs : nullptr;

    float rs = 1.0f;
    if (normed) {
        float squares = 0.0f;
        for (int i = int(lane); i < pairs; i += 32) {
            squares = fma(head[i], head[i], squares);
            squares = fma(head[i + pairs], head[i + pairs], squares);
        }
        rs = rsqrt(simd_sum(squares) / float(hs) + eps);
    }

    const int slot = slots[n], kv_head = h - nh - (is_value ? n_kv_head : 0);
    if (!is_query && slot < 0) return;
    const ulong to = is_query ? 0 : cache_row(slot / block_size, kv_head, slot % block_size, n_kv_head, block_size, hs);
    device T* cache = (is_value ? v_cache : k_cache) + to;
    for (int i = int(lane); i < pairs; i += 32) {
        float lo = head[i], hi = head[i + pairs];
        if (normed) {
            lo = lo * rs * gamma[i];
            hi = hi * rs * gamma[i + pairs];
        }
        if (rotated) {
            const float a = lo, b = hi, c = angle[2 * i], s = angle[2 * i + 1];
            lo = a * c - b * s;
            hi = a * s + b * c;
        }
        if (is_query) {
            head[i] = lo;
            head[i + pairs] = hi;
        } else {
            cache[i] = T(lo);
            cache[i + pairs] = T(hi);
        }
    }
}
template [[host_name("place_heads")]]      kernel decltype(place<float>)  place<float>;
template [[host_name("place_heads_f16")]]  kernel decltype(place<half>)   place<half>;
template [[host_name("place_heads_bf16")]] kernel decltype(place<bfloat>) place<bfloat>;

// S: the cache's storage. D: what the attention kernel that follows reads.
template <typename S, typename D>
kernel void gather_cache(
    device const S*   k_cache     [[buffer(0)]],
    device const S*   v_cache     [[buffer(1)]],
    device const int* block_table [[buffer(2)]],
    device D*         K           [[buffer(3)]],
    device D*         V           [[buffer(4)]],
    constant int&     T           [[buffer(5)]],
    constant int&     hs          [[buffer(6)]],
    constant int&     nh          [[buffer(7)]],
    constant int&     n_kv_head   [[buffer(8)]],
    constant int&     block_size  [[buffer(9)]],
    uint3 gid [[thread_position_in_grid]])
{
    const uint d = gid.x, t = gid.y, h = gid.z;
    if (d >= uint(hs) || t >= uint(T)) return;
    const int block = block_table[int(t) / block_size], kv_head = int(h) / (nh / n_kv_head);
    const ulong from = cache_row(block, kv_head, int(t) % block_size, n_kv_head, block_size, hs) + d;
    const ulong to = (ulong(h) * T + t) * hs + d;
    K[to] = D(k_cache[from]);
    V[to] = D(v_cache[from]);
}
template [[host_name("cache_gather")]]         kernel decltype(gather_cache<float, float>)  gather_cache<float, float>;
template [[host_name("cache_gather_f16")]]     kernel decltype(gather_cache<half, float>)   gather_cache<half, float>;
template [[host_name("cache_gather_bf16")]]    kernel decltype(gather_cache<bfloat, float>) gather_cache<bfloat, float>;
template [[host_name("cache_gather_f16_f16")]] kernel decltype(gather_cache<half, half>)    gather_cache<half, half>;
template [[host_name("cache_gather_bf16_bf16")]] kernel decltype(gather_cache<bfloat, bfloat>) gather_cache<bfloat, bfloat>;

// Threads (N), threadgroup (min(N rounded up to 32, 1024)). All int: chosen, tokens, positions, slots, lengths [N],
// block_table [N, max_blocks], history [N, kept].
kernel void advance_rows(
    device const int* chosen      [[buffer(0)]],
    device const int* block_table [[buffer(1)]],
    device int*       tokens      [[buffer(2)]],
    device int*       positions   [[buffer(3)]],
    device int*       slots       [[buffer(4)]],
    device int*       lengths     [[buffer(5)]],
    device int*       history     [[buffer(6)]],
    constant int&     N           [[buffer(7)]],
    constant int&     block_size  [[buffer(8)]],
    constant int&     max_blocks  [[buffer(9)]],
    constant int&     kept        [[buffer(10)]],
    uint n [[thread_position_in_grid]])
{
    if (n >= uint(N)) return;
    const int token = chosen[n], position = positions[n] + 1, block = position / block_size;
    tokens[n] = max(token, 0);
    positions[n] = position;
    lengths[n] = position + 1;
    slots[n] = block < max_blocks ? block_table[ulong(n) * max_blocks + block] * block_size + position % block_size : -1;
    history[ulong(n) * kept + position % kept] = token;
}
