//! Types with a minimum: `w = d q + c`, q from 0 up. In the K types `c` is never positive.

use super::fit::{ROUNDS, STEPS, importance, inverse, nearest, sums};
use crate::quant::blocks::Half;

/// Scale, minimum and integers of a block of 32.
pub(super) fn block(x: &[f32; 32], highest: u8) -> (Half, Half, [u8; 32]) {
    let fit = Fit { highest: highest.into(), any_sign: true };
    let line = fit.line(x, &importance(x));
    let (d, m) = (Half::from_f32(line.d), Half::from_f32(line.c));
    (d, m, fit.integers(x, Line { d: d.to_f32(), c: m.to_f32() }))
}

/// A block of 256 in groups: weight `i` of group `g` is `(d scales[g]) q[i] − dmin minima[g]`.
pub(super) struct SuperBlock<const GROUPS: usize> {
    pub(super) d: Half,
    pub(super) dmin: Half,
    pub(super) scales: [u8; GROUPS],
    pub(super) minima: [u8; GROUPS],
    pub(super) q: [u8; 256],
}

/// Integers of a super-block of `GROUPS` groups of `N`: weights up to `highest`, scales and minima up to `most`.
pub(super) fn super_block<const GROUPS: usize, const N: usize>(
    x: &[f32; 256],
    highest: u8,
    most: u8,
) -> SuperBlock<GROUPS> {
    let fit = Fit { highest: highest.into(), any_sign: false };
    let (groups, _) = x.as_chunks::<N>();
    let importances: Vec<[f32; N]> = groups.iter().map(importance).collect();
    let lines: Vec<Line> = groups.iter().zip(&importances).map(|(x, w)| fit.line(x, w)).collect();
    let largest = |part: fn(&Line) -> f32| lines.iter().map(part).fold(0.0, f32::max);
    let d = Half::from_f32(largest(|line| line.d) / f32::from(most));
    let dmin = Half::from_f32(largest(|line| -line.c) / f32::from(most));
    let (unit, min_unit) = (d.to_f32(), dmin.to_f32());

    let mut block = SuperBlock { d, dmin, scales: [0; GROUPS], minima: [0; GROUPS], q: [0; 256] };
    let (q_groups, _) = block.q.as_chunks_mut::<N>();
    for (g, q) in q_groups.iter_mut().enumerate() {
        let integer = |x: f32| nearest(x.clamp(0.0, f32::from(most))) as i32;
        let (s, m) = (integer(lines[g].d * inverse(unit)), integer(-lines[g].c * inverse(min_unit)));
        // of the integers beside both, those that leave the least error together
        let mut best = (f32::INFINITY, 0, 0, Line::default());
        for s in (s - 1).max(0)..=(s + 1).min(most.into()) {
            for m in (m - 1).max(0)..=(m + 1).min(most.into()) {
                let line = Line { d: unit * s as f32, c: -(min_unit * m as f32) };
                let error = fit.error(&groups[g], &importances[g], line);
                if error < best.0 {
                    best = (error, s as u8, m as u8, line);
                }
            }
        }
        (block.scales[g], block.minima[g]) = (best.1, best.2);
        *q = fit.integers(&groups[g], best.3);
    }
    block
}

/// `w = d q + c`.
#[derive(Clone, Copy, Default)]
struct Line {
    d: f32,
    c: f32,
}

/// How lines are fitted to weights.
#[derive(Clone, Copy)]
struct Fit {
    /// The highest integer.
    highest: f32,
    /// Whether `c` may be positive.
    any_sign: bool,
}

impl Fit {
    #[inline]
    fn integer(self, x: f32, line: Line, inverse: f32) -> f32 {
        nearest(((x - line.c) * inverse).clamp(0.0, self.highest))
    }

    fn integers<const N: usize>(self, x: &[f32; N], line: Line) -> [u8; N] {
        let inverse = inverse(line.d);
        x.map(|x| self.integer(x, line, inverse) as u8)
    }

    /// The line of the least error that was found.
    fn line<const N: usize>(self, x: &[f32; N], w: &[f32; N]) -> Line {
        // candidates spread the weights over the integers, and up to 1 more or fewer
        let bound = |fold: fn(f32, f32) -> f32| x.iter().copied().reduce(fold).unwrap_or_default();
        let (min, max) = (bound(f32::min), bound(f32::max));
        let c = if self.any_sign { min } else { min.min(0.0) };
        let mut best = Line { d: 0.0, c };
        let mut least = self.error(x, w, best);
        if max <= c {
            return best;
        }
        for step in -STEPS..=STEPS {
            let d = (max - c) / (self.highest + step as f32 / STEPS as f32);
            let found = self.refined(x, w, Line { d, c });
            if found.1 < least {
                (best, least) = found;
            }
        }
        // the line that fits may give other integers, and these a better fit
        for _ in 0..ROUNDS {
            let found = self.refined(x, w, best);
            if found.1 < least {
                (best, least) = found;
            }
        }
        best
    }

    /// The line that fits best to the integers which `line` gives, by weighted least squares, and its error.
    fn refined<const N: usize>(self, x: &[f32; N], w: &[f32; N], line: Line) -> (Line, f32) {
        let inverse = inverse(line.d);
        let q: [f32; N] = x.map(|x| self.integer(x, line, inverse));
        let [s, sx, sq, sqq, sqx] =
            sums(|i| [w[i], w[i] * x[i], w[i] * q[i], w[i] * q[i] * q[i], w[i] * q[i] * x[i]], [(); N]);
        let determinant = s * sqq - sq * sq;
        let mut fitted = line;
        if determinant > 0.0 {
            fitted = Line { d: (s * sqx - sx * sq) / determinant, c: (sqq * sx - sq * sqx) / determinant };
        }
        if !self.any_sign && fitted.c > 0.0 && sqq > 0.0 {
            fitted = Line { d: sqx / sqq, c: 0.0 };
        }
        let [error] = sums(
            |i| {
                let rest = x[i] - (fitted.d * q[i] + fitted.c);
                [w[i] * rest * rest]
            },
            [(); N],
        );
        (fitted, error)
    }

    /// The weighted squared error with this line.
    fn error<const N: usize>(self, x: &[f32; N], w: &[f32; N], line: Line) -> f32 {
        let inverse = inverse(line.d);
        let [error] = sums(
            |i| {
                let rest = x[i] - (line.d * self.integer(x[i], line, inverse) + line.c);
                [w[i] * rest * rest]
            },
            [(); N],
        );
        error
    }
}
