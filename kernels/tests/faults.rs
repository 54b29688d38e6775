//! What no kernel may do, done on purpose: the emulator must say so.
//!
//! The faulty kernels take the name and the signature of a real one, whose contract then fits.

use std::path::Path;

use thermite_kernels::contract::{Dims, Limits, Scalar};
use thermite_kernels::emulator::{Argument, Build, Emulator, EmulatorError, Recipe};

const HEAD: &str = "#include <metal_stdlib>\nusing namespace metal;\n\
    kernel void softmax_inplace(device float* x [[buffer(0)]], constant int& T [[buffer(1)]],\n\
    threadgroup float* s [[threadgroup(0)]], uint row [[threadgroup_position_in_grid]],\n\
    uint tid [[thread_position_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {\n";

fn emulator(build: Build, body: &str) -> Emulator {
    let recipe = Recipe {
        sources: vec![("faulty.metal".to_owned(), format!("{HEAD}{body}\n}}\n"))],
        cache: Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator"),
        ..Recipe::embedded(build)
    };
    Emulator::from_recipe(&recipe).expect("the faulty kernel compiles")
}

/// Launches the body on two rows of 64, a thread an element.
fn run(build: Build, body: &str) -> Result<(), EmulatorError> {
    let emulator = emulator(build, body);
    let x = emulator.buffer("x", Scalar::F32, 128)?;
    let dims = Dims::new(&[("N", 2), ("T", 64)]);
    emulator.launch("softmax_inplace", &dims, &Limits::APPLE, &[Argument::Buffer(&x), Argument::Int(64)])?;
    Ok(())
}

#[track_caller]
fn assert_fault(build: Build, body: &str, wanted: &str) {
    let error = run(build, body).expect_err(body).to_string();
    assert!(error.contains(wanted), "{body}\nsays: {error}\nwanted: {wanted}");
}

const BARRIER: &str = "threadgroup_barrier(mem_flags::mem_threadgroup);";

#[test]
fn divergent_barriers() {
    let build = Build::Fast;
    let in_if = format!("if (tid < 40) {BARRIER}");
    assert_fault(build, &in_if, "not every thread reaches the barrier");
    let early_return = format!("if (tid >= 50) return;\n{BARRIER}");
    assert_fault(build, &early_return, "not every thread reaches the barrier");
    let two = format!("if (tid < 32) {{\n{BARRIER} }} else {{\n{BARRIER} }}");
    assert_fault(build, &two, "threads wait in different barriers");
    let lanes = "float v = 1.0f;\nif (lane < 16) v = simd_sum(v);\nsimdgroup_barrier(mem_flags::mem_none);\nx[tid] = v;";
    assert_fault(build, lanes, "lanes of a simdgroup diverge");
}

#[test]
fn writes_past_either_end() {
    assert_fault(
        Build::Fast,
        "if (row == 1 && tid == 0) x[128] = 1.0f;",
        "wrote outside x (512 bytes) at byte 512",
    );
    assert_fault(Build::Fast, "if (row == 1 && tid == 0) x[-1] = 1.0f;", "at byte -8");
    assert_fault(Build::Fast, "s[8] = 1.0f;", "wrote outside threadgroup(0)");
}

#[test]
fn a_launch_that_does_not_fit_is_refused() {
    let emulator = emulator(Build::Fast, "x[row * T + tid] = 1.0f;");
    let x = emulator.buffer("x", Scalar::F32, 127).unwrap();
    let dims = Dims::new(&[("N", 2), ("T", 64)]);
    let launch = |arguments: &[Argument<'_>]| {
        emulator.launch("softmax_inplace", &dims, &Limits::APPLE, arguments).unwrap_err().to_string()
    };
    let short = launch(&[Argument::Buffer(&x), Argument::Int(64)]);
    assert!(short.contains("x has 127 elements, 128 are needed ([N, T])"), "{short}");
    let constant = launch(&[Argument::Buffer(&x), Argument::Int(63)]);
    assert!(constant.contains("x has 127"), "{constant}");
    let kind = launch(&[Argument::Int(1), Argument::Int(64)]);
    assert!(kind.contains("x at index 0 is a buffer of float"), "{kind}");
    let count = launch(&[Argument::Buffer(&x)]);
    assert!(count.contains("takes 2 bindings, 1 are given"), "{count}");
    let unknown = emulator.launch("gelu_forward", &dims, &Limits::APPLE, &[]).unwrap_err().to_string();
    assert!(unknown.contains("no kernel gelu_forward"), "{unknown}");
    assert_eq!(x.download::<f32>(0, 127).unwrap(), [0.0; 127]);
    assert!(x.download::<f32>(1, 127).is_err());
    assert!(x.upload::<u16>(0, &[1]).is_err());
}

#[test]
#[ignore = "needs clang"]
fn the_checker_finds_races() {
    let build = Build::Checked;
    let read = "x[row * T + tid] = s[tid / 16];";
    let shared = format!("if (tid % 16 == 0) s[tid / 16] = 1.0f;\n{read}");
    assert_fault(build, &shared, "data race: 4-byte read of threadgroup(0)");
    let ordered = format!("if (tid % 16 == 0) s[tid / 16] = 1.0f;\n{BARRIER}\n{read}");
    run(build, &ordered).unwrap();
    // A simdgroup barrier orders the lanes of one simdgroup, and no others.
    let own = "if (lane == 0) s[tid / 32] = 1.0f;\nsimdgroup_barrier(mem_flags::mem_threadgroup);\nx[row * T + tid] = s[tid / 32];";
    run(build, own).unwrap();
    let across = own.replace("x[row * T + tid] = s[tid / 32]", "x[row * T + tid] = s[0]");
    assert_fault(build, &across, "data race");
    assert_fault(build, "if (tid == 0) x[0] = x[0] + 1.0f;", "race between threadgroups");
    assert_fault(build, "x[row] = float(tid);", "data race: 4-byte write of x");
    // A barrier for threadgroup memory does not order device memory.
    let device = format!("x[row * T + tid] = 1.0f;\n{BARRIER}\nx[row * T + 63 - tid] += 1.0f;");
    assert_fault(build, &device, "data race");
    run(build, &device.replace("mem_threadgroup", "mem_device")).unwrap();
}

#[test]
#[ignore = "needs clang"]
fn the_checker_finds_bad_accesses() {
    let build = Build::Checked;
    assert_fault(
        build,
        "float v = x[row * T + tid + 1];\nif (v < 0.0f) x[0] = v;",
        "out of bounds: 4-byte read of x (512 bytes) at byte 512",
    );
    assert_fault(build, "if (tid == 0) s[4] = 1.0f;", "out of bounds: 4-byte write of threadgroup(0)");
    assert_fault(build, "x[row * T + tid] = s[0];", "uninitialised threadgroup memory");
    let error = run(build, "if (tid == 0) s[4] = 1.0f;").unwrap_err().to_string();
    assert!(error.contains("faulty.metal:6"), "{error}");
}
