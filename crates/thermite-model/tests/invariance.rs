//! A row's logits are the same bits whoever else is in the batch, however its prompt is cut, on any number of threads.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Runner, cpu};
use thermite_device::cpu::Isa;
use thermite_device::{AttentionKind, Outputs};
use thermite_model::Options;

/// Long enough to cross tiles, pages and the flash kernel's blocks.
const LEN: usize = 197;

fn tokens(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i * 31 + i * 7 + seed * 977) % 4096).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

fn each_way(mut check: impl FnMut(&mut dyn FnMut(usize) -> Runner<thermite_device::cpu::Cpu>)) {
    for isa in Isa::available() {
        for attention in [AttentionKind::Naive, AttentionKind::Flash] {
            let options = Options { attention, max_rows: 1024, max_outputs: 7, ..Options::default() };
            check(&mut |threads| Runner::new(cpu(threads, isa), options, 7));
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
