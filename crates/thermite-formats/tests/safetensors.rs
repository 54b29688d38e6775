//! The safetensors header: what is right is read, what is wrong is named.

#![allow(clippy::unwrap_used)] // a test may

mod common;

use common::{handmade, parse, small_file, written};
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use thermite_formats::{DType, Error, MAX_HEADER_LEN};

#[test]
fn what_the_formats_library_writes_is_read() {
    let file = small_file();
    let header = parse(&file).unwrap();
    assert_eq!(header.tensors.len(), 4);
    for name in ["bias", "weight", "empty", "scalar"] {
        let ours = header.tensors.iter().find(|t| t.name == name).unwrap();
        let theirs = SafeTensors::deserialize(&file).unwrap();
        let theirs = theirs.tensor(name).unwrap();
        assert_eq!(ours.dtype.name(), theirs.dtype().to_string());
        assert_eq!(ours.shape, theirs.shape());
        assert_eq!(&file[ours.range.clone()], theirs.data());
    }
}

#[test]
fn every_type_of_the_format_is_known_with_its_size() {
    let ours: Vec<DType> = DType::ALL.iter().copied().filter(|dtype| !dtype.is_quantized()).collect();
    for dtype in &ours {
        let theirs: Dtype = serde_json::from_str(&format!("\"{dtype}\"")).unwrap();
        assert_eq!(theirs.bitsize() * dtype.block_len(), 8 * dtype.block_bytes(), "{dtype}");
    }
    // What the library knows, as its own error lists it, we know.
    let unknown = serde_json::from_str::<Dtype>("\"X\"").unwrap_err().to_string();
    let known = unknown.matches('`').count() / 2 - 1;
    assert_eq!(known, ours.len(), "{unknown}");
}

#[test]
fn a_file_truncated_anywhere_is_an_error_with_the_numbers() {
    let file = small_file();
    for have in 0..file.len() {
        match parse(&file[..have]) {
            Err(Error::Truncated { need, have: h, .. }) => {
                assert_eq!(h, have as u64);
                assert!(need > h && need <= file.len() as u64);
            }
            other => panic!("{have} bytes: {other:?}"),
        }
    }
    assert!(parse(&file).is_ok());
}

#[test]
fn a_byte_too_many_is_an_error() {
    let mut file = small_file();
    let described = file.len() as u64;
    file.push(0);
    let error = parse(&file).unwrap_err();
    assert!(matches!(error, Error::TrailingBytes { described: d, .. } if d == described));
    assert!(error.to_string().contains("1 bytes after the last tensor"), "{error}");
}

#[test]
fn a_header_longer_than_the_format_allows() {
    for len in [MAX_HEADER_LEN + 1, u64::MAX, u64::from_le_bytes(*b"GGUF\x03\0\0\0") << 16] {
        let file = [&len.to_le_bytes()[..], b"{}"].concat();
        let error = parse(&file).unwrap_err();
        assert!(matches!(error, Error::HeaderTooLarge { len: l, .. } if l == len), "{error}");
    }
    let file = [&MAX_HEADER_LEN.to_le_bytes()[..], b"{}"].concat();
    assert!(matches!(parse(&file), Err(Error::Truncated { .. })));
}

/// A file that must be refused, the data's length, and what the message must name.
type Bad = (&'static str, usize, &'static [&'static str]);

const BAD: &[Bad] = &[
    // Not the JSON that it should be.
    ("", 0, &["a.safetensors", "EOF"]),
    ("[]", 0, &["map from tensor names"]),
    ("{", 0, &["EOF"]),
    ("{} x", 0, &["trailing characters"]),
    (r#"{"a":3}"#, 0, &["a:", "invalid type"]),
    (r#"{"a":{"dtype":"F32","shape":[1]}}"#, 4, &["a:", "data_offsets"]),
    (r#"{"a":{"dtype":5,"shape":[1],"data_offsets":[0,4]}}"#, 4, &["a:", "string"]),
    (r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#, 4, &["a:", "-1"]),
    (r#"{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}"#, 4, &["a:", "1.5"]),
    (r#"{"a":{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,4]}}"#, 4, &["a:"]),
    (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}"#, 8, &["a:"]),
    (r#"{"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}"#, 4, &["duplicate"]),
    (r#"{"__metadata__":{"n":3}}"#, 0, &["__metadata__", "invalid type"]),
    // Types.
    (r#"{"a":{"dtype":"Q4_K","shape":[1],"data_offsets":[0,4]}}"#, 4, &["tensor a", "Q4_K"]),
    (r#"{"a":{"dtype":"f32","shape":[1],"data_offsets":[0,4]}}"#, 4, &["tensor a", "f32"]),
    // Sizes.
    (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4, &["a", "F32 [2]", "8 bytes", "0..4"]),
    (r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[4,0]}}"#, 4, &["4..0", "-4"]),
    (r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#, 2, &["F4 [3]"]),
    (
        r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#,
        0,
        &["a", "4294967296"],
    ),
    (
        r#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}"#,
        0,
        &["a", "4611686018427387904"],
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[2305843009213693951],"data_offsets":[0,2305843009213693951]}}"#,
        8,
        &["truncated", "2305843009213694048", "105"],
    ),
    // Places.
    (
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}}"#,
        7,
        &["a and b overlap", "4", "3"],
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
        4,
        &["a and b overlap"],
    ),
    (
        r#"{"b":{"dtype":"U8","shape":[4],"data_offsets":[6,10]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
        10,
        &["4..6", "before tensor b"],
    ),
    (r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}}"#, 5, &["0..1", "before tensor a"]),
    (
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
        2,
        &["tensor a is there twice"],
    ),
    ("{}", 1, &["1 bytes after the last tensor"]),
];

#[test]
fn bad_files_are_refused_by_name_and_number() {
    for (header, data, named) in BAD {
        let error = parse(&handmade(header, *data)).expect_err(header).to_string();
        for part in *named {
            assert!(error.contains(part), "{header}\n{error}\nlacks {part:?}");
        }
    }
}

#[test]
fn a_header_that_is_not_utf8() {
    let mut file = handmade(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, 1);
    file[10] = 0xff;
    assert!(matches!(parse(&file), Err(Error::Json { .. })));
}

#[test]
fn nesting_does_not_exhaust_the_stack() {
    let deep = format!("{{\"a\":{}", "[".repeat(200_000));
    assert!(matches!(parse(&handmade(&deep, 0)), Err(Error::Json { .. })));
}

#[test]
fn a_file_without_tensors_and_padding_are_right() {
    assert!(parse(&handmade("{}", 0)).unwrap().tensors.is_empty());
    let padded = r#"{"__metadata__":{"format":"pt"}}        "#;
    assert_eq!(parse(&handmade(padded, 0)).unwrap().metadata["format"], "pt");
    assert!(parse(&handmade(r#"{"__metadata__":null}"#, 0)).is_ok());
}

/// Headers that are nearly right: a few tensors whose offsets, types and shapes may disagree.
fn nearly_right() -> impl Strategy<Value = Vec<u8>> {
    let dtype = prop::sample::select(vec!["F32", "F16", "U8", "F4", "BOOL", "F99"]);
    let shape = prop::collection::vec(0_usize..4, 0..3);
    let tensor = ("[abc]", dtype, shape, 0_u64..3, -1_i64..=1);
    prop::collection::vec(tensor, 0..4).prop_map(|tensors| {
        let mut position = 0_i64;
        let entries: Vec<String> = tensors
            .iter()
            .map(|(name, dtype, shape, jitter, end)| {
                let len = DType::from_safetensors(dtype).and_then(|d| d.bytes_of(shape)).unwrap_or(1);
                // Two of three are where they should be.
                let start = if *jitter == 2 { position + end } else { position };
                position = start + len as i64;
                format!(
                    r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{position}]}}"#
                )
            })
            .collect();
        handmade(&format!("{{{}}}", entries.join(",")), position.max(0) as usize)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn mutated_files_never_panic_and_never_reach_out_of_bounds(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut file = small_file();
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Ok(header) = parse(&file) {
            for tensor in header.tensors {
                let bytes = file.get(tensor.range).unwrap().len();
                prop_assert_eq!(Some(bytes), tensor.dtype.bytes_of(&tensor.shape));
            }
        }
    }

    #[test]
    fn we_accept_exactly_what_the_formats_library_accepts(file in nearly_right()) {
        let ours = parse(&file);
        match SafeTensors::read_metadata(&file) {
            Ok((_, metadata)) => match ours {
                Ok(header) => prop_assert_eq!(header.tensors.len(), metadata.tensors().len()),
                // The library keeps the last of two tensors of one name.
                Err(Error::DuplicateTensor { .. }) => {}
                Err(other) => prop_assert!(false, "only we refuse: {}", other),
            },
            Err(theirs) => prop_assert!(ours.is_err(), "only they refuse: {}", theirs),
        }
    }

    #[test]
    fn round_trip(shapes in prop::collection::vec(prop::collection::vec(0_usize..5, 0..4), 1..6)) {
        let names: Vec<String> = (0..shapes.len()).map(|i| format!("t.{i}")).collect();
        let specs: Vec<common::Spec<'_>> = shapes
            .iter()
            .zip(&names)
            .enumerate()
            .map(|(i, (shape, name))| {
                let dtype = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::U8][i % 4];
                let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
                (name.as_str(), dtype, shape.clone(), vec![i as u8; bytes])
            })
            .collect();
        let file = written(&specs);
        let header = parse(&file).unwrap();
        prop_assert_eq!(header.tensors.len(), specs.len());
        for (name, dtype, shape, data) in &specs {
            let tensor = header.tensors.iter().find(|t| t.name == *name).unwrap();
            prop_assert_eq!(tensor.dtype.name(), dtype.to_string());
            prop_assert_eq!(&tensor.shape, shape);
            prop_assert_eq!(&file[tensor.range.clone()], data.as_slice());
        }
    }
}
