#!/usr/bin/env bash
# The server's checks against a build of this checkout: run.sh [openai_client.py | faults.py | random_requests.py …].
# Needs Python 3.10 or newer; takes what they import from PyPI into target/. THERMITE names another program.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
venv=$root/target/server-checks
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
if [ -z "${THERMITE:-}" ]; then
    cargo build --quiet --manifest-path "$root/Cargo.toml" -p thermite-llm
    export THERMITE=$root/target/debug/thermite
fi
[ $# -gt 0 ] || set -- openai_client.py faults.py random_requests.py
for check in "$@"; do
    printf '\n=== %s\n' "$check"
    "$venv/bin/python" "$here/$check"
done
