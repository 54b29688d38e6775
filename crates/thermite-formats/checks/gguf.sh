#!/usr/bin/env bash
# Holds our GGUF reading, writing and block formats against PyPI's gguf package, bit for bit. Not part of
# `cargo test`: it makes a virtual environment (Python with pip) and builds the program, unless THERMITE names it.
# With models/fetch.sh run before, the real models are read and written too.
set -euo pipefail
cd "$(dirname "$0")/../../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet gguf==0.19.0
check() { "$work/venv/bin/python" crates/thermite-formats/checks/compare.py "$@"; }
if [ -z "${THERMITE:-}" ]; then
    cargo build --quiet -p thermite-llm
    THERMITE=${CARGO_TARGET_DIR:-target}/debug/thermite
fi
quantize() { "$THERMITE" quantize "$@" 2>&1 >/dev/null | grep -v 'quantised itself' || true; }

check random "$work/random.gguf"
quantize "$work/random.gguf" "$work/random.f32.gguf" --type f32
check same "$work/random.gguf" "$work/random.f32.gguf"

for type in q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k f16 bf16; do
    quantize stories-3m "$work/$type.gguf" --type "$type"
    quantize "$work/$type.gguf" "$work/$type.f32.gguf" --type f32
    check same "$work/$type.gguf" "$work/$type.f32.gguf"
done

for model in models/downloaded/*.gguf; do
    [ -e "$model" ] || continue
    quantize "$model" "$work/real.f32.gguf" --type f32
    check same "$model" "$work/real.f32.gguf"
    quantize "$model" "$work/real.gguf" --type q4_k
    check like "$work/real.gguf" "$model"
    rm "$work"/real.*
done
