"""A process that reads inputs one after another, and tells of each what came of it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .calls import Told, call
from .readers import READERS, Reader

MEMORY = 4 << 30
# Of inputs for commands that import torch, so many in one for the others.
TORCH_EVERY = 5


class Input(NamedTuple):
    """An input of a seed: its number, its kind, and the words that read it."""

    number: int
    kind: str
    words: list[str]


def kind_of(number: int, kinds: Sequence[str]) -> str:
    """The kind of an input: all in turn, those that take long in every fifth round."""
    light = [kind for kind in kinds if not READERS[kind].torch]
    heavy = [kind for kind in kinds if READERS[kind].torch]
    if not light or (heavy and number % TORCH_EVERY == 0):
        return heavy[number // (TORCH_EVERY if light else 1) % len(heavy)]
    return light[number % len(light)]


def written(number: int, seed: int, kinds: Sequence[str], seeds: Path, folder: Path) -> Input:
    """Write an input into an empty folder; returns the words of the command that reads it."""
    draw = np.random.default_rng([seed, number])
    kind = kind_of(number, kinds)
    reader = READERS[kind]
    sources = sorted(seeds.glob(reader.seed))
    source = sources[draw.integers(len(sources))]
    data = reader.change(source.read_bytes(), draw)
    target = _place(reader, source, seeds, folder)
    target.write_bytes(data)
    given = folder / reader.beside if reader.beside else target
    line = reader.commands[draw.integers(len(reader.commands))]
    places = {"x": given, "s": seeds, "o": folder / "out"}
    return Input(number, kind, [word.format(**places) for word in line.split()])


def _place(reader: Reader, source: Path, seeds: Path, folder: Path) -> Path:
    if not reader.beside:
        return folder / source.name
    shutil.copytree(seeds / reader.beside, folder / reader.beside, copy_function=_link)
    target = folder / source.relative_to(seeds)
    target.unlink()
    return target


def _link(source: str, target: str) -> None:
    # Logs are written to where they are.
    (os.link if source.endswith((".pt", ".jpg")) else shutil.copyfile)(source, target)


def read(numbers: Sequence[int], seed: int, kinds: Sequence[str], seeds: Path) -> Iterator[Any]:
    """Read inputs in this process; yields each before it is read, and how it ended."""
    for number in numbers:
        with tempfile.TemporaryDirectory(prefix="handclr-fuzz-") as name:
            made = written(number, seed, kinds, seeds, Path(name))
            yield made
            told = call(made.words)
            yield told._replace(finding=told.finding or _left_behind(Path(name), told))


def _left_behind(folder: Path, told: Told) -> str:
    """A temporary file that a command left, or an output that it failed to finish."""
    left = [path.name for path in folder.rglob("*") if ".tmp-" in path.name]
    return f"left {left[0]} behind" if left else ""


def _limit_memory() -> None:
    """Let this process take 4 GB more than it has mapped with all libraries loaded."""
    for library in ("torch", "torchvision", "cv2", "numba", "av", "matplotlib.figure"):
        __import__(library)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, resource.RLIM_INFINITY))


def main() -> None:
    """Read what the arguments say, and print a line of JSON before and after each."""
    asked = json.loads(sys.argv[1])
    report = os.fdopen(os.dup(1), "w", buffering=1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.environ.update(HANDCLR_OFFLINE="1", OPENCV_LOG_LEVEL="SILENT")
    _limit_memory()
    report.write('"ready"\n')
    found = read(asked["numbers"], asked["seed"], asked["kinds"], Path(asked["seeds"]))
    for told in found:
        report.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
