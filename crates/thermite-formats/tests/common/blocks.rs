//! Random blocks of the quantised types, and their values in double precision, block by block as the format's
//! reference walks through them.

use half::f16;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use thermite_formats::DType;

/// A weight, and the sum of the magnitudes that it is made of.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    pub value: f64,
    pub magnitude: f64,
}

fn want(product: f64, minimum: f64) -> Want {
    Want { value: product - minimum, magnitude: product.abs() + minimum.abs() }
}

/// Where the scales of a block lie that are halves.
fn halves_at(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[0, 2],
        DType::Q2K => &[80, 82],
        DType::Q3K => &[108],
        DType::Q6K => &[208],
        _ => &[],
    }
}

/// Random bits, with scales between 1/64 and 1.
pub fn random_blocks(dtype: DType, count: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; count * dtype.block_bytes()];
    let seed = seed.to_le_bytes().repeat(4);
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    rng.fill_bytes(&mut bytes);
    for block in bytes.chunks_mut(dtype.block_bytes()) {
        for &at in halves_at(dtype) {
            let scale = 1.0 / f32::from(1 + block[at] % 64);
            block[at..at + 2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
        }
    }
    bytes
}

/// The weights of one block.
pub fn oracle(dtype: DType, b: &[u8]) -> Vec<Want> {
    let half = |at: usize| f64::from(f16::from_le_bytes([b[at], b[at + 1]]));
    let int = |byte: u8| f64::from(byte);
    let mut out = vec![want(0.0, 0.0); dtype.block_len()];
    match dtype {
        DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 => {
            let affine = matches!(dtype, DType::Q4_1 | DType::Q5_1);
            let five = matches!(dtype, DType::Q5_0 | DType::Q5_1);
            let (d, m) = (half(0), if affine { half(2) } else { 0.0 });
            let at = if affine { 4 } else { 2 };
            let qh = if five { u32::from_le_bytes(b[at..at + 4].try_into().unwrap()) } else { 0 };
            let qs = &b[at + if five { 4 } else { 0 }..];
            let zero = if affine { 0.0 } else { f64::from(if five { 16 } else { 8 }) };
            for j in 0..16 {
                let low = int(qs[j] % 16) + 16.0 * f64::from(qh >> j & 1);
                let high = int(qs[j] / 16) + 16.0 * f64::from(qh >> (j + 16) & 1);
                out[j] = want(d * (low - zero), -m);
                out[j + 16] = want(d * (high - zero), -m);
            }
        }
        DType::Q8_0 => (0..32).for_each(|j| out[j] = want(half(0) * f64::from(b[2 + j] as i8), 0.0)),
        DType::Q2K => {
            let (scales, qs) = (&b[..16], &b[16..80]);
            let mut at = 0;
            for chunk in 0..2 {
                for shift in 0..4 {
                    for l in 0..32 {
                        let s = scales[at / 16];
                        let q = qs[32 * chunk + l] / 4_u8.pow(shift) % 4;
                        out[at] = want(half(80) * int(s % 16) * int(q), half(82) * int(s / 16));
                        at += 1;
                    }
                }
            }
        }
        DType::Q3K => {
            let (hmask, qs, packed) = (&b[..32], &b[32..96], &b[96..108]);
            // as sixteen numbers: low nibbles of bytes 0..8, then their high nibbles, and two bits each above
            let scales: Vec<f64> = (0..16)
                .map(|i| {
                    let low = if i < 8 { packed[i] % 16 } else { packed[i - 8] / 16 };
                    int(low) + 16.0 * int(packed[8 + i % 4] / 4_u8.pow(i as u32 / 4) % 4) - 32.0
                })
                .collect();
            let (mut at, mut mask) = (0, 1_u32);
            for chunk in 0..2 {
                for shift in 0..4 {
                    for l in 0..32 {
                        let low = int(qs[32 * chunk + l] / 4_u8.pow(shift) % 4);
                        let q = if u32::from(hmask[l]) & mask == 0 { low - 4.0 } else { low };
                        out[at] = want(half(108) * scales[at / 16] * q, 0.0);
                        at += 1;
                    }
                    mask *= 2;
                }
            }
        }
        DType::Q4K | DType::Q5K => {
            let packed = &b[4..16];
            let (qh, qs) = if dtype == DType::Q5K { (&b[16..48], &b[48..]) } else { (&b[..0], &b[16..]) };
            let pair = |j: usize| match j {
                0..4 => (packed[j] % 64, packed[j + 4] % 64),
                _ => (
                    packed[j + 4] % 16 + 16 * (packed[j - 4] / 64),
                    packed[j + 4] / 16 + 16 * (packed[j] / 64),
                ),
            };
            let mut at = 0;
            for j in 0..8 {
                let (s, m) = pair(j);
                for l in 0..32 {
                    let byte = qs[j / 2 * 32 + l];
                    let nibble = if j % 2 == 0 { byte % 16 } else { byte / 16 };
                    let high = qh.get(l).map_or(0, |byte| byte >> j & 1);
                    out[at] = want(half(0) * int(s) * int(nibble + 16 * high), half(2) * int(m));
                    at += 1;
                }
            }
        }
        DType::Q6K => {
            let scale = |at: usize| f64::from(b[192 + at] as i8);
            for n in 0..2 {
                let (ql, qh) = (&b[64 * n..], &b[128 + 32 * n..]);
                for l in 0..32 {
                    let q = [
                        ql[l] % 16 + 16 * (qh[l] % 4),
                        ql[l + 32] % 16 + 16 * (qh[l] / 4 % 4),
                        ql[l] / 16 + 16 * (qh[l] / 16 % 4),
                        ql[l + 32] / 16 + 16 * (qh[l] / 64),
                    ];
                    for (r, q) in q.into_iter().enumerate() {
                        let s = scale(8 * n + l / 16 + 2 * r);
                        out[128 * n + 32 * r + l] = want(half(208) * s * (int(q) - 32.0), 0.0);
                    }
                }
            }
        }
        _ => unreachable!("{dtype} has no blocks"),
    }
    out
}
