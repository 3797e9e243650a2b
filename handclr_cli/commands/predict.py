"""$ handclr predict"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options
from ..contract.claims import Reads, Writes
from ..contract.errors import UsageError

if TYPE_CHECKING:
    from ..prediction.predict_job import Drawn, PredictResult


def predict(
    shards: options.Shards = None,
    model: Annotated[
        str, typer.Option("--model", metavar="FILE", help="model.pt of handclr finetune."), Reads()
    ] = ...,  # type: ignore[assignment]
    output: options.OutputNpz = "-",
    fov: Annotated[
        float,
        typer.Option(
            min=1.0,
            max=170.0,
            help="Angle of view in degrees across the longer side, without intrinsics.",
        ),
    ] = 60.0,
    bone: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            metavar="MM",
            help="Wrist to middle knuckle, as measured on the hand.",
            show_default="the training set's mean",
        ),
    ] = None,
    overlay: Annotated[
        str | None,
        typer.Option(
            metavar="MP4",
            help="Draw the hands on the footage; of several videos, a folder or {video}.mp4.",
        ),
        Writes("film"),
    ] = None,
    footage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Where the footage is, if not where extract read it.",
            show_default=False,
        ),
        Reads(deep=True),
    ] = None,
    onnx: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Export the model, checked on these crops.", show_default=False
        ),
        Writes("onnx"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops in a batch.")] = 128,
    workers: options.Workers = None,
    device: options.Device = "auto",
    strict: options.Strict = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Predict the 3D pose of each crop.

    handclr extract new.mp4 | handclr predict - --model model.pt > predictions.npz

    handclr predict crops.tar --model model.pt --overlay hands.mp4 --onnx model.onnx -o
    predictions.npz
    """
    sources = options.sources(shards)
    if footage and not overlay:
        raise UsageError("--footage is what --overlay draws on; name both")
    options.prepare_output(output)
    options.prepare_files(output, onnx, overlay)
    from ..prediction.predict_job import PredictSettings, run_predict

    settings = PredictSettings(
        shards=sources,
        model=model,
        output=output,
        fov=fov,
        bone=bone,
        overlay=overlay,
        footage=footage or [],
        onnx=onnx,
        batch=batch,
        workers=workers,
        device=device,
        strict=strict,
    )
    done = run_predict(settings)
    console.say(f"predict: {_summary(done, fov)}")
    if not done.crops:
        console.warn("the input holds no crops, and so does the output")
    for film in done.films:
        _say_film(film)
    options.skipped_exit(done.skipped)


def _summary(done: PredictResult, fov: float) -> str:
    """What was predicted, by which cameras, and how large."""
    cameras = []
    for known, count in done.cameras.items():
        angle = f" ({fov:g} degrees)" if "assumed" in known else ""
        cameras.append(f"{count:,} {known}{angle}")
    crops = f"{console.plural(done.crops, 'crop')}, {done.skipped:,} skipped"
    bone = f"reference bone {done.bone_mm:.1f} mm, {done.bone_of}"
    placed = ""
    if done.depth_sigma_mm is not None:
        placed = f"; depth +/- {done.depth_sigma_mm:.0f} mm if size and camera are right (median)"
    if done.by_extent:
        where = "fit nowhere before the camera and stand where their extent looks right"
        placed += f"; {done.by_extent:,} {where}"
    return f"{crops}; camera: {', '.join(cameras) or 'none'}; {bone}{placed}"


def _say_film(film: Drawn) -> None:
    """What is on an overlay, and what is not."""
    said = f"{console.plural(film.frames, 'frame')}, {console.plural(film.hands, 'hand')}"
    console.say(f"predict: {film.path}, {said}")
    if film.hands < film.known:
        lost = console.plural(film.known - film.hands, "crop")
        console.warn(f"{film.source}: has no frames of {lost}")
