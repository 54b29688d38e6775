//! Elements, at any address.

#![allow(clippy::unwrap_used)] // a test may

use std::borrow::Cow;

use half::{bf16, f16};
use thermite_formats::{DType, Error, Tensors};

/// A file whose one tensor `t` begins at an even or an odd address.
fn file(dtype: DType, shape: &[usize], data: &[u8], odd: bool) -> Tensors {
    let end = data.len();
    let mut header = format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[0,{end}]}}}}"#);
    header.push_str(&" ".repeat(8 - header.len() % 8 + usize::from(odd)));
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
    let tensors = Tensors::in_memory("m.safetensors", file).unwrap();
    assert_eq!(tensors.get("t").unwrap().data.as_ptr().addr() % 2 == 1, odd);
    tensors
}

/// All 65,536 halves, from an even and from an odd address.
fn all_halves(dtype: DType, expected: fn(u16) -> f32) {
    let data: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for odd in [false, true] {
        let tensors = file(dtype, &[256, 256], &data, odd);
        let values = tensors.get("t").unwrap().to_f32().unwrap();
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
        let tensors = file(dtype, &[], &bytes, false);
        assert_eq!(tensors.get("t").unwrap().to_f32().unwrap(), [value], "{dtype}");
    }
}

#[test]
fn types_without_a_conversion_are_named() {
    let tensors = file(DType::F8E4M3, &[2], &[0, 0], false);
    let error = tensors.get("t").unwrap().to_f32().unwrap_err();
    assert!(matches!(&error, Error::UnsupportedDType { dtype, .. } if dtype == "F8_E4M3"));
    assert_eq!(error.to_string(), "m.safetensors: tensor t: element type F8_E4M3 is not supported");
}

#[test]
fn words_are_borrowed_when_aligned_and_copied_when_not() {
    let bytes = [1, 0, 2, 0, 3, 0, 4, 0];
    let (even, odd) = (file(DType::F16, &[4], &bytes, false), file(DType::BF16, &[4], &bytes, true));
    let words = even.get("t").unwrap().words::<u16>().unwrap();
    assert!(matches!(words, Cow::Borrowed(_)));
    assert_eq!(*words, [1, 2, 3, 4]);
    let words = odd.get("t").unwrap().words::<u16>().unwrap();
    assert!(matches!(words, Cow::Owned(_)));
    assert_eq!(*words, [1, 2, 3, 4]);
    assert!(even.get("t").unwrap().words::<u32>().is_none());
}

#[test]
fn shared_bytes_outlive_the_model() {
    let tensors = file(DType::F16, &[4], &[1, 0, 2, 0, 3, 0, 4, 0], false);
    let shared = tensors.get("t").unwrap().shared();
    drop(tensors);
    assert_eq!(*shared, [1, 0, 2, 0, 3, 0, 4, 0]);
    assert_eq!(shared.file()[shared.range()], *shared);
}
