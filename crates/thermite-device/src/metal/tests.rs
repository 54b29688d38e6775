//! On a Mac: the kernels, and what this device adds to them.
//!
//! A virtual machine's GPU lacks what the kernels need: there the tests of launches say so and pass, unless
//! `THERMITE_METAL_REQUIRED=1`. That every file compiles is tested on any Mac.
#![allow(unsafe_code, reason = "a file is mapped")]

use std::sync::Arc;

use memmap2::Mmap;
use objc2_metal::MTLCreateSystemDefaultDevice;
use thermite_formats::FileBytes;
use thermite_kernels::sources::sources;

use super::pipelines::Pipelines;
use super::{Metal, Options};
use crate::launched::Variants;
use crate::{Device, Dtype, Error, Layout, MatrixView, WeightType, conformance};

fn metal(variants: Variants) -> Option<Metal> {
    match Metal::open(Options { variants, self_test: Some(false), ..Options::default() }) {
        Ok(device) => Some(device),
        Err(Error::Unavailable { reason, .. }) if std::env::var_os("THERMITE_METAL_REQUIRED").is_none() => {
            eprintln!("not tested: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_file_compiles() {
    let Some(device) = MTLCreateSystemDefaultDevice() else {
        assert!(std::env::var_os("THERMITE_METAL_REQUIRED").is_none(), "there is no GPU");
        return;
    };
    let pipelines = Pipelines::new(device);
    let failures: Vec<_> = sources().filter_map(|source| pipelines.compile(source).err()).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_kernel_agrees_with_its_oracle() {
    for variants in [Variants::Plain, Variants::Fast] {
        let Some(device) = metal(variants) else { return };
        for (kernel, outcome) in conformance::run(&device, &|_| true).unwrap() {
            assert!(outcome.failures.is_empty(), "{kernel}: {:?}", outcome.failures);
            assert!(outcome.passed > 0, "{kernel}");
        }
    }
}

#[test]
fn the_self_test_passes() {
    let Some(device) = metal(Variants::Fast) else { return };
    super::selftest::run(&device).unwrap();
}

/// More launches than a command buffer takes, each on what the last one wrote.
#[test]
fn launches_that_depend_on_each_other_run_in_order() {
    const N: usize = 100_000;
    let Some(device) = metal(Variants::Fast) else { return };
    let one = device.upload_f32(&[1.0; N]).unwrap();
    let mut sum = device.alloc(Dtype::F32, N).unwrap();
    for _ in 0..1500 {
        device.residual_add(&mut sum, &one, N).unwrap();
    }
    let mut out = vec![0.0; N];
    device.read_f32(&sum, 0, &mut out).unwrap();
    assert_eq!(out, [1500.0; N]);
}

/// A buffer that queued work reads is written only after that work.
#[test]
fn a_write_waits_for_what_uses_its_buffer() {
    const N: usize = 1 << 20;
    let Some(device) = metal(Variants::Fast) else { return };
    let mut x = device.upload_f32(&[1.0; N]).unwrap();
    let mut sum = device.alloc(Dtype::F32, N).unwrap();
    device.residual_add(&mut sum, &x, N).unwrap();
    device.write_f32(&mut x, &[5.0; N]).unwrap();
    device.residual_add(&mut sum, &x, N).unwrap();
    let mut out = vec![0.0; N];
    device.read_f32(&sum, 0, &mut out).unwrap();
    assert_eq!(out, [6.0; N]);
}

#[test]
fn memory_that_is_not_there_is_refused_with_numbers() {
    let Some(device) = metal(Variants::Fast) else { return };
    let error = device.alloc(Dtype::F32, usize::MAX / 8).unwrap_err();
    assert!(matches!(error, Error::Memory { bytes, .. } if bytes > usize::MAX / 4), "{error}");
    assert!(device.upload_f32(&[1.0]).is_ok());
}

#[test]
fn reads_and_writes_past_the_end_are_refused() {
    let Some(device) = metal(Variants::Fast) else { return };
    let mut buffer = device.alloc(Dtype::F32, 3).unwrap();
    let short = Error::Size { kernel: "write", operand: "buffer", have: 3, need: 4 };
    assert_eq!(device.write_f32(&mut buffer, &[0.0; 4]).unwrap_err(), short);
    let short = Error::Size { kernel: "read", operand: "buffer", have: 3, need: 4 };
    assert_eq!(device.read_f32(&buffer, 2, &mut [0.0; 2]).unwrap_err(), short);
}

/// Weights of a mapped file, aligned and not, against a copy of them.
#[test]
fn weights_are_used_where_they_are_mapped() {
    const ROWS: usize = 5;
    const COLS: usize = 4099;
    let Some(device) = metal(Variants::Fast) else { return };
    let path = std::env::temp_dir().join(format!("thermite-adopted-{}", std::process::id()));
    let values: Vec<f32> = (0..ROWS * COLS + 64).map(|i| (i % 97) as f32 * 0.01 - 0.4).collect();
    std::fs::write(&path, bytemuck::cast_slice(&values)).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    // SAFETY: nobody else knows the file.
    let map = unsafe { Mmap::map(&file) }.unwrap();
    let file = Arc::new(FileBytes::Mapped(map));
    device.adopt(&file).unwrap();
    device.adopt(&file).unwrap();
    let x = device.upload_f32(&[1.0; COLS]).unwrap();
    for first in [0, 16, 20, 32] {
        let bytes = &file[first..][..ROWS * COLS * 4];
        let view =
            MatrixView { dtype: WeightType::F32, rows: ROWS, cols: COLS, layout: Layout::RowMajor, bytes };
        let copy = bytes.to_vec();
        let products = [view, MatrixView { bytes: &copy, ..view }].map(|view| {
            let weight = device.matrix(&[view]).unwrap();
            let mut out = device.alloc(Dtype::F32, ROWS).unwrap();
            device.matmul(&x, &weight, &mut out, 1).unwrap();
            let mut sums = [0.0; ROWS];
            device.read_f32(&out, 0, &mut sums).unwrap();
            sums
        });
        assert_eq!(products[0], products[1], "from byte {first}");
    }
    std::fs::remove_file(&path).unwrap();
}
