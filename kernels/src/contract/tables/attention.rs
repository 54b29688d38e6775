//! Attention; `heads` is B * nh.

use super::super::table::{BufferRule, Contract, Dispatch, read, update, write};
use super::ONE_A_SIMDGROUP;

pub(super) static ATTENTION: &[Contract] = &[
    Contract {
        kernel: "attention_scores",
        buffers: &[
            read("Q", &["heads", "T", "hs"]),
            read("K", &["heads", "T", "hs"]),
            write("att", &["heads", "T", "T"]),
        ],
        conditions: &["hs % v == 0"],
        dispatch: Dispatch::Threads { grid: ["heads", "T", "T"], along: 2 },
        threadgroup_memory: &[],
    },
    Contract {
        kernel: "attention_mask",
        buffers: &[update("att", &["heads", "T", "T"])],
        conditions: &[],
        dispatch: Dispatch::Threads { grid: ["heads", "T", "T"], along: 2 },
        threadgroup_memory: &[],
    },
    Contract {
        kernel: "softmax_inplace",
        buffers: &[update("x", &["N", "T"])],
        conditions: &["T % v == 0"],
        dispatch: Dispatch::Rows { grid: ["N", "1", "1"], length: "ceil(T / row_share)" },
        threadgroup_memory: &[ONE_A_SIMDGROUP],
    },
    Contract {
        kernel: "attention_mix",
        buffers: &[
            read("att", &["heads", "T", "T"]),
            read("V", &["heads", "T", "hs"]),
            write("out", &["heads", "T", "hs"]),
        ],
        conditions: &["hs % v == 0"],
        dispatch: Dispatch::Threads { grid: ["heads", "T", "ceil(hs / v)"], along: 2 },
        threadgroup_memory: &[],
    },
    Contract {
        kernel: "rope_forward",
        buffers: &[update("x", &["heads", "T", "hs"]), read("freqs", &["T", "hs"])],
        conditions: &["hs % 2 == 0"],
        dispatch: Dispatch::Threads { grid: ["heads", "T", "ceil(hs / 2)"], along: 2 },
        threadgroup_memory: &[],
    },
];

const QUERIES_KEYS_VALUES: &[BufferRule] = &[
    read("Q", &["heads", "T", "hs"]),
    read("K", &["heads", "T", "hs"]),
    read("V", &["heads", "T", "hs"]),
    write("out", &["heads", "T", "hs"]),
];

/// Br and Bc: `attention_tiles`.
const fn plain_flash(kernel: &'static str) -> Contract {
    Contract {
        kernel,
        buffers: QUERIES_KEYS_VALUES,
        conditions: &["1 <= Br", "1 <= Bc"],
        dispatch: Dispatch::Groups { grid: ["heads", "ceil(T / Br)", "1"], threads: "Br" },
        threadgroup_memory: &["4 * Br * hs", "4 * Bc * hs", "4 * Bc * hs", "4 * Br * Bc", "4 * Br * hs"],
    }
}

pub(super) static FLASH_ATTENTION: &[Contract] = &[
    plain_flash("flash_attention_forward"),
    plain_flash("flash_attention_masked"),
    Contract {
        kernel: "flash_attention_simd",
        buffers: &[
            read("Q", &["heads", "T", "built_hs"]),
            read("K", &["heads", "T", "built_hs"]),
            read("V", &["heads", "T", "built_hs"]),
            write("out", &["heads", "T", "built_hs"]),
        ],
        conditions: &[],
        dispatch: Dispatch::Groups { grid: ["heads", "ceil(T / 64)", "1"], threads: "128" },
        threadgroup_memory: &[MATRIX_TILES],
    },
    Contract {
        kernel: "flash_attention_paged",
        buffers: &[
            read("Q", &["N", "q_stride"]),
            read("k_cache", CACHE),
            read("v_cache", CACHE),
            read("block_table", &["n_seqs", "max_blocks"]).below("n_blocks"),
            read("lengths", &["n_seqs"]).below("max_blocks * block_size + 1"),
            read("first_row", &["n_seqs + 1"]).below("N + 1"),
            write("out", &["N", "nh", "built_hs"]),
        ],
        conditions: &[
            "1 <= block_size",
            "1 <= n_kv_head",
            "nh % n_kv_head == 0",
            "nh * built_hs <= q_stride",
            "q_stride % 4 == 0",
        ],
        dispatch: Dispatch::Groups { grid: ["nh", "ceil(most_rows / 64)", "n_seqs"], threads: "128" },
        threadgroup_memory: &[MATRIX_TILES],
    },
    // With `out`: groups = nh, and pieces of 64 rows; else groups = n_kv_head, and pieces of the cache.
    Contract {
        kernel: "flash_attention_pieces",
        buffers: &[
            read("Q", &["N", "q_stride"]),
            read("k_cache", CACHE),
            read("v_cache", CACHE),
            read("block_table", &["n_seqs", "max_blocks"]).below("n_blocks"),
            read("lengths", &["n_seqs"]).below("max_blocks * block_size + 1"),
            read("first_row", &["n_seqs + 1"]).below("N + 1"),
            write("out", &["N", "nh", "built_hs"]).or_nil(),
            write("partial", &["N", "nh", "pieces", "built_hs"]).or_nil(),
            write("part_stats", &["N", "nh", "pieces", "2"]).or_nil(),
        ],
        conditions: &[
            "1 <= block_size",
            "1 <= n_kv_head",
            "nh % n_kv_head == 0",
            "nh <= 64 * n_kv_head",
            "nh * built_hs <= q_stride",
            "q_stride % 4 == 0",
            "1 <= groups",
            "nh % groups == 0",
            "groups % n_kv_head == 0",
        ],
        dispatch: Dispatch::Groups { grid: ["groups", "pieces", "n_seqs"], threads: "128" },
        threadgroup_memory: &[MATRIX_TILES],
    },
];

/// 16-bit tiles of 64 query rows, then of 64 keys and values (32 from head size 128 on), rows padded by 8.
const MATRIX_TILES: &str = "2 * max(64, 2 * tile_keys) * (built_hs + 8)";

const CACHE: &[&str] = &["n_blocks", "n_kv_head", "block_size", "built_hs"];
const PARTIAL: &[&str] = &["N", "nh", "parts", "hs"];
const STATS: &[&str] = &["N", "nh", "parts", "2"];
const FITTING_HEADS: &[&str] =
    &["hs == built_hs", "1 <= block_size", "1 <= n_kv_head", "nh % n_kv_head == 0", "nh * hs <= q_stride"];
const GROUPED_HEADS: &[&str] = &[
    "hs == built_hs",
    "1 <= block_size",
    "1 <= n_kv_head",
    "nh % n_kv_head == 0",
    "nh * hs <= q_stride",
    "q_stride % 4 == 0",
    "1 <= groups",
    "nh % groups == 0",
    "groups % n_kv_head == 0",
    "ceil(nh / groups) <= 16",
];
const SIMDGROUP_A_HEAD: &str = "32 * max(4, ceil(nh / groups))";
/// 16-bit tiles of keys and of values, rows padded by 8.
const KEY_TILES: &str = "2 * 2 * decode_keys * (hs + 8)";
/// A softmax of its own for every simdgroup: hs sums, the maximum and the weight.
const SOFTMAX_A_SIMDGROUP: &str = "4 * ceil(threads / 32) * (hs + 2)";

/// One new token for each of N sequences, and the plain kernel for more than one.
pub(super) static DECODE_ATTENTION: &[Contract] = &[
    Contract {
        kernel: "attention_decode",
        buffers: &[
            read("Q", &["N", "q_stride"]),
            read("k_cache", CACHE),
            read("v_cache", CACHE),
            read("block_table", &["N", "max_blocks"]).below("n_blocks"),
            read("lengths", &["N"]).below("max_blocks * block_size + 1"),
            write("out", &["N", "nh", "hs"]),
        ],
        conditions: FITTING_HEADS,
        dispatch: Dispatch::Groups { grid: ["nh", "N", "1"], threads: "128" },
        threadgroup_memory: &[SOFTMAX_A_SIMDGROUP],
    },
    Contract {
        kernel: "attention_paged",
        buffers: &[
            read("Q", &["N", "q_stride"]),
            read("k_cache", CACHE),
            read("v_cache", CACHE),
            read("block_table", &["n_seqs", "max_blocks"]).below("n_blocks"),
            read("lengths", &["n_seqs"]).below("max_blocks * block_size + 1"),
            read("first_row", &["n_seqs + 1"]).below("N + 1"),
            write("out", &["N", "nh", "hs"]),
        ],
        conditions: FITTING_HEADS,
        dispatch: Dispatch::Groups { grid: ["nh", "most_rows", "n_seqs"], threads: "128" },
        threadgroup_memory: &[SOFTMAX_A_SIMDGROUP],
    },
    // Compiled for one head size. `groups` threadgroups share out the query heads: n_kv_head, nh, or between.
    Contract {
        kernel: "attention_decode_hs",
        buffers: &[
            read("Q", &["N", "q_stride"]),
            read("k_cache", CACHE),
            read("v_cache", CACHE),
            read("block_table", &["N", "max_blocks"]).below("n_blocks"),
            read("lengths", &["N"]).below("max_blocks * block_size + 1"),
            write("out", &["N", "nh", "hs"]),
        ],
        conditions: GROUPED_HEADS,
        dispatch: Dispatch::Groups { grid: ["groups", "N", "1"], threads: SIMDGROUP_A_HEAD },
        threadgroup_memory: &[KEY_TILES, SOFTMAX_A_SIMDGROUP],
    },
    Contract {
        kernel: "attention_decode_split_hs",
        buffers: &[
            read("Q", &["N", "q_stride"]),
            read("k_cache", CACHE),
            read("v_cache", CACHE),
            read("block_table", &["N", "max_blocks"]).below("n_blocks"),
            read("lengths", &["N"]).below("max_blocks * block_size + 1"),
            write("partial", PARTIAL),
            write("part_stats", STATS),
        ],
        conditions: GROUPED_HEADS,
        dispatch: Dispatch::Groups { grid: ["groups", "N", "parts"], threads: SIMDGROUP_A_HEAD },
        threadgroup_memory: &[KEY_TILES, SOFTMAX_A_SIMDGROUP],
    },
    Contract {
        kernel: "attention_decode_combine",
        buffers: &[read("partial", PARTIAL), read("part_stats", STATS), write("out", &["N", "nh", "hs"])],
        conditions: &[],
        dispatch: Dispatch::Groups { grid: ["nh", "N", "1"], threads: "32 * ceil(hs / 32)" },
        threadgroup_memory: &[],
    },
];
