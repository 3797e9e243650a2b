"""$ handclr inspect"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console, options
from ..contract.errors import HandclrError, UsageError
from ..contract.inputs import expand_inputs
from ..work import cores

if TYPE_CHECKING:
    from ..inspection.census import Census
    from ..inspection.recognise import Thing

# With fewer shards, starting another process takes longer than it saves.
_SHARDS_PER_WORKER = 50
_BATCH = 8


def inspect(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATHS",
            help=(
                "Shards, NPZ files, weights, run directories, folders of them, globs, {000..041}"
                " ranges, or -."
            ),
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    skipped: Annotated[
        bool, typer.Option("--skipped", help="List the inputs that were skipped, and why.")
    ] = False,
    sheet: Annotated[
        str | None,
        typer.Option(
            metavar="PNG", help="Draw random crops with their keypoints.", show_default=False
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=10_000, help="Crops on the sheet.")] = 100,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that read shards.", show_default="the cores"),
    ] = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Say what is in shards, NPZ files, weights and runs, and whether it is all there.

    handclr inspect hands/

    handclr inspect --skipped --sheet crops.png 'crops-{000000..000311}.tar'

    The exit code is 3 where shards are missing, inputs were skipped, or something is damaged.
    """
    if (paths or []).count("-") > 1:
        raise UsageError("standard input (-) can be read only once")
    named = paths or expand_inputs([])
    options.prepare_files(sheet)
    options.end_with_pipe()
    failures: list[HandclrError] = []
    things = list(_things(named, failures))
    from ..inspection.shardset import group_sets, shared_keys

    counted = _Counting(things, workers, keep=bool(sheet))
    sets = group_sets(counted.censuses, counted.absent)
    harmless = _harmless(counted.censuses)
    items = [each.describe(harmless, skipped) for each in sets] + list(_others(things, failures))
    _refuse_nothing(items, failures)
    shared = shared_keys(sets)
    faults = list(_faults(items)) + [f"{len(failures):,} cannot be read"] * bool(failures)
    if as_json:
        report = {
            "ok": not faults,
            "items": items,
            "failures": list(map(str, failures)),
            "shared_keys": shared,
        }
        text = json.dumps(report, indent=2)
    else:
        from ..inspection.listing import listing, shared_listing

        text = "\n\n".join([*(listing(item) for item in items), *shared_listing(shared)])
    _print(text)
    if sheet:
        _draw(sheet, counted, samples, seed)
    for error in failures:
        console.warn(str(error))
    console.say(f"inspect: {'; '.join(faults) or 'nothing is missing, skipped or damaged'}")
    options.skipped_exit(len(faults))


def _things(paths: Sequence[str], failures: list[HandclrError]) -> Iterator[Thing]:
    """What the paths stand for; those that stand for nothing known go to `failures`."""
    from ..inspection.recognise import recognise

    for path in paths:
        try:
            yield from recognise(path)
        except UsageError:
            raise
        except HandclrError as error:
            failures.append(error)


class _Counting:
    """Counts shards; of pipes the bytes are kept for a sheet."""

    def __init__(self, things: Sequence[Thing], workers: int | None, keep: bool) -> None:
        from ..contract.tar import MapCursor, StreamCursor
        from ..inspection.census import census, mapped, scan
        from ..inspection.recognise import Kind
        from ..work.crew import in_order

        shards = [thing for thing in things if thing.kind is Kind.SHARDS]
        self.absent = [thing.name for thing in things if thing.kind is Kind.ABSENT]
        self.censuses: list[Census] = []
        self.views: dict[str, memoryview] = {}
        files = list(dict.fromkeys(thing.name for thing in shards if thing.file is None))
        processes = (
            min(cores.worker_count(None), len(files) // _SHARDS_PER_WORKER)
            if workers is None
            else workers
        )
        with console.progress("inspect", len(files) or None, "shards") as advance:
            for found in in_order(scan, files, processes, _BATCH):
                self.censuses += found
                advance(1)
            for thing in shards:
                if thing.file is None:
                    continue
                if keep:
                    self.views[thing.name] = mapped(thing.file)
                cursor = MapCursor(self.views[thing.name]) if keep else StreamCursor(thing.file)
                self.censuses += census(cursor, thing.name)


def _harmless(censuses: Sequence[Census]) -> list[str]:
    """Why items of labelled sets have no sample where that is no fault of their files; empty where
    none is counted.
    """
    from ..contract.units import INPUTS, TOTAL

    if set().union(*(one.counts or {} for one in censuses)) <= {TOTAL, *INPUTS}:
        return []
    from ..datasets.labelled import Invalid

    return [str(reason) for reason in Invalid if not reason.broken]


def _others(things: Sequence[Thing], failures: list[HandclrError]) -> Iterator[dict[str, Any]]:
    """Describe what is no shard, in the order it was named."""
    from ..inspection.recognise import Kind

    for thing in things:
        try:
            if thing.kind is Kind.ARRAYS:
                from ..contract.inputs import open_source
                from ..inspection.arrays import describe_npz

                with thing.file or open_source(thing.name) as file:
                    yield describe_npz(file, thing.name)
            elif thing.kind is Kind.WEIGHTS:
                from ..inspection.checkpoints import describe_checkpoint

                yield describe_checkpoint(thing.name)
            elif thing.kind is Kind.RUN:
                from ..inspection.checkpoints import describe_run

                yield describe_run(Path(thing.name))
        except HandclrError as error:
            failures.append(error)


def _refuse_nothing(items: Sequence[dict[str, Any]], failures: Sequence[HandclrError]) -> None:
    """Raise where nothing at all could be read."""
    for item in items:
        damaged = item.get("damaged", [])
        if (
            item["kind"] != "shards"
            or item["samples"]
            or len(damaged) < item["archives"]
            or not damaged
        ):
            return
    for error in failures:
        raise error
    for item in items:
        raise HandclrError(f"{item['damaged'][0]['name']}: {item['damaged'][0]['problems'][0]}")


def _faults(items: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with each item, in a few words."""
    from ..inspection.listing import printable

    for item in items:
        told = []
        if item.get("complete") is False:
            told.append(
                f"{console.plural(item['missing_count'], 'shard')} missing"
                if item["kind"] == "shards"
                else "not finished"
            )
        if item.get("skipped_count"):
            told.append(f"{console.plural(item['skipped_count'], 'input')} skipped")
        if item.get("duplicate_count"):
            told.append(f"{console.plural(item['duplicate_count'], 'key')} repeated")
        if item.get("damaged") or item.get("problems"):
            told.append("damaged")
        if told:
            yield f"{printable(item['name'])}: {', '.join(told)}"


def _print(text: str) -> None:
    """Write to standard output whatever its encoding is."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def _draw(path: str, counted: _Counting, samples: int, seed: int) -> None:
    from ..inspection.census import random_samples
    from ..report.crops_page import crops_page
    from ..report.sheets import write_png

    drawn = list(random_samples(counted.censuses, samples, seed, counted.views))
    if not drawn:
        raise UsageError(f"--sheet {path}: there are no shards with samples among these paths")
    failures: list[HandclrError] = []
    write_png(path, crops_page(drawn, failures.append))
    for error in failures:
        console.warn(str(error))
    console.say(f"inspect: {console.plural(len(drawn) - len(failures), 'crop')} drawn in {path}")
