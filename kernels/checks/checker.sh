#!/bin/bash
# The conformance suite under the memory checker, after the checker has been shown its faults. Needs clang 19 (or $CLANGXX).
set -eu
cd "$(dirname "$0")/../.."
export CLANGXX=${CLANGXX:-clang++-19} THERMITE_CACHE=${THERMITE_CACHE:-target/kernels}
cargo test --quiet -p thermite-kernels --test faults -- --ignored
cargo run --quiet -p thermite-kernels --example check -- --build checked --small "$@"
