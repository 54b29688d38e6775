//! Quantised types: the values of a block by an independent formula, and the error that quantising leaves.

#![allow(clippy::unwrap_used)] // a test may

mod common;

use common::blocks::{oracle, random_blocks};
use proptest::prelude::*;
use thermite_formats::DType;
use thermite_formats::quant::{QuantError, dequantize, is_readable, is_writable, quantize};

fn quantized() -> impl Iterator<Item = DType> {
    DType::ALL.iter().copied().filter(|dtype| dtype.is_quantized())
}

fn read(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    dequantize(dtype, bytes, &mut out).unwrap();
    out
}

fn written(dtype: DType, values: &[f32]) -> Vec<u8> {
    let mut out = vec![0; dtype.bytes_of(&[values.len()]).unwrap()];
    quantize(dtype, values, &mut out).unwrap();
    out
}

/// What is left of `values` after being quantised and read again.
fn there_and_back(dtype: DType, values: &[f32]) -> Vec<f32> {
    read(dtype, &written(dtype, values))
}

/// Root mean square of the error, relative to that of the values.
fn error(values: &[f32], again: &[f32]) -> f64 {
    let squares = |terms: &mut dyn Iterator<Item = f64>| terms.map(|x| x * x).sum::<f64>();
    let rest = squares(&mut values.iter().zip(again).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    (rest / squares(&mut values.iter().map(|&x| f64::from(x)))).sqrt()
}

/// Numbers in 0..1 from a seed.
fn uniform(seed: u64) -> impl Iterator<Item = f64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    })
}

/// Normally distributed weights of deviation 0.02, as those of a model about are.
fn gaussian(len: usize) -> Vec<f32> {
    let mut uniform = uniform(7);
    let twelve = |uniform: &mut dyn Iterator<Item = f64>| uniform.take(12).sum::<f64>() - 6.0;
    (0..len).map(|_| (0.02 * twelve(&mut uniform)) as f32).collect()
}

/// Relative errors, for normally distributed weights, that must not be passed.
const BOUNDS: [(DType, f64); 13] = [
    (DType::F32, 0.0),
    (DType::F16, 2.1e-4),
    (DType::BF16, 1.7e-3),
    (DType::Q8_0, 0.0054),
    (DType::Q4_0, 0.081),
    (DType::Q4_1, 0.0705),
    (DType::Q5_0, 0.0403),
    (DType::Q5_1, 0.034),
    (DType::Q2K, 0.27),
    (DType::Q3K, 0.146),
    (DType::Q4K, 0.071),
    (DType::Q5K, 0.035),
    (DType::Q6K, 0.0174),
];

#[test]
fn errors_of_normally_distributed_weights() {
    let values = gaussian(256 * 200);
    for (dtype, bound) in BOUNDS {
        let error = error(&values, &there_and_back(dtype, &values));
        assert!(error <= bound && error >= 0.9 * bound, "{dtype}: {error}, bound {bound}");
    }
}

/// Q4_0 as its scale is chosen without a search: the weight of largest magnitude becomes −8.
fn plain_q4_0(values: &[f32]) -> Vec<f32> {
    let block = |x: &[f32]| {
        let extreme = x.iter().fold(0.0_f32, |a, &b| if b.abs() > a.abs() { b } else { a });
        let d = half::f16::from_f32(extreme / -8.0).to_f32();
        x.iter().map(|x| d * (x / d).round().clamp(-8.0, 7.0)).collect::<Vec<_>>()
    };
    values.chunks(32).flat_map(block).collect()
}

#[test]
fn searching_the_scale_pays() {
    let values = gaussian(32 * 400);
    let (plain, searched) =
        (error(&values, &plain_q4_0(&values)), error(&values, &there_and_back(DType::Q4_0, &values)));
    println!("Q4_0: {plain:.4} without a search, {searched:.4} with it");
    assert!(searched < 0.955 * plain, "{searched} against {plain}");
}

#[test]
fn outliers_are_kept_and_the_rest_with_them() {
    let mut values = gaussian(256 * 20);
    for block in values.chunks_mut(256) {
        block[100] = 0.9;
        block[200] = -0.7;
    }
    for (dtype, bound) in
        [(DType::Q8_0, 0.013), (DType::Q4K, 0.105), (DType::Q6K, 0.036), (DType::Q4_0, 0.14)]
    {
        let again = there_and_back(dtype, &values);
        let error = error(&values, &again);
        assert!(error < bound, "{dtype}: {error}");
        for block in again.chunks(256) {
            assert!((block[100] - 0.9).abs() < 0.06 && (block[200] + 0.7).abs() < 0.06, "{dtype}");
        }
    }
}

#[test]
fn special_blocks() {
    let len = 256;
    let mut ramp: Vec<f32> = (0..len).map(|i| i as f32 / 255.0 - 0.5).collect();
    for dtype in quantized() {
        assert!(there_and_back(dtype, &vec![0.0; len]).iter().all(|&x| x == 0.0), "{dtype}: zeros");
        for constant in [1.0, -1.0, 0.003, 60_000.0, -60_000.0] {
            let again = there_and_back(dtype, &vec![constant; len]);
            let bound = if constant == 0.003 { 0.03 } else { 0.002 };
            assert!(error(&vec![constant; len], &again) <= bound, "{dtype}: all {constant}: {}", again[0]);
        }
        // too small for any scale: zeros, and nothing worse
        let again = there_and_back(dtype, &vec![1e-30; len]);
        assert!(again.iter().all(|x| x.abs() < 1e-6), "{dtype}: {again:?}");
        ramp.rotate_left(1);
        assert!(error(&ramp, &there_and_back(dtype, &ramp)) < 0.31, "{dtype}: a ramp");
    }
}

#[test]
fn numbers_that_cannot_be_held_are_named() {
    let mut values = vec![0.5; 256];
    for (value, dtype) in [
        (f32::NAN, DType::Q4K),
        (f32::INFINITY, DType::F32),
        (f32::NEG_INFINITY, DType::Q8_0),
        (7e4, DType::F16),
        (-7e4, DType::Q6K),
        (f32::MAX, DType::BF16),
    ] {
        values[77] = value;
        let mut out = vec![0; dtype.bytes_of(&[256]).unwrap()];
        let error = quantize(dtype, &values, &mut out).unwrap_err();
        assert!(matches!(error, QuantError::Range { index: 77, .. }), "{error}");
        assert_eq!(error.to_string(), format!("value 77 is {value}, which {dtype} cannot hold"));
    }
}

#[test]
fn lengths_and_types_that_do_not_fit() {
    for &dtype in DType::ALL {
        let (block, bytes) = (dtype.block_len(), dtype.block_bytes());
        let length = |e| matches!(e, QuantError::Length { .. });
        assert!(length(dequantize(dtype, &vec![0; bytes + 1], &mut vec![0.0; block]).unwrap_err()));
        assert!(length(dequantize(dtype, &vec![0; bytes], &mut vec![0.0; block + 1]).unwrap_err()));
        assert!(length(quantize(dtype, &vec![0.0; 2 * block], &mut vec![0; bytes]).unwrap_err()));
        assert_eq!(dequantize(dtype, &vec![0; bytes], &mut vec![0.0; block]).is_ok(), is_readable(dtype));
        assert_eq!(quantize(dtype, &vec![0.0; block], &mut vec![0; bytes]).is_ok(), is_writable(dtype));
    }
}

#[test]
fn sizes_of_shapes() {
    assert_eq!(DType::Q4K.bytes_of(&[3, 512]), Some(3 * 2 * 144));
    assert_eq!(DType::Q4K.bytes_of(&[512, 3]), None, "rows are whole blocks");
    assert_eq!(DType::Q8_0.bytes_of(&[]), None);
    assert_eq!(DType::Q8_0.bytes_of(&[0, 32]), Some(0));
    assert_eq!(DType::Q8_0.bytes_of(&[usize::MAX / 32 * 32, 2]), None, "overflow");
    assert_eq!(DType::F4.bytes_of(&[2, 3]), Some(3));
    assert_eq!(DType::F4.bytes_of(&[3]), None);
}

proptest! {
    #[test]
    fn values_follow_the_formula(seed in any::<u64>()) {
        for dtype in quantized() {
            let blocks = random_blocks(dtype, 3, seed);
            for (block, values) in blocks.chunks(dtype.block_bytes()).zip(read(dtype, &blocks).chunks(dtype.block_len())) {
                for (i, (&value, want)) in values.iter().zip(oracle(dtype, block)).enumerate() {
                    prop_assert!((f64::from(value) - want.value).abs() <= 3e-7 * want.magnitude, "{dtype} {i}: {value}, {want:?}");
                }
            }
        }
    }

    #[test]
    fn a_block_depends_on_its_own_values_alone(scale in 1e-3_f32..10.0, start in 0_usize..100) {
        let values: Vec<f32> = gaussian(1024)[start..start + 512].iter().map(|x| x * scale).collect();
        for dtype in quantized() {
            let parts: Vec<u8> = values.chunks(dtype.block_len()).flat_map(|block| written(dtype, block)).collect();
            prop_assert_eq!(written(dtype, &values), parts);
        }
    }

    /// What was read from a file is nearly found again: the integers of most types exactly.
    #[test]
    fn values_of_blocks_are_found_again(seed in any::<u64>()) {
        for dtype in quantized() {
            let values = read(dtype, &random_blocks(dtype, 4, seed));
            let error = error(&values, &there_and_back(dtype, &values));
            let bound = BOUNDS.iter().find(|(d, _)| *d == dtype).unwrap().1;
            prop_assert!(error < 1.5 * bound, "{}: {}", dtype, error);
        }
    }
}
