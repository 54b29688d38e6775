// simd_mma.h - products of matrices made of 8x8 simdgroup matrices. Plain Metal. CUDA has a header of the same name and
// functions, over mma.sync m16n8k16 and ldmatrix; what both promise is written here. Every function is called by whole
// simdgroups. Blocks are counted in units of 8x8; for CUDA's sake M, N and K are even. Which lane holds which element is
// known through simd_row and simd_col alone.
#pragma once
#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;

// C[M][N] += A[M][K] B[K][N].
template <int M, int N, int K, typename T>
inline void simd_mma(thread simdgroup_matrix<float, 8, 8> (&c)[M][N],
                     thread simdgroup_matrix<T, 8, 8> (&a)[M][K],
                     thread simdgroup_matrix<T, 8, 8> (&b)[K][N]) {
    #pragma unroll
    for (int k = 0; k < K; ++k)
        #pragma unroll
        for (int m = 0; m < M; ++m)
            #pragma unroll
            for (int n = 0; n < N; ++n)
                simdgroup_multiply_accumulate(c[m][n], a[m][k], b[k][n], c[m][n]);
}

// A[M][K] from p[row][column], ld elements from row to row. Rows are 16-byte aligned, here and below.
template <int M, int K, typename T>
inline void simd_load_a(thread simdgroup_matrix<T, 8, 8> (&a)[M][K], threadgroup const T* p, uint ld) {
    #pragma unroll
    for (int m = 0; m < M; ++m)
        #pragma unroll
        for (int k = 0; k < K; ++k) simdgroup_load(a[m][k], p + m * 8 * ld + k * 8, ld);
}

// B[K][N] from p[k][n].
template <int K, int N, typename T>
inline void simd_load_b(thread simdgroup_matrix<T, 8, 8> (&b)[K][N], threadgroup const T* p, uint ld) {
    #pragma unroll
    for (int k = 0; k < K; ++k)
        #pragma unroll
        for (int n = 0; n < N; ++n) simdgroup_load(b[k][n], p + k * 8 * ld + n * 8, ld);
}

// B[K][N] from its transpose p[n][k].
template <int K, int N, typename T>
inline void simd_load_bt(thread simdgroup_matrix<T, 8, 8> (&b)[K][N], threadgroup const T* p, uint ld) {
    #pragma unroll
    for (int k = 0; k < K; ++k)
        #pragma unroll
        for (int n = 0; n < N; ++n) simdgroup_load(b[k][n], p + n * 8 * ld + k * 8, ld, ulong2(0), true);
}

// A lane's thread_elements() are (simd_row, simd_col) and (simd_row, simd_col + 1) of every block.
inline ushort simd_row(ushort lane) { return ((lane / 4) & 4) + (lane / 2) % 4; }
inline ushort simd_col(ushort lane) { return ((lane / 4) & 2) * 2 + (lane % 2) * 2; }

// Over the four lanes that share a row of a block.
inline float simd_row_max(float x) {
    x = max(x, simd_shuffle_xor(x, 1));
    return max(x, simd_shuffle_xor(x, 8));
}
inline float simd_row_sum(float x) {
    x += simd_shuffle_xor(x, 1);
    return x + simd_shuffle_xor(x, 8);
}
