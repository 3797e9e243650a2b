"""$ python -m tests.fuzz --inputs 5000"""

from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import seeds as making
from .readers import READERS
from .worker import MEMORY, written

ROOT = Path(__file__).resolve().parents[2]
# The time that a worker needs before its first input.
BEGIN_S = 180.0


class Finding(NamedTuple):
    """What should not have been, and how to have it again."""

    number: int
    kind: str
    words: Sequence[str]
    what: str

    def __str__(self) -> str:
        """The finding in two lines, the second of which is its command line."""
        return f"{self.number} {self.kind}: {self.what}\n    {shlex.join(self.words)}"


class Asked(NamedTuple):
    """What the workers are asked: of which seed, of which kinds, how long each may take."""

    seed: int
    kinds: Sequence[str]
    seeds: Path
    limit_s: float


class Worker:
    """A process that reads inputs, begun anew behind what it does not survive."""

    def __init__(self, asked: Asked, numbers: Sequence[int]) -> None:
        self.asked, self.numbers = asked, list(numbers)
        self.findings: list[Finding] = []
        self.counts: Counter[tuple[str, int]] = Counter()
        self._reading: list[Any] | None = None

    def run(self) -> None:
        """Have all inputs read."""
        while self.numbers:
            before = len(self.numbers)
            self._process()
            if len(self.numbers) == before:
                self.findings.append(Finding(self.numbers[0], "", (), "the worker ends before it"))
                print(self.findings[-1], flush=True)
                del self.numbers[0]

    def _process(self) -> None:
        asked = {**self.asked._asdict(), "seeds": str(self.asked.seeds), "numbers": self.numbers}
        command = [sys.executable, "-m", "tests.fuzz.worker", json.dumps(asked)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        lines: queue.Queue[bytes] = queue.Queue()
        assert process.stdout is not None
        threading.Thread(target=_feed, args=(process.stdout, lines), daemon=True).start()
        limit, self._reading = BEGIN_S, None
        while line := self._next(lines, limit):
            limit = self.asked.limit_s
            self._take(json.loads(line))
        process.kill()
        code = process.wait()
        if self._reading:
            how = f"signal {-code}" if code != -signal.SIGKILL else "no end, or killed"
            self._note(how)

    def _next(self, lines: queue.Queue[bytes], limit: float) -> bytes:
        try:
            return lines.get(timeout=limit)
        except queue.Empty:
            return b""

    def _take(self, told: Any) -> None:
        if told == "ready":
            return
        if self._reading is None:
            self._reading = told
            return
        code, _, what = told
        self.counts[self._reading[1], code] += 1
        if what:
            self._note(what)
        else:
            self.numbers.remove(self._reading[0])
            self._reading = None

    def _note(self, what: str) -> None:
        assert self._reading is not None
        number, kind, words = self._reading
        self.findings.append(Finding(number, kind, words, what))
        print(self.findings[-1], flush=True)
        self.numbers.remove(number)
        self._reading = None


def _feed(stream: Any, lines: queue.Queue[bytes]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(b"")


def environment() -> dict[str, str]:
    """The environment of a process that reads: no network, one thread."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    fixed = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HANDCLR_OFFLINE": "1", "NO_COLOR": "1"}
    return {**os.environ, **fixed}


def by_command_line(number: int, asked: Asked) -> Finding | None:
    """Read an input by a real command line: its code, its line, its time and its memory."""
    with tempfile.TemporaryDirectory(prefix="handclr-fuzz-") as name:
        made = written(number, asked.seed, asked.kinds, asked.seeds, Path(name))
        command = [sys.executable, "-m", "handclr_cli", *made.words]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        timer = threading.Timer(asked.limit_s + 60, process.kill)
        timer.start()
        assert process.stderr is not None
        text = process.stderr.read().decode("utf-8", "replace")
        _, status, used = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    what = _what_is_wrong(process.returncode, text, used)
    return Finding(number, made.kind, made.words, what) if what else None


def _what_is_wrong(code: int, text: str, used: resource.struct_rusage) -> str:
    errors = [line for line in text.splitlines() if line.startswith("handclr: error: ")]
    if code not in (0, 1, 2, 3):
        return f"exit code {code}: {text[-200:]}"
    if "unexpected" in text or "Traceback" in text:
        return text[-300:]
    if code in (1, 2) and (len(errors) != 1 or not text.endswith(f"{errors[0]}\n")):
        return f"{len(errors)} lines of errors: {text[-200:]}"
    if used.ru_maxrss * 1024 > MEMORY:
        return f"{used.ru_maxrss / 1e6:.1f} GB of memory"
    return ""


def fuzz(asked: Asked, first: int, inputs: int, workers: int, whole: int) -> list[Finding]:
    """Have inputs read by workers, the last `whole` of them by real command lines."""
    numbers = range(first, first + inputs - whole)
    crew = [Worker(asked, numbers[each::workers]) for each in range(workers)]
    threads = [threading.Thread(target=worker.run) for worker in crew]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    findings = [finding for worker in crew for finding in worker.findings]
    for number in range(first + inputs - whole, first + inputs):
        if found := by_command_line(number, asked):
            findings.append(found)
            print(found, flush=True)
    counts: Counter[tuple[str, int]] = sum((worker.counts for worker in crew), Counter())
    for kind in asked.kinds:
        ends = {code: counts[kind, code] for code in range(4)}
        print(f"{kind:24} {sum(ends.values()):6} inputs, by exit code {ends}", file=sys.stderr)
    return findings


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz as asked, and print the findings; 1 where there are some."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--whole", type=int, help="so many by real command lines", default=None)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for an input")
    parser.add_argument("--kinds", nargs="*", default=list(READERS), choices=list(READERS))
    parser.add_argument("--seeds", type=Path, help="folder of seeds, made if it is not there")
    given = parser.parse_args(arguments)
    whole = given.inputs // 50 if given.whole is None else given.whole
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.seeds or Path(scratch)
        if not (folder / "options.toml").exists():
            folder.mkdir(parents=True, exist_ok=True)
            making.make(folder)
        asked = Asked(given.seed, given.kinds, folder, given.limit)
        findings = fuzz(asked, given.first, given.inputs, given.workers, whole)
    seconds = time.monotonic() - begin
    print(f"{given.inputs:,} inputs, {len(findings)} findings, {seconds:.0f} s", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
