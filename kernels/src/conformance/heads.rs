//! Norms of single heads.

use super::case::{Case, CaseOf, Tolerance, stored};
use super::data::Generator;
use crate::syntax::Kernel;

/// (N, n_head, hs)
const SHAPES: &[(usize, usize, usize)] =
    &[(1, 1, 1), (3, 5, 2), (2, 4, 33), (2, 3, 64), (1, 9, 80), (2, 2, 256), (0, 3, 64), (2, 0, 64)];
/// Columns before the heads; one more follows them.
const MARGIN: usize = 3;
const EPS: f32 = 1e-6;

/// `head * gamma / sqrt(mean(head^2) + eps)`.
pub(super) fn rmsnorm_of(head: &mut [f64], gamma: &[f64], eps: f64) {
    let mean = head.iter().map(|v| v * v).sum::<f64>() / head.len() as f64;
    let scale = 1.0 / (mean + eps).sqrt();
    head.iter_mut().zip(gamma).for_each(|(v, gamma)| *v = *v * scale * gamma);
}

pub(super) fn rmsnorm(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, n_head, hs) in SHAPES {
        for (about, scale) in
            [("", 1.0), ("huge", 1e15), ("tiny", 1e-15), ("with an infinity and a NaN", 2.0)]
        {
            let w = MARGIN + n_head * hs + 1;
            let mut generator = Generator::new(30);
            let mut x = generator.bell(n * w, scale);
            if about.starts_with("with") && x.len() > w {
                // each spoils its own head alone
                x[MARGIN] = f64::INFINITY;
                x[w + MARGIN + (n_head.max(1) - 1) * hs] = f64::NAN;
            }
            let x = stored(kernel, "x", &x);
            let gamma = stored(kernel, "gamma", &generator.bell(hs, 1.0));
            let mut wanted = x.values();
            for row in wanted.chunks_mut(w) {
                for head in row[MARGIN..][..n_head * hs].chunks_mut(hs) {
                    rmsnorm_of(head, &gamma.values(), EPS.into());
                }
            }
            let dims = [("N", n), ("W", w), ("column", MARGIN), ("n_head", n_head), ("hs", hs)];
            CaseOf::new(kernel, &dims)
                .about(about)
                .surplus(0)
                .read("gamma", gamma)
                .float("eps", EPS)
                .update("x", x, wanted, Tolerance::relative(3e-6))
                .visit(visit);
        }
    }
}
