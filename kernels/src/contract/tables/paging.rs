//! Ragged batches and the paged KV cache. W: floats from row to row of a fused QKV activation.

use super::super::table::{Contract, Dispatch, read, update, write};

const CACHE: &[&str] = &["n_blocks", "n_kv_head", "block_size", "hs"];

const fn heads_by_tokens(tokens: &'static str) -> Dispatch {
    Dispatch::Threads { grid: ["hs", tokens, "nh"], along: 0 }
}

pub(super) static PAGING: &[Contract] = &[
    Contract {
        kernel: "split_heads",
        buffers: &[read("x", &["N", "W"]), write("out", &["nh", "T", "hs"])],
        conditions: &["rows <= T", "first_row + rows <= N", "column + nh * hs <= W"],
        dispatch: heads_by_tokens("T"),
        threadgroup_memory: &[],
    },
    Contract {
        kernel: "merge_heads",
        buffers: &[read("x", &["nh", "T", "hs"]), update("out", &["N", "nh", "hs"])],
        conditions: &["rows <= T", "first_row + rows <= N"],
        dispatch: heads_by_tokens("rows"),
        threadgroup_memory: &[],
    },
    Contract {
        kernel: "rope_rows",
        buffers: &[
            update("x", &["N", "W"]),
            read("freqs", &["n_positions", "hs"]),
            read("positions", &["N"]).below("n_positions"),
        ],
        conditions: &["hs % 2 == 0", "column + n_head * hs <= W"],
        dispatch: Dispatch::Threads { grid: ["ceil(hs / 2)", "n_head", "N"], along: 0 },
        threadgroup_memory: &[],
    },
    Contract {
        kernel: "cache_write",
        buffers: &[
            read("qkv", &["N", "W"]),
            read("slots", &["N"]).below("n_blocks * block_size").or_negative(),
            update("k_cache", CACHE),
            update("v_cache", CACHE),
        ],
        conditions: &["1 <= block_size", "k_column + n_kv_head * hs <= W", "v_column + n_kv_head * hs <= W"],
        dispatch: Dispatch::Threads { grid: ["hs", "n_kv_head", "N"], along: 0 },
        threadgroup_memory: &[],
    },
    Contract {
        kernel: "place_heads",
        buffers: &[
            update("qkv", &["N", "(nh + 2 * n_kv_head) * hs"]),
            read("gamma_q", &["hs"]).or_nil(),
            read("gamma_k", &["hs"]).or_nil(),
            read("freqs", &["n_positions", "hs"]).or_nil(),
            read("positions", &["N"]).below("n_positions"),
            read("slots", &["N"]).below("n_blocks * block_size").or_negative(),
            update("k_cache", CACHE),
            update("v_cache", CACHE),
        ],
        conditions: &["1 <= block_size", "hs % 2 == 0", "2 <= hs"],
        dispatch: Dispatch::Groups { grid: ["ceil((nh + 2 * n_kv_head) / 4)", "N", "1"], threads: "128" },
        threadgroup_memory: &[],
    },
    Contract {
        kernel: "advance_rows",
        buffers: &[
            read("chosen", &["N"]),
            read("block_table", &["N", "max_blocks"]),
            write("tokens", &["N"]),
            update("positions", &["N"]).ahead(),
            write("slots", &["N"]).ahead(),
            write("lengths", &["N"]).ahead(),
            update("history", &["N", "kept"]),
        ],
        conditions: &["1 <= block_size", "1 <= kept"],
        dispatch: Dispatch::Threads { grid: ["N", "1", "1"], along: 0 },
        threadgroup_memory: &[],
    },
    Contract {
        kernel: "cache_gather",
        buffers: &[
            read("k_cache", CACHE),
            read("v_cache", CACHE),
            read("block_table", &["ceil(T / block_size)"]).below("n_blocks"),
            write("K", &["nh", "T", "hs"]),
            write("V", &["nh", "T", "hs"]),
        ],
        conditions: &["1 <= block_size", "1 <= n_kv_head", "nh % n_kv_head == 0"],
        dispatch: heads_by_tokens("T"),
        threadgroup_memory: &[],
    },
];
