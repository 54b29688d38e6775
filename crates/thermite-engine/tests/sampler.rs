//! The sampling pipeline on the CPU device against a plain one in float64.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use thermite_device::Device;
use thermite_device::cpu::{Cpu, Isa};
use thermite_device::draw::random_bits;
use thermite_device::emulated::Emulated;
use thermite_device::launched::Variants;
use thermite_engine::{Chooser, Sampler, SamplingParams};
use thermite_kernels::emulator::Build;

/// What rounding may move: nothing is decided by less.
const EDGE: f64 = 1e-4;

/// The reference's order, in float64: soft cap, penalties, temperature, top-k, softmax, then which of the tokens top-p and
/// min-p keep. None where one of the cuts falls so close to a token that rounding decides.
fn plain(logits: &[f32], params: &SamplingParams, history: &[u32]) -> Option<(Vec<f64>, Vec<bool>)> {
    let mut x: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
    if let Some(cap) = params.softcap.map(f64::from) {
        x.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    }
    let recent = &history[history.len().saturating_sub(params.repeat_last_n)..];
    for (token, x) in x.iter_mut().enumerate() {
        let count = recent.iter().filter(|&&seen| seen as usize == token).count() as f64;
        if count > 0.0 {
            let repeat = f64::from(params.repeat_penalty);
            *x = if *x > 0.0 { *x / repeat } else { *x * repeat };
            *x -= f64::from(params.presence_penalty) + f64::from(params.frequency_penalty) * count;
        }
    }
    x.iter_mut().for_each(|x| *x /= f64::from(params.temperature));
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[b].total_cmp(&x[a]).then(a.cmp(&b)));
    if params.top_k > 0 && params.top_k < x.len() {
        if x[order[params.top_k - 1]] - x[order[params.top_k]] < EDGE {
            return None;
        }
        order.iter().skip(params.top_k).for_each(|&token| x[token] = f64::NEG_INFINITY);
    }
    let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut p: Vec<f64> = x.iter().map(|x| (x - top).exp()).collect();
    let sum: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= sum);
    let mut kept = vec![true; p.len()];
    let (mut before, mut last) = (0.0, f64::INFINITY);
    let top_p = f64::from(params.top_p);
    let least = f64::from(params.min_p) * p[order[0]];
    for &token in &order {
        let own = p[token];
        let beyond = top_p < 1.0 && before >= top_p;
        let close = top_p < 1.0 && ((before - top_p).abs() < EDGE || (beyond && last - own < EDGE * own));
        if own > 0.0 && (close || (own - least).abs() < EDGE * least) {
            return None;
        }
        before += own;
        if beyond || own < least {
            kept[token] = false;
        } else {
            last = own;
        }
    }
    Some((p, kept))
}

/// The token that is drawn: at a random point of the cumulated probabilities, again and again among those likelier than
/// the last, until one is kept; and how far a point was from another token.
fn choose(p: &[f64], kept: &[bool], seed: u64, position: i32) -> (u32, f64) {
    let mut left: Vec<usize> = (0..p.len()).collect();
    let mut margin = f64::INFINITY;
    for n in 0.. {
        let all: f64 = left.iter().map(|&token| p[token]).sum();
        let point = random_bits(seed, position, n) as f64 / 2f64.powi(64) * all;
        let mut end = 0.0;
        let found = left.iter().copied().find(|&token| {
            end += p[token];
            point < end
        });
        let token = found.unwrap();
        margin = margin.min((end - point).min(point - (end - p[token])) / all);
        if kept[token] {
            return (token as u32, margin);
        }
        left.retain(|&other| (p[other], token) > (p[token], other));
    }
    unreachable!()
}

fn params() -> impl Strategy<Value = SamplingParams> {
    (
        0.2f32..3.0,
        0usize..40,
        prop_oneof![Just(1.0f32), 0.1f32..1.0],
        prop_oneof![Just(0.0f32), 0.0f32..0.5],
        prop_oneof![Just(1.0f32), 0.5f32..2.0],
        prop_oneof![Just(0.0f32), -1.0f32..1.0],
        prop_oneof![Just(0.0f32), -1.0f32..1.0],
        prop_oneof![Just(None), (1.0f32..30.0).prop_map(Some)],
    )
        .prop_map(|(temperature, top_k, top_p, min_p, repeat, presence, frequency, softcap)| {
            SamplingParams {
                temperature,
                top_k,
                top_p,
                min_p,
                repeat_penalty: repeat,
                repeat_last_n: 16,
                presence_penalty: presence,
                frequency_penalty: frequency,
                softcap,
                seed: None,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_order_of_operations_is_the_references(
        logits in proptest::collection::vec(-12.0f32..12.0, 33..90),
        params in params(),
        history in proptest::collection::vec(0u32..33, 0..30),
        seed in any::<u64>(),
    ) {
        let d = Cpu::with(Some(1), Isa::detect()).unwrap();
        let mut sampler = Sampler::new(&d, logits.len()).unwrap();
        // the row is one of several, and stays as it is
        let rows: Vec<f32> = logits.iter().map(|x| -x).chain(logits.iter().copied()).collect();
        let buffer = d.upload_f32(&rows).unwrap();
        let params = SamplingParams { seed: Some(seed), ..params };
        let mut chooser = Chooser::new(params.clone()).unwrap();
        let token = sampler.sample(&d, &buffer, 1, &mut chooser, &history).unwrap();

        let plain = plain(&logits, &params, &history);
        prop_assume!(plain.is_some());
        let (p, kept) = plain.unwrap();
        let (want, margin) = choose(&p, &kept, seed, history.len() as i32 - 1);
        prop_assume!(margin > EDGE * 0.1);
        prop_assert_eq!(token, want);
        let mut after = vec![0.0; rows.len()];
        d.read_f32(&buffer, 0, &mut after).unwrap();
        prop_assert_eq!(after, rows);
    }

    #[test]
    fn greedy_is_the_largest_after_the_penalties(
        logits in proptest::collection::vec(-3.0f32..3.0, 5..60),
        history in proptest::collection::vec(0u32..5, 0..9),
        presence in 0.0f32..4.0,
    ) {
        let d = Cpu::with(Some(1), Isa::detect()).unwrap();
        let mut sampler = Sampler::new(&d, logits.len()).unwrap();
        let params = SamplingParams { presence_penalty: presence, ..SamplingParams::greedy() };
        let buffer = d.upload_f32(&logits).unwrap();
        let token = sampler.sample(&d, &buffer, 0, &mut Chooser::new(params).unwrap(), &history).unwrap();
        let penalized = |i: usize| logits[i] - if history.contains(&(i as u32)) { presence } else { 0.0 };
        let largest = (0..logits.len()).map(penalized).fold(f32::NEG_INFINITY, f32::max);
        prop_assert_eq!(penalized(token as usize), largest);
    }
}

#[test]
fn nothing_can_be_chosen_from_nan() {
    let d = Cpu::with(Some(1), Isa::detect()).unwrap();
    let mut sampler = Sampler::new(&d, 8).unwrap();
    let row = |first, rest| [[first].as_slice(), &[rest; 7]].concat();
    let nothing = [row(f32::NAN, f32::NAN), row(f32::NEG_INFINITY, f32::NAN)];
    for temperature in [0.0, 1.0] {
        let sampling = SamplingParams { temperature, ..SamplingParams::default() };
        for logits in &nothing {
            let buffer = d.upload_f32(logits).unwrap();
            let mut chooser = Chooser::new(sampling.clone()).unwrap();
            let error = sampler.sample(&d, &buffer, 0, &mut chooser, &[1]).unwrap_err();
            assert!(error.to_string().contains("logits of 8 tokens"), "{error}");
            assert!(sampler.logprobs(&d, &buffer, 0, 0, 1).is_err());
        }
    }
    let two = |second: &[f32]| d.upload_f32(&[row(0.0, f32::NAN), second.to_vec()].concat()).unwrap();
    assert_eq!(sampler.argmax(&d, &two(&row(f32::NAN, -1.0)), 2).unwrap(), [0, 1]);
    for second in &nothing {
        let error = sampler.argmax(&d, &two(second), 2).unwrap_err();
        assert!(error.to_string().contains("logits of 8 tokens"), "{error}");
    }
}

#[test]
fn the_pipeline_runs_in_metal_kernels() {
    let v = 1025;
    let logits: Vec<f32> = (0..v).map(|i| ((i * 7919) % 1031) as f32 / 90.0 - 6.0).collect();
    let history: Vec<u32> = (0..40).map(|i| i * 13 % v as u32).collect();
    let all = SamplingParams {
        temperature: 0.7,
        top_k: 50,
        top_p: 0.9,
        min_p: 0.01,
        repeat_penalty: 1.3,
        presence_penalty: 0.2,
        frequency_penalty: 0.1,
        softcap: Some(10.0),
        ..SamplingParams::default()
    };
    let cpu = Cpu::with(Some(1), Isa::detect()).unwrap();
    let emulated = Emulated::open(Build::Fast, Variants::Plain).unwrap();
    for params in [all.clone(), SamplingParams { temperature: 0.0, ..all }] {
        for seed in 0..6 {
            let token = choose_on(&cpu, &logits, &params, &history, seed);
            assert_eq!(
                choose_on(&emulated, &logits, &params, &history, seed),
                token,
                "{params:?}, seed {seed}"
            );
        }
    }
    let launched = emulated.launcher().take_launched();
    for kernel in [
        "softcap_logits",
        "penalize_logits",
        "temperature_scale",
        "topk_mask",
        "draw_sample",
        "argmax_sample",
    ] {
        assert!(launched.iter().any(|name| name == kernel), "{kernel} was not launched");
    }
}

fn choose_on<D: Device>(d: &D, logits: &[f32], params: &SamplingParams, history: &[u32], seed: u64) -> u32 {
    let buffer = d.upload_f32(logits).unwrap();
    let mut sampler = Sampler::new(d, logits.len()).unwrap();
    let params = SamplingParams { seed: Some(seed), ..params.clone() };
    sampler.sample(d, &buffer, 0, &mut Chooser::new(params).unwrap(), history).unwrap()
}
