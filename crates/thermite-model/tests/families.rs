//! Small models of each architecture against float64 arithmetic written plainly, from Hugging Face folders and GGUF.
#![allow(clippy::unwrap_used)]

mod common;

use common::tiny::{N_VOCAB, Tiny, tiny_models};
use common::{Runner, cpu};
use serde_json::{Value, json};
use thermite_device::cpu::Isa;
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_device::{AttentionKind, Device, Dtype, Outputs};
use thermite_formats::ModelFiles;
use thermite_kernels::emulator::Build;
use thermite_model::Options;

/// How far logits may be from the oracle's, as a share of the largest.
const TOLERANCE: f64 = 4e-6;

/// Tokens that reach well past every window.
const LEN: usize = 41;

fn tokens(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i * 7 + i * 13 + 5) % N_VOCAB as u32).collect()
}

fn options(attention: AttentionKind) -> Options {
    Options { attention, max_rows: 128, max_outputs: 64, ..Options::default() }
}

fn runner<D: Device>(files: &ModelFiles, device: D, attention: AttentionKind) -> Runner<D> {
    Runner::of(files, device, options(attention), 1, Dtype::F32)
}

/// The logits after each token, all at once.
fn logits<D: Device>(runner: &mut Runner<D>, tokens: &[u32]) -> Vec<Vec<f32>> {
    runner.run(&[(0, tokens, 0, Outputs::All)])
}

/// The largest difference, as a share of the largest logit.
fn error(have: &[Vec<f32>], want: &[Vec<f64>]) -> f64 {
    assert_eq!(have.len(), want.len());
    let pairs = have.iter().flatten().zip(want.iter().flatten());
    let worst = pairs.map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    worst / want.iter().flatten().fold(0.0_f64, |most, x| most.max(x.abs()))
}

fn bits(logits: &[Vec<f32>]) -> Vec<u32> {
    logits.iter().flatten().map(|x| x.to_bits()).collect()
}

fn each_model(check: impl Fn(&Tiny)) {
    tiny_models().iter().for_each(check);
}

#[test]
fn logits_are_those_of_the_oracle() {
    let tokens = tokens(LEN);
    each_model(|tiny| {
        let want = tiny.oracle().logits(&tokens);
        for isa in Isa::available() {
            for attention in [AttentionKind::Naive, AttentionKind::Flash] {
                let have = logits(&mut runner(&tiny.folder(), cpu(2, isa), attention), &tokens);
                let error = error(&have, &want);
                println!("{}, {}, {attention:?}: off by {error:e}", tiny.name, isa.name());
                assert!(error < TOLERANCE, "{}, {isa:?}, {attention:?}: {error}", tiny.name);
            }
        }
    });
}

#[test]
fn hidden_states_are_those_of_the_oracle() {
    let tokens = tokens(LEN);
    each_model(|tiny| {
        let want = tiny.oracle().hidden(&tokens);
        for outputs in [Outputs::None, Outputs::Last] {
            let mut runner = runner(&tiny.folder(), cpu(2, Isa::detect()), AttentionKind::Auto);
            runner.run(&[(0, &tokens, 0, outputs)]);
            let mut have = vec![0.0; LEN * want[0].len()];
            runner.model.read_hidden(LEN, &mut have).unwrap();
            let have: Vec<Vec<f32>> = have.chunks(want[0].len()).map(<[f32]>::to_vec).collect();
            let error = error(&have, &want);
            assert!(error < TOLERANCE, "{}, {outputs:?}: {error}", tiny.name);
            assert!(runner.model.read_hidden(LEN + 1, &mut []).is_err());
        }
    });
}

#[test]
fn every_field_is_heeded() {
    let tokens = tokens(LEN);
    let models = tiny_models();
    let linear = |factor: f64| json!({"rope_type": "linear", "factor": factor});
    for (name, field, value) in [
        ("llama", "rms_norm_eps", json!(0.1)),
        ("llama", "rope_theta", json!(600.0)),
        ("llama", "rope_scaling", Value::Null),
        ("llama", "rope_scaling", linear(2.0)),
        ("mistral", "sliding_window", json!(6)),
        ("mistral", "sliding_window", Value::Null),
        ("qwen2", "use_sliding_window", json!(false)),
        ("qwen2", "max_window_layers", json!(0)),
        ("qwen2", "layer_types", json!(["sliding_attention", "full_attention"])),
        ("gemma2", "query_pre_attn_scalar", json!(33)),
        ("gemma2", "attn_logit_softcapping", Value::Null),
        ("gemma2", "attn_logit_softcapping", json!(3.9)),
        ("gemma2", "final_logit_softcapping", Value::Null),
        ("gemma2", "sliding_window", json!(5)),
        ("gemma3", "sliding_window_pattern", json!(2)),
        ("gemma3", "rope_local_base_freq", json!(90.0)),
        ("gemma3", "rope_theta", json!(4000.0)),
        ("gemma3", "rope_scaling", linear(7.0)),
    ] {
        let tiny = models.iter().find(|tiny| tiny.name == name).unwrap();
        let mut config = tiny.config.clone();
        config[field] = value;
        let device = cpu(1, Isa::detect());
        let have = logits(&mut runner(&tiny.folder_with(&config), device, AttentionKind::Auto), &tokens);
        let error = error(&have, &tiny.oracle().logits(&tokens));
        assert!(error > 100.0 * TOLERANCE, "{name}: {field} changes {error}");
    }
}

#[test]
fn gguf_gives_the_same_bits() {
    let tokens = tokens(LEN);
    each_model(|tiny| {
        let Some(gguf) = tiny.gguf() else { return };
        let run = |files| logits(&mut runner(files, cpu(1, Isa::detect()), AttentionKind::Auto), &tokens);
        let (folder, gguf) = (run(&tiny.folder()), run(&gguf));
        let worst = folder.iter().flatten().zip(gguf.iter().flatten()).map(|(a, b)| (a - b).abs());
        // the divisors of LLaMA 3 are rounded to f32 in GGUF
        let limit = if tiny.name == "llama" { 1e-5 } else { 0.0 };
        let worst = worst.fold(0.0, f32::max);
        assert!(worst <= limit, "{}: {worst}", tiny.name);
    });
}

#[test]
fn chunks_across_a_window_change_nothing() {
    let tokens = tokens(LEN);
    each_model(|tiny| {
        for attention in [AttentionKind::Naive, AttentionKind::Flash] {
            let new = || runner(&tiny.folder(), cpu(2, Isa::detect()), attention);
            let whole = bits(&logits(&mut new(), &tokens));
            for chunk in [1, 3, 16] {
                let mut runner = new();
                let parts = tokens.chunks(chunk).enumerate();
                let cut: Vec<Vec<f32>> =
                    parts.flat_map(|(i, part)| runner.run(&[(0, part, i * chunk, Outputs::All)])).collect();
                assert_eq!(whole, bits(&cut), "{}: chunks of {chunk}", tiny.name);
            }
        }
    });
}

#[test]
fn company_and_threads_change_nothing() {
    each_model(|tiny| {
        let prompts = [tokens(LEN), tokens(3), tokens(17)];
        let run = |threads| {
            let device = cpu(threads, Isa::detect());
            let mut together =
                Runner::of(&tiny.folder(), device, options(AttentionKind::Auto), 3, Dtype::F32);
            let spans: Vec<_> =
                prompts.iter().enumerate().map(|(i, p)| (i, &p[..], 0, Outputs::Last)).collect();
            together.run(&spans)
        };
        let together = run(3);
        assert_eq!(bits(&together), bits(&run(1)), "{}", tiny.name);
        for (prompt, logits) in prompts.iter().zip(&together) {
            let alone = runner(&tiny.folder(), cpu(1, Isa::detect()), AttentionKind::Auto).prompt(prompt);
            assert_eq!(bits(&[alone]), bits(std::slice::from_ref(logits)), "{}", tiny.name);
        }
    });
}

#[test]
fn the_kernels_compute_the_same() {
    let tokens = tokens(19);
    each_model(|tiny| {
        let want = tiny.oracle().logits(&tokens);
        for variants in [Variants::Plain, Variants::Fast] {
            for attention in [AttentionKind::Naive, AttentionKind::Flash] {
                let device = Emulated::open(Build::Fast, variants).unwrap();
                let mut runner = runner(&tiny.folder(), device, attention);
                let (prefill, rest) = tokens.split_at(16);
                let mut have = logits(&mut runner, prefill);
                for (i, token) in rest.iter().enumerate() {
                    have.extend(runner.run(&[(0, &[*token], 16 + i, Outputs::Last)]));
                }
                let error = error(&have, &want);
                println!("{}, {variants:?}, {attention:?}: off by {error:e}", tiny.name);
                assert!(error < TOLERANCE, "{}, {variants:?}, {attention:?}: {error}", tiny.name);
            }
        }
    });
}
