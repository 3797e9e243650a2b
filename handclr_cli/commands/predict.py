"""$ handclr predict"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options
from ..contract.errors import HandclrError, UsageError
from ..contract.inputs import expand_inputs
from ..work import cores

if TYPE_CHECKING:
    import numpy as np

    from ..contract.index import ShardIndex
    from ..learning.posemodel import PoseModel
    from ..report.overlay import Film

CHECKED_CROPS = 128


def predict(
    shards: options.Shards = None,
    model: Annotated[
        str, typer.Option("--model", metavar="FILE", help="model.pt of handclr finetune.")
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
    ] = None,
    footage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="Where the footage is, if not where extract read it.",
            show_default=False,
        ),
    ] = None,
    onnx: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Export the model, checked on these crops.", show_default=False
        ),
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
    sources = expand_inputs(shards or [])
    if footage and not overlay:
        raise UsageError("--footage is what --overlay draws on; name both")
    options.prepare_output(output)
    options.prepare_files(output, onnx, overlay)
    from ..contract.index import ShardIndex

    index = ShardIndex(sources)
    films = _plan(index, overlay, footage or [])
    from ..contract.npz import as_keys, write_npz
    from ..contract.provenance import after, file_checksum, provenance
    from ..hand.placement import cut_of, placed
    from ..learning.hardware import pick_device
    from ..learning.posemodel import load_model
    from ..learning.prediction import predict_crops, stacked

    trained = load_model(model, pick_device(device))
    if onnx:
        _export(trained, index, onnx, file_checksum(model))
    counts: Counter[str] = Counter()

    def skip(error: HandclrError) -> None:
        if strict:
            raise error
        counts["skipped"] += 1
        console.warn(f"{error}; skipped")

    rows, cuts, poses = [], [], []
    with console.progress("predict", len(index), "crops") as advance:
        read = partial(cut_of, fov_deg=fov)
        for batch_rows, batch_cuts, part in predict_crops(
            trained, index, read, batch, cores.worker_count(workers), skip
        ):
            rows += batch_rows
            cuts += batch_cuts
            poses.append(part)
            advance(len(batch_rows))
    if len(index) and not rows:
        raise HandclrError("none of the crops can be read; nothing was written")
    pose, scale = stacked(poses), 1.0 if bone is None else bone / 1000 / trained.mean.bone
    hands = placed(pose.xyz * scale, pose.uv, cuts)
    cameras = Counter(cut.known for cut in cuts)
    size = {
        "mm": round(1000 * trained.mean.bone * scale, 4),
        "of": "--bone" if bone else "the training set's mean",
    }
    record = provenance("predict", {"fov": fov, "bone": bone}, sources, model=file_checksum(model))
    by_extent = int((~hands.fitted).sum())
    record |= {"cameras": dict(cameras), "placed_by_extent": by_extent, "reference_bone": size}
    arrays = {"key": as_keys([index.keys[row] for row in rows]), **hands._asdict()}
    del arrays["fitted"]
    write_npz(output, "predictions", arrays, after(record, index.origins))
    console.say(
        f"predict: {console.plural(len(rows), 'crop')}, {counts['skipped']:,} skipped; "
        f"camera: {_cameras(cameras, fov)}; reference bone {size['mm']:.1f} mm, {size['of']}"
        f"{f'; {by_extent:,} fit nowhere before the camera and stand where their extent looks right' * (by_extent > 0)}"
    )
    if not len(index):
        console.warn("the input holds no crops, and so does the output")
    _draw(films, dict(zip(rows, hands.source2d, strict=True)))
    options.skipped_exit(counts["skipped"])


def _plan(index: ShardIndex, overlay: str | None, footage: list[str]) -> list[Film]:
    """The overlays to draw; told before the work what cannot be."""
    if overlay is None:
        return []
    console.silence_native_libraries()
    from ..report.overlay import plan_films

    return plan_films(index, overlay, footage)


def _export(model: PoseModel, index: ShardIndex, path: str, checksum: Mapping[str, str]) -> None:
    from ..version import __version__
    from ..contract.output import atomic_write
    from ..hand.joints import JOINT_NAMES
    from ..learning.export import OPSET, check_onnx, export_onnx, require_onnx
    from ..learning.prediction import some_crops

    require_onnx()
    crops = some_crops(index, model.size, CHECKED_CROPS)
    about = {
        "handclr": __version__,
        "model_sha256": next(iter(checksum.values())),
        "joints": ",".join(JOINT_NAMES),
    }
    data = export_onnx(model, {**about, "size": model.size, "reference_bone_m": model.mean.bone})
    check = check_onnx(data, model, crops)
    with atomic_write(path) as file:
        file.write(data)
    if check is None:
        console.warn(f"{path}: not checked; pip install onnxruntime")
        return
    ties = (
        f", but for {console.plural(check.ties, 'joint')} that lie in two places alike"
        if check.ties
        else ""
    )
    console.say(
        f"predict: {path}, opset {OPSET}, differs by at most {check.worst_mm:.2g} mm and"
        f" {check.worst_px:.2g} px on {console.plural(check.crops, 'crop')}{ties}"
    )


def _draw(films: list[Film], points: Mapping[int, np.ndarray]) -> None:
    """Write the overlays with the predictions, (21, 2) source pixels by row."""
    from ..report.overlay import drawn_hand, write_overlay

    for film in films:
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
        console.say(
            f"predict: {film.path}, {console.plural(frames, 'frame')},"
            f" {console.plural(drawn, 'hand')}"
        )
        if drawn < len(hands):
            console.warn(
                f"{film.footage.files[0]}: has no frames of"
                f" {console.plural(len(hands) - drawn, 'crop')}"
            )


def _cameras(counts: Counter[str], fov: float) -> str:
    """How the cameras of the crops are known: of how many by what."""
    angle = f" ({fov:g} degrees)"
    return (
        ", ".join(
            f"{count:,} {known}{angle * ('assumed' in known)}" for known, count in counts.items()
        )
        or "none"
    )
