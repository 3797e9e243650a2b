"""The shards of one data set: which are there, whether they belong together, what became of their
inputs.
"""

from __future__ import annotations

import json
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
from ..contract.provenance import Provenance
from ..contract.units import HANDS, INPUTS, TOTAL
from .census import Census

EXAMPLES = 5
# A shard that says that there are more of its kind is not believed.
MOST = 10_000_000
# What differs from shard to shard of one job.
_INPUTS = ("inputs", "input_count", "input_sha256", "history")
_UNIT = ("inputs", "each")


@dataclass
class ShardSet:
    """The tars that make one data set; `absent` are those that were named and are not there."""

    censuses: list[Census]
    absent: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The set as one file or as the pattern of its files."""
        names = sorted({census.source for census in self.censuses} | set(self.absent), key=order)
        if len(names) == 1:
            return names[0]
        if len({head_of(name) for name in names}) == 1:
            return braces(names[0], names[-1])
        return f"{names[0]} and {len(names) - 1:,} more"

    def describe(self, harmless: Collection[str] = (), skipped: bool = False) -> dict[str, Any]:
        """What `handclr inspect --json` says of the set; the README has the keys.

        harmless: reasons for an input without a sample that are nobody's fault. skipped: with the
        lines that name what was skipped.
        """
        missing, of, warnings = self._missing()
        variants = self._variants()
        if (
            len({frozenset(map(_identity, one.origins)) for one in self.censuses if one.origins})
            > 1
        ):
            warnings += [f"shards were made differently: {line}" for line in _differences(variants)]
        broken = [one for one in self.censuses if one.problems]
        twice = repeated_keys([one.keys for one in self.censuses])
        return {
            "kind": "shards",
            "name": self.name,
            "complete": None if of is None and not missing else not missing,
            "sound": not broken and not twice,
            "files": len({one.source for one in self.censuses}),
            "archives": len(self.censuses),
            "bytes": sum(one.size for one in self.censuses),
            **self._samples(),
            "shards_of_job": of,
            "missing": ranges(missing),
            "missing_count": len(missing),
            **self._inputs(harmless),
            **(
                {"skipped_lines": [line for one in self.censuses for line in one.skipped]}
                if skipped
                else {}
            ),
            "damaged": [
                {"name": one.source, "samples": one.samples, "problems": one.problems}
                for one in broken
            ],
            "duplicate_count": sum(len(parts) - 1 for parts in twice.values()),
            "duplicates": [
                {
                    "key": key.decode("utf-8", "replace"),
                    "in": [self.censuses[part].source for part in parts[:EXAMPLES]],
                }
                for key, parts in list(twice.items())[:EXAMPLES]
            ],
            "temporary": self._temporary(),
            "provenance": list(variants.values()),
            "warnings": warnings,
        }

    def _samples(self) -> dict[str, Any]:
        """The counts of samples, sides, videos, members and sizes."""
        samples = sum(one.samples for one in self.censuses)
        sides, members = (
            _sum(one.sides for one in self.censuses),
            _sum(one.members for one in self.censuses),
        )
        sizes = _sum(one.crops for one in self.censuses)
        known = [each.suffix for each in FIELDS]
        suffixes = [*known, *sorted(members.keys() - set(known))]
        return {
            "samples": samples,
            "sides": {**{side: sides[side] for side in HANDS}, "unknown": samples - sides.total()},
            "videos": len(set().union(*(one.videos for one in self.censuses))),
            "members": {suffix: members[suffix] for suffix in suffixes if members[suffix]},
            "crop_sizes": {
                f"{width}x{height}": count for (width, height), count in sizes.most_common()
            },
        }

    def _inputs(self, harmless: Collection[str]) -> dict[str, Any]:
        """What became of the inputs of all shards together."""
        counts = _sum(Counter(one.counts) for one in self.censuses if one.counts)
        reasons = {
            word: counts[word] for word in sorted(counts.keys() - {TOTAL, *INPUTS}) if counts[word]
        }
        skipped = {word: count for word, count in reasons.items() if word not in harmless}
        return {
            "inputs": {word: counts[word] for word in INPUTS if word in counts},
            "without_sample": {word: count for word, count in reasons.items() if word in harmless},
            "skipped": skipped,
            "skipped_count": sum(skipped.values()),
        }

    def _missing(self) -> tuple[list[str], int | None, list[str]]:
        """Shards of the job that are not there, how many it has, and what does not fit."""
        totals = [total for one in self.censuses if (total := _total(one)) is not None]
        names = [one.source for one in self.censuses]
        if not totals:
            return list(self.absent), None, _gaps([*names, *self.absent])
        # Footage that was added later makes a job longer, which its first shards do not know.
        of = max(totals)
        numbers = {_number(one) for one in self.censuses}
        beyond = sum(number is not None and number >= of for number in numbers)
        warnings = (
            [f"{beyond:,} of the shards have numbers beyond the {of:,} of the job"]
            if beyond
            else []
        )
        lacking = shard_names(names, (number for number in range(of) if number not in numbers))
        # Where a part of the set was named, what else is there is not missing.
        return [name for name in lacking if not os.path.exists(name)], of, warnings

    def _variants(self) -> dict[str, dict[str, Any]]:
        """The different provenances of the shards, the most frequent first, each with the shards
        that have it.
        """
        found: dict[str, dict[str, Any]] = {}
        for one in self.censuses:
            for origin in one.origins:
                new = {"shards": 0, "example": one.source, "stages": _stages(origin)}
                found.setdefault(_identity(origin), new)
            for identity in {_identity(origin) for origin in one.origins}:
                found[identity]["shards"] += 1
        return dict(sorted(found.items(), key=lambda item: -item[1]["shards"]))

    def _temporary(self) -> list[str]:
        mine = {head_of(name) for name in (*(one.source for one in self.censuses), *self.absent)}
        return [
            path
            for folder in sorted({head.folder for head in mine})
            for path in left_over(folder, mine)
        ]


def group_sets(censuses: Iterable[Census], absent: Iterable[str] = ()) -> list[ShardSet]:
    """Tell data sets apart: by the names of numbered files, by folder and provenance of
    the others.
    """
    censuses, absent = list(censuses), list(absent)
    files = Counter(head_of(name) for name in {*(one.source for one in censuses), *absent})
    places: dict[str, Head | tuple[str, str]] = {}
    sets: dict[Head | tuple[str, str], ShardSet] = {}
    for one in censuses:
        head = head_of(one.source)
        alone = files[head] == 1 and _total(one) is None
        likeness = (head.folder, _identity(one.origins[0]) if one.origins else "")
        # The first tar of a file speaks for those behind it.
        place = places.setdefault(one.source, likeness if alone else head)
        sets.setdefault(place, ShardSet([])).censuses.append(one)
    for name in absent:
        sets.setdefault(head_of(name), ShardSet([])).absent.append(name)
    return list(sets.values())


def shared_keys(sets: Sequence[ShardSet]) -> list[dict[str, Any]]:
    """Which data sets have keys in common, and how many; those of one pipeline do."""
    found: Counter[tuple[int, ...]] = Counter()
    for parts in repeated_keys([_keys(each) for each in sets]).values():
        found[tuple(sorted(set(parts)))] += 1
    return [
        {"in": [sets[part].name for part in parts], "count": count}
        for parts, count in found.items()
        if len(parts) > 1
    ]


def repeated_keys(parts: Sequence[np.ndarray]) -> dict[bytes, list[int]]:
    """The keys that come twice or more among parts of bytes (N,), with the numbers of the parts, in
    order.
    """
    if not any(len(part) for part in parts):
        return {}
    keys = np.concatenate(parts)
    ordered = np.sort(keys)
    rows = np.flatnonzero(np.isin(keys, np.unique(ordered[1:][ordered[1:] == ordered[:-1]])))
    ends = np.cumsum([len(part) for part in parts])
    places: dict[bytes, list[int]] = {}
    for key, part in zip(
        keys[rows].tolist(), np.searchsorted(ends, rows, side="right").tolist(), strict=True
    ):
        places.setdefault(key, []).append(part)
    return places


def _keys(each: ShardSet) -> np.ndarray:
    return np.concatenate([one.keys for one in each.censuses] or [np.zeros(0, "S1")])


def _total(one: Census) -> int | None:
    """How many shards the job of a shard has: it says so, or how its inputs were cut."""
    inputs, each = (_unit(one).get(word) for word in _UNIT)
    total = one.counts.get(TOTAL) if one.counts else None
    if total is None and type(inputs) is int and type(each) is int and each > 0:
        total = -(-inputs // each)
    return total if total is not None and 0 <= total <= MOST else None


def _number(one: Census) -> int | None:
    """The number of a shard: that of its file, or in a stream that of its provenance."""
    number = number_of(one.source)
    told = _unit(one).get("number")
    return told if number is None and type(told) is int else number


def _gaps(names: Sequence[str]) -> list[str]:
    """What is said of numbers that a set passes over, where nobody knows how many there
    should be.
    """
    there = {number for name in names if (number := number_of(name)) is not None}
    if len(there) < 2 or max(there) - min(there) > MOST:
        return []
    between = shard_names(
        names, (number for number in range(min(there), max(there)) if number not in there)
    )
    lacking = [name for name in between if not os.path.exists(name)]
    return [f"the numbers pass over {' '.join(ranges(lacking)[:EXAMPLES])}"] if lacking else []


def _unit(one: Census) -> dict[str, Any]:
    unit = one.origins[0].get("unit") if one.origins else None
    return unit if isinstance(unit, dict) else {}


def _stages(origin: Provenance) -> list[Provenance]:
    """The stages of a provenance, oldest first."""
    past = origin.get("history")
    itself = {key: value for key, value in origin.items() if key != "history"}
    return [
        stage
        for stage in [*(past if isinstance(past, list) else []), itself]
        if isinstance(stage, dict)
    ]


def _identity(origin: Provenance) -> str:
    """What shards of one job have in common, as text."""
    return json.dumps([_common(stage) for stage in _stages(origin)], sort_keys=True)


def _common(stage: Provenance) -> Provenance:
    common = {key: value for key, value in stage.items() if key not in _INPUTS}
    unit = common.pop("unit", None)
    kept = {key: unit[key] for key in _UNIT if key in unit} if isinstance(unit, dict) else {}
    return {**common, "unit": kept} if kept else common


def _differences(variants: dict[str, dict[str, Any]]) -> list[str]:
    """In what provenances differ, a line for each option or other word: its values and the shards
    that have them.
    """
    flat = [_words(json.loads(identity)) for identity in variants]
    lines = []
    for name in dict.fromkeys(name for words in flat for name in words):
        values: dict[str, list[dict[str, Any]]] = {}
        for words, variant in zip(flat, variants.values(), strict=True):
            values.setdefault(words.get(name, "none"), []).append(variant)
        if len(values) > 1:
            told = [
                f"{value} in {sum(variant['shards'] for variant in those):,}"
                f" ({those[0]['example']})"
                for value, those in values.items()
            ]
            lines.append(f"{name}: {', '.join(told)}")
    return lines


def _words(stages: list[Provenance]) -> dict[str, str]:
    """What stages were made with, by words such as `extract --fps`."""
    found: dict[str, str] = {}
    for stage in stages:
        label = str(stage.pop("stage", "?"))
        arguments = stage.pop("arguments", None)
        found[label] = "yes"
        for name, value in (arguments if isinstance(arguments, dict) else {}).items():
            found[f"{label} --{name.replace('_', '-')}"] = json.dumps(value)
        for name, value in stage.items():
            found[f"{label} {name}"] = json.dumps(value)
    return found


def _sum(counters: Iterable[Counter[Any]]) -> Counter[Any]:
    total: Counter[Any] = Counter()
    for counter in counters:
        total.update(counter)
    return total
