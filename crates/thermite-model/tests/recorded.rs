//! Recorded steps against the same steps launched one by one: what a recording froze must not be what a step decides.
#![allow(clippy::unwrap_used)]

mod common;

use common::tiny::tiny_models;
use common::{Runner, prompts};
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_device::{Device, Draw, Dtype, Outputs};
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

/// As [`Runner::alone`], behind a prompt.
fn run_alone(
    runner: &mut Runner<Emulated>,
    stepper: Stepper<Emulated>,
    prompt: &[u32],
    token: u32,
) -> (Vec<i32>, Vec<String>) {
    for (i, piece) in prompt.chunks(CHUNK).enumerate() {
        runner.run(&[(0, piece, i * CHUNK, Outputs::Last)]);
    }
    runner.alone(stepper, token, prompt.len())
}

/// Tokens that a device chooses alone are the reference's; what the last run but one launched.
fn steps_alone(device: Emulated) -> Vec<String> {
    let prompt = prompts().remove(0);
    let mut runner = runner(device, Dtype::F16);
    let stepper = Stepper::new(&runner.model, 1).unwrap();
    let read = prompt.ids.len();
    let (tokens, launched) = run_alone(&mut runner, stepper, &prompt.ids, prompt.greedy[read]);
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
    let launched = steps_alone(Emulated::resident(Build::Fast, 6, 1).unwrap());
    assert_eq!(launched, [steps::entry()]);
}

/// A small model, as the test needs no other.
fn tiny(device: Emulated) -> Runner<Emulated> {
    let options = Options { max_rows: CHUNK, ..Options::default() };
    Runner::of(&tiny_models()[0].folder(), device, options, 1, Dtype::F32)
}

#[test]
fn drawn_steps_on_the_device_alone() {
    let draw = Draw { temperature: 0.8, top_k: 50, top_p: 0.95, min_p: 0.05 };
    let of = |device, seed| {
        let mut runner = tiny(device);
        let stepper = Stepper::drawing(&runner.model, draw, &[seed]).unwrap();
        run_alone(&mut runner, stepper, &[5, 6, 7], 8).0
    };
    let recording = || Emulated::recording(Build::Fast, Variants::Fast).unwrap();
    let recorded = of(recording(), 7);
    assert_eq!(recorded, of(Emulated::open(Build::Fast, Variants::Fast).unwrap(), 7));
    assert_eq!(recorded, of(Emulated::resident(Build::Fast, 6, 1).unwrap(), 7));
    assert_ne!(recorded, of(recording(), 8));
}

/// Logits that pass all numbers are told of where their token is read; the device went on meanwhile.
#[test]
fn nothing_to_draw() {
    let draw = Draw { temperature: 1e-45, top_k: 0, top_p: 1.0, min_p: 0.0 };
    let mut runner = tiny(Emulated::recording(Build::Fast, Variants::Fast).unwrap());
    let blocks = runner.blocks(0);
    let mut stepper = Stepper::drawing(&runner.model, draw, &[1]).unwrap();
    let row = DecodingRow { token: 3, position: 0, blocks: &blocks };
    stepper.start(&runner.model, &[row], &runner.cache).unwrap();
    stepper.run(&mut runner.model, &mut runner.cache, 3).unwrap();
    let device = runner.model.device();
    let error = stepper.read(&runner.model, &device.mark().unwrap(), 0, 1, &mut [0; 2]).unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("no token can be drawn for position 1:"), "{error}");
}
