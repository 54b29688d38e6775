//! From logits to a token.

use super::case::{Case, CaseOf, Tolerance, stored};
use super::data::{Data, Generator};
use crate::syntax::Kernel;

/// (rows, V, most threads).
const SHAPES: &[(usize, usize, u32)] = &[
    (1, 1, 1024),
    (3, 5, 1024),
    (2, 31, 1024),
    (2, 33, 32),
    (2, 768, 96),
    (2, 1025, 1024),
    (1, 50257, 1024),
    (1, 50257, 256),
    (0, 33, 1024),
];

const KINDS: &[&str] = &["", "ties", "NaN among them", "all NaN", "all -inf", "signed zeros", "huge", "tiny"];

fn logits(kind: &str, rows: usize, v: usize) -> Data {
    let mut generator = Generator::new(60);
    let scale = match kind {
        "huge" => 1e37,
        "tiny" => 1e-30,
        _ => 5.0,
    };
    let mut values = generator.bell(rows * v, scale);
    for x in &mut values {
        let pick = generator.below(8);
        *x = match kind {
            "ties" => (*x / 5.0).round(),
            "NaN among them" if pick < 3 => [f64::NAN, f64::NEG_INFINITY, f64::INFINITY][pick],
            "all NaN" => f64::NAN,
            "all -inf" => f64::NEG_INFINITY,
            "signed zeros" => [0.0, -0.0, -1.0][pick % 3],
            _ => *x,
        };
    }
    Data::F32(values.into_iter().map(|x| x as f32).collect())
}

pub(super) fn each_logits(mut visit: impl FnMut(&'static str, usize, usize, u32, Data)) {
    for &(rows, v, threads) in SHAPES {
        let kinds = if v > 10_000 { &KINDS[..3] } else { KINDS };
        for kind in kinds {
            visit(kind, rows, v, threads, logits(kind, rows, v));
        }
    }
}

/// Unsigned integers in the order of the floats: NaN lowest, -0 equal to 0.
fn key(x: f64) -> u32 {
    let x = x as f32;
    if x.is_nan() {
        return 0;
    }
    let bits = if x == 0.0 { 0 } else { x.to_bits() };
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// Indices from the largest to the lowest, equals by index.
fn ranking(row: &[f64]) -> Vec<usize> {
    let mut order: Vec<_> = (0..row.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(key(row[i])), i));
    order
}

fn argmax_of(row: &[f64]) -> usize {
    let best = ranking(row)[0];
    // All -inf or all NaN is index 0, which the ranking gives; a NaN never beats -inf.
    if row[best] == f64::NEG_INFINITY { 0 } else { best }
}

pub(super) fn argmax(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_logits(|kind, rows, v, threads, logits| {
        let values = logits.values();
        let wanted = values.chunks(v).map(|row| argmax_of(row) as f64).collect();
        // -inf beside NaN: the first -inf is as good as the first NaN only by the rule for all of one kind.
        let mixed = |row: &[f64]| {
            row.iter().all(|x| x.is_nan() || *x == f64::NEG_INFINITY) && row.iter().any(|x| x.is_nan())
        };
        if kind == "NaN among them" && values.chunks(v).any(mixed) {
            return;
        }
        CaseOf::new(kernel, &[("rows", rows), ("V", v)])
            .about(kind)
            .threads(threads)
            .read("logits", logits)
            .write("out", wanted, Tolerance::EXACT)
            .visit(visit);
    });
}

const KEEPS: &[usize] = &[1, 2, 40, 0];

pub(super) fn masked(row: &[f64], k: usize) -> Vec<f64> {
    let mut out = row.to_vec();
    ranking(row).into_iter().skip(k).for_each(|i| out[i] = f64::NEG_INFINITY);
    out
}

pub(super) fn topk(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_logits(|kind, rows, v, threads, logits| {
        let keeps = if v > 10_000 { &KEEPS[2..3] } else { KEEPS };
        for k in
            keeps.iter().copied().chain([v.saturating_sub(1), v, v + 3]).take(if v > 10_000 { 1 } else { 7 })
        {
            let wanted = logits.values().chunks(v).flat_map(|row| masked(row, k)).collect();
            CaseOf::new(kernel, &[("rows", rows), ("V", v), ("k", k)])
                .about(kind)
                .threads(threads)
                .update("logits", logits.clone(), wanted, Tolerance::EXACT)
                .visit(visit);
        }
    });
}

pub(super) fn softcap(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    const CAP: f32 = 30.0;
    let formula = |x: f64| f64::from(CAP) * (x / f64::from(CAP)).tanh();
    map(kernel, "cap", CAP, formula, visit);
}

pub(super) fn temperature(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    const TEMPERATURE: f32 = 0.7;
    let formula = |x: f64| x / f64::from(TEMPERATURE);
    map(kernel, "temperature", TEMPERATURE, formula, visit);
}

fn map(
    kernel: &Kernel,
    name: &'static str,
    constant: f32,
    formula: impl Fn(f64) -> f64,
    visit: &mut dyn FnMut(Case),
) {
    each_logits(|kind, rows, v, threads, logits| {
        let wanted = logits.values().into_iter().map(&formula).collect();
        CaseOf::new(kernel, &[("rows", rows), ("V", v)])
            .about(kind)
            .threads(threads)
            .float(name, constant)
            .update("logits", logits, wanted, Tolerance { absolute: 1e-36, relative: 1e-6 })
            .visit(visit);
    });
}

pub(super) fn penalize(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    let (repeat, presence, frequency) = (1.25f32, 0.5f32, 0.1f32);
    for (v, m) in [(1, 1), (5, 0), (33, 33), (1025, 40), (50257, 1030)] {
        let mut generator = Generator::new(61);
        let logits = stored(kernel, "logits", &generator.bell(v, 5.0));
        let mut tokens = generator.permutation(v);
        tokens.truncate(m);
        let counts: Vec<i32> = (0..m).map(|_| 1 + generator.below(9) as i32).collect();
        let mut wanted = logits.values();
        for (&token, &count) in tokens.iter().zip(&counts) {
            let x = &mut wanted[token];
            *x = if *x > 0.0 { *x / f64::from(repeat) } else { *x * f64::from(repeat) };
            *x -= f64::from(presence) + f64::from(frequency) * f64::from(count);
        }
        CaseOf::new(kernel, &[("V", v), ("M", m)])
            .read("tokens", super::rows::indices(&tokens))
            .read("counts", Data::I32(counts))
            .float("repeat", repeat)
            .float("presence", presence)
            .float("frequency", frequency)
            .update("logits", logits, wanted, Tolerance { absolute: 2e-6, relative: 1e-6 })
            .visit(visit);
    }
}

// ---- a row spread over P threadgroups

const PARTS: &[usize] = &[1, 4, 7];
/// The index of a part that has no element.
const NO_INDEX: f64 = 0x7fff_ffff as f64;

/// The P equal pieces of a row, each with the index of its first element.
fn parts(row: &[f64], p: usize) -> Vec<(usize, &[f64])> {
    let size = row.len().div_ceil(p);
    let piece = |i: usize| {
        let (begin, end) = ((i * size).min(row.len()), ((i + 1) * size).min(row.len()));
        (begin, &row[begin..end])
    };
    (0..p).map(piece).collect()
}

fn each_parts(mut visit: impl FnMut(&'static str, [usize; 3], u32, Data)) {
    each_logits(|kind, rows, v, threads, logits| {
        for &p in PARTS {
            visit(kind, [rows, v, p], threads, logits.clone());
        }
    });
}

/// (values, indices) [rows, P]: the largest of each part and its lowest index.
fn best_of_parts(values: &[f64], v: usize, p: usize) -> (Vec<f64>, Vec<f64>) {
    let best = |(begin, part): (usize, &[f64])| match ranking(part).first() {
        Some(&i) => (part[i], (begin + i) as f64),
        None => (f64::NAN, NO_INDEX),
    };
    values.chunks(v).flat_map(|row| parts(row, p).into_iter().map(best).collect::<Vec<_>>()).unzip()
}

pub(super) fn argmax_parts(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_parts(|kind, [rows, v, p], threads, logits| {
        let (values, indices) = best_of_parts(&logits.values(), v, p);
        CaseOf::new(kernel, &[("rows", rows), ("V", v), ("P", p)])
            .about(kind)
            .threads(threads)
            .read("logits", logits)
            .write("part_values", values, Tolerance::EXACT)
            .write("part_indices", indices, Tolerance::EXACT)
            .visit(visit);
    });
}

pub(super) fn argmax_final(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_parts(|kind, [rows, v, p], threads, logits| {
        let (values, indices) = best_of_parts(&logits.values(), v, p);
        let best = |(values, indices): (&[f64], &[f64])| indices[ranking(values)[0]];
        let wanted = values.chunks(p).zip(indices.chunks(p)).map(best).collect();
        CaseOf::new(kernel, &[("rows", rows), ("P", p)])
            .about(kind)
            .threads(threads)
            .read("part_values", stored(kernel, "part_values", &values))
            .read("part_indices", stored(kernel, "part_indices", &indices))
            .write("out", wanted, Tolerance::EXACT)
            .visit(visit);
    });
}

/// [rows, P, k]: the k largest of each part in the order of their indices, filled up with NaN.
fn candidates(values: &[f64], v: usize, p: usize, k: usize) -> Vec<f64> {
    let of_part = |(_, part): (usize, &[f64])| {
        let mut kept: Vec<_> = ranking(part).into_iter().take(k).collect();
        kept.sort_unstable();
        let mut kept: Vec<f64> = kept.into_iter().map(|i| part[i]).collect();
        kept.resize(k, f64::NAN);
        kept
    };
    values.chunks(v).flat_map(|row| parts(row, p).into_iter().flat_map(of_part).collect::<Vec<_>>()).collect()
}

/// Thresholds [rows] and ties [rows, P]: the key of the k-th largest, and how many of its equals each part keeps.
fn thresholds(values: &[f64], v: usize, p: usize, k: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut thresholds, mut ties) = (Vec::new(), Vec::new());
    for row in values.chunks(v) {
        let kept = &ranking(row)[..k.min(row.len())];
        let threshold = kept.last().map_or(u32::MAX, |&i| key(row[i]));
        thresholds.push(threshold.into());
        for (begin, part) in parts(row, p) {
            let tied = |i: &usize| key(row[*i]) == threshold && (begin..begin + part.len()).contains(i);
            ties.push(kept.iter().copied().filter(tied).count() as f64);
        }
    }
    (thresholds, ties)
}

fn each_selection(mut visit: impl FnMut(&'static str, [usize; 4], u32, Data)) {
    each_parts(|kind, [rows, v, p], threads, logits| {
        let keeps = if v > 10_000 { &KEEPS[2..3] } else { KEEPS };
        for &k in keeps.iter().filter(|&&k| k < v) {
            visit(kind, [rows, v, p, k], threads, logits.clone());
        }
    });
}

pub(super) fn topk_parts(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_selection(|kind, [rows, v, p, k], threads, logits| {
        let wanted = candidates(&logits.values(), v, p, k);
        CaseOf::new(kernel, &[("rows", rows), ("V", v), ("P", p), ("k", k)])
            .about(kind)
            .threads(threads)
            .read("logits", logits)
            .write("candidates", wanted, Tolerance::EXACT)
            .visit(visit);
    });
}

pub(super) fn topk_threshold(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_selection(|kind, [rows, v, p, k], _, logits| {
        let values = logits.values();
        let (wanted_thresholds, wanted_ties) = thresholds(&values, v, p, k);
        CaseOf::new(kernel, &[("rows", rows), ("V", v), ("P", p), ("k", k)])
            .about(kind)
            .read("candidates", stored(kernel, "candidates", &candidates(&values, v, p, k)))
            .write("thresholds", wanted_thresholds, Tolerance::EXACT)
            .write("ties", wanted_ties, Tolerance::EXACT)
            .visit(visit);
    });
}

pub(super) fn topk_apply(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_selection(|kind, [rows, v, p, k], threads, logits| {
        let values = logits.values();
        let (thresholds, ties) = thresholds(&values, v, p, k);
        let wanted = values.chunks(v).flat_map(|row| masked(row, k)).collect();
        CaseOf::new(kernel, &[("rows", rows), ("V", v), ("P", p)])
            .about(kind)
            .threads(threads)
            .read("thresholds", stored(kernel, "thresholds", &thresholds))
            .read("ties", stored(kernel, "ties", &ties))
            .update("logits", logits, wanted, Tolerance::EXACT)
            .visit(visit);
    });
}
