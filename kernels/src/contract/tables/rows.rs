//! Kernels over rows of C channels, and over N elements.

use super::super::table::{BufferRule, Contract, Dispatch, read, update, write};
use super::ONE_A_SIMDGROUP;

/// A row's channels lie in y.
const CHANNELS: Dispatch = Dispatch::Threads { grid: ["N", "ceil(C / v)", "1"], along: 1 };
const ELEMENTS: Dispatch = Dispatch::Threads { grid: ["ceil(N / v)", "1", "1"], along: 0 };
const ONE_GROUP_A_ROW: Dispatch = Dispatch::Rows { grid: ["N", "1", "1"], length: "ceil(C / row_share)" };
const WHOLE_VECTORS: &[&str] = &["C % v == 0"];

const fn table_lookup(kernel: &'static str, buffers: &'static [BufferRule]) -> Contract {
    Contract { kernel, buffers, conditions: WHOLE_VECTORS, dispatch: CHANNELS, threadgroup_memory: &[] }
}

const fn row_norm(kernel: &'static str, buffers: &'static [BufferRule]) -> Contract {
    Contract {
        kernel,
        buffers,
        conditions: &["C % v == 0", "1 <= C"],
        dispatch: ONE_GROUP_A_ROW,
        threadgroup_memory: &[ONE_A_SIMDGROUP],
    }
}

const fn elementwise(kernel: &'static str, buffers: &'static [BufferRule]) -> Contract {
    Contract { kernel, buffers, conditions: &[], dispatch: ELEMENTS, threadgroup_memory: &[] }
}

pub(super) static EMBEDDING: &[Contract] = &[
    table_lookup(
        "embedding_forward",
        &[read("weight", &["vocab", "C"]), read("tokens", &["N"]).below("vocab"), write("out", &["N", "C"])],
    ),
    table_lookup(
        "positional_embedding_add",
        &[
            read("weight", &["n_positions", "C"]),
            read("positions", &["N"]).below("n_positions"),
            update("x", &["N", "C"]),
        ],
    ),
    table_lookup(
        "gather_rows",
        &[read("x", &["n_rows", "C"]), read("rows", &["N"]).below("n_rows"), write("out", &["N", "C"])],
    ),
];

pub(super) static NORMS: &[Contract] = &[
    row_norm(
        "layernorm_forward",
        &[
            read("x", &["N", "C"]),
            read("gamma", &["C"]),
            read("beta", &["C"]),
            write("out", &["N", "C"]),
            write("mean", &["N"]).or_nil(),
            write("rstd", &["N"]).or_nil(),
        ],
    ),
    row_norm("rmsnorm_forward", &[read("x", &["N", "C"]), read("gamma", &["C"]), write("out", &["N", "C"])]),
    Contract {
        kernel: "rmsnorm_heads",
        buffers: &[update("x", &["N", "W"]), read("gamma", &["hs"])],
        conditions: &["1 <= hs", "column + n_head * hs <= W"],
        dispatch: Dispatch::Groups { grid: ["ceil(n_head / 4)", "N", "1"], threads: "128" },
        threadgroup_memory: &[],
    },
];

const MAP: &[BufferRule] = &[read("x", &["N"]), write("out", &["N"])];
const GATED: &[BufferRule] = &[read("gate", &["N"]), read("up", &["N"]), write("out", &["N"])];

pub(super) static ACTIVATION: &[Contract] = &[
    elementwise("gelu_forward", MAP),
    elementwise("silu_forward", MAP),
    elementwise("relu_forward", MAP),
    elementwise("sigmoid_forward", MAP),
    elementwise("swiglu_forward", GATED),
    elementwise("geglu_forward", GATED),
    elementwise("scale_inplace", &[update("x", &["N"])]),
];

pub(super) static RESIDUAL: &[Contract] = &[
    elementwise("residual_add", &[update("residual", &["N"]), read("x", &["N"])]),
    row_norm(
        "residual_layernorm",
        &[
            update("residual", &["N", "C"]),
            read("x", &["N", "C"]),
            read("gamma", &["C"]),
            read("beta", &["C"]),
            write("out", &["N", "C"]),
        ],
    ),
    row_norm(
        "rmsnorm_add",
        &[update("residual", &["N", "C"]), read("x", &["N", "C"]), read("gamma", &["C"])],
    ),
    row_norm(
        "residual_rmsnorm",
        &[
            update("residual", &["N", "C"]),
            read("x", &["N", "C"]),
            read("gamma", &["C"]),
            write("out", &["N", "C"]),
        ],
    ),
];
