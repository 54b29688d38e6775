//! The one inner loop of the CPU's products: some rows times some panels of sixteen lanes.
//!
//! A panel holds sixteen outputs side by side, so SIMD lanes run across outputs and every output is one sum over
//! `k` in order. A row's result therefore does not depend on how many rows or panels are computed beside it, nor
//! on where the sum over `k` is interrupted and taken up again.
#![allow(unsafe_code)]

use std::ops::Range;

use super::simd::{Chunk, LANES, Simd, Stored};

/// Outputs of a panel.
pub(super) const PANEL: usize = 2 * LANES;

/// One step of `k`: the weights of sixteen outputs.
pub(super) type Panel<T = f32> = [Chunk<T>; 2];

/// The most rows [`multiply`] takes at once.
pub(super) const MAX_ROWS: usize = 6;

/// The most panels [`multiply`] does well to be given for one row.
pub(super) const MAX_PANELS: usize = 4;

/// `n` rows in as few strips of at most `most` as there must be, of lengths as equal as can be: a strip of a row or
/// two has too few sums at once to hide the latency of a multiply-add.
pub(super) fn strips(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = n.div_ceil(most);
    (0..count).map(move |i| n * i / count..n * (i + 1) / count)
}

/// `acc[r][p] += sum over k of rows[r][k] * panels[p][k]`; all rows and panels are `k` long, and `acc` is
/// `rows.len() * panels.len()` long.
#[inline(always)]
pub(super) fn multiply<S: Simd, T: Stored>(s: S, rows: &[&[f32]], panels: &[&[Panel<T>]], acc: &mut [Panel]) {
    // as many sums at once as the registers hold and the latency of a multiply-add asks for
    match rows {
        [a] => strip::<S, T, 1, 4>(s, &[a], panels, acc),
        [a, b] => strip::<S, T, 2, 2>(s, &[a, b], panels, acc),
        [a, b, c] => strip::<S, T, 3, 1>(s, &[a, b, c], panels, acc),
        [a, b, c, d] => strip::<S, T, 4, 1>(s, &[a, b, c, d], panels, acc),
        [a, b, c, d, e] => strip::<S, T, 5, 1>(s, &[a, b, c, d, e], panels, acc),
        [a, b, c, d, e, f] => strip::<S, T, 6, 1>(s, &[a, b, c, d, e, f], panels, acc),
        _ => assert!(rows.is_empty(), "{} rows at once", rows.len()),
    }
}

#[inline(always)]
fn strip<S: Simd, T: Stored, const R: usize, const P: usize>(
    s: S,
    rows: &[&[f32]; R],
    panels: &[&[Panel<T>]],
    acc: &mut [Panel],
) {
    let width = panels.len();
    assert_eq!(acc.len(), R * width);
    let (full, rest) = panels.as_chunks::<P>();
    for (i, group) in full.iter().enumerate() {
        tile::<S, T, R, P>(s, rows, group, acc, width, i * P);
    }
    for (i, panel) in rest.iter().enumerate() {
        tile::<S, T, R, 1>(s, rows, &[panel], acc, width, full.len() * P + i);
    }
}

/// `R` rows times `P` panels, the sums in registers; `acc` is `width` panels wide, these begin at `first`.
#[inline(always)]
fn tile<S: Simd, T: Stored, const R: usize, const P: usize>(
    s: S,
    rows: &[&[f32]; R],
    panels: &[&[Panel<T>]; P],
    acc: &mut [Panel],
    width: usize,
    first: usize,
) {
    let k = rows[0].len();
    assert!(rows.iter().all(|r| r.len() == k) && panels.iter().all(|p| p.len() == k));
    let mut sums = [[[s.splat(0.0); 2]; P]; R];
    for r in 0..R {
        for p in 0..P {
            let from = &acc[r * width + first + p];
            sums[r][p] = [s.load(&from[0]), s.load(&from[1])];
        }
    }
    for i in 0..k {
        let mut weights = [[s.splat(0.0); 2]; P];
        for p in 0..P {
            // SAFETY: `i < k`, the length of every row and panel, as asserted.
            let w = unsafe { panels[p].get_unchecked(i) };
            weights[p] = [T::load(s, &w[0]), T::load(s, &w[1])];
        }
        for r in 0..R {
            // SAFETY: as above.
            let x = s.splat(unsafe { *rows[r].get_unchecked(i) });
            for p in 0..P {
                for half in 0..2 {
                    sums[r][p][half] = s.fma(x, weights[p][half], sums[r][p][half]);
                }
            }
        }
    }
    for r in 0..R {
        for p in 0..P {
            let to = &mut acc[r * width + first + p];
            s.store(sums[r][p][0], &mut to[0]);
            s.store(sums[r][p][1], &mut to[1]);
        }
    }
}
