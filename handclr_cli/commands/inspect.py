"""$ handclr inspect"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options
from ..contract.claims import Reads, Writes
from ..contract.errors import HandclrError, UsageError
from ..contract.shipped import SHIPPED, weights_file

if TYPE_CHECKING:
    from ..contract.sample import Sample


def inspect(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATHS",
            help="Shards, NPZ files, weights, run directories, folders of them, globs, "
            "{000..041} ranges, or -.",
            show_default=False,
        ),
        Reads(words=(SHIPPED,)),
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
        Writes("png"),
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

    handclr inspect handclr   # the bundled model

    handclr inspect --skipped --sheet crops.png 'crops-{000000..000311}.tar'

    The exit code is 3 where shards are missing, inputs were skipped, or something is damaged.
    """
    options.read_once(*(paths or ()))
    named = [_path_of(path) for path in paths] if paths else options.sources(None)
    options.prepare_files(sheet)
    options.need_stdout()
    from ..inspection.inspect_job import InspectSettings, run_inspect

    settings = InspectSettings(
        paths=named,
        skipped=skipped,
        keep=bool(sheet),
        workers=workers,
    )
    done = run_inspect(settings)
    if as_json:
        _print(json.dumps(done.report(), indent=2))
    else:
        from ..inspection.listing import listing, shared_listing

        _print("\n\n".join([*map(listing, done.items), *shared_listing(done.shared_keys)]))
    if sheet:
        _draw(sheet, done.random_samples(samples, seed))
    for error in done.failures:
        console.warn(str(error))
    console.say(f"inspect: {'; '.join(done.faults) or 'nothing is missing, skipped or damaged'}")
    options.skipped_exit(len(done.faults))


def _path_of(name: str) -> str:
    """The file that a name stands for: handclr, if that is no file here, is the model it has."""
    return name if os.path.exists(name) else weights_file(name)


def _print(text: str) -> None:
    """Write to standard output whatever its encoding is."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def _draw(path: str, drawn: list[Sample]) -> None:
    from ..report.crops_page import crops_page
    from ..report.sheets import write_png

    if not drawn:
        raise UsageError(
            "there are no shards with samples that can be read among these paths", setting="sheet"
        )
    failures: list[HandclrError] = []
    write_png(path, crops_page(drawn, failures.append))
    for error in failures:
        console.warn(str(error))
    console.say(f"inspect: {console.plural(len(drawn) - len(failures), 'crop')} drawn in {path}")
