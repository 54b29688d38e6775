//! Small integers into the bits of a block: the inverse of what `dequantize` reads.

use std::array;

/// The low four bits of 32 numbers: `j` and `j + 16` share byte `j`.
pub(super) fn nibbles(q: &[u8; 32]) -> [u8; 16] {
    array::from_fn(|j| q[j] & 15 | q[j + 16] << 4)
}

/// The fifth bit of 32 numbers, in their order.
pub(super) fn fifth_bits(q: &[u8; 32]) -> [u8; 4] {
    let bits = q.iter().enumerate().fold(0_u32, |bits, (j, q)| bits | u32::from(q >> 4 & 1) << j);
    bits.to_le_bytes()
}

/// The low four bits of 256 numbers: in each 64, `l` and `l + 32` share a byte.
pub(super) fn four_bits(q: &[u8; 256]) -> [u8; 128] {
    array::from_fn(|i| {
        let (chunk, l) = (i / 32, i % 32);
        q[64 * chunk + l] & 15 | q[64 * chunk + 32 + l] << 4
    })
}

/// The low two bits of 256 numbers: in each 128, `l`, `l + 32`, `l + 64` and `l + 96` share a byte.
pub(super) fn two_bits(q: &[u8; 256]) -> [u8; 64] {
    array::from_fn(|i| {
        let (half, l) = (i / 32, i % 32);
        (0..4).fold(0, |byte, row| byte | (q[128 * half + 32 * row + l] & 3) << (2 * row))
    })
}

/// The low bit of 256 numbers: those at `l` modulo 32 share byte `l`.
pub(super) fn high_bits(q: &[u8; 256]) -> [u8; 32] {
    array::from_fn(|l| (0..8).fold(0, |byte, row| byte | (q[32 * row + l] & 1) << row))
}

/// The low four bits of 256 numbers: in each 128, `l` and `l + 64` share a byte.
pub(super) fn low_bits_of_q6_k(q: &[u8; 256]) -> [u8; 128] {
    array::from_fn(|i| {
        let (half, l) = (i / 64, i % 64);
        q[128 * half + l] & 15 | q[128 * half + 64 + l] << 4
    })
}

/// Eight scales and eight minima of 6 bits, as [`crate::quant::blocks::scales_and_minima`] reads them.
pub(super) fn scales_and_minima(scales: &[u8; 8], minima: &[u8; 8]) -> [u8; 12] {
    array::from_fn(|i| match i {
        0..4 => scales[i] | scales[i + 4] >> 4 << 6,
        4..8 => minima[i - 4] | minima[i] >> 4 << 6,
        _ => scales[i - 4] & 15 | minima[i - 4] << 4,
    })
}

/// Sixteen scales of 6 bits, as [`crate::quant::blocks::BlockQ3K::scales`] reads them.
pub(super) fn scales_of_q3_k(scales: &[u8; 16]) -> [u8; 12] {
    array::from_fn(|i| match i {
        0..8 => scales[i] & 15 | scales[i + 8] << 4,
        _ => (0..4).fold(0, |byte, row| byte | scales[4 * row + i - 8] >> 4 << (2 * row)),
    })
}
