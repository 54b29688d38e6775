//! Multiplication by weight matrices W [M, K], and the fused projections of a decoding step (there K is C).

use super::super::table::{BufferRule, Contract, Dispatch, read, update, write};

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
        kernel: "narrow",
        buffers: &[read("x", &["N"]), write("out", &["N"])],
        conditions: &[],
        dispatch: Dispatch::Threads { grid: ["ceil(N / v)", "1", "1"], along: 0 },
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
            read("residual", &["N", "M"]).or_nil(),
        ],
        conditions: &[],
        dispatch: Dispatch::Groups { grid: ["ceil(M / 64)", "ceil(N / 64)", "1"], threads: "128" },
        // Two tiles of x and of W: 64 rows of 32 elements, padded to 40, of two bytes.
        threadgroup_memory: &["2 * (64 + 64) * 40 * 2"],
    },
    Contract {
        kernel: "matmul_few",
        buffers: &[
            read("x", &["N", "K"]),
            read("W", &["M", "K"]).ahead(),
            write("out", &["N", "M"]),
            read("bias", &["M"]).or_nil(),
            read("residual", &["N", "M"]).or_nil(),
        ],
        conditions: &["1 <= K"],
        dispatch: Dispatch::Groups { grid: ["ceil(M / 16)", "ceil(N / 16)", "1"], threads: "128" },
        threadgroup_memory: FEW_ROWS,
    },
    gate_few("matmul_few_swiglu"),
    gate_few("matmul_few_geglu"),
];

/// For each simdgroup five tiles of W, 16 rows of 32 elements, padded to 40, of two bytes; and 16 x 16 sums.
const FEW_ROWS: &[&str] = &["4 * 5 * 16 * 40 * 2", "4 * 4 * 16 * 16"];

const TWO_MATRICES: &[BufferRule] = &[
    read("x", &["N", "K"]),
    read("W_gate", &["M", "K"]).ahead(),
    read("W_up", &["M", "K"]).ahead(),
    write("out", &["N", "M"]),
];

const fn gate_few(kernel: &'static str) -> Contract {
    Contract {
        kernel,
        buffers: TWO_MATRICES,
        conditions: &["1 <= K"],
        dispatch: Dispatch::Groups { grid: ["ceil(M / 8)", "ceil(N / 16)", "1"], threads: "128" },
        threadgroup_memory: FEW_ROWS,
    }
}

const CACHE: &[&str] = &["n_blocks", "n_kv_head", "block_size", "hs"];
const BUILT_CACHE: &[&str] = &["n_blocks", "n_kv_head", "block_size", "built_hs"];
const X: BufferRule = read("x", &["N", "C"]);
const GAMMA: BufferRule = read("gamma", &["C"]).ahead();
/// Nil where the norm is RMS.
const BETA: BufferRule = read("beta", &["C"]).or_nil().ahead();
const OUT: BufferRule = write("out", &["N", "M"]);

const fn decode(kernel: &'static str, buffers: &'static [BufferRule], groups: &'static str) -> Contract {
    Contract {
        kernel,
        buffers,
        conditions: &["1 <= C"],
        dispatch: Dispatch::Groups { grid: [groups, "N", "1"], threads: "256" },
        threadgroup_memory: &["4 * (4 * ceil(C / 4) + 2 * ceil(threads / 32))"],
    }
}

const GATE_UP: &[BufferRule] =
    &[X, GAMMA, read("W_gate", &["M", "C"]).ahead(), read("W_up", &["M", "C"]).ahead(), OUT];
const PROJECT: &[BufferRule] =
    &[X, GAMMA, BETA, read("W", &["M", "C"]).ahead(), read("bias", &["M"]).or_nil().ahead(), OUT];

pub(super) static DECODE: &[Contract] = &[
    Contract {
        conditions: &["1 <= C", "hs % 2 == 0", "1 <= block_size"],
        ..decode(
            "decode_qkv",
            &[
                X,
                GAMMA,
                BETA,
                read("W", &["(nh + 2 * n_kv_head) * hs", "C"]).ahead(),
                read("bias", &["(nh + 2 * n_kv_head) * hs"]).or_nil().ahead(),
                read("freqs", &["n_positions", "hs"]).or_nil().ahead(),
                read("positions", &["N"]).below("n_positions").ahead(),
                read("slots", &["N"]).below("n_blocks * block_size").or_negative().ahead(),
                write("q_out", &["N", "nh", "hs"]),
                update("k_cache", CACHE),
                update("v_cache", CACHE),
            ],
            "ceil((nh + 2 * n_kv_head) * hs / 16)",
        )
    },
    decode("decode_swiglu", GATE_UP, "ceil(M / 8)"),
    decode("decode_geglu", GATE_UP, "ceil(M / 8)"),
    decode("decode_up_gelu", PROJECT, "ceil(M / 16)"),
    decode("decode_head", PROJECT, "ceil(M / 128)"),
    Contract {
        kernel: "decode_attend",
        buffers: &[
            read("Q", &["N", "q_stride"]),
            read("k_cache", BUILT_CACHE).ahead(),
            read("v_cache", BUILT_CACHE).ahead(),
            read("block_table", &["N", "max_blocks"]).below("n_blocks").ahead(),
            read("lengths", &["N"]).below("max_blocks * block_size + 1").ahead(),
            write("partial", &["N", "nh", "parts", "built_hs"]),
            write("part_stats", &["N", "nh", "parts", "2"]),
        ],
        conditions: &[
            "1 <= block_size",
            "1 <= n_kv_head",
            "nh % n_kv_head == 0",
            "nh * built_hs <= q_stride",
            "q_stride % 4 == 0",
            "parts <= 16",
        ],
        dispatch: Dispatch::Groups { grid: ["nh", "N", "parts"], threads: "256" },
        threadgroup_memory: &["4 * 8 * (built_hs + 2)"],
    },
    Contract {
        kernel: "decode_output",
        buffers: &[
            read("partial", &["N", "nh", "parts", "hs"]),
            read("part_stats", &["N", "nh", "parts", "2"]),
            read("W", &["M", "nh * hs"]).ahead(),
            read("bias", &["M"]).or_nil().ahead(),
            update("residual", &["N", "M"]),
        ],
        conditions: &["1 <= nh * hs", "hs % 8 == 0", "parts <= 16"],
        dispatch: Dispatch::Groups { grid: ["ceil(M / 4)", "N", "1"], threads: "256" },
        threadgroup_memory: &["4 * (nh * hs + 4 * ceil(threads / 32))"],
    },
    Contract {
        kernel: "decode_down",
        buffers: &[
            read("x", &["N", "K"]),
            read("W", &["M", "K"]).ahead(),
            read("bias", &["M"]).or_nil().ahead(),
            update("residual", &["N", "M"]),
        ],
        conditions: &["1 <= K"],
        dispatch: simdgroups_by_rows("ceil(M / 4)"),
        threadgroup_memory: &["4 * 4 * ceil(threads / 32)"],
    },
];
