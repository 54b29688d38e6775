#![allow(clippy::unwrap_used)]

use super::*;

const MULTIPROCESSORS: u32 = 132;
const SHARED_MEMORY: u32 = 227 * 1024;

/// A launch of one row: buffers by made-up addresses, then numbers.
fn launch(kernel: &str, values: &[Value]) -> Recorded {
    Recorded { kernel: kernel.to_owned(), dims: Dims::new(&[("N", 1)]), values: values.to_vec() }
}

fn buffers<const N: usize>(addresses: [u64; N]) -> Vec<Value> {
    addresses.iter().map(|&address| if address == 0 { Value::Nil } else { Value::Buffer(address) }).collect()
}

fn with(mut values: Vec<Value>, rest: &[Value]) -> Vec<Value> {
    values.extend_from_slice(rest);
    values
}

/// What is written and read between the kernels.
const X: u64 = 0x100;
const Q: u64 = 0x200;
const PARTIAL: u64 = 0x300;
const INNER: u64 = 0x400;
const LOGITS: u64 = 0x500;
const CHOSEN: u64 = 0x600;
const TOKENS: u64 = 0x10;
const POSITIONS: u64 = 0x20;
const SLOTS: u64 = 0x30;
const LENGTHS: u64 = 0x40;
const TABLE: u64 = 0x50;

/// SmolLM2-135M's sizes, two layers.
fn step() -> Vec<Recorded> {
    use Value::{Float, Int};
    let mut all = vec![launch("embedding_forward_bf16_v4", &with(buffers([1, TOKENS, X]), &[Int(576)]))];
    for layer in 0..2 {
        let (k, v) = (0x1000 + layer, 0x2000 + layer);
        let sizes = [576, 9, 3, 64, 16].map(Int);
        let qkv = buffers([X, 11, 0, 12, 0, 13, POSITIONS, SLOTS, Q, k, v]);
        all.push(launch("decode_qkv_rms_bf16_f16", &with(with(qkv, &sizes), &[Float(1e-5)])));
        let attend = with(buffers([Q, k, v, TABLE, LENGTHS, PARTIAL, 14]), &[576, 9, 3, 16, 64].map(Int));
        all.push(launch("decode_attend_f16_hs64", &with(attend, &[Float(0.125), Int(0), Float(0.0)])));
        let output = with(buffers([PARTIAL, 14, 15, 0, X]), &[9, 64, 16, 576].map(Int));
        all.push(launch("decode_output_bf16", &output));
        let up = with(buffers([X, 16, 17, 18, INNER]), &[Int(576), Int(1536), Float(1e-5)]);
        all.push(launch("decode_swiglu_bf16", &up));
        all.push(launch("decode_down_bf16", &with(buffers([INNER, 19, 0, X]), &[Int(1536), Int(576)])));
    }
    let head = with(buffers([X, 20, 0, 1, 0, LOGITS]), &[Int(576), Int(49_152), Float(1e-5)]);
    all.push(launch("decode_head_rms_bf16", &head));
    let mut argmax = launch("argmax_sample", &with(buffers([LOGITS, CHOSEN]), &[Int(49_152)]));
    argmax.dims = Dims::new(&[("rows", 1)]);
    all.push(argmax);
    let advance = buffers([CHOSEN, TABLE, TOKENS, POSITIONS, SLOTS, LENGTHS, 21]);
    all.push(launch("advance_rows", &with(advance, &[1, 16, 64, 1024].map(Int))));
    all
}

fn planned(launches: &[Recorded]) -> Option<Plan> {
    plan(launches, MULTIPROCESSORS, SHARED_MEMORY)
}

#[test]
fn whole_steps_have_a_plan() {
    let once = planned(&step()).unwrap();
    assert_eq!((once.steps, once.threadgroups, once.products.len(), once.caches.len()), (1, 132, 9, 2));
    assert_eq!((once.variant.sharing, once.variant.norm, once.variant.capped), (3, Norm::Rms, false));
    assert_eq!(once.variant.shares, Shares { quads: 1, inner_quads: 1, eights: 3 });
    assert!(once.shared_memory <= SHARED_MEMORY);
    let thrice = planned(&[step(), step(), step()].concat()).unwrap();
    assert_eq!(Plan { steps: 1, ..thrice.clone() }, once);
    assert_eq!(thrice.steps, 3);
}

#[test]
fn every_row_has_a_threadgroup() {
    let plan = planned(&step()).unwrap();
    let pairs_and_rows = [480, 576, 1536, 576];
    let rows = pairs_and_rows.iter().cycle().take(8).chain([&49_152]);
    for (product, &groups) in plan.products.iter().zip(rows) {
        assert_eq!(product.share * plan.threadgroups + product.rest, groups);
        assert!(product.piece * product.pieces() >= product.cols && product.piece % 8 == 0);
        assert!(product.piece * (product.pieces() - 1) < product.cols);
    }
    assert_eq!(plan.products[0].weight[1] - plan.products[0].weight[0], 32 * 576 * 2);
}

#[test]
fn the_layout_is_that_of_program_h() {
    assert_eq!(size_of::<Product>(), 80);
    assert_eq!(size_of::<Cache>(), 32);
    assert_eq!(size_of::<Program>(), 16 * 8 + 14 * 4);
    let header = HOPPER_HEADERS.iter().find(|(name, _)| *name == "program.h").unwrap().1;
    assert!(header.contains(&format!("constexpr uint WARP_BITS = {WARP_BITS};")));
}

#[test]
fn what_is_anything_else_has_none() {
    type Change = fn(&mut Vec<Recorded>);
    let changed = |change: Change| {
        let mut launches = step();
        change(&mut launches);
        planned(&launches)
    };
    for i in 0..step().len() {
        let mut launches = step();
        launches[i].dims = Dims::new(&[("N", 2)]);
        assert_eq!(planned(&launches), None, "two rows in launch {i}");
        launches.remove(i);
        assert_eq!(planned(&launches), None, "launch {i} is missing");
    }
    let none: [(&str, Change); 8] = [
        ("weights of 32 bits", |l| l[1].kernel = "decode_qkv_rms_f32_f16".to_owned()),
        ("weights of two types", |l| l[3].kernel = "decode_output_f16".to_owned()),
        ("a cache of 32 bits", |l| l[1].kernel = "decode_qkv_rms_bf16_f32".to_owned()),
        ("heads of another size", |l| l[1].values[14] = Value::Int(80)),
        ("another vector", |l| l[5].values[0] = Value::Buffer(INNER + 1)),
        ("another residual stream", |l| l[5].values[3] = Value::Buffer(X + 1)),
        ("layers of two norms", |l| l[6].kernel = "decode_qkv_layer_bf16_f16".to_owned()),
        ("something behind the end", |l| l.push(launch("narrow_bf16", &[]))),
    ];
    for (what, change) in none {
        assert_eq!(changed(change), None, "{what}");
    }
    assert_eq!(planned(&[]), None);
    assert_eq!(plan(&step(), MULTIPROCESSORS, 20_000), None, "too little shared memory");
    assert_eq!(plan(&step(), 0, SHARED_MEMORY), None, "no multiprocessors");
}
