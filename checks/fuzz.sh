#!/usr/bin/env bash
# Fuzzes every reader of files from outside: checks/fuzz.sh [SECONDS [TARGET…]]
# Each target of fuzz/ runs for SECONDS (10 if none are given) from the inputs in fuzz/seeds, of 64 KiB at
# most, with ten seconds and 1 GB of memory each. What it finds is left in fuzz/artifacts. Installs the nightly toolchain
# and cargo-fuzz where they are missing.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-10}
shift || true
rustup toolchain list | grep -q '^nightly' || rustup toolchain install nightly --profile minimal
cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz
cargo +nightly fuzz build
read -r -a targets <<<"${*:-$(cargo +nightly fuzz list | tr '\n' ' ')}"
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    folders=("fuzz/corpus/$target")
    [ -d "fuzz/seeds/$target" ] && folders+=("fuzz/seeds/$target")
    log=$(mktemp)
    if ! cargo +nightly fuzz run "$target" "${folders[@]}" -- -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=1024 -max_len=65536 >"$log" 2>&1; then
        tail -n 40 "$log"
        exit 1
    fi
    grep 'Done ' "$log" | sed "s/^/$target: /"
    rm "$log"
done
