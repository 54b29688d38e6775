//! Attention, softmax and rotary positions.

use super::case::{Case, CaseOf, Tolerance, scalar_of, stored};
use super::data::{Data, Generator};
use crate::contract::{Limits, Scalar, attention_tiles, head_size};
use crate::syntax::Kernel;

/// (heads, T, hs, most threads).
const SHAPES: &[(usize, usize, usize, u32)] = &[
    (1, 1, 32, 1024),
    (2, 5, 64, 1024),
    (3, 31, 80, 32),
    (2, 33, 128, 1024),
    (1, 36, 64, 64),
    (1, 70, 256, 1024),
    (2, 12, 6, 1024),
    (0, 5, 64, 1024),
    (1, 0, 64, 1024),
];

/// Scores that are far apart make all but one probability vanish; scores beyond e^88 overflow without the maximum.
const MAGNITUDES: &[(&str, f64)] = &[("", 1.0), ("huge", 60.0), ("tiny", 1e-12)];

fn each_shape(mut visit: impl FnMut([usize; 3], u32, &'static str, f64)) {
    for &(heads, t, hs, threads) in SHAPES {
        for &(about, scale) in MAGNITUDES {
            visit([heads, t, hs], threads, about, scale);
        }
    }
}

fn tensor(kernel: &Kernel, name: &str, seed: u64, [heads, t, hs]: [usize; 3], scale: f64) -> Data {
    stored(kernel, name, &Generator::new(seed).bell(heads * t * hs, scale))
}

/// att [heads, T, T]: scaled scores, -inf above the diagonal.
fn scores_of(q: &[f64], k: &[f64], [heads, t, hs]: [usize; 3]) -> Vec<f64> {
    let row = |tensor: &[f64], h: usize, i: usize| tensor[(h * t + i) * hs..][..hs].to_vec();
    let mut att = Vec::with_capacity(heads * t * t);
    for h in 0..heads {
        for i in 0..t {
            let query = row(q, h, i);
            for j in 0..t {
                let dot: f64 = query.iter().zip(row(k, h, j)).map(|(a, b)| a * b).sum();
                let scaled = dot / (hs as f64).sqrt();
                att.push(if j > i { f64::NEG_INFINITY } else { scaled });
            }
        }
    }
    att
}

pub(super) fn softmax_of(row: &[f64]) -> Vec<f64> {
    let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if max == f64::NEG_INFINITY {
        return vec![0.0; row.len()];
    }
    let exponentials: Vec<f64> = row.iter().map(|v| (v - max).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / sum).collect()
}

fn mix_of(att: &[f64], v: &[f64], [heads, t, hs]: [usize; 3]) -> Vec<f64> {
    let mut out = vec![0.0; heads * t * hs];
    for h in 0..heads {
        for i in 0..t {
            for j in 0..t {
                let weight = att[(h * t + i) * t + j];
                for d in 0..hs {
                    out[(h * t + i) * hs + d] += weight * v[(h * t + j) * hs + d];
                }
            }
        }
    }
    out
}

fn dims([heads, t, hs]: [usize; 3]) -> [(&'static str, usize); 3] {
    [("heads", heads), ("T", t), ("hs", hs)]
}

pub(super) fn scores(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_shape(|shape, threads, about, scale| {
        let (q, k) = (tensor(kernel, "Q", 20, shape, scale), tensor(kernel, "K", 21, shape, scale));
        let wanted = scores_of(&q.values(), &k.values(), shape);
        let tolerance = Tolerance::of_scale(2e-6, &wanted);
        CaseOf::new(kernel, &dims(shape))
            .about(about)
            .threads(threads)
            .surplus(1)
            .read("Q", q)
            .read("K", k)
            .write("att", wanted, tolerance)
            .visit(visit);
    });
}

/// What is left of scores `att` [heads, T, T] after the cap and the mask.
fn masked(att: &[f64], t: usize, window: usize, cap: f64) -> Vec<f64> {
    let one = |(i, &score): (usize, &f64)| {
        let (query, key) = (i / t % t, i % t);
        let capped = if cap == 0.0 { score } else { cap * (score / cap).tanh() };
        if key > query || window != 0 && key + window <= query { f64::NEG_INFINITY } else { capped }
    };
    att.iter().enumerate().map(one).collect()
}

/// (window, cap)
const MASKS: &[(usize, f32)] = &[(0, 0.0), (1, 0.0), (7, 2.0), (0, 50.0), (1000, 0.5)];

pub(super) fn mask(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for (heads, t, threads) in
        [(1, 1, 1024), (2, 5, 1024), (3, 33, 32), (1, 70, 1024), (0, 5, 1024), (1, 0, 1024)]
    {
        for &(window, cap) in MASKS {
            let mut att = Generator::new(29).bell(heads * t * t, 20.0);
            // infinities and NaN, seen and hidden ones
            for (i, score) in att.iter_mut().enumerate() {
                match i % 11 {
                    0 => *score = f64::NEG_INFINITY,
                    4 => *score = f64::INFINITY,
                    7 => *score = f64::NAN,
                    _ => {}
                }
            }
            let att = stored(kernel, "att", &att);
            let wanted = masked(&att.values(), t, window, cap.into());
            CaseOf::new(kernel, &[("heads", heads), ("T", t), ("window", window)])
                .threads(threads)
                .surplus(1)
                .float("cap", cap)
                .update("att", att, wanted, Tolerance { absolute: 1e-6 * f64::from(cap), relative: 2e-6 })
                .visit(visit);
        }
    }
}

pub(super) fn mix(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_shape(|shape, threads, about, scale| {
        let [heads, t, _] = shape;
        let mut att = Generator::new(22).bell(heads * t * t, 1.0);
        for (i, weight) in att.iter_mut().enumerate() {
            let (query, key) = (i / t % t, i % t);
            *weight = if key > query { 0.0 } else { weight.abs() };
        }
        let (att, v) = (stored(kernel, "att", &att), tensor(kernel, "V", 23, shape, scale));
        let wanted = mix_of(&att.values(), &v.values(), shape);
        let tolerance = Tolerance::of_scale(2e-6, &wanted);
        CaseOf::new(kernel, &dims(shape))
            .about(about)
            .threads(threads)
            .surplus(1)
            .read("att", att)
            .read("V", v)
            .write("out", wanted, tolerance)
            .visit(visit);
    });
}

pub(super) fn rope(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_shape(|shape, threads, about, scale| {
        let [_, t, hs] = shape;
        let (x, freqs) = (tensor(kernel, "x", 24, shape, scale), freqs(kernel, t, hs));
        let (values, table) = (x.values(), freqs.values());
        let mut wanted = values;
        for (r, row) in wanted.chunks_mut(hs).enumerate() {
            rotate(row, &table[(r % t) * hs..][..hs]);
        }
        let tolerance = Tolerance::of_scale(1e-6, &wanted);
        CaseOf::new(kernel, &dims(shape))
            .about(about)
            .threads(threads)
            .surplus(1)
            .read("freqs", freqs)
            .update("x", x, wanted, tolerance)
            .visit(visit);
    });
}

/// [n, hs]: cos and sin of t / 10000^(2i / hs), interleaved.
pub(super) fn freqs(kernel: &Kernel, n: usize, hs: usize) -> Data {
    let angle = |t: usize, i: usize| t as f64 / 10_000f64.powf(2.0 * i as f64 / hs as f64);
    let pair = |t, i| [angle(t, i).cos(), angle(t, i).sin()];
    let table: Vec<f64> = (0..n).flat_map(|t| (0..hs / 2).flat_map(move |i| pair(t, i))).collect();
    stored(kernel, "freqs", &table)
}

/// Pairs (i, i + hs/2) turned by the angles of one row of freqs.
pub(super) fn rotate(head: &mut [f64], freqs: &[f64]) {
    let half = head.len() / 2;
    for i in 0..half {
        let (cos, sin) = (freqs[2 * i], freqs[2 * i + 1]);
        let (a, b) = (head[i], head[i + half]);
        head[i] = a * cos - b * sin;
        head[i + half] = b * cos + a * sin;
    }
}

pub(super) fn softmax(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    let shapes: &[(usize, usize, u32)] = &[
        (3, 1, 1024),
        (2, 5, 1024),
        (4, 31, 32),
        (2, 33, 1024),
        (2, 768, 96),
        (2, 768, 1024),
        (2, 1025, 1024),
        (1, 50257, 1024),
        (1, 50260, 256),
        (0, 768, 1024),
    ];
    for &(n, t, threads) in shapes {
        for &(about, scale) in &[("", 1.0), ("huge", 1e4), ("tiny", 1e-20), ("masked", 3.0)] {
            let mut x = Generator::new(25).bell(n * t, scale);
            if about == "masked" {
                // Every third element, and the whole first row.
                let hidden = |i: &usize| i % 3 == 1 || i / t == 0;
                (0..n * t).filter(hidden).for_each(|i| x[i] = f64::NEG_INFINITY);
            }
            let x = stored(kernel, "x", &x);
            let wanted = x.values().chunks(t).flat_map(softmax_of).collect();
            let tolerance = Tolerance { absolute: 1e-7, relative: 1e-5 };
            CaseOf::new(kernel, &[("N", n), ("T", t)])
                .about(about)
                .threads(threads)
                .update("x", x, wanted, tolerance)
                .visit(visit);
        }
    }
}

pub(super) fn flash(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_shape(|shape, threads, about, scale| {
        if let Some(case) = flash_case(kernel, shape, threads, about, scale, (0, 0.0)) {
            case.visit(visit);
        }
    });
}

pub(super) fn flash_masked(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_shape(|shape, threads, about, scale| {
        // of huge scores only the rounding would be left under a cap
        for &(window, cap) in MASKS.iter().filter(|(_, cap)| *cap == 0.0 || scale <= 1.0) {
            if let Some(case) = flash_case(kernel, shape, threads, about, scale, (window, cap)) {
                case.dim("window", window).float("cap", cap).visit(visit);
            }
        }
    });
}

/// One shape of the plain kernels; none where no tile fits.
fn flash_case<'k>(
    kernel: &'k Kernel,
    shape: [usize; 3],
    threads: u32,
    about: &'static str,
    scale: f64,
    (window, cap): (usize, f32),
) -> Option<CaseOf<'k>> {
    let [_, t, hs] = shape;
    let tensor = |name, seed| tensor(kernel, name, seed, shape, scale);
    let (q, k, v) = (tensor("Q", 26), tensor("K", 27), tensor("V", 28));
    let att = masked(&scores_of(&q.values(), &k.values(), shape), t, window, cap.into());
    let att: Vec<f64> = att.chunks(t.max(1)).flat_map(softmax_of).collect();
    let wanted = mix_of(&att, &v.values(), shape);
    let tolerance = Tolerance::of_scale(1e-5, &wanted);
    let (br, bc) = attention_tiles(hs as u64, &Limits::APPLE).ok()?;
    let tiles = [("Br", br as usize), ("Bc", bc as usize)];
    let case = CaseOf::new(kernel, &[dims(shape).as_slice(), &tiles].concat())
        .about(about)
        .threads(threads.max(br as u32))
        .read("Q", q)
        .read("K", k)
        .read("V", v)
        .write("out", wanted, tolerance);
    Some(case)
}

/// 16-bit tensors, a head size from the name; the probabilities are rounded to 16 bits too.
pub(super) fn flash_simd(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    let Some(hs) = head_size(&kernel.name).map(|hs| hs as usize) else {
        return;
    };
    let rounding = if scalar_of(kernel, "V") == Scalar::Bf16 { 1.0 / 256.0 } else { 1.0 / 2048.0 };
    for (heads, t) in [(1, 1), (2, 5), (1, 64), (2, 65), (1, 130), (0, 5), (1, 0)] {
        for (about, scale) in [("", 1.0), ("huge", 16.0), ("tiny", 1e-3)] {
            let shape = [heads, t, hs];
            let tensor = |name, seed| tensor(kernel, name, seed, shape, scale);
            let (q, k, v) = (tensor("Q", 26), tensor("K", 27), tensor("V", 28));
            let att = scores_of(&q.values(), &k.values(), shape);
            let att: Vec<f64> = att.chunks(t.max(1)).flat_map(softmax_of).collect();
            let wanted = mix_of(&att, &v.values(), shape);
            let tolerance = Tolerance::of_scale(rounding, &wanted);
            CaseOf::new(kernel, &[("heads", heads), ("T", t)])
                .about(about)
                .read("Q", q)
                .read("K", k)
                .read("V", v)
                .write("out", wanted, tolerance)
                .visit(visit);
        }
    }
}
