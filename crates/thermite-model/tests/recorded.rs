//! Recorded steps against the same steps launched one by one: what a recording froze must not be what a step decides.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Runner, prompts};
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_device::{Device, Dtype, Outputs};
use thermite_kernels::emulator::Build;
use thermite_kernels::hopper::steps;
use thermite_model::{DecodingRow, Options, Stepper};

/// Rows of a piece of a prompt.
const CHUNK: usize = 8;
/// Tokens of the prompt: half of its pieces have block tables of one width, and are of one form.
const TOKENS: usize = 8 * CHUNK;

fn runner(device: Emulated, cache: Dtype) -> Runner<Emulated> {
    let options = Options { context: Some(2 * TOKENS), max_rows: CHUNK, ..Options::default() };
    Runner::with_cache(device, options, 1, cache)
}

/// Logits behind each piece of a prompt of reference tokens.
fn logits_of(runner: &mut Runner<Emulated>) -> Vec<Vec<f32>> {
    let tokens: Vec<u32> = prompts().iter().flat_map(|prompt| prompt.greedy.clone()).take(TOKENS).collect();
    let pieces = tokens.chunks(CHUNK).enumerate();
    pieces.flat_map(|(i, piece)| runner.run(&[(0, piece, i * CHUNK, Outputs::Last)])).collect()
}

#[test]
fn pieces_of_a_prompt() {
    for cache in [Dtype::F32, Dtype::F16] {
        let mut plain = runner(Emulated::open(Build::Fast, Variants::Fast).unwrap(), cache);
        let mut recorded = runner(Emulated::recording(Build::Fast, Variants::Fast).unwrap(), cache);
        let (want, have) = (logits_of(&mut plain), logits_of(&mut recorded));
        let piece = want.iter().zip(&have).position(|(want, have)| want != have);
        assert_eq!(piece, None, "the first piece that differs, with a cache of {cache:?}");
    }
}

/// Tokens that a device chooses alone are the reference's; what the last run but one launched. The third run of eight is
/// recorded, the fourth replays it, and what is left goes step by step.
fn steps_alone(device: Emulated) -> Vec<String> {
    let prompt = prompts().remove(0);
    let mut runner = runner(device, Dtype::F16);
    for (i, piece) in prompt.ids.chunks(CHUNK).enumerate() {
        runner.run(&[(0, piece, i * CHUNK, Outputs::Last)]);
    }
    let (read, blocks) = (prompt.ids.len(), runner.blocks(0));
    let row = DecodingRow { token: prompt.greedy[read], position: read, blocks: &blocks };
    let mut stepper = Stepper::new(&runner.model, 1).unwrap();
    stepper.start(&runner.model, &[row], &runner.cache).unwrap();
    let counts = [8, 8, 8, 8, 1];
    let mut launched = Vec::new();
    for count in counts {
        launched = runner.model.device().launcher().take_launched();
        stepper.run(&mut runner.model, &mut runner.cache, count).unwrap();
    }
    let mut tokens = vec![0; counts.iter().sum()];
    let device = runner.model.device();
    stepper.read(&runner.model, &device.mark().unwrap(), 0, 0, &mut tokens).unwrap();
    let want: Vec<i32> = prompt.greedy[read + 1..][..tokens.len()].iter().map(|&id| id as i32).collect();
    assert_eq!(tokens, want);
    launched
}

#[test]
fn steps_on_the_device_alone() {
    steps_alone(Emulated::recording(Build::Fast, Variants::Fast).unwrap());
}

#[test]
fn steps_in_one_launch() {
    let launched = steps_alone(Emulated::resident(Build::Fast, 1).unwrap());
    assert_eq!(launched, [steps::entry()]);
}
