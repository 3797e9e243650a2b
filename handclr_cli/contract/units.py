"""Work cut into units: each a fixed slice of the inputs and one numbered shard, so that a killed job goes on."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .errors import HandclrError, UsageError
from .inputs import STDIN
from .output import binary_output
from .provenance import Provenance, dumps, loads
from .shards import PROVENANCE, ShardWriter
from .tar import MapCursor, StreamCursor, walk, write_member

COUNTS = "__counts__"


@dataclass(frozen=True)
class Unit:
    """One shard to write: its number, its path, and the rows of the inputs that it is made of."""

    number: int
    path: str
    rows: range


class UnitWriter(ShardWriter):
    """A shard that ends with `counts`: what became of its inputs, for the summary of a run that finds it done."""

    def __init__(self, file: BinaryIO, record: Provenance, keep: bool) -> None:
        super().__init__(file, record)
        self.counts: Counter[str] = Counter()
        self._keep = keep

    def close(self) -> None:
        """Write the counts and the end-of-archive mark."""
        if self._keep:
            if self.written is None:
                self._note(None)
            write_member(self.file, COUNTS, json.dumps(self.counts, sort_keys=True).encode())
        super().close()


class Units:
    """The units of a job: `count` inputs, `size` of them to a numbered shard (`train-%06d.tar`).

    A shard that is there is done; `record` and both numbers must be those that it was made with, else UsageError
    names what differs. With `overwrite` such a shard is made again instead, and those that no unit replaces go when
    the first new one is complete. Another kind of `pattern`, a file or `-`, is one unit of all inputs that is never
    done before. Which unit an input falls into depends on `count` and `size` alone.
    """

    def __init__(self, pattern: str, record: Provenance, count: int, size: int, overwrite: bool = False) -> None:
        self.numbered = pattern != STDIN and "%" in os.path.basename(pattern)
        self._done: set[str] = set()
        self._others: list[str] = []
        if not self.numbered:
            self.record = record
            self.units = [Unit(0, pattern, range(count))]
            return
        there = _shards_of(pattern)
        # As JSON gives it back, so that it can be compared with what a shard says.
        self.record = json.loads(dumps({**record, "unit": {"inputs": count, "each": size}}))
        slices = enumerate(range(0, count, size))
        self.units = [Unit(n, pattern % n, range(first, min(count, first + size))) for n, first in slices]
        for path in there:
            difference = self._difference(path)
            if difference and not overwrite:
                raise UsageError(f"{path}: {difference}; remove the old shards, pass --overwrite or name others")
            if difference:
                self._others.append(path)
            else:
                self._done.add(path)

    def done(self, unit: Unit) -> bool:
        """Whether the unit's shard is there, made with the same arguments."""
        return unit.path in self._done

    def missing(self, part: slice = slice(None)) -> list[Unit]:
        """The units of a part that are still to be made, in order."""
        return [unit for unit in self.units[part] if not self.done(unit)]

    def counts(self, unit: Unit) -> Counter[str]:
        """What became of the inputs of a unit that is done; empty where its shard does not say."""
        with open(unit.path, "rb") as file:
            cursor = MapCursor(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        last = next((member for member in walk(cursor, unit.path) if member.name == COUNTS), None)
        return Counter(loads(bytes(last.data)) if last else None)

    @contextlib.contextmanager
    def write(self, unit: Unit) -> Iterator[UnitWriter]:
        """A writer for the unit's samples; the shard has its name when the block ends without an exception."""
        with binary_output(unit.path) as file:
            writer = UnitWriter(file, self.record, keep=self.numbered)
            yield writer
            writer.close()
        mine = {unit.path for unit in self.units}
        for path in self._others:
            if path not in mine:
                Path(path).unlink(missing_ok=True)
        self._others = []

    def _difference(self, path: str) -> str:
        """What a shard was made with where that is not what is asked now, else nothing."""
        try:
            made = _made_with(path)
        except HandclrError as error:
            return f"not a finished shard ({error})"
        before, now = made.get("arguments", {}), self.record["arguments"]
        differing = [
            f"--{name.replace('_', '-')} {before.get(name, '(not set)')}"
            for name in {**now, **before}
            if before.get(name) != now.get(name)
        ]
        # Histories are those of the samples, not of the command.
        for name in (made.keys() | self.record.keys()) - {"arguments", "history"}:
            if made.get(name) != self.record.get(name):
                differing.append(f"{name} {json.dumps(made.get(name))}")
        return f"made with {', '.join(sorted(differing))}" if differing else ""


def _made_with(path: str) -> Provenance:
    """The provenance at the head of a shard; raises HandclrError where there is none."""
    try:
        with open(path, "rb") as file:
            first = next(walk(StreamCursor(file), path), None)
    except OSError as error:
        raise HandclrError(f"cannot read {path}: {error.strerror}") from error
    made = loads(bytes(first.data)) if first and first.name == PROVENANCE else None
    if made is None:
        raise HandclrError(f"{path}: has no provenance")
    return made


def _shards_of(pattern: str) -> list[str]:
    """The shards that are there under a pattern, by number; raises UsageError where it is none."""
    folder, base = os.path.split(pattern)
    if "%" in folder or not re.fullmatch(r"[^%]*%\d*d[^%]*", base):
        raise UsageError(f"-o {pattern}: not a shard pattern; write crops-%06d.tar")
    number = re.compile(re.sub(r"%\d*d", r"(\\d+)", re.escape(base)))
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return []
    numbers = sorted(int(match[1]) for name in names if (match := number.fullmatch(name)))
    return [path for path in (pattern % each for each in numbers) if os.path.exists(path)]
