//! Weights in quantised blocks: rows of `ceil(K / block)` blocks of `block_bytes` bytes.

use super::super::table::{BufferRule, Contract, Dispatch, read, update, write};
use super::ONE_A_SIMDGROUP;

/// A thread has sixteen weights.
const fn sixteens(
    kernel: &'static str,
    buffers: &'static [BufferRule],
    grid: [&'static str; 3],
    conditions: &'static [&'static str],
) -> Contract {
    Contract {
        kernel,
        buffers,
        conditions,
        dispatch: Dispatch::Threads { grid, along: 1 },
        threadgroup_memory: &[],
    }
}

/// Four simdgroups a threadgroup, each with four rows of weights; a norm before the product.
const fn normed(kernel: &'static str, buffers: &'static [BufferRule], groups: &'static str) -> Contract {
    Contract {
        kernel,
        buffers,
        conditions: &["C % block == 0", "1 <= C"],
        dispatch: Dispatch::Groups { grid: [groups, "N", "1"], threads: "128" },
        threadgroup_memory: &[ONE_A_SIMDGROUP],
    }
}

const WHOLE_BLOCKS: &[&str] = &["C % block == 0"];
const CHANNELS: [&str; 3] = ["N", "ceil(C / 16)", "1"];
const WEIGHTS: &[&str] = &["M", "ceil(C / block) * block_bytes"];
const X: BufferRule = read("x", &["N", "C"]);
const GAMMA: BufferRule = read("gamma", &["C"]);
const OUT: BufferRule = write("out", &["N", "M"]);
const PROJECT: &[BufferRule] = &[
    X,
    GAMMA,
    read("beta", &["C"]).or_nil(),
    read("W", WEIGHTS).ahead(),
    read("bias", &["M"]).or_nil(),
    OUT,
];
const GATE_UP: &[BufferRule] =
    &[X, GAMMA, read("W_gate", WEIGHTS).ahead(), read("W_up", WEIGHTS).ahead(), OUT];

pub(super) static QUANT: &[Contract] = &[
    sixteens(
        "embedding_forward_q",
        &[
            read("weight", &["vocab", "ceil(C / block) * block_bytes"]),
            read("tokens", &["N"]).below("vocab"),
            write("out", &["N", "C"]),
        ],
        CHANNELS,
        WHOLE_BLOCKS,
    ),
    sixteens(
        "positional_embedding_add_q",
        &[
            read("weight", &["n_positions", "ceil(C / block) * block_bytes"]),
            read("positions", &["N"]).below("n_positions"),
            update("x", &["N", "C"]),
        ],
        CHANNELS,
        WHOLE_BLOCKS,
    ),
    sixteens(
        "dequantize_q",
        &[read("W", &["M", "ceil(K / block) * block_bytes"]), write("out", &["M", "K"])],
        ["M", "ceil(K / 16)", "1"],
        &["K % block == 0"],
    ),
    Contract {
        kernel: "matvec_q",
        buffers: &[
            read("x", &["N", "K"]),
            read("W", &["M", "ceil(K / block) * block_bytes"]).ahead(),
            write("out", &["N", "M"]),
            read("bias", &["M"]).or_nil(),
            read("residual", &["N", "M"]).or_nil(),
        ],
        conditions: &["K % block == 0"],
        dispatch: Dispatch::Groups { grid: ["ceil(M / 16)", "N", "1"], threads: "128" },
        threadgroup_memory: &[],
    },
    normed("decode_head_q", PROJECT, "ceil(M / 16)"),
    normed("decode_up_gelu_q", PROJECT, "ceil(M / 16)"),
    normed("decode_swiglu_q", GATE_UP, "ceil(M / 8)"),
    normed("decode_geglu_q", GATE_UP, "ceil(M / 8)"),
];
