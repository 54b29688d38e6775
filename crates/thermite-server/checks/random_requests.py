"""Random requests, valid ones and others, from the server's own description of itself (Schemathesis)."""

import shutil
import subprocess
import sys
from pathlib import Path

from server import Server

LEAST = 10_000
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def program():
    """`st` of the environment that this runs in."""
    beside = Path(sys.executable).with_name("st")
    return str(beside) if beside.exists() else shutil.which("st")


if __name__ == "__main__":
    examples = sys.argv[1] if len(sys.argv) > 1 else "2000"
    with Server() as server:
        status = subprocess.run(
            [program(), "run", server.url + "/openapi.json", "--phases", "examples,coverage,fuzzing", "--checks", CHECKS]
            + ["--max-examples", examples, "--workers", "4", "--continue-on-failure", "--suppress-health-check", "all"]
            + ["--request-timeout", "60", "--seed", "1"],
            check=False,
            cwd=server.folder,
        ).returncode
        server.wait_until_idle()
        requests = server.metric("thermite_http_requests_total")
    print(f"{requests:.0f} requests")
    sys.exit(status or requests < LEAST)
