#!/usr/bin/env bash
# The page in a real Chromium, against a server started for it: run.sh [FOLDER for screenshots].
# Needs Node; takes Chromium from Debian and playwright-core from npm. CHROMIUM and THERMITE name other programs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../../.." && pwd)
export CHROMIUM=${CHROMIUM:-$(command -v chromium || true)}
if [ -z "$CHROMIUM" ]; then
    as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }
    as_root apt-get update -qq
    as_root apt-get install -y -qq --no-install-recommends chromium fonts-noto-core >/dev/null
    CHROMIUM=$(command -v chromium)
fi
[ -d "$here/node_modules/playwright-core" ] || (cd "$here" && npm install --silent --no-fund --no-audit)
if [ -z "${THERMITE:-}" ]; then
    cargo build --quiet --manifest-path "$root/Cargo.toml" -p thermite-llm
    THERMITE=$root/target/debug/thermite
fi

work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
# the small model twice: as it is, and as one that converses
mkdir "$work/talker"
cp "$root"/models/stories-3m/{config.json,generation_config.json,tokenizer.json,model.safetensors} "$work/talker"
echo '{% for m in messages %}{{ m.content }} {% endfor %}' > "$work/talker/chat_template.jinja"
"$THERMITE" serve stories-3m "$work/talker" --port 0 > "$work/log" 2>&1 &
server=$!
for _ in $(seq 100); do
    url=$(grep -om1 'http://[0-9.:]*' "$work/log" || true)
    [ -n "$url" ] && break
    kill -0 "$server" 2>/dev/null || { cat "$work/log"; exit 1; }
    sleep 0.1
done
node "$here/check.mjs" "$url" "${1:-}"
if grep -i panic "$work/log"; then exit 1; fi
