"""$ handclr demo"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import console, options
from ..contract.claims import Writes


def demo(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="A new folder, or that of an earlier demo to go on with."
        ),
        Writes(whole=True),
    ],
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Run all stages on very little data; the numbers mean nothing."
        ),
    ] = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Run the whole pipeline on synthetic footage and show it on one page; print the path of
    report.html.

    handclr demo demo

    Each command is printed before it runs, for you to copy. It takes minutes on two cores without a
    GPU, and 1 GB. Run the same command again to go on after an interruption: what is finished is
    not done again.
    """
    from ..report.demo_job import DemoSettings, run_demo

    extra = ["-q"] * quiet + ["--debug"] * debug
    done = run_demo(DemoSettings(folder=Path(folder), quick=quick, extra=extra))
    seconds = sum(stage.seconds for stage in done.stages)
    console.say("")
    console.say(
        f"demo: {len(done.stages)} stages, {done.before} of them finished before, "
        f"{seconds:.0f} s in all; open {done.page}"
    )
    typer.echo(str(done.page))
