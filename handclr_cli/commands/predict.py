"""$ handclr predict"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options
from ..contract.claims import Read, Reads, Writes, Written, refuse_conflicts
from ..contract.errors import UsageError

if TYPE_CHECKING:
    from ..contract.index import ShardIndex
    from ..learning.predict_job import PredictResult
    from ..report.overlay import Film


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
    if footage:
        from ..footage.finding import find_footage

        find_footage(footage)
    from ..learning.hardware import pick_device
    from ..learning.posemodel import load_model

    loaded = load_model(model, pick_device(device))
    from ..contract.index import ShardIndex
    from ..learning.predict_job import PredictSettings, run_predict

    index = ShardIndex(sources)
    films = _films(index, overlay, footage or [])
    _refuse_conflicts(films, sources, model=model, output=output, onnx=onnx)

    settings = PredictSettings(
        shards=sources,
        model=model,
        output=output,
        fov=fov,
        bone=bone,
        onnx=onnx,
        batch=batch,
        workers=workers,
        device=device,
        strict=strict,
    )
    done = run_predict(settings, index, loaded)
    console.say(f"predict: {_summary(done, fov)}")
    if not len(index):
        console.warn("the input holds no crops, and so does the output")
    for film in films:
        _draw(film, done)
    options.skipped_exit(done.skipped)


def _films(index: ShardIndex, overlay: str | None, footage: list[str]) -> list[Film]:
    """The overlays to draw; raises before the work where one cannot be."""
    if overlay is None:
        return []
    console.silence_native_libraries()
    from ..report.overlay import plan_films

    return plan_films(index, overlay, footage)


def _refuse_conflicts(films: list[Film], shards: list[str], **files: str | None) -> None:
    """Raise UsageError where a film that the crops name is an input, or another output."""
    reads = [Read("shards", name, Reads()) for name in (*shards, str(files["model"]))]
    for film in films:
        reads += [Read("footage", str(file), Reads()) for file in film.footage.files]
    writes = []
    if films:
        folder = os.path.dirname(films[0].path)
        names = [(os.path.basename(film.path), "film") for film in films]
        writes.append(Written("overlay", folder, Writes(files=tuple(names))))
    for setting, kind in (("output", "npz"), ("onnx", "onnx")):
        if name := files[setting]:
            writes.append(Written(setting, name, Writes(kind)))
    refuse_conflicts(reads, writes)


def _summary(done: PredictResult, fov: float) -> str:
    """What was predicted, by which cameras, and how large."""
    cameras = []
    for known, count in done.cameras.items():
        angle = f" ({fov:g} degrees)" if "assumed" in known else ""
        cameras.append(f"{count:,} {known}{angle}")
    crops = f"{console.plural(len(done.points), 'crop')}, {done.skipped:,} skipped"
    bone = f"reference bone {done.bone_mm:.1f} mm, {done.bone_of}"
    placed = ""
    if done.depth_sigma_mm is not None:
        placed = f"; depth +/- {done.depth_sigma_mm:.0f} mm if size and camera are right (median)"
    if done.by_extent:
        where = "fit nowhere before the camera and stand where their extent looks right"
        placed += f"; {done.by_extent:,} {where}"
    return f"{crops}; camera: {', '.join(cameras) or 'none'}; {bone}{placed}"


def _draw(film: Film, done: PredictResult) -> None:
    """Write an overlay with the predictions."""
    from ..report.overlay import drawn_hand, write_overlay

    points = done.points
    hands = [drawn_hand(info, points[row]) for row, info in film.crops.items() if row in points]
    with console.progress("overlay", unit="frames") as advance:
        frames, drawn = write_overlay(
            film.path,
            film.footage,
            film.sampling,
            hands,
            lambda error: console.warn(str(error)),
            advance,
        )
    said = f"{console.plural(frames, 'frame')}, {console.plural(drawn, 'hand')}"
    console.say(f"predict: {film.path}, {said}")
    if drawn < len(hands):
        lost = console.plural(len(hands) - drawn, "crop")
        console.warn(f"{film.footage.files[0]}: has no frames of {lost}")
