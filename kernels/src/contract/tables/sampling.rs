//! From logits to a token. The `_parts` kernels spread a row over P threadgroups.

use super::super::table::{BufferRule, Contract, Dispatch, read, update, write};
use super::ONE_A_SIMDGROUP;

const ONE_GROUP_A_ROW: Dispatch = Dispatch::Rows { grid: ["rows", "1", "1"], length: "V" };
const PARTS_OF_A_ROW: Dispatch = Dispatch::Rows { grid: ["P", "rows", "1"], length: "ceil(V / P)" };
const LOGITS: &[&str] = &["rows", "V"];
const PARTS: &[&str] = &["rows", "P"];

const fn per_row(
    kernel: &'static str,
    buffers: &'static [BufferRule],
    dispatch: Dispatch,
    threadgroup_memory: &'static [&'static str],
) -> Contract {
    Contract { kernel, buffers, conditions: &["1 <= V"], dispatch, threadgroup_memory }
}

pub(super) static SAMPLING: &[Contract] = &[
    per_row(
        "argmax_sample",
        &[read("logits", LOGITS), write("out", &["rows"])],
        ONE_GROUP_A_ROW,
        &[ONE_A_SIMDGROUP, ONE_A_SIMDGROUP],
    ),
    per_row("topk_mask", &[update("logits", LOGITS)], ONE_GROUP_A_ROW, &[ONE_A_SIMDGROUP]),
    per_row("softcap_logits", &[update("logits", LOGITS)], ONE_GROUP_A_ROW, &[]),
    per_row("temperature_scale", &[update("logits", LOGITS)], ONE_GROUP_A_ROW, &[]),
    Contract {
        kernel: "penalize_logits",
        buffers: &[update("logits", &["V"]), read("tokens", &["M"]).below("V"), read("counts", &["M"])],
        conditions: &[],
        dispatch: Dispatch::Threads { grid: ["M", "1", "1"], along: 0 },
        threadgroup_memory: &[],
    },
    per_row(
        "argmax_parts",
        &[read("logits", LOGITS), write("part_values", PARTS), write("part_indices", PARTS)],
        PARTS_OF_A_ROW,
        &[ONE_A_SIMDGROUP, ONE_A_SIMDGROUP],
    ),
    Contract {
        kernel: "draw_sample",
        buffers: &[
            read("logits", LOGITS),
            read("positions", &["rows"]),
            read("seeds", &["rows", "2"]),
            write("out", &["rows"]),
        ],
        conditions: &["1 <= V", "V <= 4194304"],
        dispatch: ONE_GROUP_A_ROW,
        threadgroup_memory: &[ONE_A_SIMDGROUP, "8 * ceil(threads / 32)", "4"],
    },
    Contract {
        kernel: "argmax_final",
        buffers: &[read("part_values", PARTS), read("part_indices", PARTS), write("out", &["rows"])],
        conditions: &["1 <= P"],
        dispatch: Dispatch::Rows { grid: ["rows", "1", "1"], length: "P" },
        threadgroup_memory: &[ONE_A_SIMDGROUP, ONE_A_SIMDGROUP],
    },
    per_row(
        "topk_parts",
        &[read("logits", LOGITS), write("candidates", &["rows", "P", "k"])],
        PARTS_OF_A_ROW,
        &[ONE_A_SIMDGROUP],
    ),
    Contract {
        kernel: "topk_threshold",
        buffers: &[
            read("candidates", &["rows", "P", "k"]),
            write("thresholds", &["rows"]),
            write("ties", PARTS),
        ],
        conditions: &["1 <= P", "P <= 1024"],
        dispatch: Dispatch::Groups { grid: ["rows", "1", "1"], threads: "1024" },
        threadgroup_memory: &[ONE_A_SIMDGROUP],
    },
    per_row(
        "topk_apply",
        &[update("logits", LOGITS), read("thresholds", &["rows"]), read("ties", PARTS)],
        PARTS_OF_A_ROW,
        &[ONE_A_SIMDGROUP],
    ),
];
