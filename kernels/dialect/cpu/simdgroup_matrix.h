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

// d = a b + c. The lanes give their elements of both at once, as floats, which hold them exactly.
template <class D, class A, class B, class C>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<D, 8, 8>& d, simdgroup_matrix<A, 8, 8> a,
                                          simdgroup_matrix<B, 8, 8> b, simdgroup_matrix<C, 8, 8> c, CALLER) {
    struct Both { float a[2], b[2]; };
    const Both own = {{(float)a.elements[0], (float)a.elements[1]}, {(float)b.elements[0], (float)b.elements[1]}};
    const dialect::Lanes<Both> lanes(own, line);
    const uint row = dialect::matrix_row(dialect::lane()), column = dialect::matrix_column(dialect::lane());
    float sum[2] = {(float)c.elements[0], (float)c.elements[1]};
    for (uint k = 0; k < 8; ++k) {
        const float x = lanes.value[dialect::matrix_lane(row, k)].a[k % 2];
        const Both& y = lanes.value[dialect::matrix_lane(k, column)];
        for (uint i = 0; i < 2; ++i) sum[i] += x * y.b[i];
    }
    for (uint i = 0; i < 2; ++i) d.elements[i] = (D)sum[i];
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
