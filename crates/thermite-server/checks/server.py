"""What the checks share: a server with two small models, its metrics, and how it ends."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STORIES = "stories-3m"
TALKER = "talker"

# Short, as the model reads 512 tokens; it says what tools there are and how they are called, so that requests may have them.
TEMPLATE = """\
{%- if tools %}<tool_call>{% for t in tools %} {{ t.function.name }}{% endfor %}</tool_call>
{% endif -%}
{%- for m in messages %}{{ m.role }}: {{ m.content or '' }}
{%- if m.tool_calls %}{% for c in m.tool_calls %} {{ c.function.name }}{% endfor %}{% endif %}
{% endfor -%}
{%- if add_generation_prompt %}assistant:{% endif -%}
"""


def program():
    """The command: $THERMITE, or a build of this checkout."""
    if "THERMITE" in os.environ:
        return os.environ["THERMITE"]
    subprocess.run(["cargo", "build", "--quiet", "-p", "thermite-llm"], cwd=ROOT, check=True)
    return str(ROOT / "target/debug/thermite")


class Server:
    """`thermite serve` with the built-in model as it is, and as one that converses."""

    def __init__(self, *arguments, models=True, env=None):
        self.folder = Path(tempfile.mkdtemp(prefix="thermite-check-"))
        talker = self.folder / TALKER
        talker.mkdir()
        for name in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"]:
            shutil.copy(ROOT / "models/stories-3m" / name, talker)
        (talker / "chat_template.jinja").write_text(TEMPLATE)
        self.log = self.folder / "log"
        names = [STORIES, str(talker)] if models else []
        command = [program(), "serve", *names, "--port", "0", *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | (env or {}))
        self.url = self.wait_for_url()
        self.port = int(self.url.rsplit(":", 1)[1])

    def wait_for_url(self):
        for _ in range(600):
            found = re.search(r"http://[0-9.]+:[0-9]+", self.log.read_text())
            if found:
                return found.group()
            if self.process.poll() is not None:
                sys.exit(f"the server does not start:\n{self.log.read_text()}")
            time.sleep(0.1)
        sys.exit("the server is not ready after a minute")

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return response.read().decode()

    def post(self, path, body):
        """Status and JSON of an answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def metric(self, name):
        """The sum of a metric over its labels."""
        lines = [line for line in self.get("/metrics").splitlines() if re.match(rf"{name}[ {{]", line)]
        assert lines, f"no metric {name}"
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def is_idle(self):
        """Whether nothing runs or waits, and each block of the cache is in no sequence."""
        counts = [self.metric("thermite_requests_" + state) for state in ("running", "waiting")]
        return counts == [0, 0] and self.metric("thermite_kv_blocks") == self.metric("thermite_kv_blocks_free")

    def wait_until_idle(self, seconds=10):
        end = time.monotonic() + seconds
        while not self.is_idle():
            assert time.monotonic() < end, "requests or blocks are left:\n" + self.get("/metrics")
            time.sleep(0.05)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """Ends the server; it must end well, and must not have panicked."""
        if self.process.poll() is None:
            self.terminate()
        try:
            status = self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("the server does not end") from None
        log = self.log.read_text()
        shutil.rmtree(self.folder)
        assert status == 0, f"the server ended with {status}:\n{log[-4000:]}"
        assert "panicked" not in log, log[-4000:]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self.process.kill()
            print(self.log.read_text()[-4000:], file=sys.stderr)


def run(checks):
    """Runs functions, in their order; tells which failed."""
    failed = 0
    for check in checks:
        began = time.monotonic()
        try:
            check()
            word = "ok    "
        except Exception as error:  # noqa: BLE001: whatever it is, the others run
            failed += 1
            word = "FAILED"
            print(f"{type(error).__name__}: {error}")
        print(f"{word}  {check.__name__.replace('_', ' ')} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{len(checks) - failed} of {len(checks)} passed")
    return failed
