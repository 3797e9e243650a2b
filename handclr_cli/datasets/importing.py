"""What an import does with any data set: make its shards, count what became of the items, say how
labels agree.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from ..contract.index import ShardIndex
from ..contract.units import Unit, Units, UnitWriter
from ..work.crew import in_order
from .checks import Check
from .hand100m import KeypointCheck
from .labelled import Invalid, LabelledSet, Made

# As many of the broken files are named; all are counted.
_NAMED = 5
# Items that go to a worker at a time, so that it does not wait for its next one after each.
_BATCH = 8


class ImportJob:
    """Makes the units of a `part` that are missing; `counts` then says what became of the items of
    all of them.

    `make` gives what became of an item, in a worker process, and `item` all that it needs of a row;
    files that cannot be used are named relative to `root`, and `warn` is called with a line about
    the first ones. Raises HandclrError for the first one where `strict`.
    """

    def __init__(
        self,
        units: Units,
        part: slice,
        make: Callable[[Any], Made],
        item: Callable[[int], Any],
        check: Check | KeypointCheck | None,
        root: str,
        strict: bool,
        warn: Callable[[str], None],
    ) -> None:
        self.units, self.mine, self.check = units, units.units[part], check
        # With a check what is there is looked at again, so that it is of all.
        self.todo = self.mine if check else units.missing(part)
        self.total = sum(len(unit.rows) for unit in self.todo)
        self.counts: Counter[str] = Counter()
        self._make, self._item, self._root, self._strict, self._warn = (
            make,
            item,
            root,
            strict,
            warn,
        )
        self._named = 0
        # Of each row whether its sample was written.
        self._written = bytearray(sum(len(unit.rows) for unit in units.units))

    def work(self, processes: int, advance: Callable[[], None]) -> None:
        """Write what is missing; `advance` is called after each item."""
        made = in_order(
            self._make,
            (self._item(row) for unit in self.todo for row in unit.rows),
            processes,
            _BATCH,
        )
        for unit in self.mine:
            if self.units.done(unit) and not self.check:
                self.counts += self._found(unit)
                continue
            with nullcontext() if self.units.done(unit) else self.units.write(unit) as writer:
                counts: Counter[str] = Counter()
                for row, one in zip(unit.rows, made, strict=False):
                    counts[self._look(row, one, writer)] += 1
                    advance()
                if writer:
                    writer.counts += counts
            self.counts += counts

    def present(self, key: Callable[[int], str]) -> np.ndarray:
        """Of each row whether its sample is in the shards, those included that were there before;
        (N,) bool.
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
            told = (
                f"{unit.path}: lacks {lacking} of its items, whose files were broken; remove it to"
                " have it made again"
            )
            if self._strict:
                raise HandclrError(told)
            self._warn(told)
        return counts

    def _look(self, row: int, made: Made, writer: UnitWriter | None) -> str:
        """Under which word an item is counted: the side of its hand, or the reason why there is
        none.
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
                f"{made.path}: {made.invalid}; download it again, or import without --strict"
            )
        self._named += 1
        if self._named <= _NAMED:
            self._warn(f"{made.path}: {made.invalid}; skipped")
        if writer:
            # Without the folder, so that the bytes are the same wherever it lies.
            writer.skipped.append(f"{os.path.relpath(made.path, self._root)}: {made.invalid}")


def open_set(name: str, root: str | os.PathLike[str], split: str, compare: bool) -> LabelledSet:
    """A split of `freihand`, `dexycb` or `assemblyhands`; with `compare` the set's own 2D labels
    are kept.
    """
    if name == "freihand":
        from .freihand import FreiHAND

        return FreiHAND(root, split)
    if name == "dexycb":
        from .dexycb import DexYCB

        return DexYCB(root, split)
    from .assemblyhands import AssemblyHands

    return AssemblyHands(root, split, compare)


def broken(counts: Mapping[str, int]) -> int:
    """How many items the files on this disk are to blame for, of counts by reason."""
    return sum(counts[reason] for reason in Invalid if reason.broken)


def agreement(found: dict[str, Any]) -> str:
    """The numbers of a check in words."""
    if not found["hands"]:
        return "nothing to check"
    if "keypoints_in_box" in found:
        in_box, inside = found["keypoints_in_box"], found["keypoints_inside"]
        return (
            f"{in_box:.2%} of the keypoints inside the annotated box, {inside:.2%} inside the image"
        )
    bone, inside, error = (
        found["reference_bone_mm"],
        found["joints_inside"],
        found["projection_error_px"],
    )
    from_own = "no 2D labels of the set's own to compare with"
    if error:
        from_own = (
            "{median:.2f} px from the set's own 2D labels (95 %: {p95:.2f}, max {max:.2f})".format(
                **error
            )
        )
    return (
        f"reference bone {bone['min']:.1f} to {bone['max']:.1f} mm, median {bone['median']:.1f}; "
        f"{inside:.2%} of the joints inside the image; {from_own}"
    )
