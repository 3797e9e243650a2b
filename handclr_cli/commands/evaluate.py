"""$ handclr evaluate"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import choices, console, options
from ..contract.claims import Reads, Word, Writes
from ..contract.errors import UsageError
from ..contract.inputs import refuse_missing
from ..contract.shipped import SHIPPED

if TYPE_CHECKING:
    from ..evaluation.evaluate_job import EvaluateResult
    from ..evaluation.models import PoseEstimator
    from ..footage.world_poses import WorldPoses


def evaluate(
    shards: options.Shards = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="What to measure: handclr is the bundled model, mediapipe MediaPipe's 3D "
            "landmarks; or a model.pt of handclr finetune.",
            show_default=SHIPPED,
        ),
        options.MODEL,
    ] = None,
    alone: options.Alone = False,
    predictions: Annotated[
        str | None,
        typer.Option(
            metavar="NPZ",
            help="Measure predictions instead: key and keypoints3d, of handclr predict or of any "
            "program.",
            show_default=False,
        ),
        Reads(ends=(".npz",)),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A.NPZ B.NPZ",
            help="Compare two outputs of -o instead, sample by sample.",
            show_default=False,
        ),
        Reads(ends=(".npz",)),
    ] = None,
    bone: Annotated[
        choices.Bone | None,
        typer.Option(
            help="Size of the hands: the training set's mean bone, or each label's own.",
            show_default="training",
        ),
    ] = None,
    crop: Annotated[
        choices.CropSource,
        typer.Option(
            help="given: the crops of the shards; detected: cut again around the "
            "keypoints of handclr keypoints."
        ),
    ] = "given",
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="NPZ",
            help="Write predictions, truth and errors.",
            show_default=False,
        ),
        Writes("npz"),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Print a table for people instead of JSON.")
    ] = False,
    plot: Annotated[
        str | None,
        typer.Option(metavar="PNG", help="Draw the PCK curves.", show_default=False),
        Writes("png"),
    ] = None,
    freihand: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Write FreiHAND's pred.json and scores.txt here.",
            show_default=False,
        ),
        Writes(files=(("pred.json", "json"), ("scores.txt", "scores"))),
    ] = None,
    dexycb: Annotated[
        str | None,
        typer.Option(metavar="TXT", help="Write DexYCB's result file.", show_default=False),
        Writes("results"),
    ] = None,
    resample_by: Annotated[
        str,
        typer.Option(
            metavar="FIELD|REGEX",
            help="What the bootstrap intervals resample: a field of the JSON, such as subject, or "
            "a regular expression on keys.",
        ),
        Word(),
    ] = "sample",
    landmarker: options.Landmarker = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops in a batch.")] = 128,
    workers: options.Workers = None,
    device: options.Device = "auto",
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Measure 3D hand poses: MPJPE and PCK-AUC with intervals, as JSON.

    handclr import freihand FreiHAND/ --split eval | handclr evaluate - --table

    handclr evaluate test.tar --model model.pt --table --plot pck.png -o a.npz

    handclr evaluate test.tar --model mediapipe --table

    handclr evaluate test.tar --predictions theirs.npz -o b.npz

    handclr evaluate --compare a.npz b.npz --table

    handclr keypoints --keep-empty test.tar | handclr evaluate - --model model.pt --crop detected
    """
    if compare:
        given: dict[str, Any] = {
            "--model": model,
            "--predictions": predictions,
            "SHARDS": shards,
            "--bone": bone,
        }
        given |= {"-o": output, "--plot": plot, "--freihand": freihand, "--dexycb": dexycb}
        given |= {"--alone": alone, "--crop": crop != "given", "--landmarker": landmarker}
        given["--resample-by"] = resample_by != "sample"
        _compare(compare, given, table, seed)
        return
    if predictions is None:
        model = model or SHIPPED
    _refuse_misfits(model, predictions, bone, crop)
    if alone and (predictions or model == choices.MEDIAPIPE):
        raise UsageError("--alone is for models: it leaves out what MediaPipe found in the crops")
    sources = options.sources(shards)
    options.read_once(*sources, predictions)
    refuse_missing("predictions", predictions)
    files = {"output": output, "plot": plot, "dexycb": dexycb, "freihand": freihand}
    options.keep_stdout_for("report", **files)
    options.prepare_files(output, plot, dexycb)
    options.need_stdout()
    from ..evaluation.evaluate_job import EvaluateSettings, run_evaluate

    settings = EvaluateSettings(
        shards=sources,
        model=model,
        predictions=predictions,
        bone=bone or "training",
        crop=crop,
        alone=alone,
        resample_by=resample_by,
        output=output,
        freihand=freihand,
        dexycb=dexycb,
        batch=batch,
        workers=workers,
        seed=seed,
    )
    estimator = _load(model, device, landmarker, workers, alone) if model else None
    done = run_evaluate(settings, estimator)
    if plot:
        from ..report.curves import pck_plot

        pck_plot(done.curves(), plot)
    _print(done.report, table)
    _say(done, bool(freihand))
    options.skipped_exit(done.skipped)


def _refuse_misfits(
    model: str | None, predictions: str | None, bone: str | None, crop: choices.CropSource
) -> None:
    if model and predictions:
        raise UsageError("name one of --model, --predictions and --compare")
    if bone and model == choices.MEDIAPIPE:
        raise UsageError("--bone is for models of handclr finetune: MediaPipe's metres are its own")
    if bone and predictions:
        raise UsageError("--bone is for --model: predictions are in metres already")
    if crop == "detected" and model == choices.MEDIAPIPE:
        raise UsageError("--crop detected cuts crops by MediaPipe, which is what is measured here")
    if crop == "detected" and predictions:
        raise UsageError("--crop is for --model: predictions are of crops that were cut before")


def _load(
    model: str, device: str, landmarker: str | None, workers: int | None, alone: bool
) -> PoseEstimator:
    if model == choices.MEDIAPIPE:
        return _landmarks(landmarker, workers)
    from ..learning.hardware import pick_device
    from ..learning.posemodel import load_model

    loaded = load_model(model, pick_device(device))
    if alone or not loaded.is_guided:
        return loaded
    from ..prediction.guided import GuidedModel

    return GuidedModel(loaded, _landmarks(landmarker, workers))


def _landmarks(landmarker: str | None, workers: int | None) -> WorldPoses:
    console.silence_native_libraries()
    from ..footage.world_poses import WorldPoses

    return WorldPoses(landmarker, workers=workers)


def _compare(files: tuple[str, str], given: dict[str, Any], table: bool, seed: int) -> None:
    for option, value in given.items():
        if value:
            raise UsageError(f"--compare takes its two files alone, without {option}")
    options.read_once(*files)
    options.need_stdout()
    from ..evaluation.evaluate_job import CompareSettings, run_compare
    from ..report.score_table import print_comparison, with_interval

    report = run_compare(CompareSettings(first=files[0], second=files[1], seed=seed))
    if table:
        print_comparison(report)
    else:
        _print_json(report)
    found = report["comparison"]["root"]
    difference = with_interval(found["b_minus_a_mm"], found["b_minus_a_interval"], 2)
    console.say(
        f"evaluate: {console.plural(report['samples'], 'crop')}, root-relative MPJPE "
        f"{found['a_mpjpe_mm']:.2f} and {found['b_mpjpe_mm']:.2f} mm, b - a {difference} mm"
    )


def _print(report: dict[str, Any], table: bool) -> None:
    from ..report.score_table import print_scores

    if table:
        print_scores(report)
    else:
        _print_json(report)


def _print_json(report: dict[str, Any]) -> None:
    typer.echo(console.json_text(report))


def _say(done: EvaluateResult, freihand: bool) -> None:
    from ..evaluation.protocols import FREIHAND_SAMPLES
    from ..report.score_table import with_interval

    report, unused = done.report, done.predicted.unused
    root, still = report["model"]["root"], report.get("mean_pose_of_training_set")
    if unused:
        console.say(
            f"evaluate: {unused:,} of the predictions are of samples that are not in the shards"
        )
    if freihand and report["samples"] != FREIHAND_SAMPLES:
        console.warn(
            f"--freihand: {report['samples']:,} poses; "
            f"FreiHAND's own script wants all {FREIHAND_SAMPLES:,}"
        )
    found = report.get("hands_found", {"samples": report["samples"]})["samples"]
    if lacking := report["samples"] - found:
        console.say(
            f"evaluate: no hand is found in {console.plural(lacking, 'crop')} of "
            f"{report['samples']:,}; they stay in the figures, with the mean of the hands found"
        )
    beside = f" (mean pose of the training set {still['root']['mpjpe_mm']:.2f} mm)" if still else ""
    console.say(
        f"evaluate: {console.plural(report['samples'], 'crop')} "
        f"({report['samples_without_labels']:,} without labels), root-relative MPJPE "
        f"{with_interval(root['mpjpe_mm'], root['mpjpe_mm_interval'], 2)} mm{beside}"
    )
