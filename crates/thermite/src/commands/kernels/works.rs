//! What `thermite kernels bench` times: kernels at the sizes of real models.

use thermite_device::launched::bench::Work;

/// Elements of the large arrays.
const LARGE: usize = 1 << 28;
/// Rows and channels of the norms.
const ROWS: [(usize, usize); 4] = [(16_384, 768), (65_536, 768), (16_384, 4096), (65_536, 4096)];
/// Rows and length of the softmaxes: 8 sequences of 1,024 tokens in GPT-2, 2 of 4,096 in a LLaMA.
const SOFTMAX: [(usize, usize); 2] = [(98_304, 1024), (262_144, 4096)];
/// Tokens of a vocabulary: GPT-2, LLaMA 3, Gemma.
const VOCABULARIES: [usize; 3] = [50_257, 128_256, 262_144];
/// Outputs and inputs: GPT-2's QKV and head, LLaMA 1B's and 8B's up projection, LLaMA 1B's head.
const MATRICES: [(usize, usize); 5] =
    [(2304, 768), (50_257, 768), (8192, 2048), (14_336, 4096), (128_256, 2048)];
/// Tokens of a sequence; 16 heads, and sequences enough for 16,384 tokens.
const SEQUENCES: [usize; 6] = [512, 1024, 2048, 4096, 8192, 16_384];

/// All of it. The operations an element are those of the formula, an exponential or a tanh as one.
pub(super) fn works() -> Vec<Work> {
    let mut all = Vec::new();
    for (n, c) in ROWS {
        for (kernel, operations) in [
            ("layernorm_forward_v4", 8),
            ("rmsnorm_forward_v4", 4),
            ("residual_layernorm_v4", 9),
            ("residual_rmsnorm_v4", 5),
        ] {
            let work = elementwise(kernel, &[("N", n), ("C", c)], operations);
            all.push(Work { floats: vec![1e-5], ..work });
        }
    }
    all.extend(SOFTMAX.map(|(n, t)| elementwise("softmax_inplace_v4", &[("N", n), ("T", t)], 5)));
    for (kernel, operations) in [
        ("gelu_forward_v4", 9),
        ("silu_forward_v4", 3),
        ("relu_forward_v4", 1),
        ("sigmoid_forward_v4", 3),
        ("swiglu_forward_v4", 4),
        ("geglu_forward_v4", 10),
        ("residual_add_v4", 1),
    ] {
        all.push(elementwise(kernel, &[("N", LARGE)], operations));
    }
    for v in VOCABULARIES {
        all.push(elementwise("argmax_sample", &[("rows", 1), ("V", v)], 1));
        let draw = elementwise("draw_sample", &[("rows", 1), ("V", v)], 12);
        all.push(Work { floats: vec![0.95, 0.05], ..draw });
        let top = elementwise("topk_mask", &[("rows", 1), ("V", v)], 1);
        all.push(Work { size: format!("k = 50 of {v}"), dims: [top.dims, vec![("k", 50)]].concat(), ..top });
    }
    all.extend(MATRICES.map(matvec));
    for hs in [64, 128] {
        all.extend(SEQUENCES.map(|t| attention(t, hs)));
    }
    all
}

/// A kernel over an array of these dimensions.
fn elementwise(kernel: &str, dims: &[(&'static str, usize)], operations: usize) -> Work {
    let sizes: Vec<_> = dims.iter().map(|(_, n)| n.to_string()).collect();
    Work {
        kernel: kernel.to_owned(),
        size: format!("[{}]", sizes.join(", ")),
        dims: dims.to_vec(),
        floats: Vec::new(),
        operations: dims.iter().map(|(_, n)| *n as f64).product::<f64>() * operations as f64,
        matrix: false,
    }
}

/// One row times a matrix of bfloat16, by the instance that the device takes for it.
fn matvec((m, k): (usize, usize)) -> Work {
    let kernel = format!("matvec_bf16{}", thermite_device::launched::rows_together(m));
    let size = format!("[{m}, {k}]");
    Work { size, ..elementwise(&kernel, &[("N", 1), ("M", m), ("K", k)], 2) }
}

/// Causal attention: half of the scores, two products.
fn attention(t: usize, hs: usize) -> Work {
    let heads = 16 * (16_384 / t);
    let dims = [("heads", heads), ("T", t), ("built_hs", hs)];
    Work {
        size: format!("{heads} heads of {t}"),
        operations: 2.0 * heads as f64 * (t as f64).powi(2) * hs as f64,
        matrix: true,
        ..elementwise(&format!("flash_attention_simd_bf16_hs{hs}"), &dims, 0)
    }
}
