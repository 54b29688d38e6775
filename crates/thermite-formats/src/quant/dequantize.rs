//! From stored elements to f32: plain loops, one a type. Fast kernels are held against them.
//!
//! The order of the operations, and with it every bit of the results, is that of the format's reference.

use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::QuantError;
use super::blocks::{
    BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0, BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0,
    scales_and_minima,
};
use crate::dtype::DType;

/// Whether [`dequantize`] reads the type.
pub const fn is_readable(dtype: DType) -> bool {
    !matches!(
        dtype,
        DType::C64
            | DType::F8E4M3
            | DType::F8E5M2
            | DType::F8E4M3Fnuz
            | DType::F8E5M2Fnuz
            | DType::F8E8M0
            | DType::F6E2M3
            | DType::F6E3M2
            | DType::F4
    )
}

/// Writes the elements in `bytes` to `out` as f32, rounded to nearest where f32 cannot hold them. The bytes may lie
/// at any address.
///
/// # Errors
/// [`QuantError::Unreadable`] for complex numbers and floats of 8 bits and fewer; [`QuantError::Length`] if `bytes`
/// is not what `out.len()` elements take.
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    if dtype.bytes_of(&[out.len()]) != Some(bytes.len()) {
        return Err(QuantError::Length { dtype, bytes: bytes.len(), elements: out.len() });
    }
    match dtype {
        DType::F32 => each(bytes, out, f32::from_le_bytes),
        DType::F16 => halves(bytes, out, f16::from_bits, HalfFloatSliceExt::convert_to_f32_slice),
        DType::BF16 => halves(bytes, out, bf16::from_bits, HalfFloatSliceExt::convert_to_f32_slice),
        DType::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        DType::I8 => each(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
        DType::I16 => each(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
        DType::I32 => each(bytes, out, |b| i32::from_le_bytes(b) as f32),
        DType::I64 => each(bytes, out, |b| i64::from_le_bytes(b) as f32),
        DType::U8 => each(bytes, out, |b| f32::from(u8::from_le_bytes(b))),
        DType::U16 => each(bytes, out, |b| f32::from(u16::from_le_bytes(b))),
        DType::U32 => each(bytes, out, |b| u32::from_le_bytes(b) as f32),
        DType::U64 => each(bytes, out, |b| u64::from_le_bytes(b) as f32),
        DType::Bool => each(bytes, out, |[b]| f32::from(u8::from(b != 0))),
        DType::Q4_0 => blocks(bytes, out, q4_0),
        DType::Q4_1 => blocks(bytes, out, q4_1),
        DType::Q5_0 => blocks(bytes, out, q5_0),
        DType::Q5_1 => blocks(bytes, out, q5_1),
        DType::Q8_0 => blocks(bytes, out, q8_0),
        DType::Q2K => blocks(bytes, out, q2_k),
        DType::Q3K => blocks(bytes, out, q3_k),
        DType::Q4K => blocks(bytes, out, q4_k),
        DType::Q5K => blocks(bytes, out, q5_k),
        DType::Q6K => blocks(bytes, out, q6_k),
        DType::C64
        | DType::F8E4M3
        | DType::F8E5M2
        | DType::F8E4M3Fnuz
        | DType::F8E5M2Fnuz
        | DType::F8E8M0
        | DType::F6E2M3
        | DType::F6E3M2
        | DType::F4 => return Err(QuantError::Unreadable { dtype }),
    }
    Ok(())
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    let (elements, _) = bytes.as_chunks::<N>();
    for (out, &element) in out.iter_mut().zip(elements) {
        *out = value(element);
    }
}

/// Many at a time, so that the processor's own conversion is used, at any address.
fn halves<H: Copy>(bytes: &[u8], out: &mut [f32], half: fn(u16) -> H, convert: fn(&[H], &mut [f32])) {
    const CHUNK: usize = 1024;
    let mut chunk = [half(0); CHUNK];
    let (elements, _) = bytes.as_chunks::<2>();
    for (out, elements) in out.chunks_mut(CHUNK).zip(elements.chunks(CHUNK)) {
        let halves = &mut chunk[..elements.len()];
        for (half_of, &element) in halves.iter_mut().zip(elements) {
            *half_of = half(u16::from_le_bytes(element));
        }
        convert(halves, out);
    }
}

/// `LEN` weights from each block.
fn blocks<B: Pod, const LEN: usize>(bytes: &[u8], out: &mut [f32], dequantize: fn(&B, &mut [f32; LEN])) {
    let (outs, _) = out.as_chunks_mut::<LEN>();
    let blocks: &[B] = bytemuck::cast_slice(bytes);
    for (block, out) in blocks.iter().zip(outs) {
        dequantize(block, out);
    }
}

fn q4_0(block: &BlockQ4_0, out: &mut [f32; 32]) {
    let d = block.d.to_f32();
    for (j, &byte) in block.qs.iter().enumerate() {
        out[j] = d * f32::from((byte & 15) as i8 - 8);
        out[j + 16] = d * f32::from((byte >> 4) as i8 - 8);
    }
}

fn q4_1(block: &BlockQ4_1, out: &mut [f32; 32]) {
    let (d, m) = (block.d.to_f32(), block.m.to_f32());
    for (j, &byte) in block.qs.iter().enumerate() {
        out[j] = d * f32::from(byte & 15) + m;
        out[j + 16] = d * f32::from(byte >> 4) + m;
    }
}

/// The 32 numbers of 5 bits of a Q5_0 or Q5_1 block.
fn five_bits(qs: &[u8; 16], qh: [u8; 4]) -> [u8; 32] {
    let high = u32::from_le_bytes(qh);
    std::array::from_fn(|j| {
        let low = qs[j % 16] >> (4 * (j / 16)) & 15;
        low | ((high >> j & 1) as u8) << 4
    })
}

fn q5_0(block: &BlockQ5_0, out: &mut [f32; 32]) {
    let d = block.d.to_f32();
    for (out, q) in out.iter_mut().zip(five_bits(&block.qs, block.qh)) {
        *out = d * f32::from(q as i8 - 16);
    }
}

fn q5_1(block: &BlockQ5_1, out: &mut [f32; 32]) {
    let (d, m) = (block.d.to_f32(), block.m.to_f32());
    for (out, q) in out.iter_mut().zip(five_bits(&block.qs, block.qh)) {
        *out = d * f32::from(q) + m;
    }
}

fn q8_0(block: &BlockQ8_0, out: &mut [f32; 32]) {
    let d = block.d.to_f32();
    for (out, &q) in out.iter_mut().zip(&block.qs) {
        *out = d * f32::from(q);
    }
}

/// The low two bits of weight `i` of a Q2_K or Q3_K block, and the high two of a Q6_K block.
fn two_bits(qs: &[u8; 64], i: usize) -> u8 {
    let (half, row, l) = (i / 128, i / 32 % 4, i % 32);
    qs[32 * half + l] >> (2 * row) & 3
}

fn q2_k(block: &BlockQ2K, out: &mut [f32; 256]) {
    let (d, dmin) = (block.d.to_f32(), block.dmin.to_f32());
    for (i, out) in out.iter_mut().enumerate() {
        let group = block.scales[i / 16];
        let (scale, minimum) = (d * f32::from(group & 15), dmin * f32::from(group >> 4));
        *out = scale * f32::from(two_bits(&block.qs, i)) - minimum;
    }
}

fn q3_k(block: &BlockQ3K, out: &mut [f32; 256]) {
    let (d, scales) = (block.d.to_f32(), block.scales());
    for (i, out) in out.iter_mut().enumerate() {
        let high = block.hmask[i % 32] >> (i / 32) & 1;
        let q = (two_bits(&block.qs, i) | high << 2) as i8 - 4;
        *out = d * f32::from(scales[i / 16] as i8 - 32) * f32::from(q);
    }
}

/// The low four bits of weight `i` of a Q4_K or Q5_K block.
fn four_bits(qs: &[u8; 128], i: usize) -> u8 {
    let (chunk, half, l) = (i / 64, i / 32 % 2, i % 32);
    qs[32 * chunk + l] >> (4 * half) & 15
}

fn q4_k(block: &BlockQ4K, out: &mut [f32; 256]) {
    let (d, dmin) = (block.d.to_f32(), block.dmin.to_f32());
    let (scales, minima) = scales_and_minima(&block.scales);
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, minimum) = (d * f32::from(scales[i / 32]), dmin * f32::from(minima[i / 32]));
        *out = scale * f32::from(four_bits(&block.qs, i)) - minimum;
    }
}

fn q5_k(block: &BlockQ5K, out: &mut [f32; 256]) {
    let (d, dmin) = (block.d.to_f32(), block.dmin.to_f32());
    let (scales, minima) = scales_and_minima(&block.scales);
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, minimum) = (d * f32::from(scales[i / 32]), dmin * f32::from(minima[i / 32]));
        let high = block.qh[i % 32] >> (i / 32) & 1;
        *out = scale * f32::from(four_bits(&block.qs, i) | high << 4) - minimum;
    }
}

fn q6_k(block: &BlockQ6K, out: &mut [f32; 256]) {
    let d = block.d.to_f32();
    for (i, out) in out.iter_mut().enumerate() {
        let low = block.ql[64 * (i / 128) + i % 64] >> (4 * (i / 64 % 2)) & 15;
        let q = (low | two_bits(&block.qh, i) << 4) as i8 - 32;
        *out = d * f32::from(block.scales[i / 16]) * f32::from(q);
    }
}
