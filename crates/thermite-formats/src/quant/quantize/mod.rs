//! From f32 to stored elements.
//!
//! To divide a block by its largest weight and round is quick, but not the best that its bits can do. Here scales
//! are searched: several candidates are tried, each is replaced by the best fit
//! (weighted least squares) to the integers that it gives, and in the K types the scales' own integers are chosen by
//! the error that remains. Weights count by `r + |w|`, r being the root mean square of their group: an error in a
//! large weight costs more of the output than one in a small weight.

mod affine;
mod fit;
mod pack;
mod symmetric;

use std::array;

use bytemuck::Pod;
use half::{bf16, f16};

use super::QuantError;
use super::blocks::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0,
    Half,
};
use crate::dtype::DType;
use fit::nearest;

/// The largest number that scales, and [`DType::F16`], can hold.
const F16_MAX: f32 = 65_504.0;

/// Whether [`quantize`] writes the type.
pub const fn is_writable(dtype: DType) -> bool {
    dtype.is_quantized() || matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// Writes `values` to `out` as elements of `dtype`: F32, F16, BF16 or a quantised type. What one block becomes
/// depends on its own values alone.
///
/// # Errors
/// [`QuantError::Unwritable`] for other types; [`QuantError::Length`] if `out` is not what the values take;
/// [`QuantError::Range`] for a value that is not finite, or too large for the type.
pub fn quantize(dtype: DType, values: &[f32], out: &mut [u8]) -> Result<(), QuantError> {
    if dtype.bytes_of(&[values.len()]) != Some(out.len()) {
        return Err(QuantError::Length { dtype, bytes: out.len(), elements: values.len() });
    }
    let largest = match dtype {
        DType::F32 => f32::MAX,
        DType::BF16 => bf16::MAX.to_f32(),
        _ => F16_MAX,
    };
    // written so that NaN is refused
    if let Some(index) = values.iter().position(|value| !matches!(value.abs(), x if x <= largest)) {
        return Err(QuantError::Range { dtype, index, value: values[index] });
    }
    match dtype {
        DType::F32 => each(values, out, f32::to_le_bytes),
        DType::F16 => each(values, out, |x| f16::from_f32(x).to_le_bytes()),
        DType::BF16 => each(values, out, |x| bf16::from_f32(x).to_le_bytes()),
        DType::Q4_0 => blocks(values, out, q4_0),
        DType::Q4_1 => blocks(values, out, q4_1),
        DType::Q5_0 => blocks(values, out, q5_0),
        DType::Q5_1 => blocks(values, out, q5_1),
        DType::Q8_0 => blocks(values, out, q8_0),
        DType::Q2K => blocks(values, out, q2_k),
        DType::Q3K => blocks(values, out, q3_k),
        DType::Q4K => blocks(values, out, q4_k),
        DType::Q5K => blocks(values, out, q5_k),
        DType::Q6K => blocks(values, out, q6_k),
        _ => return Err(QuantError::Unwritable { dtype }),
    }
    Ok(())
}

fn each<const N: usize>(values: &[f32], out: &mut [u8], element: impl Fn(f32) -> [u8; N]) {
    let (elements, _) = out.as_chunks_mut::<N>();
    for (out, &value) in elements.iter_mut().zip(values) {
        *out = element(value);
    }
}

/// A block from each `LEN` values.
fn blocks<B: Pod, const LEN: usize>(values: &[f32], out: &mut [u8], quantize: fn(&[f32; LEN]) -> B) {
    let (values, _) = values.as_chunks::<LEN>();
    let blocks: &mut [B] = bytemuck::cast_slice_mut(out);
    for (block, values) in blocks.iter_mut().zip(values) {
        *block = quantize(values);
    }
}

fn q4_0(x: &[f32; 32]) -> BlockQ4_0 {
    let (d, q) = symmetric::block(x, -8, 7);
    BlockQ4_0 { d, qs: pack::nibbles(&q.map(|q| (q + 8) as u8)) }
}

fn q5_0(x: &[f32; 32]) -> BlockQ5_0 {
    let (d, q) = symmetric::block(x, -16, 15);
    let q = q.map(|q| (q + 16) as u8);
    BlockQ5_0 { d, qh: pack::fifth_bits(&q), qs: pack::nibbles(&q) }
}

fn q4_1(x: &[f32; 32]) -> BlockQ4_1 {
    let (d, m, q) = affine::block(x, 15);
    BlockQ4_1 { d, m, qs: pack::nibbles(&q) }
}

fn q5_1(x: &[f32; 32]) -> BlockQ5_1 {
    let (d, m, q) = affine::block(x, 31);
    BlockQ5_1 { d, m, qh: pack::fifth_bits(&q), qs: pack::nibbles(&q) }
}

/// With 8 bits there is nothing to search: the largest weight becomes ±127.
fn q8_0(x: &[f32; 32]) -> BlockQ8_0 {
    let largest = x.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let d = Half::from_f32(largest / 127.0);
    let inverse = fit::inverse(d.to_f32());
    BlockQ8_0 { d, qs: x.map(|x| nearest((x * inverse).clamp(-127.0, 127.0)) as i8) }
}

fn q2_k(x: &[f32; 256]) -> BlockQ2K {
    let s = affine::super_block::<16, 16>(x, 3, 15);
    BlockQ2K {
        scales: array::from_fn(|g| s.scales[g] | s.minima[g] << 4),
        qs: pack::two_bits(&s.q),
        d: s.d,
        dmin: s.dmin,
    }
}

fn q4_k(x: &[f32; 256]) -> BlockQ4K {
    let s = affine::super_block::<8, 32>(x, 15, 63);
    let scales = pack::scales_and_minima(&s.scales, &s.minima);
    BlockQ4K { d: s.d, dmin: s.dmin, scales, qs: pack::four_bits(&s.q) }
}

fn q5_k(x: &[f32; 256]) -> BlockQ5K {
    let s = affine::super_block::<8, 32>(x, 31, 63);
    let scales = pack::scales_and_minima(&s.scales, &s.minima);
    BlockQ5K {
        d: s.d,
        dmin: s.dmin,
        scales,
        qh: pack::high_bits(&s.q.map(|q| q >> 4)),
        qs: pack::four_bits(&s.q),
    }
}

fn q3_k(x: &[f32; 256]) -> BlockQ3K {
    let s = symmetric::super_block(x, [-4, 3], [-32, 31]);
    let q = s.q.map(|q| (q + 4) as u8);
    BlockQ3K {
        hmask: pack::high_bits(&q.map(|q| q >> 2)),
        qs: pack::two_bits(&q),
        scales: pack::scales_of_q3_k(&s.scales.map(|scale| (scale + 32) as u8)),
        d: s.d,
    }
}

fn q6_k(x: &[f32; 256]) -> BlockQ6K {
    let s = symmetric::super_block(x, [-32, 31], [-128, 127]);
    let q = s.q.map(|q| (q + 32) as u8);
    BlockQ6K {
        ql: pack::low_bits_of_q6_k(&q),
        qh: pack::two_bits(&q.map(|q| q >> 4)),
        scales: s.scales.map(|scale| scale as i8),
        d: s.d,
    }
}
