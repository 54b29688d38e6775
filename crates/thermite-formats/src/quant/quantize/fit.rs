//! Sums over a group of weights, eight at a time so that the compiler uses vectors.

const LANES: usize = 8;
/// Candidates of a search, either way from the plain one.
pub(super) const STEPS: i32 = 5;
/// How often the best candidate is fitted again.
pub(super) const ROUNDS: usize = 2;

/// The whole number nearest to `x`, |x| < 2²², ties to even: adding 1.5 · 2²³ leaves no room for a fraction.
#[inline]
pub(super) fn nearest(x: f32) -> f32 {
    const NO_FRACTION: f32 = 12_582_912.0;
    (x + NO_FRACTION) - NO_FRACTION
}

/// `1 / scale`, and 0 for a scale of 0, which makes every weight 0.
#[inline]
pub(super) fn inverse(scale: f32) -> f32 {
    let inverse = 1.0 / scale;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// How much each weight's error counts: `r + |x|`, r being the root mean square.
pub(super) fn importance<const N: usize>(x: &[f32; N]) -> [f32; N] {
    let [squares] = sums(|i| [x[i] * x[i]], [(); N]);
    let rms = (squares / N as f32).sqrt();
    x.map(|x| rms + x.abs())
}

/// `K` sums of `terms` over `0..N`.
#[inline]
pub(super) fn sums<const N: usize, const K: usize>(
    terms: impl Fn(usize) -> [f32; K],
    _: [(); N],
) -> [f32; K] {
    let mut lanes = [[0.0_f32; LANES]; K];
    for start in (0..N).step_by(LANES) {
        for lane in 0..LANES {
            let terms = terms(start + lane);
            for (sum, term) in lanes.iter_mut().zip(terms) {
                sum[lane] += term;
            }
        }
    }
    lanes.map(|lanes| lanes.iter().sum())
}
