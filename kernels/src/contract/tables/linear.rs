//! Multiplication by weight matrices W [M, K], and the fused projections of a decoding step (there K is C).

use super::super::table::{BufferRule, Contract, Dispatch, read, update, write};
use super::ONE_A_SIMDGROUP;

const fn outputs(columns: &'static str) -> Dispatch {
    Dispatch::Threads { grid: ["N", columns, "1"], along: 1 }
}

/// Four simdgroups a threadgroup, each with some rows of W.
const fn simdgroups_by_rows(groups: &'static str) -> Dispatch {
    Dispatch::Groups { grid: [groups, "N", "1"], threads: "128" }
}

pub(super) static LINEAR: &[Contract] = &[
    Contract {
        kernel: "bias_add",
        buffers: &[update("x", &["N", "C"]), read("bias", &["C"])],
        conditions: &[],
        dispatch: outputs("C"),
        threadgroup_memory: &[],
    },
    Contract {
        kernel: "linear_forward",
        buffers: &[read("x", &["N", "K"]), read("W", &["M", "K"]), write("out", &["N", "M"])],
        conditions: &[],
        dispatch: outputs("M"),
        threadgroup_memory: &[],
    },
    Contract {
        kernel: "matvec",
        buffers: &[
            read("x", &["N", "K"]),
            read("W", &["M", "K"]),
            write("out", &["N", "M"]),
            read("bias", &["M"]).or_nil(),
            read("residual", &["N", "M"]).or_nil(),
        ],
        conditions: &[],
        dispatch: simdgroups_by_rows("ceil(M / (4 * v))"),
        threadgroup_memory: &[],
    },
    Contract {
        kernel: "matmul_simd",
        buffers: &[
            read("x", &["N", "K"]),
            read("W", &["M", "K"]),
            write("out", &["N", "M"]),
            read("bias", &["M"]).or_nil(),
        ],
        conditions: &[],
        dispatch: Dispatch::Groups { grid: ["ceil(M / 64)", "ceil(N / 64)", "1"], threads: "128" },
        // Two tiles of x and of W: 64 rows of 32 elements, padded to 40, of two bytes.
        threadgroup_memory: &["2 * (64 + 64) * 40 * 2"],
    },
];

const CACHE: &[&str] = &["n_blocks", "n_kv_head", "block_size", "hs"];
const X: BufferRule = read("x", &["N", "C"]);
const GAMMA: BufferRule = read("gamma", &["C"]);
/// Nil where the norm is RMS.
const BETA: BufferRule = read("beta", &["C"]).or_nil();
const OUT: BufferRule = write("out", &["N", "M"]);

const fn decode(kernel: &'static str, buffers: &'static [BufferRule], groups: &'static str) -> Contract {
    Contract {
        kernel,
        buffers,
        conditions: &["1 <= C"],
        dispatch: simdgroups_by_rows(groups),
        threadgroup_memory: &[ONE_A_SIMDGROUP],
    }
}

const GATE_UP: &[BufferRule] = &[X, GAMMA, read("W_gate", &["M", "C"]), read("W_up", &["M", "C"]), OUT];
const PROJECT: &[BufferRule] = &[X, GAMMA, BETA, read("W", &["M", "C"]), read("bias", &["M"]).or_nil(), OUT];

pub(super) static DECODE: &[Contract] = &[
    Contract {
        conditions: &["1 <= C", "hs % 2 == 0", "1 <= block_size"],
        ..decode(
            "decode_qkv",
            &[
                X,
                GAMMA,
                BETA,
                read("W", &["(nh + 2 * n_kv_head) * hs", "C"]),
                read("bias", &["(nh + 2 * n_kv_head) * hs"]).or_nil(),
                read("freqs", &["n_positions", "hs"]).or_nil(),
                read("positions", &["N"]).below("n_positions"),
                read("slots", &["N"]).below("n_blocks * block_size").or_negative(),
                write("q_out", &["N", "nh", "hs"]),
                update("k_cache", CACHE),
                update("v_cache", CACHE),
            ],
            "ceil((nh + 2 * n_kv_head) * hs / 8)",
        )
    },
    decode("decode_swiglu", GATE_UP, "ceil(M / 4)"),
    decode("decode_geglu", GATE_UP, "ceil(M / 4)"),
    decode("decode_up_gelu", PROJECT, "ceil(M / 4)"),
    decode("decode_head", PROJECT, "ceil(M / 4)"),
];
