#!/usr/bin/env bash
# Thermite beside llama.cpp on this machine's CPU: one table a model, medians of interleaved runs on the same files.
#   benchmarks/llama_cpp.sh [MODEL.gguf…] [--threads N] [--rounds N]
# Without a model: SmolLM2 135M in Q4_1, Q4_0, Q8_0 and F16, and Gemma 3 270M in Q4_K_M, which models/fetch.sh fetches.
# llama.cpp is built from the source in PyPI's llama-cpp-python, in target/llama.cpp; LLAMA_CPP names a folder that
# holds its programs already. Needs Python with pip and a C++ compiler: clang-19 where it is installed, since GCC 12
# loses stores around AMX's tile configuration.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.3.36
build=target/llama.cpp
programs=(llama-bench llama-batched-bench llama-completion)

build_llama() {
    mkdir -p "$build"
    python3 -m venv "$build/venv"
    "$build/venv/bin/pip" install --quiet cmake ninja
    python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python --dest "$build" \
        "llama-cpp-python==$version"
    tar -xzf "$build/llama_cpp_python-$version.tar.gz" -C "$build"
    local compilers=()
    if command -v clang++-19 >/dev/null; then
        compilers=(-DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_COMPILER=clang++-19)
    fi
    PATH="$PWD/$build/venv/bin:$PATH" cmake -S "$build/llama_cpp_python-$version/vendor/llama.cpp" -B "$build/build" \
        -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_SERVER=OFF \
        -DLLAMA_BUILD_TESTS=OFF "${compilers[@]}" >"$build/log"
    "$build/venv/bin/cmake" --build "$build/build" --target "${programs[@]}" >>"$build/log"
}

if [ -z "${LLAMA_CPP:-}" ]; then
    LLAMA_CPP=$build/build/bin
    [ -x "$LLAMA_CPP/llama-completion" ] || build_llama
fi
cargo build --quiet --release
export LLAMA_CPP THERMITE="${CARGO_TARGET_DIR:-target}/release/thermite"
exec python3 benchmarks/llama_cpp.py "$@"
