#!/bin/bash
# The conformance suite under the address and undefined-behaviour sanitizers. Needs clang 19 (or $CLANGXX).
set -eu
cd "$(dirname "$0")/../.."
export CLANGXX=${CLANGXX:-clang++-19} THERMITE_CACHE=${THERMITE_CACHE:-target/kernels}
cargo build --quiet -p thermite-kernels --example check
runtime=$("$CLANGXX" -print-file-name=libclang_rt.asan-"$(uname -m)".so)
# Fibers share no stack, and Rust frees what it allocated: leaks are not this check's matter.
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1
check=target/debug/examples/check
LD_PRELOAD=$runtime $check --build sanitized --small "$@"

# The check itself: the sanitizers must end a launch that reads past a buffer, and one that reads off its alignment.
reject() {
    folder=target/kernels/must_fail
    mkdir -p $folder
    printf '#include <metal_stdlib>\nusing namespace metal;\nkernel void residual_add(device float* residual [[buffer(0)]], device const float* x [[buffer(1)]], constant int& N [[buffer(2)]], uint i [[thread_position_in_grid]]) { %s }\n' "$1" > $folder/faulty.metal
    if LD_PRELOAD=$runtime $check --build sanitized --sources $folder residual_add > target/kernels/must_fail.log 2>&1; then
        echo "not noticed: $1"
        exit 1
    fi
    grep -q "$2" target/kernels/must_fail.log || { echo "not noticed as $2: $1"; exit 1; }
}
reject 'if (i <= uint(N)) residual[i] += x[i];' 'heap-buffer-overflow'
reject 'if (i + 4 < uint(N)) residual[i] += (*(device const float4*)(x + i)).x;' 'misaligned address'
echo "sanitizers: clean"
