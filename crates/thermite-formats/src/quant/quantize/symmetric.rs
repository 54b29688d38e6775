//! Types without a minimum: `w = d q`, q from a range around zero.

use super::fit::{ROUNDS, STEPS, importance, inverse, nearest, sums};
use crate::quant::blocks::Half;

/// Scale and integers of a block of 32.
pub(super) fn block(x: &[f32; 32], lowest: i32, highest: i32) -> (Half, [i32; 32]) {
    let range = Range::new(lowest, highest);
    let d = Half::from_f32(range.scale(x, &importance(x)));
    let inverse = inverse(d.to_f32());
    (d, x.map(|x| range.integer(x * inverse) as i32))
}

/// A block of 256 in 16 groups: weight `i` is `d scales[i / 16] q[i]`.
pub(super) struct SuperBlock {
    pub(super) d: Half,
    pub(super) scales: [i32; 16],
    pub(super) q: [i32; 256],
}

/// Integers of a super-block whose weights and whose scales have these ranges.
pub(super) fn super_block(x: &[f32; 256], weights: [i32; 2], scales: [i32; 2]) -> SuperBlock {
    let range = Range::new(weights[0], weights[1]);
    let (groups, _) = x.as_chunks::<16>();
    let importances: Vec<[f32; 16]> = groups.iter().map(importance).collect();
    let wanted: Vec<f32> = groups.iter().zip(&importances).map(|(x, w)| range.scale(x, w)).collect();
    // the scale of largest magnitude becomes the lowest integer, which reaches further than the highest
    let extreme = wanted.iter().fold(0.0_f32, |a, &b| if b.abs() > a.abs() { b } else { a });
    let d = Half::from_f32(extreme / scales[0] as f32);
    let unit = d.to_f32();

    let (mut chosen, mut q) = ([0; 16], [0; 256]);
    let (q_groups, _) = q.as_chunks_mut::<16>();
    for (g, q) in q_groups.iter_mut().enumerate() {
        let near = nearest(wanted[g] * inverse(unit)) as i32;
        let candidates = (near - 1..=near + 1).map(|s| s.clamp(scales[0], scales[1]));
        let errors = candidates.map(|s| (s, range.error(&groups[g], &importances[g], unit * s as f32)));
        chosen[g] = errors.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(near, |(s, _)| s);
        let inverse = inverse(unit * chosen[g] as f32);
        *q = groups[g].map(|x| range.integer(x * inverse) as i32);
    }
    SuperBlock { d, scales: chosen, q }
}

/// The integers that a weight may become.
#[derive(Clone, Copy)]
struct Range {
    lowest: f32,
    highest: f32,
}

impl Range {
    fn new(lowest: i32, highest: i32) -> Self {
        Self { lowest: lowest as f32, highest: highest as f32 }
    }

    #[inline]
    fn integer(self, x: f32) -> f32 {
        nearest(x.clamp(self.lowest, self.highest))
    }

    /// The scale of the least error that was found; its sign is free.
    fn scale<const N: usize>(self, x: &[f32; N], w: &[f32; N]) -> f32 {
        // candidates put the largest weight at the lowest integer, and up to 1 beside it either way
        let extreme = x.iter().fold(0.0_f32, |a, &b| if b.abs() > a.abs() { b } else { a });
        let (mut best, mut gain) = (0.0, 0.0);
        for step in -STEPS..=STEPS {
            let candidate = extreme / (self.lowest + step as f32 / STEPS as f32);
            let found = self.refined(x, w, inverse(candidate));
            if found.1 > gain {
                (best, gain) = found;
            }
        }
        // the scale that fits may give other integers, and these a better fit
        for _ in 0..ROUNDS {
            let found = self.refined(x, w, inverse(best));
            if found.1 > gain {
                (best, gain) = found;
            }
        }
        best
    }

    /// The scale that fits best to the integers which this inverse scale gives, and by how much the weighted squared
    /// error is then less than that of zeros: `s = Σwxq / Σwq²`, less by `(Σwxq)² / Σwq²`.
    fn refined<const N: usize>(self, x: &[f32; N], w: &[f32; N], inverse: f32) -> (f32, f32) {
        let [xq, qq] = sums(
            |i| {
                let q = self.integer(x[i] * inverse);
                [w[i] * x[i] * q, w[i] * q * q]
            },
            [(); N],
        );
        if qq > 0.0 { (xq / qq, xq * xq / qq) } else { (0.0, 0.0) }
    }

    /// The weighted squared error with this scale.
    fn error<const N: usize>(self, x: &[f32; N], w: &[f32; N], scale: f32) -> f32 {
        let inverse = inverse(scale);
        let [error] = sums(
            |i| {
                let rest = x[i] - scale * self.integer(x[i] * inverse);
                [w[i] * rest * rest]
            },
            [(); N],
        );
        error
    }
}
