"""What an import does with any data set: make its shards, and count what became of the items."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from .. import console
from ..contract.errors import HandclrError
from ..contract.index import ShardIndex
from ..contract.units import Unit, Units, UnitWriter
from ..work.crew import in_order
from .checks import Check, KeypointCheck
from .labelled import Invalid, Made

# As many of the broken files are named; all are counted.
_NAMED = 5
# Items that go to a worker at a time, so that it does not wait for its next one after each.
_BATCH = 8


class ShardMaker:
    """Makes the units of a `part` that are missing.

    `counts` then says what became of the items of all units of the part. `make` says what became of
    an item, in a worker process, and `item` gives all that it needs of a row. Files that cannot be
    used are named relative to `root`, with a warning for the first ones; raises HandclrError for
    the first one where `strict`.
    """

    def __init__(
        self,
        units: Units,
        part: slice,
        *,
        make: Callable[[Any], Made],
        item: Callable[[int], Any],
        check: Check | KeypointCheck | None,
        root: str,
        strict: bool,
    ) -> None:
        self.units, self.mine, self.check = units, units.units[part], check
        # A check covers all shards, so those that are there are looked at again.
        self.todo = self.mine if check else units.missing(part)
        self.total = sum(len(unit.rows) for unit in self.todo)
        self.counts: Counter[str] = Counter()
        self._make, self._item, self._root, self._strict = make, item, root, strict
        self._named = 0
        # Of each row whether its sample was written.
        self._written = bytearray(sum(len(unit.rows) for unit in units.units))

    def work(self, processes: int, advance: Callable[[], None]) -> None:
        """Write what is missing; `advance` is called after each item."""
        rows = itertools.chain.from_iterable(unit.rows for unit in self.todo)
        made = in_order(self._make, map(self._item, rows), processes, _BATCH)
        for unit in self.mine:
            if self.units.done(unit) and not self.check:
                self.counts += self._found(unit)
                continue
            counts: Counter[str] = Counter()
            with nullcontext() if self.units.done(unit) else self.units.write(unit) as writer:
                for row, one in zip(unit.rows, made, strict=False):
                    counts[self._look(row, one, writer)] += 1
                    advance()
                if writer:
                    writer.counts += counts
            self.counts += counts

    def present(self, key: Callable[[int], str]) -> np.ndarray:
        """Whether the sample of each row is in the shards, (N,) bool.

        Samples that were there before count too.
        """
        for unit in self.units.units:
            if self.units.done(unit):
                index = ShardIndex([unit.path])
                for row in unit.rows:
                    self._written[row] = key(row) in index
        return np.frombuffer(self._written, bool)

    def _found(self, unit: Unit) -> Counter[str]:
        """What became of the items of a shard that is there."""
        counts = self.units.counts(unit)
        if lacking := broken(counts):
            line = (
                f"{unit.path}: lacks {lacking} of its items, whose files were broken; "
                "remove it to have it made again"
            )
            if self._strict:
                raise HandclrError(line)
            console.warn(line)
        return counts

    def _look(self, row: int, made: Made, writer: UnitWriter | None) -> str:
        """Take in what became of an item, and return the word under which it is counted.

        That is the side of its hand, or the reason why there is none.
        """
        if self.check:
            self.check.add(row, made)
        if made.sample and writer:
            writer.write(made.sample)
            self._written[row] = True
        if made.invalid is None:
            return made.side
        if made.invalid.broken:
            self._skip(made, writer)
        return str(made.invalid)

    def _skip(self, made: Made, writer: UnitWriter | None) -> None:
        if self._strict:
            raise HandclrError(
                f"{made.path}: {made.invalid}; download it again, or leave this out to skip it",
                setting="strict",
            )
        self._named += 1
        if self._named <= _NAMED:
            console.warn(f"{made.path}: {made.invalid}; skipped")
        if writer:
            # Without the folder, so that the bytes are the same wherever it lies.
            writer.skipped.append(f"{os.path.relpath(made.path, self._root)}: {made.invalid}")


def broken(counts: Mapping[str, int]) -> int:
    """Count the items whose files on this disk are broken, from counts by reason."""
    return sum(counts[reason] for reason in Invalid if reason.broken)
