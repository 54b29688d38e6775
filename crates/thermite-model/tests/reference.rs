//! The embedded model against float64 arithmetic on the same weights.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Runner, argmax, cpu, prompts};
use thermite_device::cpu::Isa;
use thermite_device::{AttentionKind, Outputs};
use thermite_model::Options;

fn each_way(mut check: impl FnMut(Isa, AttentionKind)) {
    for isa in Isa::available() {
        for kind in [AttentionKind::Naive, AttentionKind::Flash, AttentionKind::Auto] {
            check(isa, kind);
        }
    }
}

#[test]
fn logits_are_those_of_the_reference() {
    each_way(|isa, attention| {
        let options = Options { attention, ..Options::default() };
        let mut runner = Runner::new(cpu(2, isa), options, 1);
        for prompt in prompts() {
            let logits = runner.prompt(&prompt.ids);
            assert_eq!(logits.len(), prompt.last_logits.len());
            let worst = logits.iter().zip(&prompt.last_logits).map(|(a, b)| (a - b).abs());
            let worst = worst.fold(0.0, f32::max);
            println!("{} {attention:?}: off by {worst:e}", isa.name());
            assert!(worst < 2e-4);
        }
    });
}

#[test]
fn greedy_tokens_are_those_of_the_reference() {
    each_way(|isa, attention| {
        let options = Options { attention, ..Options::default() };
        let mut runner = Runner::new(cpu(2, isa), options, 1);
        for prompt in prompts() {
            let mut ids = prompt.ids.clone();
            let mut next = argmax(&runner.prompt(&ids));
            while ids.len() < prompt.greedy.len() {
                let start = ids.len();
                ids.push(next);
                let logits = runner.run(&[(0, &[next], start, Outputs::Last)]);
                next = argmax(&logits[0]);
            }
            assert_eq!(ids, prompt.greedy, "{isa:?} {attention:?}");
        }
    });
}
