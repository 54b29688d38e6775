//! The embedded model on the emulated Metal kernels, plain and fused, against the CPU and the reference.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use common::{Runner, prompts};
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_device::trace::Trace;
use thermite_device::{AttentionKind, Dtype, Outputs};
use thermite_kernels::emulator::Build;
use thermite_model::Options;

/// Tokens written after each prompt.
const STEPS: usize = 4;

fn emulated(variants: Variants, options: Options, cache: Dtype) -> Runner<Emulated> {
    Runner::with_cache(Emulated::open(Build::Fast, variants).unwrap(), options, 1, cache)
}

/// Prefills and decodes every reference prompt, and compares tokens and, after the prompt, logits.
fn check(runner: &mut Runner<Emulated>, tolerance: f32) {
    for prompt in prompts() {
        let mut logits = runner.prompt(&prompt.ids);
        let worst = logits.iter().zip(&prompt.last_logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < tolerance, "off by {worst}");
        for &want in &prompt.greedy[prompt.ids.len()..][..STEPS] {
            assert_eq!(common::argmax(&logits), want);
            logits = runner.run(&[(0, &[want], runner.len, Outputs::Last)]).remove(0);
        }
    }
}

#[test]
fn primitive_kernels_write_the_reference() {
    for attention in [AttentionKind::Naive, AttentionKind::Flash] {
        let options = Options { attention, ..Options::default() };
        check(&mut emulated(Variants::Plain, options, Dtype::F32), 2e-4);
    }
}

#[test]
fn fused_kernels_write_the_reference() {
    let mut runner = emulated(Variants::Fast, Options::default(), Dtype::F16);
    check(&mut runner, 2e-2);
    let launched: BTreeSet<String> = runner.model.device().launcher().take_launched().into_iter().collect();
    for kernel in
        ["decode_qkv_layer_f16_f16", "decode_attend_f16_hs32", "decode_up_gelu_f16", "decode_head_layer_f16"]
    {
        assert!(launched.contains(kernel), "{kernel} was not launched: {launched:?}");
    }
}

#[test]
fn the_trace_is_what_is_launched() {
    let tokens = [480, 510, 258, 470];
    let mut traced = Runner::new(Trace::new(), Options::default(), 1);
    traced.prompt(&tokens);
    let mut emulated = emulated(Variants::Plain, Options::default(), Dtype::F32);
    emulated.prompt(&tokens);
    let launched = emulated.model.device().launcher().take_launched();
    let traced: Vec<String> = traced.model.device().take().into_iter().map(|r| r.kernel.to_owned()).collect();
    // a product is one box of the diagram, whoever computes it; an instance is its kernel
    let plain = |name: &String| match name.as_str() {
        "linear_forward_f16" => "matmul".to_owned(),
        other => other.trim_end_matches("_f16").to_owned(),
    };
    assert_eq!(launched.iter().map(plain).collect::<Vec<_>>(), traced);
}
