//! Rows of floats: sums, norms, softmax. Every reduction has one order, whatever the instruction set does with it.

use super::simd::{Chunk, LANES, Simd, exp_of_negative, simd_fn};

/// Eight values from `tail`, which has fewer, and `fill`.
#[inline(always)]
fn padded(tail: &[f32], fill: f32) -> Chunk {
    let mut chunk = [fill; LANES];
    chunk[..tail.len()].copy_from_slice(tail);
    chunk
}

/// Folds `x` in vectors, the tail filled with `fill`.
#[inline(always)]
pub(super) fn fold<S: Simd>(s: S, x: &[f32], fill: f32, start: S::V, f: impl Fn(S::V, S::V) -> S::V) -> S::V {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let mut acc = start;
    for chunk in chunks {
        acc = f(acc, s.load(chunk));
    }
    if tail.is_empty() { acc } else { f(acc, s.load(&padded(tail, fill))) }
}

/// `out = f(x)` in vectors.
#[inline(always)]
pub(super) fn map<S: Simd>(s: S, x: &[f32], out: &mut [f32], f: impl Fn(S::V) -> S::V) {
    let (chunks, tail) = x.as_chunks::<LANES>();
    let (out_chunks, out_tail) = out.as_chunks_mut::<LANES>();
    for (from, to) in chunks.iter().zip(out_chunks) {
        s.store(f(s.load(from)), to);
    }
    if !tail.is_empty() {
        out_tail.copy_from_slice(&s.lanes(f(s.load(&padded(tail, 0.0))))[..tail.len()]);
    }
}

/// `x = f(x)` in vectors.
#[inline(always)]
pub(super) fn map_inplace<S: Simd>(s: S, x: &mut [f32], f: impl Fn(S::V) -> S::V) {
    let (chunks, tail) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        s.store(f(s.load(chunk)), chunk);
    }
    if !tail.is_empty() {
        let done = s.lanes(f(s.load(&padded(tail, 0.0))));
        tail.copy_from_slice(&done[..tail.len()]);
    }
}

/// `out = f(a, b)` in vectors.
#[inline(always)]
pub(super) fn zip<S: Simd>(s: S, a: &[f32], b: &[f32], out: &mut [f32], f: impl Fn(S::V, S::V) -> S::V) {
    let (ac, at) = a.as_chunks::<LANES>();
    let (bc, bt) = b.as_chunks::<LANES>();
    let (oc, ot) = out.as_chunks_mut::<LANES>();
    for ((a, b), o) in ac.iter().zip(bc).zip(oc) {
        s.store(f(s.load(a), s.load(b)), o);
    }
    if !at.is_empty() {
        let done = f(s.load(&padded(at, 0.0)), s.load(&padded(bt, 0.0)));
        ot.copy_from_slice(&s.lanes(done)[..at.len()]);
    }
}

/// `x += y` in vectors.
#[inline(always)]
fn add_into<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    let (xc, xt) = x.as_chunks_mut::<LANES>();
    let (yc, yt) = y.as_chunks::<LANES>();
    for (x, y) in xc.iter_mut().zip(yc) {
        s.store(s.add(s.load(x), s.load(y)), x);
    }
    xt.iter_mut().zip(yt).for_each(|(x, y)| *x += y);
}
simd_fn! {
    /// `x += y`.
    pub(super) fn add(x: &mut [f32], y: &[f32]) = add_into;
}

/// What a norm needs beside its rows.
#[derive(Clone, Copy)]
pub(super) struct NormArgs<'a> {
    pub(super) gamma: &'a [f32],
    /// None makes it an RMSNorm.
    pub(super) beta: Option<&'a [f32]>,
    pub(super) eps: f32,
}

simd_fn! {
    /// Normalises one row; gives its mean (0 for an RMSNorm) and reciprocal deviation.
    pub(super) fn norm(x: &[f32], args: NormArgs<'_>, out: &mut [f32]) -> (f32, f32) = norm_body;
}

#[inline(always)]
fn norm_body<S: Simd>(s: S, x: &[f32], args: NormArgs<'_>, out: &mut [f32]) -> (f32, f32) {
    let c = x.len() as f32;
    let zero = s.splat(0.0);
    let mean = match args.beta {
        Some(_) => {
            s.sum(fold(
                s,
                x,
                0.0,
                zero,
                #[inline(always)]
                |acc, v| s.add(acc, v),
            )) / c
        }
        None => 0.0,
    };
    let mu = s.splat(mean);
    // the mean first, then the deviations from it; filling with the mean adds nothing
    let squares = fold(
        s,
        x,
        mean,
        zero,
        #[inline(always)]
        |acc, v| {
            let d = s.sub(v, mu);
            s.fma(d, d, acc)
        },
    );
    let rstd = 1.0 / (s.sum(squares) / c + args.eps).sqrt();
    let scale = s.splat(rstd);
    zip(
        s,
        x,
        args.gamma,
        out,
        #[inline(always)]
        |v, g| s.mul(s.mul(s.sub(v, mu), scale), g),
    );
    if let Some(beta) = args.beta {
        add_into(s, out, beta);
    }
    (mean, rstd)
}

simd_fn! {
    /// The RMSNorm of a row, in place.
    pub(super) fn rmsnorm_inplace(x: &mut [f32], gamma: &[f32], eps: f32) = rmsnorm_inplace_body;
}

#[inline(always)]
fn rmsnorm_inplace_body<S: Simd>(s: S, x: &mut [f32], gamma: &[f32], eps: f32) {
    let squares = fold(
        s,
        x,
        0.0,
        s.splat(0.0),
        #[inline(always)]
        |acc, v| s.fma(v, v, acc),
    );
    let scale = 1.0 / (s.sum(squares) / x.len() as f32 + eps).sqrt();
    x.iter_mut().zip(gamma).for_each(
        #[inline(always)]
        |(x, g)| *x = *x * scale * g,
    );
}

simd_fn! {
    /// Softmax of one row in place; a row of `-inf` becomes zeros.
    pub(super) fn softmax(x: &mut [f32]) = softmax_body;
}

#[inline(always)]
pub(super) fn softmax_body<S: Simd>(s: S, x: &mut [f32]) {
    let (_, sum) = exponentials(s, x, f32::NEG_INFINITY);
    if sum != 0.0 {
        let scale = s.splat(1.0 / sum);
        map_inplace(
            s,
            x,
            #[inline(always)]
            |v| s.mul(v, scale),
        );
    }
}

/// `x = e^(x - m)` with `m` the largest of `x` and `floor`; gives `m` and the sum. All zeros if `m` is `-inf`.
#[inline(always)]
pub(super) fn exponentials<S: Simd>(s: S, x: &mut [f32], floor: f32) -> (f32, f32) {
    let lowest = f32::NEG_INFINITY;
    // the value comes first: a NaN is passed over here, and shows in the sum
    let top = fold(
        s,
        x,
        lowest,
        s.splat(floor),
        #[inline(always)]
        |acc, v| s.max(v, acc),
    );
    let m = s.max_lane(top);
    if m == lowest {
        let nan = x.iter().any(
            #[inline(always)]
            |v| v.is_nan(),
        );
        x.fill(if nan { f32::NAN } else { 0.0 });
        return (m, if nan { f32::NAN } else { 0.0 });
    }
    let shift = s.splat(m);
    map_inplace(
        s,
        x,
        #[inline(always)]
        |v| exp_of_negative(s, s.sub(v, shift)),
    );
    let sum = s.sum(fold(
        s,
        x,
        0.0,
        s.splat(0.0),
        #[inline(always)]
        |acc, v| s.add(acc, v),
    ));
    (m, sum)
}

simd_fn! {
    /// The sum of `x`, in four strands: as fast as it can be read.
    pub(super) fn sum(x: &[f32]) -> f32 = sum_body;
}

#[inline(always)]
fn sum_body<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (groups, tail) = x.as_chunks::<{ 8 * LANES }>();
    let mut acc = [s.splat(0.0); 8];
    for group in groups {
        let (chunks, _) = group.as_chunks::<LANES>();
        for (acc, chunk) in acc.iter_mut().zip(chunks) {
            *acc = s.add(*acc, s.load(chunk));
        }
    }
    let strands = acc.iter().map(|&v| s.sum(v)).sum::<f32>();
    strands + tail.iter().sum::<f32>()
}

/// Rotates the pairs `(x[i], x[i + half])`; `freqs` holds a cosine and a sine a pair.
pub(super) fn rotate(x: &mut [f32], freqs: &[f32]) {
    let (low, high) = x.split_at_mut(freqs.len() / 2);
    for ((a, b), freq) in low.iter_mut().zip(high).zip(freqs.chunks_exact(2)) {
        let (cos, sin) = (freq[0], freq[1]);
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}
