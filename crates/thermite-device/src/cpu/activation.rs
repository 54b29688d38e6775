//! Elementwise activations.

use super::rows::{map, zip};
use super::simd::{Simd, exp, simd_fn};

/// `1 / (1 + e^-x)`.
#[inline(always)]
fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// `x / (1 + e^-x)`.
#[inline(always)]
fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    s.div(x, s.add(s.splat(1.0), exp(s, s.sub(s.splat(0.0), x))))
}

/// GELU by its tanh approximation (Hendrycks and Gimpel, arXiv:1606.08415), as `x sigmoid(2u)`, which is the same
/// since `(1 + tanh u) / 2 = sigmoid(2u)` and keeps its digits where `tanh u` is close to -1.
#[inline(always)]
fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769_2;
    let cube = s.mul(s.mul(x, x), x);
    let u = s.mul(s.splat(TWICE_SQRT_2_OVER_PI), s.fma(s.splat(0.044_715), cube, x));
    s.mul(x, sigmoid(s, u))
}

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident = $f:expr;)*) => {$(
        simd_fn! {
            $(#[$doc])*
            pub(super) fn $name(x: &[f32], out: &mut [f32]) = |s, x, out| map(s, x, out, #[inline(always)] |v| $f(s, v));
        }
    )*};
}

unary! {
    /// GELU.
    gelu_forward = gelu;
    /// SiLU.
    silu_forward = silu;
    /// `max(0, x)`.
    relu_forward = relu;
    /// Sigmoid.
    sigmoid_forward = sigmoid;
}

#[inline(always)]
fn relu<S: Simd>(s: S, x: S::V) -> S::V {
    s.max(s.splat(0.0), x)
}

simd_fn! {
    /// `silu(gate) * up`.
    pub(super) fn swiglu_forward(gate: &[f32], up: &[f32], out: &mut [f32]) = swiglu_body;
}

simd_fn! {
    /// `gelu(gate) * up`.
    pub(super) fn geglu_forward(gate: &[f32], up: &[f32], out: &mut [f32]) = geglu_body;
}

#[inline(always)]
fn geglu_body<S: Simd>(s: S, gate: &[f32], up: &[f32], out: &mut [f32]) {
    zip(
        s,
        gate,
        up,
        out,
        #[inline(always)]
        |g, u| s.mul(gelu(s, g), u),
    );
}

#[inline(always)]
fn swiglu_body<S: Simd>(s: S, gate: &[f32], up: &[f32], out: &mut [f32]) {
    zip(
        s,
        gate,
        up,
        out,
        #[inline(always)]
        |g, u| s.mul(silu(s, g), u),
    );
}
