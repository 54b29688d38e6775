// simdgroup_matrix.h - 8x8 simdgroup matrices on tensor cores. Lane l holds row l / 4, columns 2 (l % 4) and the next, of
// the matrix, or of its transpose where `transposed` is set. That flag is a constant after inlining: as the right factor
// a transposed load costs nothing, in any other place it costs one movmatrix.
#pragma once

namespace metal {
template <class T, int ROWS, int COLUMNS> struct simdgroup_matrix {
    static_assert(ROWS == 8 && COLUMNS == 8, "simdgroup matrices are 8x8");
    vec<T, 2> elements;
    bool transposed;

    simdgroup_matrix() = default;
    METAL_FN explicit simdgroup_matrix(T diagonal) : transposed(false) {
        const uint row = dialect::lane() / 4, column = 2 * (dialect::lane() % 4);
        elements = vec<T, 2>(row == column ? diagonal : T(0.0f), row == column + 1 ? diagonal : T(0.0f));
    }
    METAL_FN vec<T, 2>& thread_elements() { return elements; }
};
} // namespace metal

namespace dialect {
using metal::simdgroup_matrix;
using metal::vec;

METAL_FN uint matrix_row() { return lane() / 4; }
METAL_FN uint matrix_column() { return 2 * (lane() % 4); }

// The two 16-bit elements of a lane as the tensor core's fragment, of the matrix or of its transpose.
template <class T> METAL_FN uint fragment(simdgroup_matrix<T, 8, 8> m, bool transposed) {
    const uint own = bits<uint>(m.elements);
    if (m.transposed == transposed) return own;
    uint moved;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(moved) : "r"(own));
    return moved;
}

// A lane's two elements of the matrix itself.
template <class T> METAL_FN vec<T, 2> plain(simdgroup_matrix<T, 8, 8> m) { return bits<vec<T, 2>>(fragment(m, false)); }
METAL_FN vec<float, 2> plain(simdgroup_matrix<float, 8, 8> m) {
    if (!m.transposed) return m.elements;
    vec<float, 2> r;
    _Pragma("unroll") for (int i = 0; i < 2; ++i) {
        const uint holder = (matrix_column() + i) * 4 + lane() / 8;
        const float x = shuffle<FROM>(m.elements.x, holder), y = shuffle<FROM>(m.elements.y, holder);
        r[i] = matrix_row() % 2 ? y : x;
    }
    return r;
}

// d += a b on m16n8k16 and m16n8k8: d0 holds the upper eight rows, d1 the lower.
#define DIALECT_TENSOR_CORE(TYPE, T)                                                                           \
    METAL_FN void multiply_16x8x16(vec<float, 2>& d0, vec<float, 2>& d1, uint a0, uint a1, uint a2, uint a3,   \
                                   uint b0, uint b1, T) {                                                      \
        asm("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 "                                     \
            "{%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"                                               \
            : "+f"(d0.x), "+f"(d0.y), "+f"(d1.x), "+f"(d1.y)                                                   \
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));                                           \
    }                                                                                                          \
    METAL_FN void multiply_16x8x8(vec<float, 2>& d0, vec<float, 2>& d1, uint a0, uint a1, uint b0, T) {        \
        asm("mma.sync.aligned.m16n8k8.row.col.f32." TYPE "." TYPE ".f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};" \
            : "+f"(d0.x), "+f"(d0.y), "+f"(d1.x), "+f"(d1.y)                                                   \
            : "r"(a0), "r"(a1), "r"(b0));                                                                      \
    }
DIALECT_TENSOR_CORE("f16", half) DIALECT_TENSOR_CORE("bf16", bfloat)
} // namespace dialect

namespace metal {
template <class T, int ROWS, int COLUMNS>
METAL_FN simdgroup_matrix<T, ROWS, COLUMNS> make_filled_simdgroup_matrix(T value) {
    simdgroup_matrix<T, ROWS, COLUMNS> m;
    m.elements = vec<T, 2>(value, value);
    m.transposed = false;
    return m;
}

// The address must be aligned to two elements.
template <class T>
METAL_FN void simdgroup_load(simdgroup_matrix<T, 8, 8>& m, const T* from, ulong row_elements = 8,
                             ulong2 origin = ulong2(0ul), bool transpose = false) {
    from += (origin.y + dialect::matrix_row()) * row_elements + origin.x + dialect::matrix_column();
    m.elements = *(const vec<T, 2>*)from;
    m.transposed = transpose;
}
template <class T>
METAL_FN void simdgroup_store(simdgroup_matrix<T, 8, 8> m, T* to, ulong row_elements = 8, ulong2 origin = ulong2(0ul),
                              bool transpose = false) {
    const uint row = dialect::matrix_row(), column = dialect::matrix_column();
    to += origin.y * row_elements + origin.x;
    if (transpose == m.transposed) {
        *(vec<T, 2>*)(to + row * row_elements + column) = m.elements;
        return;
    }
    const vec<T, 2> elements = dialect::plain(m);
    if (!transpose) {
        *(vec<T, 2>*)(to + row * row_elements + column) = elements;
    } else {
        to[column * row_elements + row] = elements.x;
        to[(column + 1) * row_elements + row] = elements.y;
    }
}

// d = a b + c: the upper half of an m16n8k8, whose lower half multiplies zeros.
template <class D, class A, class B, class C>
METAL_FN void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                            simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c) {
    static_assert(is_same<A, B>::value && sizeof(A) == 2, "the factors must be both half or both bfloat");
    vec<float, 2> sum(dialect::plain(c)), unused(0.0f, 0.0f);
    dialect::multiply_16x8x8(sum, unused, dialect::fragment(a, false), 0u, dialect::fragment(b, true), A());
    d.elements = vec<D, 2>(sum);
    d.transposed = false;
}
// float times float has no exact form on tensor cores: by shuffles, and slow.
METAL_FN void simdgroup_multiply_accumulate(simdgroup_matrix<float, 8, 8>& d, simdgroup_matrix<float, 8, 8> a,
                                            simdgroup_matrix<float, 8, 8> b, simdgroup_matrix<float, 8, 8> c) {
    using namespace dialect;
    const vec<float, 2> left = plain(a), right = plain(b);
    vec<float, 2> sum = plain(c);
    _Pragma("unroll") for (int k = 0; k < 8; ++k) {
        const float x = shuffle<FROM>(k % 2 ? left.y : left.x, matrix_row() * 4 + k / 2);
        const uint holder = 4 * k + lane() % 4;
        sum.x = fma(x, shuffle<FROM>(right.x, holder), sum.x);
        sum.y = fma(x, shuffle<FROM>(right.y, holder), sum.y);
    }
    d.elements = sum;
    d.transposed = false;
}
template <class D, class A, class B>
METAL_FN void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a, simdgroup_matrix<B, 8, 8> b) {
    simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D, 8, 8>(D(0.0f)));
}
} // namespace metal
typedef metal::simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef metal::simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef metal::simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;
using metal::simdgroup_matrix;
