//! Elements, at any address.

#![allow(clippy::unwrap_used)] // a test may

mod common;

use std::borrow::Cow;
use std::path::Path;

use half::{bf16, f16};
use thermite_formats::{DType, Error, TensorView};

fn view<'a>(dtype: DType, shape: &'a [usize], data: &'a [u8]) -> TensorView<'a> {
    assert_eq!(dtype.bytes_of(shape), Some(data.len()));
    TensorView { name: "t", dtype, shape, data, file: Path::new("m.safetensors") }
}

/// All 65,536 halves, from an even and from an odd address.
fn all_halves(dtype: DType, expected: fn(u16) -> f32) {
    let mut bytes = vec![0];
    bytes.extend((0..=u16::MAX).flat_map(u16::to_le_bytes));
    let aligned: Vec<u8> = bytes[1..].to_vec();
    for data in [&bytes[1..], &aligned] {
        let values = view(dtype, &[256, 256], data).to_f32().unwrap();
        assert_eq!(values.len(), 1 << 16);
        for (bits, value) in (0..=u16::MAX).zip(values) {
            let want = expected(bits);
            assert!(value.to_bits() == want.to_bits() || (value.is_nan() && want.is_nan()), "{bits:04x}");
        }
    }
}

#[test]
fn every_f16() {
    all_halves(DType::F16, |bits| f16::from_bits(bits).to_f32());
}

#[test]
fn every_bf16() {
    all_halves(DType::BF16, |bits| bf16::from_bits(bits).to_f32());
}

#[test]
fn numbers_of_every_other_type() {
    let cases: [(DType, Vec<u8>, f32); 11] = [
        (DType::F32, 1.5_f32.to_le_bytes().to_vec(), 1.5),
        (DType::F64, (-0.1_f64).to_le_bytes().to_vec(), -0.1),
        (DType::I8, vec![0xff], -1.0),
        (DType::I16, (-300_i16).to_le_bytes().to_vec(), -300.0),
        (DType::I32, (-70_000_i32).to_le_bytes().to_vec(), -70_000.0),
        (DType::I64, i64::MIN.to_le_bytes().to_vec(), -(2.0_f32.powi(63))),
        (DType::U8, vec![0xff], 255.0),
        (DType::U16, u16::MAX.to_le_bytes().to_vec(), 65_535.0),
        (DType::U32, 16_777_216_u32.to_le_bytes().to_vec(), 16_777_216.0),
        (DType::U64, u64::MAX.to_le_bytes().to_vec(), 2.0_f32.powi(64)),
        (DType::Bool, vec![1], 1.0),
    ];
    for (dtype, bytes, value) in cases {
        assert_eq!(view(dtype, &[], &bytes).to_f32().unwrap(), [value], "{dtype}");
    }
}

#[test]
fn types_without_a_conversion_are_named() {
    let error = view(DType::F8E4M3, &[2], &[0, 0]).to_f32().unwrap_err();
    assert!(matches!(&error, Error::UnsupportedDType { dtype, .. } if dtype == "F8_E4M3"));
    assert_eq!(error.to_string(), "m.safetensors: tensor t: element type F8_E4M3 is not supported");
}

#[test]
fn words_are_borrowed_when_aligned_and_copied_when_not() {
    let words: Vec<u16> = vec![1, 2, 3, 4, 5];
    let bytes: &[u8] = bytemuck::cast_slice(&words);
    let aligned = view(DType::F16, &[4], &bytes[..8]).words::<u16>().unwrap();
    assert!(matches!(aligned, Cow::Borrowed(_)));
    assert_eq!(*aligned, words[..4]);
    let odd = view(DType::BF16, &[4], &bytes[1..9]).words::<u16>().unwrap();
    assert!(matches!(odd, Cow::Owned(_)));
    assert_eq!(*odd, [0x0200, 0x0300, 0x0400, 0x0500]);
    assert!(view(DType::F16, &[4], &bytes[..8]).words::<u32>().is_none());
}
