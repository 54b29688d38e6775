//! `thermite kernels`: the list, the pages, the checks, and KERNELS.md.
#![allow(clippy::unwrap_used)]

mod common;

use common::{error, stdout, thermite};

fn kernels_md() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../KERNELS.md")).unwrap()
}

#[test]
fn kernels_md_is_fresh() {
    let fresh = stdout(&["kernels", "document"]);
    assert!(
        fresh == kernels_md(),
        "KERNELS.md is stale: write it anew with `thermite kernels document > KERNELS.md`"
    );
}

#[test]
fn the_page_shows_the_flow() {
    let flow = stdout(&["flow", "--tokens", "4"]);
    assert!(kernels_md().contains(flow.trim_end()), "KERNELS.md and `thermite flow` differ");
    // and every kernel that the flow names has its place on the page; a product may be the vendor's
    let named = flow.lines().filter_map(|line| line.strip_prefix("  │    ")?.split_whitespace().next());
    let named: Vec<_> = named.filter(|name| *name != "matmul").collect();
    assert!(named.len() > 15, "{flow}");
    for kernel in named {
        assert!(kernels_md().contains(&format!("| `{kernel}` |")), "{kernel} has no row");
    }
}

#[test]
fn every_kernel_of_the_reference_is_listed() {
    let list = stdout(&["kernels"]);
    for kernel in [
        "embedding_forward",
        "positional_embedding_add",
        "layernorm_forward",
        "rmsnorm_forward",
        "attention_scores",
        "softmax_inplace",
        "attention_mix",
        "rope_forward",
        "gelu_forward",
        "silu_forward",
        "swiglu_forward",
        "relu_forward",
        "sigmoid_forward",
        "residual_add",
        "residual_layernorm",
        "residual_rmsnorm",
        "argmax_sample",
        "topk_mask",
        "softcap_logits",
        "temperature_scale",
        "flash_attention_forward",
    ] {
        assert!(list.lines().any(|line| line.split_whitespace().next() == Some(kernel)), "{kernel}:\n{list}");
    }
}

#[test]
fn a_page_has_bindings_launch_and_source() {
    let page = stdout(&["kernels", "show", "layernorm_forward", "--dims", "N=4,C=768"]);
    insta::assert_snapshot!(page.split("// layernorm.metal").next().unwrap());
    assert!(page.contains("kernel void"), "{page}");
}

#[test]
fn a_wrong_name_is_an_error() {
    for arguments in
        [&["kernels", "show", "layernorm_backward"][..], &["kernels", "check", "--device", "cpu", "nothing"]]
    {
        let output = thermite(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no kernel"), "{output:?}");
    }
}

#[test]
fn dimensions_are_those_of_the_kernel() {
    for (dims, message) in [
        ("N=4,C=768,Z=3", "--dims: layernorm_forward has no dimension Z; it has N, C"),
        ("N=4,N=5,C=7", "--dims: N is given twice"),
        ("N=4", "dimension C is not given"),
    ] {
        let command = &mut thermite(["kernels", "show", "layernorm_forward", "--dims", dims]);
        assert_eq!(error(command), message);
    }
    // one that only the kernel's constants name, and one that the instance's name says
    let kernel = "decode_attend_f16_hs64";
    let message = error(&mut thermite(["kernels", "show", kernel, "--dims", "Z=1"]));
    let known: Vec<_> = message.split("it has ").last().unwrap().split(", ").collect();
    assert!(known.contains(&"window") && known.contains(&"nh") && !known.contains(&"built_hs"), "{message}");
}

#[test]
fn checks_run_and_count() {
    for device in ["cpu", "emulated"] {
        let report = stdout(&["kernels", "check", "--device", device, "softmax", "argmax"]);
        assert!(report.contains("softmax_inplace"), "{report}");
        assert!(report.trim_end().ends_with(", 0 failed"), "{report}");
    }
}
