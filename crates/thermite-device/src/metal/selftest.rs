//! A few kernels on real sizes against the CPU, before anything depends on them: a driver or a compiler that gets one
//! wrong is found here and not in what a model says.

use half::{bf16, f16};

use super::launcher::Metal;
use crate::{Device, Dtype, Error, Layout, MatrixView, Result, conformance};

/// One kernel of each kind: a norm (with nil statistics too), a reduction over rows, an elementwise one that wants safe
/// arithmetic, threadgroup memory and barriers in a loop, a choice among a whole vocabulary.
const KERNELS: &[&str] =
    &["layernorm_forward", "softmax_inplace", "gelu_forward", "flash_attention_forward", "argmax_sample"];

/// # Errors
/// [`Error::Unavailable`] names the first case that differs.
pub(super) fn run(device: &Metal) -> Result<()> {
    let failed = |what: String| Error::Unavailable {
        device: device.describe(),
        reason: format!("self-test: {what} (THERMITE_METAL_SELF_TEST=0 skips it)"),
    };
    let outcomes = conformance::run(device, &|name| KERNELS.contains(&name));
    let outcomes = outcomes.map_err(|e| failed(e.to_string()))?;
    for &kernel in KERNELS {
        let outcome = outcomes.get(kernel).filter(|outcome| outcome.passed + outcome.failures.len() > 0);
        let outcome = outcome.ok_or_else(|| failed(format!("{kernel} has no case")))?;
        if let Some(first) = outcome.failures.first() {
            let (wrong, all) = (outcome.failures.len(), outcome.passed + outcome.failures.len());
            return Err(failed(format!("{wrong} of {all} cases of {kernel} are wrong: {first}")));
        }
    }
    for n in [1, 64] {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            product(device, dtype, n).map_err(|e| failed(format!("product of {n} rows in {dtype}: {e}")))?;
        }
    }
    Ok(())
}

/// A product of GPT-2's width against double precision.
fn product(device: &Metal, dtype: Dtype, n: usize) -> std::result::Result<(), String> {
    const ROWS: usize = 200;
    const COLS: usize = 768;
    let (x, weight) = (values(1, n * COLS), values(2, ROWS * COLS));
    let (bytes, weight) = stored(dtype, &weight);
    let view =
        MatrixView { dtype: dtype.into(), rows: ROWS, cols: COLS, layout: Layout::RowMajor, bytes: &bytes };
    let given = multiplied(device, view, &x, n).map_err(|e| e.to_string())?;
    // x may be rounded to the weights' type; sums are in float
    let rounding = match dtype {
        Dtype::F16 => f64::powi(2.0, -11),
        Dtype::BF16 => f64::powi(2.0, -8),
        _ => 0.0,
    };
    let relative = rounding + COLS as f64 * f64::powi(2.0, -24);
    for (at, &given) in given.iter().enumerate() {
        let (i, o) = (at / ROWS, at % ROWS);
        let terms = x[i * COLS..][..COLS].iter().zip(&weight[o * COLS..][..COLS]);
        let (mut wanted, mut scale) = (0.0, 0.0);
        for (&x, &w) in terms {
            let term = f64::from(x) * f64::from(w);
            wanted += term;
            scale += term.abs();
        }
        let off = (f64::from(given) - wanted).abs();
        if off.is_nan() || off > relative * scale {
            return Err(format!("out[{i}, {o}] is {given}, wanted {wanted}"));
        }
    }
    Ok(())
}

fn multiplied(device: &Metal, weight: MatrixView<'_>, x: &[f32], n: usize) -> Result<Vec<f32>> {
    let matrix = device.matrix(&[weight])?;
    let mut out = device.alloc(Dtype::F32, n * weight.rows)?;
    device.matmul(&device.upload_f32(x)?, &matrix, &mut out, n)?;
    let mut given = vec![0.0; n * weight.rows];
    device.read_f32(&out, 0, &mut given)?;
    Ok(given)
}

/// `len` values in -1 .. 1 from a linear congruential generator (Knuth's MMIX constants).
fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / f32::powi(2.0, 23) - 1.0
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// `values` in `dtype`: their bytes, and what they say.
fn stored(dtype: Dtype, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    match dtype {
        Dtype::F16 => {
            let narrow: Vec<_> = values.iter().map(|&v| f16::from_f32(v)).collect();
            (bytemuck::cast_slice(&narrow).to_vec(), narrow.iter().map(|v| v.to_f32()).collect())
        }
        Dtype::BF16 => {
            let narrow: Vec<_> = values.iter().map(|&v| bf16::from_f32(v)).collect();
            (bytemuck::cast_slice(&narrow).to_vec(), narrow.iter().map(|v| v.to_f32()).collect())
        }
        _ => (bytemuck::cast_slice(values).to_vec(), values.to_vec()),
    }
}
