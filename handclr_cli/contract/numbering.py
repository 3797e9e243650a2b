"""The names of numbered shards: which belong to one set, and how a set is written in short."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from .errors import UsageError
from .inputs import STDIN, identities
from .stores import is_store, listed

NUMBERED = re.compile(r"(?P<head>.*?)(?P<number>\d+)(?P<tail>\.tar)", re.S)
TEMPORARY = re.compile(r"\.(?P<name>.+\.tar)\.tmp-[0-9a-f]+", re.S)
SHARD_SIZE = 2000


def is_numbered(pattern: str) -> bool:
    """Whether an output is a pattern of numbered shards, `crops-%06d.tar`."""
    return pattern != STDIN and "%" in os.path.basename(pattern)


def number_of(name: str) -> int | None:
    """The number at the end of a shard's name, `crops-000012.tar`, or None."""
    match = NUMBERED.fullmatch(os.path.basename(name))
    return int(match["number"]) if match else None


def shard_name(pattern: str) -> re.Pattern[str]:
    """What the names of a pattern's shards, without their folder, look like; a group is the number.

    Raises UsageError where the pattern has not exactly one number in its last part.
    """
    folder, base = os.path.split(pattern)
    if "%" in folder or not re.fullmatch(r"[^%]*%\d*d[^%]*", base):
        raise UsageError(f"{pattern}: not a shard pattern; write crops-%06d.tar")
    return re.compile(re.sub(r"%\d*d", r"(\\d+)", re.escape(base)))


def shards_of(pattern: str) -> list[tuple[int, str]]:
    """The numbers and paths of the shards that exist under a pattern.

    Raises UsageError where the pattern has not exactly one number in its last part.
    """
    folder, number = os.path.dirname(pattern), shard_name(pattern)
    if is_store(pattern):
        there = {url.rpartition("/")[2] for url in listed(folder)}
        found = {int(match[1]) for name in there if (match := number.fullmatch(name))}
        paths = [(each, pattern % each) for each in sorted(found)]
        return [(each, path) for each, path in paths if os.path.basename(path) in there]
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return []
    numbers = sorted({int(match[1]) for name in names if (match := number.fullmatch(name))})
    return [(each, path) for each in numbers if os.path.exists(path := pattern % each)]


def refuse_to_replace(older: Iterable[str], reads: Iterable[str]) -> None:
    """Raise UsageError where older files, to be replaced by the output, are also inputs."""
    if not identities(older, standard=1).isdisjoint(identities(reads)):
        raise UsageError("these shards are being read; write to other names", setting="output")


class Head(NamedTuple):
    """What the files of one numbered set share: their folder, and the name up to the number.

    Of a file without a number, `start` is its whole name.
    """

    folder: str
    start: str
    numbered: bool


def head_of(name: str) -> Head:
    """The set that a file belongs to."""
    folder, base = os.path.split(name)
    match = NUMBERED.fullmatch(base)
    return Head(folder, match["head"] if match else base, bool(match))


def order(name: str) -> tuple[str, int]:
    """A sort key of shards by number, so that 10 follows 9."""
    match = NUMBERED.fullmatch(name)
    return (match["head"], int(match["number"])) if match else (name, -1)


def ranges(names: Sequence[str]) -> list[str]:
    """Shorten runs of numbered files to brace ranges, `x-{000003..000005}.tar`."""
    found: list[list[str]] = []
    for name in names:
        if found and _follows(found[-1][-1], name):
            found[-1].append(name)
        else:
            found.append([name])
    return [run[0] if len(run) == 1 else braces(run[0], run[-1]) for run in found]


def braces(first: str, last: str) -> str:
    """The brace range from one numbered file of a set to another."""
    begin, end = NUMBERED.fullmatch(first), NUMBERED.fullmatch(last)
    assert begin and end
    return f"{begin['head']}{{{begin['number']}..{end['number']}}}{begin['tail']}"


def shard_names(like: Sequence[str], numbers: Iterable[int]) -> list[str]:
    """The names of the shards with these numbers, in the set that the names `like` belong to."""
    matches = [match for name in like if (match := NUMBERED.fullmatch(name))]
    if not matches:
        return [f"shard {number}" for number in numbers]
    width = min(len(match["number"]) for match in matches)
    return [f"{matches[0]['head']}{number:0{width}d}{matches[0]['tail']}" for number in numbers]


def left_over(folder: str, wanted: Collection[Head] | None = None) -> list[str]:
    """Temporary files of tars in a folder, of all sets or the `wanted`: left over, or in use."""
    try:
        names = sorted(os.listdir(folder or "."))
    except OSError:
        return []
    finals = {name: match["name"] for name in names if (match := TEMPORARY.fullmatch(name))}
    return [
        os.path.join(folder, name)
        for name, final in finals.items()
        if wanted is None or head_of(os.path.join(folder, final)) in wanted
    ]


def _follows(first: str, second: str) -> bool:
    begin, end = NUMBERED.fullmatch(first), NUMBERED.fullmatch(second)
    return bool(
        begin
        and end
        and begin["head"] == end["head"]
        and len(begin["number"]) <= len(end["number"])
        and int(begin["number"]) + 1 == int(end["number"])
    )


def part_of(part: str | None, rows: int) -> slice:
    """The rows of a part `I/N`, I from 0; all rows where no part is given.

    Raises UsageError where `part` is anything else.
    """
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", "0/1" if part is None else part)
    if not match or int(match[1]) >= int(match[2]):
        raise UsageError("not I/N with I from 0 to N - 1", setting="part")
    index, parts = int(match[1]), int(match[2])
    return slice(index * rows // parts, (index + 1) * rows // parts)
