// flash.h - flash attention over simdgroup matrices: 64 queries a threadgroup, 16 a simdgroup, scores and output in
// registers, and the copies of the next tile under way while this one is multiplied. E is half or bfloat, D = hs a multiple
// of 16, BK keys a tile (a multiple of 16). Tiles' rows are D + 8 elements apart, which spreads them over the banks.
#pragma once
#include <metal_stdlib>
#include <metal_simdgroup_matrix>
#include "cache.h"
#include "copies.h"
#include "simd_mma.h"
#include "storage.h"
using namespace metal;

constant constexpr int FLASH_ROWS = 64;
constant constexpr int FLASH_THREADS = 128;

// Where token j's K and V begin: in a [token, hs] array, or in the paged cache [block, n_kv_head, block_size, hs].
template <int D>
struct Contiguous {
    ulong of(int j) const { return ulong(j) * D; }
};

template <int D>
struct Paged {
    device const int* blocks;
    int n_kv_head;
    int head;
    int block_size;
    ulong of(int j) const {
        return cache_row(blocks[j / block_size], head, j % block_size, n_kv_head, block_size, D);
    }
};

// BK rows of keys or values, if there is one before `end`; those from there on become zeros.
template <typename E, int D, int BK, typename Place>
inline void copy_tile(threadgroup E* tile, device const E* from, Place place, int first, int end, ushort tid) {
    if (first >= end) return;                           // the whole threadgroup
    #pragma unroll
    for (int i = tid; i < BK * (D / 8); i += FLASH_THREADS) {
        const int r = i / (D / 8), c = (i % (D / 8)) * 8;
        const bool in = first + r < end;
        tg_copy16(tile + r * (D + 8) + c, from + place.of(in ? first + r : 0) + c, in);
    }
}

template <int M, int N>
inline void clear(thread simdgroup_matrix<float, 8, 8> (&c)[M][N]) {
    #pragma unroll
    for (int m = 0; m < M; ++m)
        #pragma unroll
        for (int n = 0; n < N; ++n) c[m][n] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
}

// The queries of a threadgroup, `count` of them, stride elements from one to the next, and where they stand: the position of
// the first, and how many tokens there are from one to the next.
template <typename S>
struct Queries {
    device const S* q;
    ulong stride;
    int count;
    int position;
    int step;
    int of(int i) const { return position + i * step; }
};

// What a lane knows of its two rows, simd_row(lane) of its simdgroup's sixteen and 8 below: weighted values, the largest
// score times log2(e), and the lane's share of the sum of weights.
template <int D>
struct Attended {
    simdgroup_matrix<float, 8, 8> o[2][D / 8];
    float m[2];
    float l[2];
    // Row r begins anew.
    void reset(int r) {
        m[r] = -INFINITY;
        l[r] = 0.0f;
        #pragma unroll
        for (int n = 0; n < D / 8; ++n) o[r][n] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
};

// What is done before the tile at token j0: nothing.
struct AllAtOnce {
    template <int D>
    void before(int, thread Attended<D>&) {}
};

// The keys begin .. end, begin a multiple of BK, for the queries first .. first + 63.
template <typename E, int D, int BK, typename S, typename Place, typename Tiling>
inline void attend(thread Attended<D>& rows, thread Tiling& tiling, Queries<S> queried, int first, device const E* k,
                   device const E* v, Place place, Mask mask, int begin, int end,
                   threadgroup E* tiles, ushort tid, ushort lane, ushort sg) {
    constexpr int LD = D + 8, NK = BK / 8, ND = D / 8;
    threadgroup E* k_tile = tiles;
    threadgroup E* v_tile = tiles + BK * LD;
    rows.reset(0);
    rows.reset(1);
    if (begin >= end) return;                           // the whole threadgroup

    for (int i = tid; i < FLASH_ROWS * (D / 4); i += FLASH_THREADS) {   // the queries pass through the same memory
        const int r = i / (D / 4), c = (i % (D / 4)) * 4;
        float4 x = float4(0.0f);
        if (first + r < queried.count) x = load4(queried.q + ulong(first + r) * queried.stride + c);
        threadgroup E* to = tiles + r * LD + c;
        to[0] = E(x.x);
        to[1] = E(x.y);
        to[2] = E(x.z);
        to[3] = E(x.w);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    simdgroup_matrix<E, 8, 8> queries[D / 16][2][2];
    #pragma unroll
    for (int c = 0; c < D / 16; ++c) simd_load_a(queries[c], tiles + sg * 16 * LD + c * 16, LD);
    threadgroup_barrier(mem_flags::mem_threadgroup);

    const int mine = first + sg * 16 + simd_row(lane);

    copy_tile<E, D, BK>(k_tile, k, place, begin, end, tid);
    tg_copy_commit();
    copy_tile<E, D, BK>(v_tile, v, place, begin, end, tid);
    tg_copy_commit();

    for (int j0 = begin; j0 < end; j0 += BK) {
        if (j0 > begin) tiling.before(j0, rows);
        tg_copy_wait<1>();
        threadgroup_barrier(mem_flags::mem_threadgroup);   // this tile's keys are there
        simdgroup_matrix<float, 8, 8> s[2][NK];
        clear(s);
        #pragma unroll
        for (int c = 0; c < D / 16; ++c) {
            simdgroup_matrix<E, 8, 8> keys[2][NK];
            simd_load_bt(keys, k_tile + c * 16, LD);
            simd_mma(s, queries[c], keys);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);   // everyone is done with them
        copy_tile<E, D, BK>(k_tile, k, place, j0 + BK, end, tid);
        tg_copy_commit();

        const bool all_seen = mask.window == 0 && j0 + BK <= queried.of(first + sg * 16) + 1;
        simdgroup_matrix<E, 8, 8> p[NK / 2][2][2];
        #pragma unroll
        for (int r = 0; r < 2; ++r) {
            float top = rows.m[r];
            #pragma unroll
            for (int n = 0; n < NK; ++n)
                #pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float x = mask.score(s[r][n].thread_elements()[e]) * 1.44269504088896f;   // log2(e): 2^x below
                    if (!all_seen && !mask.sees(queried.of(mine + r * 8), j0 + n * 8 + simd_col(lane) + e)) x = -INFINITY;
                    s[r][n].thread_elements()[e] = x;
                    top = max(top, x);
                }
            top = simd_row_max(top);
            const float base = top == -INFINITY ? 0.0f : top;
            const float shrink = fast::exp2(rows.m[r] - base);
            float sum = 0.0f;
            #pragma unroll
            for (int n = 0; n < NK; ++n) {
                p[n / 2][r][n % 2] = make_filled_simdgroup_matrix<E, 8, 8>(E(0.0f));
                #pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const float x = fast::exp2(s[r][n].thread_elements()[e] - base);
                    p[n / 2][r][n % 2].thread_elements()[e] = E(x);
                    sum += x;
                }
            }
            rows.l[r] = fma(rows.l[r], shrink, sum);
            rows.m[r] = top;
            #pragma unroll
            for (int n = 0; n < ND; ++n) {
                rows.o[r][n].thread_elements()[0] *= shrink;
                rows.o[r][n].thread_elements()[1] *= shrink;
            }
        }

        tg_copy_wait<1>();
        threadgroup_barrier(mem_flags::mem_threadgroup);   // this tile's values are there
        #pragma unroll
        for (int c = 0; c < BK / 16; ++c) {
            simdgroup_matrix<E, 8, 8> values[2][ND];
            simd_load_b(values, v_tile + c * 16 * LD, LD);
            simd_mma(rows.o, p[c], values);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        copy_tile<E, D, BK>(v_tile, v, place, j0 + BK, end, tid);
        tg_copy_commit();
    }
}
