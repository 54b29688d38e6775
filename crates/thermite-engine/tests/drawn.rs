//! Drawn texts: the same whether the host chooses each token or the device one after the other.
#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;

use thermite_device::cpu::{Cpu, Isa};
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_device::{Device, Dtype};
use thermite_engine::{BUILTIN, Engine, EngineOptions, GenerateParams, SamplingParams, open_model};
use thermite_kernels::emulator::Build;

/// Of a text.
const TOKENS: usize = 7;

fn engine<D: Device>(device: D) -> Engine<D> {
    let options =
        EngineOptions { context: Some(12), chunk: 8, kv_dtype: Some(Dtype::F32), ..EngineOptions::default() };
    Engine::load(&open_model(BUILTIN).unwrap(), device, &options).unwrap()
}

fn tokens<D: Device>(engine: &mut Engine<D>, sampling: &SamplingParams) -> Vec<u32> {
    let prompt = engine.encode("Once upon a time").unwrap();
    let params = GenerateParams {
        sampling: sampling.clone(),
        max_tokens: Some(TOKENS),
        ignore_eos: true,
        ..GenerateParams::default()
    };
    engine.generate(&prompt, &params, |_| ControlFlow::Continue(())).unwrap().token_ids
}

fn params(temperature: f32, top_k: usize, top_p: f32, min_p: f32, seed: u64) -> SamplingParams {
    SamplingParams { temperature, top_k, top_p, min_p, seed: Some(seed), ..SamplingParams::default() }
}

#[test]
fn the_host_and_the_device_draw_one_text() {
    let mut cpu = engine(Cpu::with(Some(2), Isa::detect()).unwrap());
    let mut plain = engine(Emulated::open(Build::Fast, Variants::Fast).unwrap());
    let mut recording = engine(Emulated::recording(Build::Fast, Variants::Fast).unwrap());
    let draws = |engine: &Engine<Emulated>| {
        let launched = engine.device().launcher().take_launched();
        launched.iter().filter(|name| *name == "draw_sample").count()
    };
    let (filtered, all) = (params(0.8, 50, 0.95, 0.05, 7), params(1.0, 0, 1.0, 0.0, 8));
    let texts = [filtered.clone(), all].map(|params| {
        let text = tokens(&mut plain, &params);
        assert_eq!(draws(&plain), TOKENS);
        assert_eq!(text, tokens(&mut recording, &params), "{params:?}, on the device alone");
        // which was some steps ahead of the text
        assert!(draws(&recording) > TOKENS);
        assert_eq!(text, tokens(&mut cpu, &params), "{params:?}, on the CPU");
        text
    });
    assert_ne!(texts[0], texts[1]);

    // what the device does not know of is chosen by the host, token by token
    let penalized = SamplingParams { presence_penalty: -20.0, ..filtered };
    assert_ne!(texts[0], tokens(&mut recording, &penalized));
    assert_eq!(draws(&recording), TOKENS);
}
