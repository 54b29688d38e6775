//! Elementwise kernels.

use super::case::{Case, CaseOf, Tolerance, scalar_of, stored};
use super::data::{Data, Generator};
use crate::contract::Scalar;
use crate::syntax::Kernel;

const LENGTHS: &[(usize, u32)] = &[
    (0, 1024),
    (1, 1024),
    (5, 1024),
    (31, 1024),
    (33, 32),
    (768, 256),
    (1025, 1024),
    (50257, 1024),
    (5000, 32),
];

/// Values at which formulas break: zeros, far tails, infinities, NaN.
const SPECIAL: &[f64] = &[
    0.0,
    -0.0,
    1.0,
    -1.0,
    20.0,
    -20.0,
    88.0,
    -88.0,
    100.0,
    -100.0,
    1e4,
    -1e4,
    1e-7,
    -1e-7,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

/// NaN at -inf, as the formula has it.
pub(super) fn gelu_of(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    // 0.5 x (1 + tanh(inner)) without cancellation: x times the logistic function of 2 inner.
    x * sigmoid_of(2.0 * inner)
}

fn sigmoid_of(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// NaN at -inf, as the formula has it.
pub(super) fn silu_of(x: f64) -> f64 {
    x * sigmoid_of(x)
}

pub(super) fn relu_of(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

pub(super) fn gelu(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    map(kernel, gelu_of, visit);
}

pub(super) fn silu(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    map(kernel, silu_of, visit);
}

pub(super) fn relu(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    map(kernel, relu_of, visit);
}

pub(super) fn sigmoid(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    map(kernel, sigmoid_of, visit);
}

pub(super) fn swiglu(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    gated(kernel, silu_of, visit);
}

pub(super) fn geglu(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    gated(kernel, gelu_of, visit);
}

fn map(kernel: &Kernel, formula: fn(f64) -> f64, visit: &mut dyn FnMut(Case)) {
    for &(n, threads) in LENGTHS {
        let x = stored(kernel, "x", &inputs(n, 7));
        let wanted: Vec<f64> = x.values().into_iter().map(formula).collect();
        CaseOf::new(kernel, &[("N", n)])
            .threads(threads)
            .read("x", x)
            .write("out", limited(kernel, wanted), ACTIVATION)
            .visit(visit);
    }
}

fn gated(kernel: &Kernel, formula: fn(f64) -> f64, visit: &mut dyn FnMut(Case)) {
    for &(n, threads) in LENGTHS {
        let gate = stored(kernel, "gate", &inputs(n, 8));
        let up = stored(kernel, "up", &Generator::new(9).bell(n, 2.0));
        let wanted: Vec<f64> = (0..n).map(|i| formula(gate.value(i)) * up.value(i)).collect();
        CaseOf::new(kernel, &[("N", n)])
            .threads(threads)
            .read("gate", gate)
            .read("up", up)
            .write("out", limited(kernel, wanted), ACTIVATION)
            .visit(visit);
    }
}

/// Far below zero the exact value is a denormal or less; there only the absolute error counts.
const ACTIVATION: Tolerance = Tolerance { absolute: 1e-6, relative: 3e-6 };

/// Special values first, then a bell.
fn inputs(n: usize, seed: u64) -> Vec<f64> {
    let bell = Generator::new(seed).bell(n, 3.0);
    let mut values: Vec<f64> = SPECIAL.iter().copied().chain(bell).collect();
    values.truncate(n);
    values
}

/// What overflows the output's type is infinite.
fn limited(kernel: &Kernel, mut values: Vec<f64>) -> Vec<f64> {
    if scalar_of(kernel, "out") == Scalar::F16 {
        for v in &mut values {
            *v = if v.abs() >= 65520.0 { f64::INFINITY.copysign(*v) } else { *v };
        }
    }
    values
}

pub(super) fn scale(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, threads) in LENGTHS {
        for scale in [27.712812f32, -0.3, 0.0] {
            let x = stored(kernel, "x", &inputs(n, 12));
            let wanted = x.values().iter().map(|v| v * f64::from(scale)).collect();
            CaseOf::new(kernel, &[("N", n)])
                .threads(threads)
                .float("scale", scale)
                .update("x", x, wanted, Tolerance::relative(1e-7))
                .visit(visit);
        }
    }
}

pub(super) fn residual_add(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, threads) in LENGTHS {
        let x = Data::store(scalar_of(kernel, "x"), &inputs(n, 10));
        let residual = stored(kernel, "residual", &Generator::new(11).bell(n, 3.0));
        let wanted = (0..n).map(|i| residual.value(i) + x.value(i)).collect();
        CaseOf::new(kernel, &[("N", n)])
            .threads(threads)
            .read("x", x)
            .update("residual", residual, wanted, Tolerance::relative(2e-7))
            .visit(visit);
    }
}
