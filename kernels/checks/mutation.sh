#!/bin/bash
# Drops every barrier and widens every bound, one at a time. Needs clang 19 (or $CLANGXX).
set -eu
cd "$(dirname "$0")/../.."
export CLANGXX=${CLANGXX:-clang++-19} THERMITE_CACHE=${THERMITE_CACHE:-target/kernels}
cargo run --quiet -p thermite-kernels --example mutate -- "$@"
