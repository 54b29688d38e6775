//! Exponential and hyperbolic tangent of eight lanes.

use super::Simd;

const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;
/// Taylor's polynomial of `e^r`, highest first; its error over `|r| <= ln 2 / 2` is below 2^-26.
const TAYLOR: [f32; 8] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`: `n` and `e^r`. `ln 2` is split in two so that `r` is exact.
#[inline(always)]
fn reduced<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let mut p = s.splat(TAYLOR[0]);
    for c in &TAYLOR[1..] {
        p = s.fma(p, r, s.splat(*c));
    }
    (n, p)
}

/// `e^x`, within 2 units in the last place; 0 below -104, infinity above 89, NaN stays NaN. `2^n` is applied in two
/// halves, so that results pass through the subnormals as they should.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    // the bound comes first: `min` and `max` give their second operand for NaN
    let (n, p) = reduced(s, s.min(s.splat(89.0), s.max(s.splat(-104.0), x)));
    let half = s.round(s.mul(n, s.splat(0.5)));
    s.mul(s.mul(p, s.exp2i(half)), s.exp2i(s.sub(n, half)))
}

/// `e^x` for `x <= 0`, as [`exp`] but 0 below -87: a softmax has no use for less than 2^-125 of its largest weight.
#[inline(always)]
pub(crate) fn exp_of_negative<S: Simd>(s: S, x: S::V) -> S::V {
    let (n, p) = reduced(s, s.max(s.splat(-87.0), x));
    s.if_less(x, s.splat(-87.0), s.splat(0.0), s.mul(p, s.exp2i(n)))
}

/// `tanh x`: `1 - 2 / (e^2|x| + 1)` with the sign of `x`; below 0.25 its series, where the difference would lose
/// digits. Never overflows; NaN stays NaN.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    const SERIES: [f32; 4] = [62.0 / 2835.0, -17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0];
    let a = s.copysign(x, s.splat(1.0));
    let e = exp(s, s.add(a, a));
    let large = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))));
    let q = s.mul(a, a);
    let mut p = s.splat(SERIES[0]);
    for c in &SERIES[1..] {
        p = s.fma(p, q, s.splat(*c));
    }
    let small = s.fma(s.mul(p, q), a, a);
    s.copysign(s.if_less(a, s.splat(0.25), small, large), x)
}

#[cfg(test)]
mod tests {
    use super::super::{Isa, simd_fn};
    use super::*;

    simd_fn! { fn exp8(x: [f32; 8]) -> [f32; 8] = |s, x| lanewise(s, x, false); }
    simd_fn! { fn negative8(x: [f32; 8]) -> [f32; 8] = negative; }
    simd_fn! { fn tanh8(x: [f32; 8]) -> [f32; 8] = |s, x| lanewise(s, x, true); }

    #[inline(always)]
    fn lanewise<S: Simd>(s: S, x: [f32; 8], tangent: bool) -> [f32; 8] {
        let v = s.load(&x);
        s.lanes(if tangent { tanh(s, v) } else { exp(s, v) })
    }

    #[inline(always)]
    fn negative<S: Simd>(s: S, x: [f32; 8]) -> [f32; 8] {
        s.lanes(exp_of_negative(s, s.load(&x)))
    }

    fn sweep(low: f32, high: f32) -> impl Iterator<Item = f32> {
        const STEPS: usize = 200_000;
        (0..=STEPS).map(move |i| low + (high - low) * (i as f32 / STEPS as f32))
    }

    #[test]
    fn exp_is_right_everywhere() {
        for isa in Isa::available() {
            for x in sweep(-87.0, 88.7) {
                let want = f64::from(x).exp();
                let got = f64::from(exp8(isa, [x; 8])[3]);
                assert!((got / want - 1.0).abs() < 2.4e-7, "{isa:?} e^{x}: {got} for {want}");
            }
            let [a, b, c, d, e, f, g, h] =
                exp8(isa, [f32::NEG_INFINITY, -1e30, -95.0, 0.0, 89.5, f32::INFINITY, f32::NAN, -0.0]);
            assert_eq!([a, b, d, e, f, h], [0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY, 1.0]);
            assert!((f64::from(c) / (-95.0f64).exp() - 1.0).abs() < 1e-3, "subnormal {c}");
            assert!(g.is_nan());
        }
    }

    #[test]
    fn exp_of_negative_is_exp() {
        for isa in Isa::available() {
            for x in sweep(-86.9, 0.0) {
                assert_eq!(negative8(isa, [x; 8]), exp8(isa, [x; 8]), "{isa:?} {x}");
            }
            let [a, b, c, d, ..] =
                negative8(isa, [f32::NEG_INFINITY, -87.1, -1e30, f32::NAN, 0.0, 0.0, 0.0, 0.0]);
            assert_eq!([a, b, c], [0.0; 3]);
            assert!(d.is_nan());
        }
    }

    #[test]
    fn tanh_is_right_everywhere() {
        for isa in Isa::available() {
            for x in sweep(-12.0, 12.0).chain(sweep(-0.3, 0.3)) {
                let want = f64::from(x).tanh();
                let got = f64::from(tanh8(isa, [x; 8])[5]);
                assert!((got - want).abs() <= 4e-7 * want.abs(), "{isa:?} tanh {x}: {got} for {want}");
            }
            let [a, b, c, d, ..] =
                tanh8(isa, [f32::INFINITY, f32::NEG_INFINITY, 1e30, f32::NAN, 0.0, 0.0, 0.0, 0.0]);
            assert_eq!([a, b, c], [1.0, -1.0, 1.0]);
            assert!(d.is_nan());
        }
    }
}
