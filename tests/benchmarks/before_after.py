r"""Two trees of handclr side by side: wall and processor time of the same commands, taking turns.

    python tests/benchmarks/before_after.py --old ../before --new . \
        --footage videos/ --rounds 5 --json before_after.json

mine: exact, over --poses poses that are walks of videos as in mining.py. extract: over the footage
at 2 frames a second, in one process; left out where no footage is named. step: one step of
pretraining, resnet18, 64 px, 64 pairs, one thread: the difference of a run and one of twice as many
steps, over the steps that it has more.

Each command is a process of its own whose modules come from its tree, run by the interpreter that
runs this. In one round both trees have their turn; who comes first alternates. A round that does
not count comes before the others: it compiles the code and reads the files from the disk. Ratios
are of the medians, new over old; those of the single rounds show how much they scatter. Processor
time is that of the process and of those it started and waited for. Files are compared too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from mining import AXES, WALKS, walks
from pretraining import draw_crops

from handclr_cli.contract.npz import write_npz
from handclr_cli.contract.provenance import provenance

BATCH = 64
DONE_WITH_SKIPS = 3


class Times(NamedTuple):
    """Seconds of a clock, and of the processor."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Side:
    """A tree of handclr, and the folder that its commands write to."""

    name: str
    tree: Path
    folder: Path

    def handclr(self, *words: object, **environment: str) -> Times:
        """Run a command of this tree."""
        # -P: the folder that this is started from may be one of the trees.
        line = [sys.executable, "-P", "-m", "handclr_cli", *map(str, words), "-q"]
        begin = time.perf_counter()
        child = subprocess.Popen(
            line, env={**self.environment(), **environment}, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode not in (0, DONE_WITH_SKIPS):
            sys.exit(f"{self.name}: ended with {child.returncode}: {' '.join(line)}")
        return Times(wall, usage.ru_utime + usage.ru_stime)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.tree)}

    def check(self) -> None:
        """End this process where the modules would come from somewhere else."""
        code = "import handclr_cli; print(handclr_cli.__file__)"
        told = subprocess.run(
            [sys.executable, "-P", "-c", code],
            env=self.environment(),
            check=True,
            capture_output=True,
            text=True,
        )
        if Path(told.stdout.strip()).parent != self.tree / "handclr_cli":
            sys.exit(f"{self.name}: {self.tree} is not imported, but {told.stdout.strip()}")


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        sides = [Side(name, vars(options)[name], Path(folder, name)) for name in ("old", "new")]
        options.data = Path(folder)
        for side in sides:
            side.folder.mkdir()
            side.check()
        found = {}
        print("| what | old, s | new, s | new / old | of the rounds | same bytes |")
        print("|---|--:|--:|--:|---|---|", flush=True)
        for name in options.works:
            if name != "extract" or options.footage:
                found[name] = measured(name, sides, options)
                print_rows(name, found[name])
    if options.json:
        about = {"cores": os.cpu_count(), "options": vars(options), "works": found}
        options.json.write_text(json.dumps(about, indent=2, default=str) + "\n")


def parse() -> Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", type=Path, required=True, help="a tree that has handclr_cli/")
    parser.add_argument("--new", type=Path, required=True, help="another one")
    parser.add_argument("--works", nargs="+", choices=WORKS, default=[*WORKS])
    parser.add_argument("--footage", type=Path, help="a video, or a folder of them")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--poses", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=16, help="of the shorter run, even")
    parser.add_argument("--threads", type=int, default=2, help="of mine")
    parser.add_argument("--json", type=Path, help="write all numbers")
    options = parser.parse_args()
    options.old, options.new = options.old.resolve(), options.new.resolve()
    return options


def measured(name: str, sides: list[Side], options: Namespace) -> dict[str, Any]:
    """What both trees took for a work, round by round, and whether they wrote the same."""
    work = WORKS[name]
    work.prepare(options)
    times: dict[str, list[Times]] = {side.name: [] for side in sides}
    for number in range(options.rounds + 1):
        for side in sides if number % 2 else reversed(sides):
            told = work.run(side, options)
            said = f"{name}, round {number}, {side.name}: {told.wall:.3f} s"
            print(f"{said}, {told.cpu:.3f} s of the processor", file=sys.stderr, flush=True)
            if number:
                times[side.name].append(told)
    old, new = ((side.folder / work.output).read_bytes() for side in sides)
    return {"same_bytes": old == new, **{side: by_clock(rows) for side, rows in times.items()}}


def by_clock(times: list[Times]) -> dict[str, list[float]]:
    wall, cpu = zip(*times, strict=True)
    return {"wall": list(wall), "cpu": list(cpu)}


def print_rows(name: str, found: dict[str, Any]) -> None:
    for clock, title in (("wall", "clock"), ("cpu", "processor")):
        old, new = found["old"][clock], found["new"][clock]
        rounds = " ".join(f"{after / before:.3f}" for before, after in zip(old, new, strict=True))
        words = [f"{name}, {title}", f"{median(old):.3f}", f"{median(new):.3f}"]
        words += [f"{median(new) / median(old):.3f}", rounds]
        print("|", " | ".join([*words, "yes" if found["same_bytes"] else "no"]), "|", flush=True)


def make_poses(options: Namespace) -> None:
    """Write embeddings without keypoints behind them: axes are there, for the layout."""
    poses = walks(options.poses, *WALKS["dup"], np.random.default_rng(0))
    number = np.char.zfill(np.arange(options.poses).astype("S9"), 9)
    video = np.char.zfill(np.arange(poses.group.max() + 1).astype("S6"), 6)
    arrays = {
        "key": np.char.add(b"walk_", number),
        "video": np.char.add(b"video_", video),
        "video_id": poses.group,
        "embedding": poses.embedding,
        "components": np.eye(AXES, 42),
        "mean": np.zeros(42),
        "explained_variance_ratio": np.full(AXES, 1 / AXES),
    }
    write_npz(str(options.data / "poses.npz"), "pose", arrays, provenance("pca", {}))


def mine(side: Side, options: Namespace) -> Times:
    exact = ("--engine", "exact-cpu", "--threads", options.threads)
    return side.handclr("mine", options.data / "poses.npz", *exact, "-o", side.folder / "pairs.npz")


def extract(side: Side, options: Namespace) -> Times:
    sampling = ("--fps", 2, "--workers", 0)
    return side.handclr("extract", options.footage, *sampling, "-o", side.folder / "crops.tar")


def make_crops(options: Namespace) -> None:
    """Two steps an epoch."""
    (options.data / "crops").mkdir()
    draw_crops(str(options.data / "crops"), Namespace(crops=2 * BATCH, batch=[BATCH]))


def step(side: Side, options: Namespace) -> Times:
    """The means over the steps that the longer run has more."""
    epochs = max(1, options.steps // 2)
    short, long = pretrain(side, options, epochs), pretrain(side, options, 2 * epochs)
    return Times(*((more - less) / (2 * epochs) for less, more in zip(short, long, strict=True)))


def pretrain(side: Side, options: Namespace, epochs: int) -> Times:
    what = ("--method", "peclr", "--arch", "resnet18", "--size", 64, "--batch", BATCH)
    where = ("--device", "cpu", "--workers", 0, "--cache", "ram", "--fresh")
    return side.handclr(
        *("pretrain", options.data / "crops", *what, *where),
        *("--epochs", epochs, "--run", side.folder / "run"),
        OMP_NUM_THREADS="1",
    )


class Work(NamedTuple):
    """What is measured, what must be there before it, and what it writes."""

    run: Callable[[Side, Namespace], Times]
    prepare: Callable[[Namespace], None]
    output: str


WORKS = {
    "mine": Work(mine, make_poses, "pairs.npz"),
    "extract": Work(extract, lambda options: None, "crops.tar"),
    "step": Work(step, make_crops, "run/encoder.pt"),
}

if __name__ == "__main__":
    main()
