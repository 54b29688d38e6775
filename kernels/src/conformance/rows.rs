//! Tables, gathers and norms.

use super::case::{Case, CaseOf, Tolerance, scalar_of, stored};
use super::data::{Data, Generator};
use crate::syntax::Kernel;

/// (N, C, most threads): every C of the list, threadgroups from 32 to 1,024, an empty batch.
const ROWS: &[(usize, usize, u32)] = &[
    (3, 1, 1024),
    (2, 5, 1024),
    (1, 31, 1024),
    (4, 33, 1024),
    (5, 64, 1024),
    (3, 768, 1024),
    (3, 768, 32),
    (2, 768, 96),
    (2, 1025, 1024),
    (2, 1028, 1024),
    (2, 4100, 256),
    (1, 50257, 1024),
    (1, 50260, 992),
    (0, 768, 1024),
];

pub(super) fn embedding(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, c, threads) in ROWS {
        let vocab = 7;
        let (table, picks) = table(kernel, "weight", vocab, n, c);
        let wanted = picked(&table, &picks, c);
        CaseOf::new(kernel, &[("N", n), ("C", c), ("vocab", vocab)])
            .threads(threads)
            .read("weight", table)
            .read("tokens", indices(&picks))
            .write("out", wanted, Tolerance::EXACT)
            .visit(visit);
    }
}

pub(super) fn positional_embedding(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, c, threads) in ROWS {
        let (table, picks) = table(kernel, "weight", 9, n, c);
        let x = stored(kernel, "x", &Generator::new(2).bell(n * c, 1.0));
        let added = picked(&table, &picks, c);
        let wanted = x.values().iter().zip(&added).map(|(x, w)| x + w).collect();
        CaseOf::new(kernel, &[("N", n), ("C", c), ("n_positions", 9)])
            .threads(threads)
            .read("weight", table)
            .read("positions", indices(&picks))
            .update("x", x, wanted, Tolerance::relative(2e-7))
            .visit(visit);
    }
}

pub(super) fn gather(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, c, threads) in ROWS {
        let (table, picks) = table(kernel, "x", 6, n, c);
        let wanted = picked(&table, &picks, c);
        let dims = [("N", n), ("C", c), ("n_rows", 6)];
        let case = CaseOf::new(kernel, &dims).threads(threads);
        case.read("x", table)
            .read("rows", indices(&picks))
            .write("out", wanted, Tolerance::EXACT)
            .visit(visit);
    }
}

/// A table of `rows` by `c`, and `n` rows of it, the last among them.
fn table(kernel: &Kernel, name: &str, rows: usize, n: usize, c: usize) -> (Data, Vec<usize>) {
    let mut generator = Generator::new(1);
    let table = stored(kernel, name, &generator.bell(rows * c, 3.0));
    let pick = |i| if i == 0 { rows - 1 } else { generator.below(rows) };
    (table, (0..n).map(pick).collect())
}

fn picked(table: &Data, picks: &[usize], c: usize) -> Vec<f64> {
    let row = |&i: &usize| (i * c..(i + 1) * c).map(|at| table.value(at));
    picks.iter().flat_map(row).collect()
}

pub(super) fn indices(picks: &[usize]) -> Data {
    Data::I32(picks.iter().map(|&i| i as i32).collect())
}

/// Which norm, and what goes with it.
#[derive(Clone, Copy, PartialEq)]
enum Norm {
    /// Mean and variance; gamma and beta.
    Layer,
    /// Root mean square; gamma.
    Rms,
}

/// The numbers a norm is fed: about one, huge, tiny, and small differences on a large mean.
const INPUTS: &[(&str, f64, f64)] =
    &[("", 1.0, 0.0), ("huge", 1e15, 0.0), ("tiny", 1e-15, 0.0), ("on a large mean", 1.0, 100.0)];

pub(super) fn layernorm(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_norm(Norm::Layer, visit, |norm, visit| {
        let case = norm.case(kernel).read("x", Data::store(scalar_of(kernel, "x"), &norm.x));
        let (x, beta) = (stored(kernel, "x", &norm.x).values(), norm.beta(kernel));
        let rows = norm.rows(&x, kernel);
        let tolerance = norm.tolerance(&rows.out);
        let case = case.read("beta", beta).write("out", rows.out, tolerance);
        let case = match norm.n % 2 {
            0 => case.nil("mean").nil("rstd"),
            _ => {
                let scale = x.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
                let mean = Tolerance { absolute: 1e-6 * scale, relative: 1e-6 };
                case.write("mean", rows.mean, mean).write("rstd", rows.rstd, Tolerance::relative(1e-4))
            }
        };
        case.visit(visit);
    });
}

pub(super) fn rmsnorm(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_norm(Norm::Rms, visit, |norm, visit| {
        let x = stored(kernel, "x", &norm.x);
        let out = norm.rows(&x.values(), kernel).out;
        let tolerance = norm.tolerance(&out);
        norm.case(kernel).read("x", x).write("out", out, tolerance).visit(visit);
    });
}

pub(super) fn residual_layernorm(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_norm(Norm::Layer, visit, |norm, visit| {
        let beta = norm.beta(kernel);
        norm.residual_case(kernel).read("beta", beta).visit(visit);
    });
}

pub(super) fn residual_rmsnorm(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_norm(Norm::Rms, visit, |norm, visit| norm.residual_case(kernel).visit(visit));
}

pub(super) fn rmsnorm_add(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    each_norm(Norm::Rms, visit, |norm, visit| {
        let x = stored(kernel, "x", &norm.x);
        let residual = stored(kernel, "residual", &Generator::new(6).bell(norm.n * norm.c, 1.0));
        let normed = norm.rows(&x.values(), kernel).out;
        let wanted: Vec<_> = normed.iter().enumerate().map(|(i, y)| residual.value(i) + y).collect();
        let tolerance = norm.tolerance(&wanted);
        norm.case(kernel).read("x", x).update("residual", residual, wanted, tolerance).visit(visit);
    });
}

fn each_norm(norm: Norm, visit: &mut dyn FnMut(Case), case: impl Fn(&NormInput, &mut dyn FnMut(Case))) {
    for &(n, c, threads) in ROWS {
        let wide = c > 10_000;
        for &(about, scale, offset) in INPUTS.iter().take(if wide { 1 } else { INPUTS.len() }) {
            let x = Generator::new(3).bell(n * c, scale);
            let x = x.iter().map(|v| v + offset).collect();
            let input = NormInput { norm, about, n, c, threads, offset, x };
            case(&input, visit);
        }
    }
}

struct NormInput {
    norm: Norm,
    about: &'static str,
    n: usize,
    c: usize,
    threads: u32,
    offset: f64,
    x: Vec<f64>,
}

struct NormRows {
    out: Vec<f64>,
    mean: Vec<f64>,
    rstd: Vec<f64>,
}

const EPS: f32 = 1e-5;

impl NormInput {
    fn gamma(&self, kernel: &Kernel) -> Data {
        let values = Generator::new(4).bell(self.c, 1.0);
        stored(kernel, "gamma", &values)
    }

    fn beta(&self, kernel: &Kernel) -> Data {
        stored(kernel, "beta", &Generator::new(5).bell(self.c, 0.5))
    }

    fn case<'k>(&self, kernel: &'k Kernel) -> CaseOf<'k> {
        CaseOf::new(kernel, &[("N", self.n), ("C", self.c)])
            .about(self.about)
            .threads(self.threads)
            .read("gamma", self.gamma(kernel))
            .float("eps", EPS)
    }

    /// residual += x, and the norm of the sum.
    fn residual_case<'k>(&self, kernel: &'k Kernel) -> CaseOf<'k> {
        let x = stored(kernel, "x", &self.x);
        let scale = if self.about == "tiny" { 1e-15 } else { 1.0 };
        let residual = stored(kernel, "residual", &Generator::new(6).bell(self.n * self.c, scale));
        // The sum is rounded to float before it is normalised.
        let sum: Vec<f64> =
            (0..x.len()).map(|i| f64::from((residual.value(i) + x.value(i)) as f32)).collect();
        let out = self.rows(&sum, kernel).out;
        let tolerance = self.tolerance(&out);
        self.case(kernel)
            .read("x", x)
            .update("residual", residual, sum, Tolerance::relative(2e-7))
            .write("out", out, tolerance)
    }

    /// A difference to a large mean keeps as many digits fewer as the mean is larger.
    fn tolerance(&self, out: &[f64]) -> Tolerance {
        Tolerance::of_scale(2e-6 * (1.0 + self.offset), out)
    }

    fn rows(&self, x: &[f64], kernel: &Kernel) -> NormRows {
        let (gamma, beta) = (self.gamma(kernel).values(), self.beta(kernel).values());
        let mut rows = NormRows { out: Vec::new(), mean: Vec::new(), rstd: Vec::new() };
        for row in x.chunks(self.c.max(1)) {
            let count = row.len() as f64;
            let mean = match self.norm {
                Norm::Layer => row.iter().sum::<f64>() / count,
                Norm::Rms => 0.0,
            };
            let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
            let rstd = 1.0 / (variance + f64::from(EPS)).sqrt();
            let shift = |i: usize| if self.norm == Norm::Layer { beta[i] } else { 0.0 };
            let normed = row.iter().enumerate().map(|(i, v)| (v - mean) * rstd * gamma[i] + shift(i));
            rows.out.extend(normed);
            rows.mean.push(mean);
            rows.rstd.push(rstd);
        }
        rows
    }
}
