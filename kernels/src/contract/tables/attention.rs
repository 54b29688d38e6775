//! Attention; `heads` is B * nh.

use super::super::table::{Contract, Dispatch, read, update, write};
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
        kernel: "softmax_inplace",
        buffers: &[update("x", &["N", "T"])],
        conditions: &["T % v == 0"],
        dispatch: Dispatch::Rows { grid: ["N", "1", "1"], length: "ceil(T / v)" },
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

/// Br and Bc: `attention_tiles`.
pub(super) static FLASH_ATTENTION: &[Contract] = &[Contract {
    kernel: "flash_attention_forward",
    buffers: &[
        read("Q", &["heads", "T", "hs"]),
        read("K", &["heads", "T", "hs"]),
        read("V", &["heads", "T", "hs"]),
        write("out", &["heads", "T", "hs"]),
    ],
    conditions: &["1 <= Br", "1 <= Bc"],
    dispatch: Dispatch::Groups { grid: ["heads", "ceil(T / Br)", "1"], threads: "Br" },
    threadgroup_memory: &["4 * Br * hs", "4 * Bc * hs", "4 * Bc * hs", "4 * Br * Bc", "4 * Br * hs"],
}];
