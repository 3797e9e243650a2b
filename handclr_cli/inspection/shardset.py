"""The shards of one data set: which are missing or damaged, and what became of their inputs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..contract.fields import FIELDS
from ..contract.numbering import (
    Head,
    braces,
    head_of,
    left_over,
    number_of,
    order,
    ranges,
    shard_names,
)
from ..contract.units import HANDS, INPUTS, TOTAL
from .census import Census
from .variants import UNIT, differences, identity, variants

EXAMPLES = 5
# The most shards of a job; a shard that names a larger number is not believed.
MOST = 10_000_000


@dataclass
class ShardSet:
    """The tars of one data set; `absent` are the names that were given and do not exist."""

    censuses: list[Census]
    absent: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of its file, or a brace range of its files."""
        names = sorted({*self._sources(), *self.absent}, key=order)
        if len(names) == 1:
            return names[0]
        if len({head_of(name) for name in names}) == 1:
            return braces(names[0], names[-1])
        return f"{names[0]} and {len(names) - 1:,} more"

    def describe(self, harmless: Collection[str] = (), skipped: bool = False) -> dict[str, Any]:
        """Describe the set, as JSON with the keys that the page on footage lists.

        harmless: the reasons for an input without a sample that are not faults. skipped: with the
        lines that name what was skipped.
        """
        missing, of, warnings = self._missing()
        found = variants(self.censuses)
        identities = {frozenset(map(identity, one.origins)) for one in self.censuses if one.origins}
        if len(identities) > 1:
            warnings += [f"shards were made differently: {line}" for line in differences(found)]
        twice = repeated_keys([one.keys for one in self.censuses])
        damaged = self._damaged()
        return {
            "kind": "shards",
            "name": self.name,
            "complete": None if of is None and not missing else not missing,
            "sound": not damaged and not twice,
            "files": len(set(self._sources())),
            "archives": len(self.censuses),
            "bytes": sum(one.size for one in self.censuses),
            **self._samples(),
            "shards_of_job": of,
            "missing": ranges(missing),
            "missing_count": len(missing),
            **self._inputs(harmless),
            **(self._skipped_lines() if skipped else {}),
            "damaged": damaged,
            **self._duplicates(twice),
            "temporary": self._temporary(),
            "provenance": list(found.values()),
            "warnings": warnings,
        }

    def _sources(self) -> list[str]:
        return [one.source for one in self.censuses]

    def _skipped_lines(self) -> dict[str, Any]:
        return {"skipped_lines": [line for one in self.censuses for line in one.skipped]}

    def _damaged(self) -> list[dict[str, Any]]:
        return [
            {"name": one.source, "samples": one.readable, "problems": one.problems}
            for one in self.censuses
            if one.problems
        ]

    def _duplicates(self, twice: dict[bytes, list[int]]) -> dict[str, Any]:
        """How many samples have the key of an earlier one, and examples of such keys."""
        examples = []
        for key, parts in list(twice.items())[:EXAMPLES]:
            sources = [self.censuses[part].source for part in parts[:EXAMPLES]]
            examples.append({"key": key.decode("utf-8", "replace"), "in": sources})
        count = sum(len(parts) - 1 for parts in twice.values())
        return {"duplicate_count": count, "duplicates": examples}

    def _samples(self) -> dict[str, Any]:
        """The counts of samples, sides, videos, members and sizes."""
        samples = sum(one.samples for one in self.censuses)
        sides = _sum(one.sides for one in self.censuses)
        members = _sum(one.members for one in self.censuses)
        sizes = _sum(one.crops for one in self.censuses).most_common()
        videos = set().union(*(one.videos for one in self.censuses))
        known = [each.suffix for each in FIELDS]
        suffixes = [*known, *sorted(members.keys() - set(known))]
        by_side = {side: sides[side] for side in HANDS}
        by_suffix = {suffix: members[suffix] for suffix in suffixes if members[suffix]}
        return {
            "samples": samples,
            "sides": {**by_side, "unknown": samples - sides.total()},
            "videos": len(videos),
            "members": by_suffix,
            "crop_sizes": {f"{width}x{height}": count for (width, height), count in sizes},
        }

    def _inputs(self, harmless: Collection[str]) -> dict[str, Any]:
        """What became of the inputs of all shards together."""
        counts = _sum(Counter(one.counts) for one in self.censuses if one.counts)
        without_sample: dict[str, int] = {}
        skipped: dict[str, int] = {}
        for reason in sorted(counts.keys() - {TOTAL, *INPUTS}):
            if counts[reason]:
                (without_sample if reason in harmless else skipped)[reason] = counts[reason]
        return {
            "inputs": {word: counts[word] for word in INPUTS if word in counts},
            "without_sample": without_sample,
            "skipped": skipped,
            "skipped_count": sum(skipped.values()),
        }

    def _missing(self) -> tuple[list[str], int | None, list[str]]:
        """The missing shards of the job, how many it has, and warnings."""
        totals = [total for one in self.censuses if (total := _total(one)) is not None]
        names = self._sources()
        if not totals:
            return list(self.absent), None, _gaps([*names, *self.absent])
        # The first shards have a smaller total where footage was added to the job later.
        of = max(totals)
        numbers = set(map(_number, self.censuses))
        beyond = sum(number is not None and number >= of for number in numbers)
        warnings = []
        if beyond:
            warnings = [f"{beyond:,} of the shards have numbers beyond the {of:,} of the job"]
        lacking = (number for number in range(of) if number not in numbers)
        return _absent(shard_names(names, lacking)), of, warnings

    def _temporary(self) -> list[str]:
        heads = set(map(head_of, [*self._sources(), *self.absent]))
        found = []
        for folder in sorted({head.folder for head in heads}):
            found += left_over(folder, heads)
        return found


def group_sets(censuses: Iterable[Census], absent: Iterable[str] = ()) -> list[ShardSet]:
    """Group tars into data sets: numbered files by name, others by folder and provenance."""
    censuses, absent = list(censuses), list(absent)
    files = Counter(map(head_of, {one.source for one in censuses}.union(absent)))
    places: dict[str, Head | tuple[str, str]] = {}
    sets: dict[Head | tuple[str, str], ShardSet] = {}
    for one in censuses:
        head = head_of(one.source)
        alone = files[head] == 1 and _total(one) is None
        likeness = (head.folder, identity(one.origins[0]) if one.origins else "")
        # Where a file has several tars, the first of them decides.
        place = places.setdefault(one.source, likeness if alone else head)
        sets.setdefault(place, ShardSet([])).censuses.append(one)
    for name in absent:
        sets.setdefault(head_of(name), ShardSet([])).absent.append(name)
    return list(sets.values())


def shared_keys(sets: Sequence[ShardSet]) -> list[dict[str, Any]]:
    """The data sets that have keys in common, as the stages of one pipeline do, and how many."""
    found: Counter[tuple[int, ...]] = Counter()
    for parts in repeated_keys(list(map(_keys, sets))).values():
        found[tuple(sorted(set(parts)))] += 1
    shared = []
    for owners, count in found.items():
        if len(owners) > 1:
            shared.append({"in": [sets[owner].name for owner in owners], "count": count})
    return shared


def repeated_keys(parts: Sequence[np.ndarray]) -> dict[bytes, list[int]]:
    """The keys that come more than once among parts, bytes (N,), and the parts that have each."""
    if not any(len(part) for part in parts):
        return {}
    keys = np.concatenate(parts)
    ordered = np.sort(keys)
    rows = np.flatnonzero(np.isin(keys, np.unique(ordered[1:][ordered[1:] == ordered[:-1]])))
    ends = np.cumsum([len(part) for part in parts])
    owners = np.searchsorted(ends, rows, side="right")
    places: dict[bytes, list[int]] = {}
    for key, part in zip(keys[rows].tolist(), owners.tolist(), strict=True):
        places.setdefault(key, []).append(part)
    return places


def _keys(each: ShardSet) -> np.ndarray:
    return np.concatenate([one.keys for one in each.censuses] or [np.zeros(0, "S1")])


def _total(one: Census) -> int | None:
    """How many shards the job of a shard has: by its counts, else by how its inputs were cut."""
    inputs, each = (_unit(one).get(word) for word in UNIT)
    total = one.counts.get(TOTAL) if one.counts else None
    if total is None and type(inputs) is int and type(each) is int and each > 0:
        total = -(-inputs // each)
    return total if total is not None and 0 <= total <= MOST else None


def _number(one: Census) -> int | None:
    """The number of a shard: by the name of its file, or in a stream by its provenance."""
    number = number_of(one.source)
    told = _unit(one).get("number")
    return told if number is None and type(told) is int else number


def _gaps(names: Sequence[str]) -> list[str]:
    """A warning of missing numbers, for a set whose shards do not say how many it has."""
    there = {number for name in names if (number := number_of(name)) is not None}
    if len(there) < 2 or max(there) - min(there) > MOST:
        return []
    between = (number for number in range(min(there), max(there)) if number not in there)
    lacking = _absent(shard_names(names, between))
    return [f"the numbers pass over {' '.join(ranges(lacking)[:EXAMPLES])}"] if lacking else []


def _absent(names: Iterable[str]) -> list[str]:
    """The shards that do not exist: where a part of a set was named, the others are not missing."""
    return [name for name in names if not os.path.exists(name)]


def _unit(one: Census) -> dict[str, Any]:
    unit = one.origins[0].get("unit") if one.origins else None
    return unit if isinstance(unit, dict) else {}


def _sum(counters: Iterable[Counter[Any]]) -> Counter[Any]:
    total: Counter[Any] = Counter()
    for counter in counters:
        total.update(counter)
    return total
