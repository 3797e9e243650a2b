"""$ python tests/kills.py [--kills 500] [--jobs 2] [--seed 0] [--only TEXT ...] [--signals TERM
...]: commands killed at any moment.

Every command of the pipeline that writes is started and killed, at a random time or just after
something new appears on the disk, once to three times in a row, and then left to end. What has its
final name must be whole after each kill, and in the end every byte must be that of an undisturbed
run, with nothing left beside it. Prints a table by command, and what was wrong; exits with 1 then.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import STEPS, prepare

TREE = Path(__file__).resolve().parents[1]
TRAINERS = ("pretrain", "finetune")
# What a run takes, and where it was gone on with: its clock, and the process, are in these.
CLOCKS = re.compile(rb'"(images_per_s|seconds)": [0-9.]+')
LIMIT_S = 300
SIGNALS: list[signal.Signals] = []


@dataclass
class Step:
    """One command, the files before and after it, and how long it takes."""

    words: list[str]
    target: str
    before: dict[str, str]
    after: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        return " ".join(self.words[:2]) if self.words[0] in ("synth", "import") else self.words[0]

    @property
    def trains(self) -> bool:
        return self.words[0] in TRAINERS


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="parts of the command lines")
    parser.add_argument("--signals", nargs="*", default=["KILL", "KILL", "TERM", "INT"])
    asked = parser.parse_args()
    SIGNALS[:] = [signal.Signals[f"SIG{name}"] for name in asked.signals]
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch, "whole")
        steps = [
            step
            for step in _undisturbed(whole)
            if not asked.only or any(part in " ".join(step.words) for part in asked.only)
        ]
        rng = random.Random(asked.seed)
        turns = itertools.cycle(steps)
        plan, planned = [], 0
        while planned < asked.kills:
            kills = rng.choice((1, 2, 3))
            plan.append((next(turns), kills, rng.randrange(1 << 30)))
            planned += kills
        with ThreadPoolExecutor(asked.jobs) as pool:
            results = list(pool.map(lambda turn: _killed(whole, Path(scratch), *turn), plan))
    sys.exit(_told([step for step, _, _ in plan], results))


def _undisturbed(folder: Path) -> list[Step]:
    """Run the pipeline; the steps that end well and leave something."""
    folder.mkdir()
    prepare(folder)
    found = []
    for line in STEPS:
        words, target = shlex.split(line.partition(" > ")[0]), line.partition(" > ")[2]
        step = Step(words, target, _files(folder))
        begin = time.monotonic()
        done = _start(step, folder)
        done.wait(LIMIT_S)
        step.seconds = time.monotonic() - begin
        step.after = _files(folder)
        if done.returncode == 0 and step.after != step.before:
            found.append(step)
        print(f"{step.seconds:6.1f} s  {done.returncode}  {line[:90]}", file=sys.stderr)
    return found


def _killed(whole: Path, scratch: Path, step: Step, kills: int, seed: int) -> tuple[int, list[str]]:
    """How many kills hit, and what was wrong, after several kills of a step and its end."""
    rng = random.Random(seed)
    folder, hits, wrong = scratch / f"{seed}-{os.urandom(4).hex()}", 0, []
    for name in step.before:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole / name, folder / name)
    for _ in range(kills):
        sent = rng.choice(SIGNALS)
        process = _start(step, folder)
        _wait(process, step, folder, rng)
        hits += process.poll() is None
        process.send_signal(sent)
        try:
            process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            wrong.append(f"{sent.name} was not heard")
        wrong += _half_made(step, folder, sent)
    last = _start(step, folder)
    last.wait(LIMIT_S)
    there = _files(folder)
    # A layout that is whole already is not written over.
    if last.returncode and (last.returncode != 2 or there != step.after):
        wrong.append(f"the last run ended with {last.returncode}")
    wrong += [f"{name} is left" for name in sorted(there.keys() - step.after.keys())]
    wrong += [f"{name} is not made" for name in sorted(step.after.keys() - there.keys())]
    shared = sorted(there.keys() & step.after.keys())
    wrong += [f"{name} is different" for name in shared if there[name] != step.after[name]]
    if wrong:
        wrong = [f"{' '.join(step.words)[:70]} (seed {seed}): {what}" for what in wrong]
    shutil.rmtree(folder)
    print(f"{hits} of {kills} kills  {step.name}  {'; '.join(wrong)}", file=sys.stderr, flush=True)
    return hits, wrong


def _wait(process: subprocess.Popen[bytes], step: Step, folder: Path, rng: random.Random) -> None:
    """Until a random time, or until a little after the number of files grows."""
    until = time.monotonic() + rng.uniform(0.05, 1.05) * step.seconds
    if rng.random() < 0.5:
        time.sleep(max(0.0, until - time.monotonic()))
        return
    count, until = _count(folder) + rng.choice((1, 1, 2, 3)), time.monotonic() + 2 * step.seconds
    while process.poll() is None and _count(folder) < count and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(rng.uniform(0, 0.05))


def _half_made(step: Step, folder: Path, sent: signal.Signals) -> list[str]:
    """What is wrong after a kill: a final name that is not whole, a file that should be gone."""
    wrong = []
    for name, digest in _files(folder).items():
        if name in (*step.before, step.target) or (step.trains and name in step.after):
            continue
        if name in step.after:
            if digest != step.after[name]:
                wrong.append(f"{name} is there and not whole after {sent.name}")
        elif sent is not signal.SIGKILL and not step.trains:
            wrong.append(f"{name} is left after {sent.name}")
    changed = [name for name, old in step.before.items() if _digest(folder / name) != old]
    return wrong + [f"{name} was changed" for name in changed]


def _start(step: Step, folder: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(TREE),
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
    }
    with open(folder / (step.target or os.devnull), "wb") as target:
        return subprocess.Popen(
            [sys.executable, "-m", "handclr_cli", *step.words],
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
        )


def _files(folder: Path) -> dict[str, str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): _digest(path) for path in paths}


def _count(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _digest(path: Path) -> str:
    if path.name == "last.pt" and zipfile.is_zipfile(path):
        # Equal states need not be pickled alike: the numbers themselves are compared.
        with zipfile.ZipFile(path) as state:
            members = {name: state.read(name) for name in state.namelist() if "/data/" in name}
        data = b"".join(members[name] for name in sorted(members))
    else:
        data = CLOCKS.sub(b"", path.read_bytes())
    return hashlib.sha256(data).hexdigest()


def _told(steps: list[Step], results: list[tuple[int, list[str]]]) -> int:
    hits, runs, wrong = Counter[str](), Counter[str](), []
    for step, (hit, what) in zip(steps, results, strict=True):
        hits[step.name] += hit
        runs[step.name] += 1
        wrong += what
    print("| command | kills | runs to the end |\n|---|--:|--:|")
    for name in sorted(hits):
        print(f"| {name} | {hits[name]} | {runs[name]} |")
    trained = sum(count for name, count in hits.items() if name in TRAINERS)
    print(f"\n{hits.total()} kills, {trained} of trainers; {len(wrong)} wrong")
    print("\n".join(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    main()
