//! Multiplication by weight matrices.

use super::activation::{gelu_of, relu_of, silu_of};
use super::case::{Case, CaseOf, Tolerance, stored};
use super::data::{Data, Generator};
use crate::syntax::Kernel;

/// (N, K, M)
const SHAPES: &[(usize, usize, usize)] = &[
    (1, 1, 1),
    (1, 5, 33),
    (2, 31, 5),
    (3, 33, 31),
    (1, 768, 70),
    (2, 1025, 17),
    (1, 1032, 16),
    (0, 64, 64),
    (2, 64, 0),
    (65, 72, 66),
    (1, 8, 1025),
    (3, 96, 20),
    (2, 160, 9),
    (1, 64, 3),
    (1, 2056, 19),
];

pub(super) fn bias_add(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, c) in &[(1, 1), (3, 5), (2, 33), (2, 768), (1, 1025), (0, 31), (1, 50257)] {
        let mut generator = Generator::new(80);
        let (x, bias) = (generator.bell(n * c, 1.0), generator.bell(c, 1.0));
        let (x, bias) = (stored(kernel, "x", &x), stored(kernel, "bias", &bias));
        let wanted = (0..n * c).map(|i| x.value(i) + bias.value(i % c)).collect();
        CaseOf::new(kernel, &[("N", n), ("C", c)])
            .read("bias", bias)
            .update("x", x, wanted, Tolerance::relative(2e-7))
            .visit(visit);
    }
}

pub(super) fn narrow(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, threads) in &[(0, 1024), (1, 1024), (3, 32), (4, 1024), (33, 32), (5000, 1024)] {
        let x = stored(kernel, "x", &Generator::new(88).bell(n, 2.0));
        let wanted = x.values();
        CaseOf::new(kernel, &[("N", n)])
            .threads(threads)
            .read("x", x)
            .write("out", wanted, Tolerance::ROUNDED)
            .visit(visit);
    }
}

/// y [N, M]: sums over k of x[n, k] W[m, k].
pub(super) fn product(x: &[f64], w: &[f64], [n, k, m]: [usize; 3]) -> Vec<f64> {
    let dot = |row: usize, output: usize| (0..k).map(|i| x[row * k + i] * w[output * k + i]).sum();
    (0..n).flat_map(|row| (0..m).map(move |output| dot(row, output))).collect()
}

/// Inputs of one shape.
struct Inputs {
    x: Data,
    w: Data,
    bias: Data,
    product: Vec<f64>,
}

fn inputs(kernel: &Kernel, shape: [usize; 3]) -> Inputs {
    let [n, k, m] = shape;
    let mut generator = Generator::new(81);
    let x = stored(kernel, "x", &generator.bell(n * k, 1.0));
    let w = stored(kernel, "W", &generator.bell(m * k, 0.1));
    let bias = stored(kernel, "bias", &generator.bell(m, 1.0));
    let product = product(&x.values(), &w.values(), shape);
    Inputs { x, w, bias, product }
}

/// A float32 sum of K products.
fn of_sums(wanted: &[f64]) -> Tolerance {
    Tolerance::of_scale(3e-6, wanted)
}

pub(super) fn linear(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, k, m) in SHAPES {
        let Inputs { x, w, product, .. } = inputs(kernel, [n, k, m]);
        let tolerance = of_sums(&product);
        CaseOf::new(kernel, &[("N", n), ("K", k), ("M", m)])
            .read("x", x)
            .read("W", w)
            .write("out", product, tolerance)
            .visit(visit);
    }
}

pub(super) fn matvec(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    let activation: fn(f64) -> f64 = match kernel.name.rsplit('_').next() {
        Some("gelu") => gelu_of,
        Some("silu") => silu_of,
        Some("relu") => relu_of,
        _ => |x| x,
    };
    for &(n, k, m) in SHAPES {
        for (with_bias, with_residual) in [(false, false), (true, false), (true, true)] {
            let Inputs { x, w, bias, product } = inputs(kernel, [n, k, m]);
            let residual = stored(kernel, "residual", &Generator::new(82).bell(n * m, 1.0));
            let added = |i: usize| if with_residual { residual.value(i) } else { 0.0 };
            let biased = |i: usize| if with_bias { bias.value(i % m) } else { 0.0 };
            let output = |(i, sum): (usize, &f64)| activation(sum + biased(i)) + added(i);
            let wanted: Vec<_> = product.iter().enumerate().map(output).collect();
            let tolerance = of_sums(&wanted);
            let case = CaseOf::new(kernel, &[("N", n), ("K", k), ("M", m)]).read("x", x).read("W", w);
            let case = case.write("out", wanted, tolerance);
            let case = if with_bias { case.read("bias", bias) } else { case.nil("bias") };
            let case = if with_residual { case.read("residual", residual) } else { case.nil("residual") };
            case.visit(visit);
        }
    }
}

pub(super) fn matmul(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    for &(n, k, m) in SHAPES {
        for (with_bias, with_residual) in [(false, false), (true, false), (true, true)] {
            let Inputs { x, w, bias, .. } = inputs(kernel, [n, k, m]);
            let residual = stored(kernel, "residual", &Generator::new(82).bell(n * m, 1.0));
            let product = rounded_product(&x, &w, [n, k, m]);
            let biased = |i: usize| if with_bias { bias.value(i % m) } else { 0.0 };
            let added = |i: usize| if with_residual { residual.value(i) } else { 0.0 };
            let wanted: Vec<_> =
                product.iter().enumerate().map(|(i, sum)| sum + biased(i) + added(i)).collect();
            let tolerance = Tolerance::of_scale(1e-5, &wanted);
            let case = CaseOf::new(kernel, &[("N", n), ("K", k), ("M", m)]).read("x", x).read("W", w);
            let case = if with_bias { case.read("bias", bias) } else { case.nil("bias") };
            let case = if with_residual { case.read("residual", residual) } else { case.nil("residual") };
            case.write("out", wanted, tolerance).visit(visit);
        }
    }
}

/// The product with x rounded to W's type, as the kernels over simdgroup matrices have it.
fn rounded_product(x: &Data, w: &Data, shape: [usize; 3]) -> Vec<f64> {
    product(&Data::store(w.scalar(), &x.values()).values(), &w.values(), shape)
}

pub(super) fn few_swiglu(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    gate_few(kernel, silu_of, visit);
}

pub(super) fn few_geglu(kernel: &Kernel, visit: &mut dyn FnMut(Case)) {
    gate_few(kernel, gelu_of, visit);
}

fn gate_few(kernel: &Kernel, activation: fn(f64) -> f64, visit: &mut dyn FnMut(Case)) {
    for &(n, k, m) in SHAPES {
        let mut generator = Generator::new(83);
        let x = stored(kernel, "x", &generator.bell(n * k, 1.0));
        let gate = stored(kernel, "W_gate", &generator.bell(m * k, 0.1));
        let up = stored(kernel, "W_up", &generator.bell(m * k, 0.1));
        let [gates, ups] = [&gate, &up].map(|w| rounded_product(&x, w, [n, k, m]));
        let wanted: Vec<_> = gates.iter().zip(&ups).map(|(g, u)| activation(*g) * u).collect();
        let tolerance = Tolerance::of_scale(1e-5, &wanted);
        CaseOf::new(kernel, &[("N", n), ("K", k), ("M", m)])
            .read("x", x)
            .read("W_gate", gate)
            .read("W_up", up)
            .write("out", wanted, tolerance)
            .visit(visit);
    }
}
