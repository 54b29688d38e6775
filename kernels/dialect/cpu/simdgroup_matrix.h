// simdgroup_matrix.h - 8x8 simdgroup matrices in the lane layout of Apple's GPUs: a lane holds two neighbours of a row.
#pragma once

namespace dialect {
inline uint matrix_row(uint lane) { return ((lane / 4) & 4) + (lane / 2) % 4; }
inline uint matrix_column(uint lane) { return ((lane / 4) & 2) * 2 + (lane % 2) * 2; }
// The lane that holds (row, column); it is element column % 2 there.
inline uint matrix_lane(uint row, uint column) {
    return (row & 4) * 4 + (column & 4) * 2 + (row & 3) * 2 + (column & 2) / 2;
}
} // namespace dialect

namespace metal {
template <class T, int ROWS, int COLUMNS> struct simdgroup_matrix {
    static_assert(ROWS == 8 && COLUMNS == 8, "simdgroup matrices are 8x8");
    vec<T, 2> elements;

    simdgroup_matrix() = default;
    explicit simdgroup_matrix(T diagonal) {
        const uint row = dialect::matrix_row(dialect::lane()), column = dialect::matrix_column(dialect::lane());
        for (uint i = 0; i < 2; ++i) elements[i] = row == column + i ? diagonal : T(0.0f);
    }
    vec<T, 2>& thread_elements() { return elements; }
};

template <class T, int ROWS, int COLUMNS>
inline simdgroup_matrix<T, ROWS, COLUMNS> make_filled_simdgroup_matrix(T value) {
    simdgroup_matrix<T, ROWS, COLUMNS> m;
    m.elements = vec<T, 2>(value);
    return m;
}

template <class T>
inline void simdgroup_load(simdgroup_matrix<T, 8, 8>& m, const T* from, ulong row_elements = 8,
                           ulong2 origin = ulong2(0), bool transpose = false) {
    from += origin.y * row_elements + origin.x;
    const uint row = dialect::matrix_row(dialect::lane()), column = dialect::matrix_column(dialect::lane());
    for (uint i = 0; i < 2; ++i) {
        m.elements[i] = transpose ? from[(column + i) * row_elements + row] : from[row * row_elements + column + i];
    }
}
template <class T>
inline void simdgroup_store(simdgroup_matrix<T, 8, 8> m, T* to, ulong row_elements = 8, ulong2 origin = ulong2(0),
                            bool transpose = false) {
    to += origin.y * row_elements + origin.x;
    const uint row = dialect::matrix_row(dialect::lane()), column = dialect::matrix_column(dialect::lane());
    for (uint i = 0; i < 2; ++i) {
        (transpose ? to[(column + i) * row_elements + row] : to[row * row_elements + column + i]) = m.elements[i];
    }
}

// d = a b + c
template <class D, class A, class B, class C>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                          simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c, CALLER) {
    const dialect::Lanes<vec<A, 2>> left(a.elements, line);
    const dialect::Lanes<vec<B, 2>> right(b.elements, line);
    const uint row = dialect::matrix_row(dialect::lane()), column = dialect::matrix_column(dialect::lane());
    for (uint i = 0; i < 2; ++i) {
        float sum = (float)c.elements[i];
        for (uint k = 0; k < 8; ++k) {
            const A x = left.value[dialect::matrix_lane(row, k)][k % 2];
            const B y = right.value[dialect::matrix_lane(k, column + i)][(column + i) % 2];
            sum += (float)x * (float)y;
        }
        d.elements[i] = (D)sum;
    }
}
template <class D, class A, class B>
inline void simdgroup_multiply(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a, simdgroup_matrix<B, 8, 8> b,
                               CALLER) {
    simdgroup_multiply_accumulate(d, a, b, make_filled_simdgroup_matrix<D, 8, 8>(D(0.0f)), line);
}
} // namespace metal
typedef metal::simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef metal::simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef metal::simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;
using metal::simdgroup_matrix;
