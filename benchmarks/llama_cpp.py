"""Runs Thermite and llama.cpp in turn on the same model files: called by llama_cpp.sh."""

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

THERMITE = os.environ["THERMITE"]
LLAMA = Path(os.environ["LLAMA_CPP"])
PROMPT, TOKENS, SHALLOW, DEEP, SEQUENCES, CONTEXT = 512, 64, 8, 1024, 16, 512
DOWNLOADED = Path("models/downloaded")
SMOLLM2 = DOWNLOADED / "SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA = DOWNLOADED / "gemma-3-270m-q4_k_m.gguf"
ROWS = [
    (f"prefill of {PROMPT} tokens, tok/s", "prefill"),
    (f"decode at {SHALLOW}, tok/s", "decode"),
    (f"decode at {DEEP:,}, tok/s", "deep"),
    (f"{SEQUENCES} sequences decoded together at {SHALLOW}, tok/s", "together"),
    ("start of the process to its end with one token, s", "load"),
    ("peak memory of that, MiB", "memory"),
]


def output(command):
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    return done.stdout


def run_to_end(command):
    """Seconds that a process takes, and its peak resident memory in MiB."""
    began = time.perf_counter()
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([str(word) for word in command], **quiet)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    return seconds, usage.ru_maxrss / 1024


def thermite(model, threads):
    def bench(*arguments):
        common = ["--threads", threads, "--runs", 1, "--tokens", TOKENS, "--format", "json"]
        return json.loads(output([THERMITE, "bench", "--device", "cpu", "-m", model, *common, *arguments]))["rows"]

    prefill, decode, deep = bench("--prompt", PROMPT, "--depth", f"{SHALLOW},{DEEP}")
    together = bench("--prompt", SHALLOW, "--depth", SHALLOW, "--sequences", SEQUENCES)[-1]
    load, memory = run_to_end(
        [THERMITE, "generate", "Once upon a time", "--device", "cpu", "-m", model, "-n", 1, "--temperature", 0]
        + ["--context", CONTEXT, "--threads", threads]
    )
    rates = {"prefill": prefill, "decode": decode, "deep": deep, "together": together}
    return {name: row["median"] for name, row in rates.items()} | {"load": load, "memory": memory}


def llama(model, threads):
    def bench(*arguments):
        common = ["-m", model, "-t", threads, "-r", 1, "-o", "json"]
        return [row["avg_ts"] for row in json.loads(output([LLAMA / "llama-bench", *common, *arguments]))]

    [prefill] = bench("-p", PROMPT, "-n", 0)
    decode, deep = bench("-p", 0, "-n", TOKENS, "-d", f"{SHALLOW},{DEEP}")
    lines = output(
        [LLAMA / "llama-batched-bench", "-m", model, "-t", threads, "-c", 2048, "-npp", SHALLOW, "-ntg", TOKENS]
        + ["-npl", SEQUENCES, "--output-format", "jsonl"]
    ).splitlines()
    [together] = [json.loads(line)["speed_tg"] for line in lines if line.startswith("{")]
    load, memory = run_to_end(
        [LLAMA / "llama-completion", "-m", model, "-p", "Once upon a time", "-n", 1, "-c", CONTEXT, "-t", threads]
        + ["-no-cnv", "--temp", 0]
    )
    return {"prefill": prefill, "decode": decode, "deep": deep, "together": together, "load": load, "memory": memory}


def table(model, threads, rounds):
    have, peer = [], []
    for _ in range(rounds):
        have.append(thermite(model, threads))
        peer.append(llama(model, threads))
    median = lambda runs, name: statistics.median(run[name] for run in runs)
    spread = lambda runs, name: "{} to {}".format(*(number(f(run[name] for run in runs)) for f in (min, max)))
    print(f"\n{model.name}, {threads} threads, medians of {rounds} (smallest to largest)\n")
    print("| what | Thermite | llama.cpp | ratio |\n|---|---|---|---|")
    for title, name in ROWS:
        ours, theirs = median(have, name), median(peer, name)
        cells = [f"{number(value)} ({spread(runs, name)})" for value, runs in ((ours, have), (theirs, peer))]
        print(f"| {title} | {cells[0]} | {cells[1]} | {ours / theirs:.2f} |", flush=True)


def number(value):
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def models():
    """The real models, SmolLM2 in further types too."""
    subprocess.run(["models/fetch.sh"], check=True, stdout=subprocess.DEVNULL)
    folder = Path("target/llama.cpp")
    folder.mkdir(parents=True, exist_ok=True)
    made = [SMOLLM2]
    for dtype in ["q4_0", "q8_0", "f16"]:
        path = folder / f"SmolLM2-135M-Instruct.{dtype.upper()}.gguf"
        if not path.exists():
            output([THERMITE, "quantize", SMOLLM2, path, "--type", dtype])
        made.append(path)
    return [*made, GEMMA]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for model in arguments.model or models():
        table(model, arguments.threads, arguments.rounds)


main()
