// simd_mma.h for CUDA: what simd_mma.h says in Metal, by mma.sync m16n8k16 and ldmatrix.
#pragma once
using namespace metal;

namespace dialect {
// Four 8x8 matrices of 16-bit elements; lanes 8i .. 8i + 7 give the addresses of the rows of matrix i.
template <bool TRANSPOSE, class T> METAL_FN void load_four(uint (&to)[4], const T* row) {
    const uint address = (uint)__cvta_generic_to_shared(row);
    if (TRANSPOSE) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address)
                     : "memory");
    }
}
template <class T> METAL_FN void set(simdgroup_matrix<T, 8, 8>& m, uint fragment, bool transposed) {
    m.elements = bits<vec<T, 2>>(fragment);
    m.transposed = transposed;
}
} // namespace dialect

template <int M, int N, int K, class T>
METAL_FN void simd_mma(simdgroup_matrix<float, 8, 8> (&c)[M][N], simdgroup_matrix<T, 8, 8> (&a)[M][K],
                       simdgroup_matrix<T, 8, 8> (&b)[K][N]) {
    static_assert(M % 2 == 0 && K % 2 == 0, "simd_mma: M and K in 8x8 blocks must be even");
    using dialect::fragment;
    _Pragma("unroll") for (int k = 0; k < K; k += 2)
        _Pragma("unroll") for (int m = 0; m < M; m += 2)
            _Pragma("unroll") for (int n = 0; n < N; ++n)
                dialect::multiply_16x8x16(c[m][n].elements, c[m + 1][n].elements, fragment(a[m][k], false),
                                          fragment(a[m + 1][k], false), fragment(a[m][k + 1], false),
                                          fragment(a[m + 1][k + 1], false), fragment(b[k][n], true),
                                          fragment(b[k + 1][n], true), T());
}

// One ldmatrix.x4 fetches 2x2 blocks.
template <int M, int K, class T> METAL_FN void simd_load_a(simdgroup_matrix<T, 8, 8> (&a)[M][K], const T* p, uint ld) {
    const uint row = dialect::lane() % 16, side = dialect::lane() / 16;
    _Pragma("unroll") for (int m = 0; m < M; m += 2)
        _Pragma("unroll") for (int k = 0; k < K; k += 2) {
            uint x[4];
            dialect::load_four<false>(x, p + (m * 8 + row) * ld + (k + side) * 8);
            dialect::set(a[m][k], x[0], false);
            dialect::set(a[m + 1][k], x[1], false);
            dialect::set(a[m][k + 1], x[2], false);
            dialect::set(a[m + 1][k + 1], x[3], false);
        }
}
template <int K, int N, class T> METAL_FN void simd_load_b(simdgroup_matrix<T, 8, 8> (&b)[K][N], const T* p, uint ld) {
    const uint row = dialect::lane() % 16, side = dialect::lane() / 16;
    _Pragma("unroll") for (int k = 0; k < K; k += 2)
        _Pragma("unroll") for (int n = 0; n < N; n += 2) {
            uint x[4];
            dialect::load_four<true>(x, p + (k * 8 + row) * ld + (n + side) * 8);
            dialect::set(b[k][n], x[0], true);
            dialect::set(b[k + 1][n], x[1], true);
            dialect::set(b[k][n + 1], x[2], true);
            dialect::set(b[k + 1][n + 1], x[3], true);
        }
}
template <int K, int N, class T> METAL_FN void simd_load_bt(simdgroup_matrix<T, 8, 8> (&b)[K][N], const T* p, uint ld) {
    const uint row = dialect::lane() % 16, side = dialect::lane() / 16;
    _Pragma("unroll") for (int k = 0; k < K; k += 2)
        _Pragma("unroll") for (int n = 0; n < N; n += 2) {
            uint x[4];
            dialect::load_four<false>(x, p + (n * 8 + row) * ld + (k + side) * 8);
            dialect::set(b[k][n], x[0], true);
            dialect::set(b[k][n + 1], x[1], true);
            dialect::set(b[k + 1][n], x[2], true);
            dialect::set(b[k + 1][n + 1], x[3], true);
        }
}

METAL_FN ushort simd_row(ushort lane) { return lane / 4; }
METAL_FN ushort simd_col(ushort lane) { return 2 * (lane % 4); }
// Over the four lanes that share a block row.
METAL_FN float simd_row_max(float x) {
    x = max(x, simd_shuffle_xor(x, 1));
    return max(x, simd_shuffle_xor(x, 2));
}
METAL_FN float simd_row_sum(float x) {
    x += simd_shuffle_xor(x, 1);
    return x + simd_shuffle_xor(x, 2);
}
