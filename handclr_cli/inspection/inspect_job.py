"""The job of `handclr inspect`: describe shards, NPZ files, weights and runs, and name faults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .. import console
from ..contract.errors import HandclrError, UsageError
from ..contract.inputs import open_source, reading
from ..contract.sample import Sample
from ..contract.settings import Settings
from ..contract.tar import Cursor, MapCursor, StreamCursor
from ..contract.units import INPUTS, TOTAL
from ..work import cores
from ..work.crew import in_order
from .arrays import describe_npz
from .census import Census, census, mapped, random_samples, scan
from .recognise import Kind, Thing, recognise, refuse_absent
from .shardset import group_sets, shared_keys

# With fewer shards, starting another process takes longer than it saves.
_SHARDS_PER_WORKER = 50
_BATCH = 8
# Counts of a description that are faults where they are not 0, and how they are told.
_COUNTED = (("skipped_count", "input", "skipped"), ("duplicate_count", "key", "repeated"))


@dataclass(frozen=True, kw_only=True)
class InspectSettings(Settings):
    """What `run_inspect` describes, and in how much detail."""

    paths: Sequence[str]
    """Files, folders, patterns, brace ranges or URLs, or - for standard input."""
    skipped: bool = False
    """Name each input that was skipped, and why."""
    keep: bool = False
    """Keep the shards that come through pipes, so that samples can be drawn of them too."""
    workers: int | None = None
    """Processes that read shards; None is one for each core, fewer where there are few shards."""


class Counted(NamedTuple):
    """The censuses of all shards, and by name the bytes of those that came through a pipe."""

    censuses: list[Census]
    views: dict[str, memoryview]


class InspectResult(NamedTuple):
    """What `run_inspect` found.

    `items` describe data sets, NPZ files, weights and runs, as JSON with the keys that the page on
    footage lists; `shared_keys` says which data sets have keys in common. `failures` are the
    errors of what could not be read. `faults` has a line for each item that is incomplete or
    damaged.
    """

    items: list[dict[str, Any]]
    shared_keys: list[dict[str, Any]]
    failures: list[HandclrError]
    faults: list[str]
    counted: Counted

    def report(self) -> dict[str, Any]:
        """All of it as one JSON object."""
        return {
            "ok": not self.faults,
            "items": self.items,
            "failures": list(map(str, self.failures)),
            "shared_keys": self.shared_keys,
        }

    def random_samples(self, count: int, seed: int = 0) -> list[Sample]:
        """Draw up to `count` samples of all shards, each equally likely, in their order."""
        return list(random_samples(self.counted.censuses, count, seed, self.counted.views))


def run_inspect(settings: InspectSettings) -> InspectResult:
    """Describe what is in files and folders, and whether it is complete and sound.

    Raises UsageError where no file has a name or matches a pattern, HandclrError where nothing at
    all can be read; other errors are among the `failures`.

    >>> import handclr_cli as handclr
    >>> done = handclr.run_inspect(handclr.InspectSettings(paths=["hands.tar", "pose.npz"]))
    >>> [item["kind"] for item in done.items], done.faults
    (['shards', 'npz'], [])
    """
    refuse_absent(settings.paths)
    failures: list[HandclrError] = []
    things = list(_things(settings.paths, failures))
    counted = _count(things, settings)
    sets = group_sets(counted.censuses, _named(things, Kind.ABSENT))
    harmless = _harmless(counted.censuses)
    items = [each.describe(harmless, settings.skipped) for each in sets]
    items += _others(things, failures)
    _refuse_nothing(items, failures)
    shared = shared_keys(sets)
    faults = list(_faults(items))
    if failures:
        faults.append(f"{len(failures):,} cannot be read")
    return InspectResult(items, shared, failures, faults, counted)


def _things(paths: Sequence[str], failures: list[HandclrError]) -> Iterator[Thing]:
    """The things that paths contain; the errors of the others are added to `failures`."""
    for path in paths:
        try:
            yield from recognise(path)
        except UsageError:
            raise
        except HandclrError as error:
            failures.append(error)


def _named(things: Sequence[Thing], kind: Kind) -> list[str]:
    """The names of things of a kind, without those that are open already."""
    return [thing.name for thing in things if thing.kind is kind and thing.file is None]


def _count(things: Sequence[Thing], settings: InspectSettings) -> Counted:
    """Count the shards in files, by several processes, then those in pipes."""
    counted = Counted([], {})
    files = list(dict.fromkeys(_named(things, Kind.SHARDS)))
    processes = settings.workers
    if processes is None:
        processes = min(cores.worker_count(None), len(files) // _SHARDS_PER_WORKER)
    with console.progress("inspect", len(files) or None, "shards") as advance:
        for found in in_order(scan, files, processes, _BATCH):
            counted.censuses.extend(found)
            advance(1)
        for thing in things:
            if thing.kind is Kind.SHARDS and thing.file is not None:
                cursor: Cursor = StreamCursor(thing.file)
                if settings.keep:
                    with reading(thing.name):
                        counted.views[thing.name] = mapped(thing.file)
                    cursor = MapCursor(counted.views[thing.name])
                counted.censuses.extend(census(cursor, thing.name))
    return counted


def _harmless(censuses: Sequence[Census]) -> list[str]:
    """The reasons why items of labelled sets have no sample that are not faults of their files.

    Empty where the shards count no such reason.
    """
    if set().union(*(one.counts or {} for one in censuses)) <= {TOTAL, *INPUTS}:
        return []
    from ..datasets.labelled import Invalid

    return [str(reason) for reason in Invalid if not reason.broken]


def _others(things: Sequence[Thing], failures: list[HandclrError]) -> Iterator[dict[str, Any]]:
    """Describe what is not shards, in the order it was named."""
    for thing in things:
        try:
            if thing.kind is Kind.ARRAYS:
                with thing.file or open_source(thing.name) as file:
                    yield describe_npz(file, thing.name)
            elif thing.kind in (Kind.WEIGHTS, Kind.RUN):
                # Imports torch.
                from .checkpoints import describe_checkpoint, describe_run

                run = thing.kind is Kind.RUN
                yield describe_run(Path(thing.name)) if run else describe_checkpoint(thing.name)
        except HandclrError as error:
            failures.append(error)


def _refuse_nothing(items: Sequence[dict[str, Any]], failures: Sequence[HandclrError]) -> None:
    """Raise the first error where no item has anything that could be read."""
    if not all(map(_unreadable, items)):
        return
    for error in failures:
        raise error
    for item in items:
        first = item["damaged"][0]
        raise HandclrError(f"{first['name']}: {first['problems'][0]}")


def _unreadable(item: dict[str, Any]) -> bool:
    """Whether an item is shards that are all damaged before their first sample."""
    if item["kind"] != "shards" or item["samples"] or not item["damaged"]:
        return False
    return len(item["damaged"]) >= item["archives"]


def _faults(items: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with each item, in a few words."""
    for item in items:
        told = []
        if item.get("complete") is False:
            missing = item.get("missing_count")
            told.append(
                f"{console.plural(missing, 'shard')} missing" if missing else "not finished"
            )
        for count, noun, what in _COUNTED:
            if item.get(count):
                told.append(f"{console.plural(item[count], noun)} {what}")
        if item.get("damaged") or item.get("problems"):
            told.append("damaged")
        if told:
            yield f"{console.printable(item['name'])}: {', '.join(told)}"
