"""What the commands of the two trainers share: options, and how they end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import choices, console, options

if TYPE_CHECKING:
    from ..learning.setup import TrainResult

Size = Annotated[int, typer.Option(min=32, max=512, help="Side of the views in pixels.")]
WarmupEpochs = Annotated[
    float | None,
    typer.Option(min=0.0, help="Epochs of linear warm-up.", show_default="a tenth of the epochs"),
]
WeightDecay = Annotated[
    float, typer.Option(min=0.0, help="Of weights; biases and norms have none.")
]
Log = Annotated[
    list[choices.TrackerName] | None,
    typer.Option(
        "--log",
        metavar="tensorboard|wandb|mlflow",
        help="Log there too, beside log.jsonl; may be repeated.",
        show_default=False,
    ),
]


def finish(label: str, done: TrainResult) -> None:
    """Draw the loss curve, and print the path of the weights, the only line on standard output.

    The exit code is 3 where crops were skipped.
    """
    if not done.main:
        return
    if done.records:
        _show(label, done)
    # Last, as standard output may be closed by now.
    typer.echo(str(done.weights))
    options.skipped_exit(done.skipped)


def _show(label: str, done: TrainResult) -> None:
    _draw(done.records, done.weights.parent / "loss.png")
    first, last = done.records[0]["loss"], done.records[-1]
    curve = f"loss {first:.4f} at step 1, {last['loss']:.4f} at step {last['step']:,}"
    skipped = f"; {console.plural(done.skipped, 'crop')} skipped" if done.skipped else ""
    console.say(f"{label}: {curve}{skipped}; {done.weights}")


def _draw(records: list[dict[str, Any]], path: Path) -> None:
    """Draw the loss curve where it can be: a machine that only trains may have no matplotlib."""
    from ..report.curves import loss_plot

    try:
        loss_plot(records, path)
    except ModuleNotFoundError as error:
        console.warn(f"{path} is not drawn: {error.name} is not installed")
