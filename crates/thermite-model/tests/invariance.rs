//! A row's logits are the same bits whoever else is in the batch, however its prompt is cut, on any number of threads.
#![allow(clippy::unwrap_used)]

mod common;

use common::tiny::{N_VOCAB, tiny_models};
use common::{Runner, cpu};
use thermite_device::cpu::Isa;
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_device::{Dtype, Outputs};
use thermite_kernels::emulator::Build;
use thermite_model::Options;

/// Long enough to cross tiles, pages and groups of keys.
const LEN: usize = 197;

fn tokens(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i * 31 + i * 7 + seed * 977) % 4096).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

fn each_way(mut check: impl FnMut(&mut dyn FnMut(usize) -> Runner<thermite_device::cpu::Cpu>)) {
    for isa in Isa::available() {
        for cache in [Dtype::F32, Dtype::Q8_0] {
            let options = Options { max_rows: 1024, max_outputs: 7, ..Options::default() };
            check(&mut |threads| Runner::with_cache(cpu(threads, isa), options, 7, cache));
        }
    }
}

#[test]
fn threads_change_nothing() {
    each_way(|runner| {
        let prompt = tokens(1, LEN);
        let one = bits(&runner(1).prompt(&prompt));
        assert_eq!(one, bits(&runner(2).prompt(&prompt)));
        assert_eq!(one, bits(&runner(3).prompt(&prompt)));
    });
}

#[test]
fn chunks_change_nothing() {
    each_way(|runner| {
        let prompt = tokens(2, LEN);
        let whole = bits(&runner(2).prompt(&prompt));
        for chunk in [1, 3, 64] {
            let mut runner = runner(2);
            let mut last = Vec::new();
            for (i, part) in prompt.chunks(chunk).enumerate() {
                last = runner.run(&[(0, part, i * chunk, Outputs::Last)]).remove(0);
            }
            assert_eq!(whole, bits(&last), "chunks of {chunk}");
        }
    });
}

#[test]
fn company_changes_nothing() {
    each_way(|runner| {
        let prompts: Vec<_> = (0..7).map(|i| tokens(i, [LEN, 1, 31, 64, 5, 100, 33][i as usize])).collect();
        let mut together = runner(2);
        let spans: Vec<_> =
            prompts.iter().enumerate().map(|(i, p)| (i, p.as_slice(), 0, Outputs::Last)).collect();
        let prefill = together.run(&spans);
        let next: Vec<_> =
            prompts.iter().enumerate().map(|(i, p)| (i, &[9u32][..], p.len(), Outputs::Last)).collect();
        let decode = together.run(&next);
        for (i, prompt) in prompts.iter().enumerate() {
            let mut alone = runner(2);
            assert_eq!(bits(&prefill[i]), bits(&alone.prompt(prompt)), "prefill of {i}");
            let logits = alone.run(&[(0, &[9], prompt.len(), Outputs::Last)]);
            assert_eq!(bits(&decode[i]), bits(&logits[0]), "decode of {i}");
        }
    });
}

#[test]
fn what_lies_in_free_pages_changes_nothing() {
    each_way(|runner| {
        let prompt = tokens(3, 40);
        let clean = bits(&runner(2).prompt(&prompt));
        let mut used = runner(2);
        used.run(&[(0, &tokens(4, LEN), 0, Outputs::None)]);
        assert_eq!(clean, bits(&used.prompt(&prompt)));
    });
}

/// The kernels that promise it, on the emulated GPU: narrow weights and a cache that the matrix kernels read, and every
/// family in floats with heads that only the plain kernel has.
#[test]
fn batch_invariant_kernels() {
    let options = Options { max_rows: 64, max_outputs: 3, ..Options::default() };
    let open = || Emulated::recording(Build::Fast, Variants::Invariant).unwrap();
    alike(&mut || Runner::with_cache(open(), options, 3, Dtype::F16), 4096);
    for (tiny, cache) in tiny_models().iter().zip([Dtype::F32, Dtype::F16].into_iter().cycle()) {
        let files = tiny.folder();
        alike(&mut || Runner::of(&files, open(), options, 3, cache), N_VOCAB as u32);
    }
}

/// A prompt's logits, and those of the token after it, whole and in chunks, alone and in company.
fn alike(runner: &mut dyn FnMut() -> Runner<Emulated>, n_vocab: u32) {
    let prompts: Vec<Vec<u32>> = [11, 1, 3]
        .iter()
        .enumerate()
        .map(|(i, &len)| tokens(i as u32, len).iter().map(|token| token % n_vocab).collect())
        .collect();
    let mut alone = runner();
    let want: Vec<_> = prompts
        .iter()
        .map(|prompt| {
            let whole = alone.prompt(prompt);
            let next = alone.run(&[(0, &[9], prompt.len(), Outputs::Last)]);
            (bits(&whole), bits(&next[0]))
        })
        .collect();

    let mut pieces = runner();
    for chunk in [1, 4] {
        let mut last = Vec::new();
        for (i, part) in prompts[0].chunks(chunk).enumerate() {
            last = pieces.run(&[(0, part, i * chunk, Outputs::Last)]).remove(0);
        }
        assert_eq!(want[0].0, bits(&last), "chunks of {chunk}");
    }

    let mut together = runner();
    let spans: Vec<_> = prompts.iter().enumerate().map(|(i, p)| (i, &p[..], 0, Outputs::Last)).collect();
    let whole = together.run(&spans);
    let spans: Vec<_> =
        prompts.iter().enumerate().map(|(i, p)| (i, &[9u32][..], p.len(), Outputs::Last)).collect();
    let next = together.run(&spans);
    for (i, want) in want.iter().enumerate() {
        assert_eq!(*want, (bits(&whole[i]), bits(&next[i])), "prompt {i} in company");
    }
}
