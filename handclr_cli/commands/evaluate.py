"""$ handclr evaluate"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from .. import console, options
from ..contract.inputs import expand_inputs


def evaluate(
    shards: options.Shards = None,
    model: Annotated[str, typer.Option("--model", metavar="FILE", help="model.pt of handclr finetune.")] = ...,  # type: ignore[assignment]
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="NPZ", help="Write the predictions and errors.", show_default=False),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Print a table for people instead of JSON.")] = False,
    plot: Annotated[str | None, typer.Option(metavar="PNG", help="Draw the PCK curves.", show_default=False)] = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops in a batch.")] = 128,
    workers: options.Workers = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure a pose model: MPJPE and PCK-AUC as JSON.

    handclr import freihand FreiHAND/ --split eval | handclr evaluate - --model runs/finetune/model.pt

    handclr evaluate test.tar --model model.pt --table --plot pck.png -o predictions.npz
    """
    sources = expand_inputs(shards or [])
    options.end_with_pipe()
    import numpy as np

    from ..benchmarks.metrics import evaluate_pose, joint_errors_mm, pck_to_50mm
    from ..contract.index import ShardIndex
    from ..contract.npz import as_keys, write_npz
    from ..contract.provenance import after, file_checksum, provenance
    from ..learning.finetuning import labelled_rows
    from ..learning.hardware import pick_device
    from ..learning.posemodel import load_model
    from ..report.curves import pck_plot

    trained = load_model(model, pick_device(device))
    mean = trained.mean
    index = ShardIndex(sources)
    rows = labelled_rows(index)
    truth = np.stack([index[row].keypoints3d for row in rows.tolist()])
    poses = []
    with console.progress("evaluate", len(rows), "crops") as advance:
        for part in trained.predict(index, rows, batch, options.worker_count(workers)):
            poses.append(part.xyz)
            advance(len(part.xyz))
    predicted = np.concatenate(poses)
    baseline = np.broadcast_to(mean.pose, truth.shape)
    record = after(provenance("evaluate", {"size": trained.size}, sources, model=file_checksum(model)), index.origins)
    report: dict[str, Any] = {
        "samples": len(rows),
        "samples_without_labels": len(index) - len(rows),
        "crop": "ground truth",
        "scale": "predictions are in reference bones; metres by the training set's mean bone "
        f"of {1000 * mean.bone:.2f} mm",
        "model": _relative(evaluate_pose(predicted, truth)),
        "mean_pose_of_training_set": _relative(evaluate_pose(baseline, truth)),
        "provenance": record,
    }
    if output:
        keys = as_keys([index.keys[row] for row in rows.tolist()])
        errors = joint_errors_mm(predicted, truth, "root").astype(np.float32)
        arrays = {"key": keys, "keypoints3d": predicted, "truth3d": truth, "error_mm": errors}
        write_npz(output, "predictions", arrays, record)
    if plot:
        hands = {"model": predicted, "mean pose": baseline}
        pck_plot({f"{name}, root+bone": pck_to_50mm(hand, truth) for name, hand in hands.items()}, plot)
    if table:
        _print_table(report)
    else:
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    best, plain = report["model"]["root"]["mpjpe_mm"], report["mean_pose_of_training_set"]["root"]["mpjpe_mm"]
    console.say(
        f"evaluate: {console.plural(len(rows), 'crop')} ({len(index) - len(rows):,} without labels), "
        f"root-relative MPJPE {best:.2f} mm "
        f"(mean pose of the training set {plain:.2f} mm)"
    )


def _relative(report: dict[str, Any]) -> dict[str, Any]:
    """Without the alignment that needs an absolute position, which the model does not predict."""
    return {name: value for name, value in report.items() if name != "none"}


def _print_table(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{report['samples']:,} crops ({report['crop']})")
    for heading in ("", "alignment", "MPJPE mm", "AUC 0-50 mm", "AUC 20-50 mm"):
        table.add_column(heading, justify="left" if heading in ("", "alignment") else "right")
    for who in ("model", "mean_pose_of_training_set"):
        for alignment in ("root", "root+bone", "procrustes"):
            row = report[who][alignment]
            auc = row["pck_auc"]
            numbers = (f"{row['mpjpe_mm']:.2f}", f"{auc['0-50mm']:.4f}", f"{auc['20-50mm']:.4f}")
            table.add_row(who.replace("_", " "), alignment, *numbers)
    Console(file=sys.stdout, width=100).print(table)
