"""$ handclr evaluate"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from os.path import basename
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import console, options
from ..contract.errors import UsageError
from ..contract.inputs import STDIN, expand_inputs
from ..contract.provenance import after, file_checksum, provenance
from ..work import cores

if TYPE_CHECKING:
    import numpy as np

    from ..contract.index import ShardIndex
    from ..evaluation.predictions import Labels, Predicted
    from ..learning.posemodel import PoseModel

BONES, CROPS = ("training", "true"), ("given", "detected")


def evaluate(
    shards: options.Shards = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="model.pt of handclr finetune.", show_default=False),
    ] = None,
    predictions: Annotated[
        str | None,
        typer.Option(
            metavar="NPZ",
            help="Or predictions: key and keypoints3d, of handclr predict or of any program.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A.NPZ B.NPZ",
            help="Or compare two outputs of -o, sample by sample.",
            show_default=False,
        ),
    ] = None,
    bone: Annotated[
        str | None,
        typer.Option(
            metavar="training|true",
            help="Size of the hands: the training set's mean bone, or each label's own.",
            show_default="training",
        ),
    ] = None,
    crop: Annotated[
        str,
        typer.Option(
            metavar="given|detected",
            help="The crops of the shards, or cut again by handclr keypoints'.",
        ),
    ] = "given",
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="NPZ",
            help="Write predictions, truth, errors.",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Print a table for people instead of JSON.")
    ] = False,
    plot: Annotated[
        str | None, typer.Option(metavar="PNG", help="Draw the PCK curves.", show_default=False)
    ] = None,
    freihand: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Write FreiHAND's pred.json and scores.txt here.",
            show_default=False,
        ),
    ] = None,
    dexycb: Annotated[
        str | None,
        typer.Option(metavar="TXT", help="Write DexYCB's result file.", show_default=False),
    ] = None,
    resample_by: Annotated[
        str,
        typer.Option(
            metavar="FIELD", help="What the intervals draw: a field of the JSON, such as subject."
        ),
    ] = "sample",
    batch: Annotated[int, typer.Option(min=1, help="Crops in a batch.")] = 128,
    workers: options.Workers = None,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure 3D hand poses: MPJPE and PCK-AUC with intervals, as JSON.

    handclr import freihand FreiHAND/ --split eval | handclr evaluate - --model
    runs/finetune/model.pt

    handclr evaluate test.tar --model model.pt --table --plot pck.png -o a.npz

    handclr evaluate test.tar --predictions theirs.npz -o b.npz

    handclr evaluate --compare a.npz b.npz --table

    handclr keypoints --keep-empty test.tar | handclr evaluate - --model model.pt --crop detected
    """
    if compare:
        others: dict[str, object] = {
            "--model": model,
            "--predictions": predictions,
            "SHARDS": shards,
            "--bone": bone,
        }
        others |= {"-o": output, "--plot": plot, "--freihand": freihand, "--dexycb": dexycb}
        _compare(compare, [name for name, value in others.items() if value], table, seed)
        return
    if (model is None) == (predictions is None):
        raise UsageError("name one of --model, --predictions and --compare")
    if bone and predictions:
        raise UsageError("--bone is for --model: predictions are in metres already")
    if crop == "detected" and predictions:
        raise UsageError("--crop is for --model: predictions are of crops that were cut before")
    options.choose("--bone", bone or "training", BONES)
    options.choose("--crop", crop, CROPS)
    sources = expand_inputs(shards or [])
    if predictions == STDIN and STDIN in sources:
        raise UsageError("standard input (-) can be read only once")
    for option, path in {
        "-o": output,
        "--plot": plot,
        "--dexycb": dexycb,
        "--freihand": freihand,
    }.items():
        if path == STDIN:
            raise UsageError(f"{option} -: standard output is for the report; name a file")
    options.prepare_files(output, plot, dexycb)
    options.end_with_pipe()
    from ..contract.index import ShardIndex
    from ..contract.npz import write_npz
    from ..evaluation import protocols
    from ..evaluation import report as evaluation
    from ..evaluation.predictions import crop_kind, detected_kind, read_labels, read_predictions
    from ..report.curves import pck_plot

    trained = _load(model, device) if model else None
    index = ShardIndex(sources)
    labels = read_labels(index, resample_by)
    given = read_predictions(predictions, labels) if predictions else None
    kind = detected_kind(index.origins, labels) if crop == "detected" else crop_kind(index.origins)
    if given:
        kind = crop_kind([given.origin] if given.origin else [])
    asked = [name for name, path in (("freihand", freihand), ("dexycb", dexycb)) if path]
    for name in asked:
        protocols.require(
            name, given.placed if given else labels.have_cameras, labels.valid, labels.position
        )
    if trained:
        predicted, baseline = _predict(
            trained, index, labels, bone or "training", crop, batch, workers
        )
    elif given:
        predicted, baseline = given, None
    report = evaluation.evaluation(predicted, labels, baseline, asked, seed)
    report = {"crop": kind, "samples_without_labels": len(index) - len(labels), **report}
    arguments = {
        "resample_by": resample_by,
        **({"bone": bone or "training", "crop": crop} if trained else {}),
    }
    record = provenance(
        "evaluate", arguments, sources, seed=seed, model=file_checksum(model) if model else None
    )
    report["provenance"] = after(record, [*index.origins, predicted.origin])
    if freihand:
        protocols.write_freihand(
            freihand, predicted.keypoints3d, report["official"]["freihand"], labels.position
        )
    if dexycb:
        protocols.write_dexycb(dexycb, predicted.keypoints3d, labels.position, labels.mirrored)
    if output:
        write_npz(output, "predictions", evaluation.arrays(predicted, labels), report["provenance"])
    if plot:
        pck_plot(evaluation.curves(predicted, labels, baseline), plot)
    if table:
        _print_table(report)
    else:
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    _say(report, predicted.unused, bool(freihand))


def _load(model: str, device: str) -> PoseModel:
    from ..learning.hardware import pick_device
    from ..learning.posemodel import load_model

    return load_model(model, pick_device(device))


def _predict(
    trained: PoseModel,
    index: ShardIndex,
    labels: Labels,
    bone: str,
    crop: str,
    batch: int,
    workers: int | None,
) -> tuple[Predicted, np.ndarray]:
    """The hands that a model predicts, and the mean pose of its training set at the same scale."""
    import numpy as np

    from ..evaluation.predictions import placed, predict_detected, scaled

    mean, parts = trained.mean, []
    given = partial(trained.predict, workers=cores.worker_count(workers))
    detected = partial(predict_detected, trained)
    predict: Callable[..., Iterator[Any]] = detected if crop == "detected" else given
    with console.progress("evaluate", len(labels), "crops") as advance:
        for part in predict(index, labels.rows, batch):
            parts.append(part)
            advance(len(part[0]))
    hands, seen = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return placed(hands, seen, labels, bone, mean.bone), scaled(mean.pose, labels, bone, mean.bone)


def _compare(files: tuple[str, str], others: list[str], table: bool, seed: int) -> None:
    if others:
        raise UsageError(f"--compare takes its two files alone, without {others[0]}")
    if files == (STDIN, STDIN):
        raise UsageError("standard input (-) can be read only once")
    options.end_with_pipe()
    from ..evaluation.predictions import read_pair
    from ..evaluation.report import comparison

    pair = read_pair(*files)
    record = after(
        provenance("evaluate", {"compare": True}, files, seed=seed), [one.origin for one in pair]
    )
    report = {
        "a": basename(files[0]),
        "b": basename(files[1]),
        **comparison(*pair, seed),
        "provenance": record,
    }
    if table:
        _print_comparison(report)
    else:
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    found = report["comparison"]["root"]
    difference = _with_interval(found["b_minus_a_mm"], found["b_minus_a_interval"], 2)
    console.say(
        f"evaluate: {console.plural(report['samples'], 'crop')}, root-relative MPJPE"
        f" {found['a_mpjpe_mm']:.2f} and {found['b_mpjpe_mm']:.2f} mm, b - a {difference} mm"
    )


def _say(report: dict[str, Any], unused: int, freihand: bool) -> None:
    from ..evaluation.protocols import FREIHAND_SAMPLES

    root, still = report["model"]["root"], report.get("mean_pose_of_training_set")
    if unused:
        console.say(
            f"evaluate: {unused:,} of the predictions are of samples that are not in the shards"
        )
    if freihand and report["samples"] != FREIHAND_SAMPLES:
        console.warn(
            f"--freihand: {report['samples']:,} poses; FreiHAND's own script wants all"
            f" {FREIHAND_SAMPLES:,}"
        )
    beside = f" (mean pose of the training set {still['root']['mpjpe_mm']:.2f} mm)" if still else ""
    console.say(
        f"evaluate: {console.plural(report['samples'], 'crop')}"
        f" ({report['samples_without_labels']:,} without labels), root-relative MPJPE"
        f" {_with_interval(root['mpjpe_mm'], root['mpjpe_mm_interval'], 2)} mm{beside}"
    )


def _with_interval(value: float, interval: list[float] | None, digits: int) -> str:
    ends = f" [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]" if interval else ""
    return f"{value:.{digits}f}{ends}"


def _print_table(report: dict[str, Any]) -> None:
    headings = ["", "alignment", "MPJPE mm [95 %]", "AUC 0-50 mm [95 %]", "AUC 20-50 mm [95 %]"]
    rows = []
    for who in ("model", "mean_pose_of_training_set"):
        for alignment, row in report.get(who, {}).items():
            areas = [
                (row["pck_auc"][name], row["pck_auc_interval"][name])
                for name in ("0-50mm", "20-50mm")
            ]
            numbers = [_with_interval(row["mpjpe_mm"], row["mpjpe_mm_interval"], 2)]
            rows.append(
                [
                    who.replace("_", " "),
                    alignment,
                    *numbers,
                    *(_with_interval(*area, 4) for area in areas),
                ]
            )
    interval = report["interval"]
    caption = (
        f"Intervals by {interval['units']:,} of '{interval['unit']}'. Scale: {report['scale']}."
    )
    _print_rows(f"{report['samples']:,} crops ({report['crop']})", headings, rows, caption)
    for name, scores in report.get("official", {}).items():
        _print_rows(f"{name} protocol", ["", "value"], _flat(scores))


def _print_comparison(report: dict[str, Any]) -> None:
    headings = ["alignment", "a MPJPE mm", "b MPJPE mm", "b - a [95 %]", "resamples with b better"]
    rows = [
        [
            alignment,
            *(f"{row[f'{one}_mpjpe_mm']:.2f}" for one in ("a", "b")),
            _with_interval(row["b_minus_a_mm"], row["b_minus_a_interval"], 2),
            f"{row['resamples_with_b_better']:.1%}",
        ]
        for alignment, row in report["comparison"].items()
    ]
    caption = f"Intervals by {report['interval']['units']:,} units, resampled together."
    _print_rows(
        f"{report['samples']:,} crops, a: {report['a']}, b: {report['b']}", headings, rows, caption
    )


def _flat(scores: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, value in scores.items():
        inner = value if isinstance(value, dict) else {"": value}
        rows += [
            [f"{name} {part}".strip(), "none" if one is None else f"{one:.4f}"]
            for part, one in inner.items()
        ]
    return rows


def _print_rows(
    title: str, headings: list[str], rows: list[list[str]], caption: str | None = None
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, caption=caption)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("", "alignment") else "right")
    for row in rows:
        table.add_row(*row)
    Console(file=sys.stdout, width=120).print(table)
