"""How fast a training is with one thread or several, alone and beside other busy programs.

    python tests/benchmarks/threads.py finetune train.tar --arch resnet18 --size 64 --batch 32
    python tests/benchmarks/threads.py pretrain hands.tar --method peclr --arch resnet18 --size 64

The words are those of a training, without its run directory. Each contestant runs it for a while
from its first step on, beside as many processes that do nothing but turn in a loop as `--busy`
says; it is counted how many steps the log has then, and the shares are of the first contestant.

spinning: a thread for each core, which spins while it waits for the others: libgomp's own way.
brief: the same, and threads sleep after a thousand spins, as handclr lets them.
one: one thread.
handclr: what a training does by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

CORES = len(os.sched_getaffinity(0))
# Of libgomp where OMP_WAIT_POLICY is not set.
SPINS = "300000"
CONTESTANTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "spinning": ({"GOMP_SPINCOUNT": SPINS}, ["--threads", str(CORES)]),
    "brief": ({}, ["--threads", str(CORES)]),
    "one": ({}, ["--threads", "1"]),
    "handclr": ({}, []),
}
START_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=40.0, help="for each contestant")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--json", type=Path, help="write all numbers")
    options, words = parser.parse_known_args()
    if not words or words[0] not in ("pretrain", "finetune"):
        parser.error("name a training: finetune SHARDS ... or pretrain SHARDS ...")
    words += ["--epochs", "100000", "--device", "cpu", "--quiet"]
    rates: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for busy in options.busy:
            for name in options.contestants:
                with busy_processes(busy):
                    rate = steps_a_second(words, name, options.seconds)
                rates.setdefault(f"{name}, {busy} busy", []).append(rate)
                print(f"{name}, {busy} busy: {rate:.2f} steps a second", flush=True)
    for busy in options.busy:
        totals = {name: sum(rates[f"{name}, {busy} busy"]) for name in options.contestants}
        first = totals[options.contestants[0]]
        shares = ", ".join(f"{name} {each / max(first, 1e-9):.2f}" for name, each in totals.items())
        print(f"{busy} busy: {shares}")
    if options.json:
        options.json.write_text(json.dumps(rates, indent=2) + "\n")


def steps_a_second(words: list[str], name: str, seconds: float) -> float:
    """Run a training as a contestant does; its rate from its first logged step on."""
    environment, extra = CONTESTANTS[name]
    plain = {key: text for key, text in os.environ.items() if key[:4] not in ("OMP_", "GOMP")}
    with tempfile.TemporaryDirectory() as run:
        command = [sys.executable, "-m", "handclr_cli", *words, *extra, "--run", run]
        with subprocess.Popen(command, env={**plain, **environment}) as process:
            try:
                log = Path(run) / "log.jsonl"
                begin = wait_for_steps(log, process)
                first = steps(log)
                time.sleep(seconds)
                # The log is written every other second: up to its last steps.
                return (steps(log) - first) / max(1.0, log.stat().st_mtime - begin)
            finally:
                process.kill()


def wait_for_steps(log: Path, process: subprocess.Popen[bytes]) -> float:
    """When the first steps were logged, in the time of the file system."""
    deadline = time.monotonic() + START_S
    while not steps(log):
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit("the training does not begin")
        time.sleep(0.02)
    return log.stat().st_mtime


def steps(log: Path) -> int:
    return len(log.read_bytes().splitlines()) if log.exists() else 0


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that use a core each for a block."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
