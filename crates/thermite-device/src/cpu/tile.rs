//! The one inner loop of the CPU's products: some rows times some panels of sixteen lanes.
//!
//! A panel holds sixteen outputs side by side, so SIMD lanes run across outputs and every output is one sum over
//! `k` in order. A row's result therefore does not depend on how many rows or panels are computed beside it, nor
//! on where the sum over `k` is interrupted and taken up again.
#![allow(unsafe_code)]

use std::ops::Range;

use super::simd::{Chunk, LANES, Stored, Wide};

/// Outputs of a panel.
pub(super) const PANEL: usize = 2 * LANES;

/// One step of `k`: the weights of sixteen outputs.
pub(super) type Panel<T = f32> = [Chunk<T>; 2];

/// The most rows [`multiply`] takes at once.
pub(super) const MAX_ROWS: usize = 6;

/// The most panels [`multiply`] does well to be given at once.
pub(super) const MAX_PANELS: usize = 4;

/// The panels that it does well to be given with [`MAX_ROWS`] rows: more would only take room in the first-level cache.
pub(super) const fn panels_at_once<S: Wide>() -> usize {
    if S::MANY_REGISTERS { MAX_PANELS } else { 1 }
}

/// `n` rows in as few strips of at most `most` as there must be, of lengths as equal as can be: a strip of a row or
/// two has too few sums at once to hide the latency of a multiply-add.
pub(super) fn strips(n: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = n.div_ceil(most);
    (0..count).map(move |i| n * i / count..n * (i + 1) / count)
}

/// `acc[r][p] += sum over k of rows[r][k] * panels[p][k]`; all rows and panels are `k` long, and `acc` is
/// `rows.len() * panels.len()` long.
#[inline(always)]
pub(super) fn multiply<S: Wide, T: Stored>(s: S, rows: &[&[f32]], panels: &[&[Panel<T>]], acc: &mut [Panel]) {
    match rows {
        [a] => strip::<S, T, 1>(s, &[a], panels, acc),
        [a, b] => strip::<S, T, 2>(s, &[a, b], panels, acc),
        [a, b, c] => strip::<S, T, 3>(s, &[a, b, c], panels, acc),
        [a, b, c, d] => strip::<S, T, 4>(s, &[a, b, c, d], panels, acc),
        [a, b, c, d, e] => strip::<S, T, 5>(s, &[a, b, c, d, e], panels, acc),
        [a, b, c, d, e, f] => strip::<S, T, 6>(s, &[a, b, c, d, e, f], panels, acc),
        _ => assert!(rows.is_empty(), "{} rows at once", rows.len()),
    }
}

#[inline(always)]
fn strip<S: Wide, T: Stored, const R: usize>(
    s: S,
    rows: &[&[f32]; R],
    panels: &[&[Panel<T>]],
    acc: &mut [Panel],
) {
    let width = panels.len();
    assert_eq!(acc.len(), R * width);
    // as many sums at once as the registers hold and the latency of a multiply-add asks for
    let most = match R {
        _ if S::MANY_REGISTERS => 4,
        1 => 4,
        2 => 2,
        _ => 1,
    };
    for group in strips(width, most) {
        let first = group.start;
        match panels[group] {
            [a] => tile::<S, T, R, 1>(s, rows, &[a], acc, width, first),
            [a, b] if most > 1 => tile::<S, T, R, 2>(s, rows, &[a, b], acc, width, first),
            [a, b, c] if most > 2 => tile::<S, T, R, 3>(s, rows, &[a, b, c], acc, width, first),
            [a, b, c, d] if most > 3 => tile::<S, T, R, 4>(s, rows, &[a, b, c, d], acc, width, first),
            _ => assert_eq!(width, 0, "panels at once"),
        }
    }
}

/// `R` rows times `P` panels, the sums in registers; `acc` is `width` panels wide, these begin at `first`.
#[inline(always)]
fn tile<S: Wide, T: Stored, const R: usize, const P: usize>(
    s: S,
    rows: &[&[f32]; R],
    panels: &[&[Panel<T>]; P],
    acc: &mut [Panel],
    width: usize,
    first: usize,
) {
    let k = rows[0].len();
    assert!(rows.iter().all(|r| r.len() == k) && panels.iter().all(|p| p.len() == k));
    let mut sums = [[s.splat_wide(0.0); P]; R];
    for r in 0..R {
        for p in 0..P {
            sums[r][p] = s.load_wide(&acc[r * width + first + p]);
        }
    }
    for i in 0..k {
        let mut weights = [s.splat_wide(0.0); P];
        for p in 0..P {
            // SAFETY: `i < k`, the length of every row and panel, as asserted.
            weights[p] = T::load(s, unsafe { panels[p].get_unchecked(i) });
        }
        for r in 0..R {
            // SAFETY: as above.
            let x = s.splat_wide(unsafe { *rows[r].get_unchecked(i) });
            for p in 0..P {
                sums[r][p] = s.fma_wide(x, weights[p], sums[r][p]);
            }
        }
    }
    for r in 0..R {
        for p in 0..P {
            s.store_wide(sums[r][p], &mut acc[r * width + first + p]);
        }
    }
}
