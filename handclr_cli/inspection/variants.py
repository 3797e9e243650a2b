"""The different ways in which the shards of one data set were made, told by their provenances."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from ..contract.provenance import Provenance, stages
from .census import Census

# What differs from shard to shard of one job.
_INPUTS = ("inputs", "input_count", "input_sha256", "history")
# What its shards have in common in their `unit`.
UNIT = ("inputs", "each")


def identity(origin: Provenance) -> str:
    """The part of a provenance that the shards of one job have in common, as text."""
    return json.dumps([_common(stage) for stage in stages(origin)], sort_keys=True)


def variants(censuses: Iterable[Census]) -> dict[str, dict[str, Any]]:
    """The different provenances of shards by their identity, the most frequent first.

    Each has its `stages`, the number of `shards` that have it, and one of them as an `example`.
    """
    found: dict[str, dict[str, Any]] = {}
    for one in censuses:
        for origin in one.origins:
            new = {"shards": 0, "example": one.source, "stages": stages(origin)}
            found.setdefault(identity(origin), new)
        for each in set(map(identity, one.origins)):
            found[each]["shards"] += 1
    return dict(sorted(found.items(), key=lambda item: -item[1]["shards"]))


def differences(found: dict[str, dict[str, Any]]) -> list[str]:
    """What differs between variants: a line for each name, with its values and their shards."""
    named = {each: _values(json.loads(each)) for each in found}
    names: dict[_Name, None] = {}
    for values in named.values():
        names.update(dict.fromkeys(values))
    lines = []
    for name in names:
        sharing: dict[str, list[dict[str, Any]]] = {}
        for each, values in named.items():
            sharing.setdefault(values.get(name, "none"), []).append(found[each])
        if len(sharing) > 1:
            told = [f"{value} in {_shards(those)}" for value, those in sharing.items()]
            lines.append(f"{name}: {', '.join(told)}")
    return lines


class _Name(NamedTuple):
    """What a value is called: an argument may have the name of something else in its stage."""

    stage: str
    name: str = ""
    argument: bool = False

    def __str__(self) -> str:
        return f"{self.stage} {self.name}".rstrip()


def _shards(those: Sequence[dict[str, Any]]) -> str:
    return f"{sum(each['shards'] for each in those):,} ({those[0]['example']})"


def _common(stage: Provenance) -> Provenance:
    common = _only(stage, stage.keys() - {*_INPUTS, "unit"})
    unit = stage.get("unit")
    kept = _only(unit, UNIT) if isinstance(unit, dict) else {}
    return {**common, "unit": kept} if kept else common


def _only(record: Provenance, names: Collection[str]) -> Provenance:
    return {name: value for name, value in record.items() if name in names}


def _values(listed: list[Provenance]) -> dict[_Name, str]:
    """The values of stages by names such as `extract fps`."""
    found: dict[_Name, str] = {}
    for stage in listed:
        label = str(stage.get("stage", "?"))
        found[_Name(label)] = "yes"
        arguments = stage.get("arguments")
        for name, value in (arguments if isinstance(arguments, dict) else {}).items():
            found[_Name(label, name, argument=True)] = json.dumps(value)
        for name in sorted(stage.keys() - {"stage", "arguments"}):
            found[_Name(label, name)] = json.dumps(stage[name])
    return found
