"""Random requests, valid ones and others, from the server's own description of itself (Schemathesis)."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from server import Server

LEAST = 10_000
# Of each operation and kind, over all processes.
EXAMPLES = 1500
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def program():
    """`st` of the environment that this runs in."""
    beside = Path(sys.executable).with_name("st")
    return str(beside) if beside.exists() else shutil.which("st")


def send(server, seed, examples):
    """Sends the requests that grow from `seed`; gives the status and what was said."""
    # without a database of examples: else most of the time goes into making old ones smaller
    done = subprocess.run(
        [program(), "run", server.url + "/openapi.json", "--phases", "examples,coverage,fuzzing", "--checks", CHECKS]
        + ["--max-examples", str(examples), "--workers", "1", "--continue-on-failure", "--suppress-health-check", "all"]
        + ["--request-timeout", "60", "--seed", str(seed), "--generation-database", "none"],
        check=False,
        cwd=server.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


if __name__ == "__main__":
    examples = int(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLES
    processes = os.cpu_count() or 1
    # short answers: it is the requests that are tried here
    with Server("--max-tokens", "16") as server:
        with ThreadPoolExecutor(processes) as pool:
            sent = [pool.submit(send, server, seed, examples // processes) for seed in range(1, processes + 1)]
        results = [future.result() for future in sent]
        server.wait_until_idle()
        requests = server.metric("thermite_http_requests_total")
    print("\n".join(said for _, said in results))
    print(f"{requests:.0f} requests")
    sys.exit(any(status for status, _ in results) or requests < LEAST)
