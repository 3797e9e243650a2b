"""The job of `handclr predict`: from crops to the 3D poses of their hands, and films of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from .. import console
from ..contract.claims import Read, Reads, Writes, Written, refuse_conflicts
from ..contract.errors import HandclrError
from ..contract.index import ShardIndex
from ..contract.npz import as_keys, write_npz
from ..contract.provenance import after, file_checksum, provenance
from ..contract.settings import Settings
from ..contract.version import __version__
from ..hand.placement import DEPTH_SIGMA, Cut, Placed, cut_of, median_sigma_mm, placed
from ..learning.export import OPSET, require_onnx, write_onnx
from ..learning.hardware import pick_device
from ..learning.posemodel import PoseModel, Poses, load_model
from ..learning.prediction import predict_crops, some_crops, stacked
from ..work import cores

if TYPE_CHECKING:
    from .overlay import Film

CHECKED_CROPS = 128
# What the reference bone of the predictions is the length of.
MEAN_BONE, MEASURED_BONE = "the training set's mean", "as measured"


@dataclass(frozen=True, kw_only=True)
class PredictSettings(Settings):
    """What `run_predict` predicts with, and how."""

    recorded: ClassVar = ("fov", "bone")

    shards: Sequence[str]
    """Sources of crops: tar files, URLs, or - for standard input."""
    model: str
    """The model.pt of a fine-tuning."""
    output: str = "-"
    """The NPZ file to write; - is standard output."""
    fov: float = 60.0
    """Angle of view in degrees across the longer side, where there are no intrinsics."""
    bone: float | None = None
    """Wrist to middle knuckle of the hands in mm; None: the training set's mean."""
    overlay: str | None = None
    """The MP4 to draw the hands on the footage in; of several videos, a folder or {video}.mp4."""
    footage: Sequence[str] = ()
    """Where the footage for the overlay is, if not where extract read it."""
    onnx: str | None = None
    """The ONNX file to export the model to, checked on some of the crops."""
    batch: int = 128
    """Crops in a batch."""
    workers: int | None = None
    """Processes that decode crops, 0: this one; None: one for each core."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    strict: bool = False
    """Fail at the first crop that cannot be used."""


class Drawn(NamedTuple):
    """A film that was written: `hands` of the `known` ones are on its frames, from `source`."""

    path: str
    frames: int
    hands: int
    known: int
    source: str


class PredictResult(NamedTuple):
    """What `run_predict` did.

    crops: those that were predicted; skipped: those that cannot be used; cameras: crops by how
    their camera is known; bone_mm: the reference bone of the predictions, and bone_of what it is
    taken from; by_extent: hands that fit nowhere before the camera; depth_sigma_mm: the median of
    the others' `depth_sigma`, None where there are none; films: the overlays.
    """

    crops: int
    skipped: int
    cameras: Counter[str]
    bone_mm: float
    bone_of: str
    by_extent: int
    depth_sigma_mm: float | None
    films: Sequence[Drawn] = ()


def run_predict(settings: PredictSettings) -> PredictResult:
    """Predict the 3D pose of each crop, and draw the hands on their footage where that is asked.

    Raises HandclrError where the model cannot be loaded, none of the crops can be read, or, if
    strict, the first cannot; UsageError where the footage of an overlay is not found.

    >>> import handclr_cli as handclr
    >>> where = {"shards": ["hands.tar"], "model": "model.pt", "output": "predictions.npz"}
    >>> done = handclr.run_predict(handclr.PredictSettings(**where, workers=0, device="cpu"))
    >>> done.crops, done.skipped
    (48, 0)
    """
    if settings.footage:
        from ..footage.finding import find_footage

        find_footage(settings.footage)
    model = load_model(settings.model, pick_device(settings.device))
    index = ShardIndex(settings.shards)
    films = _films(settings, index)
    _refuse_conflicts(settings, films)
    done, points = _predicted(settings, model, index)
    return done._replace(films=[_draw(film, points) for film in films])


def _films(settings: PredictSettings, index: ShardIndex) -> list[Film]:
    """The overlays to draw; raises before the work where one cannot be."""
    if settings.overlay is None:
        return []
    console.silence_native_libraries()
    from .overlay import plan_films

    return plan_films(index, settings.overlay, settings.footage)


def _refuse_conflicts(settings: PredictSettings, films: list[Film]) -> None:
    """Raise UsageError where a film that the crops name is an input, or another output."""
    reads = [Read("shards", name, Reads()) for name in (*settings.shards, settings.model)]
    for film in films:
        reads += [Read("footage", str(file), Reads()) for file in film.footage.files]
    writes = []
    if films:
        folder = os.path.dirname(films[0].path)
        names = [(os.path.basename(film.path), "film") for film in films]
        writes.append(Written("overlay", folder, Writes(files=tuple(names))))
    writes.append(Written("output", settings.output, Writes("npz")))
    if settings.onnx:
        writes.append(Written("onnx", settings.onnx, Writes("onnx")))
    refuse_conflicts(reads, writes)


def _draw(film: Film, points: Mapping[int, np.ndarray]) -> Drawn:
    """Write an overlay with the hands that were predicted."""
    from .overlay import drawn_hand, write_overlay

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
    return Drawn(film.path, frames, drawn, len(hands), str(film.footage.files[0]))


def _predicted(
    settings: PredictSettings, model: PoseModel, index: ShardIndex
) -> tuple[PredictResult, dict[int, np.ndarray]]:
    """Predict and write; also (21, 2) pixels of the source by the row of the crop."""
    checksum = file_checksum(settings.model)
    if settings.onnx:
        _export(settings.onnx, model, index, checksum)
    found = _predict(settings, model, index)
    scale = 1.0 if settings.bone is None else settings.bone / 1000 / model.mean.bone
    if untold := sum(not cut.told for cut in found.cuts):
        which = f"{console.plural(untold, 'crop')} with a box in the source"
        lack = "without hand or flipped in the JSON: taken for not mirrored there"
        console.warn(f"{which}, {lack}")
    hands = placed(found.poses.xyz * scale, found.poses.uv, found.cuts)
    done = PredictResult(
        crops=len(found.rows),
        skipped=found.skipped,
        cameras=Counter(cut.known for cut in found.cuts),
        bone_mm=round(1000 * model.mean.bone * scale, 4),
        bone_of=MEASURED_BONE if settings.bone else MEAN_BONE,
        by_extent=int((~hands.fitted).sum()),
        depth_sigma_mm=median_sigma_mm(hands.depth_sigma),
    )
    keys = [index.keys[row] for row in found.rows]
    _write(settings, keys, hands, _record(settings, index, checksum, done))
    return done, dict(zip(found.rows, hands.source2d, strict=True))


class _Found(NamedTuple):
    """Predictions of the crops that can be used, in order, and how many cannot."""

    rows: list[int]
    cuts: list[Cut]
    poses: Poses
    skipped: int


def _predict(settings: PredictSettings, model: PoseModel, index: ShardIndex) -> _Found:
    """Predict the crops that can be used."""
    skipped = 0

    def skip(error: HandclrError) -> None:
        nonlocal skipped
        if settings.strict:
            raise error
        skipped += 1
        console.warn(f"{error}; skipped")

    rows: list[int] = []
    cuts: list[Cut] = []
    poses: list[Poses] = []
    read, workers = partial(cut_of, fov_deg=settings.fov), cores.worker_count(settings.workers)
    with console.progress("predict", len(index), "crops") as advance:
        for part in predict_crops(model, index, read, settings.batch, workers, skip):
            rows += part[0]
            cuts += part[1]
            poses.append(part[2])
            advance(len(part[0]))
    if len(index) and not rows:
        raise HandclrError("none of the crops can be read; nothing was written")
    return _Found(rows, cuts, stacked(poses), skipped)


def _record(
    settings: PredictSettings,
    index: ShardIndex,
    checksum: Mapping[str, str],
    done: PredictResult,
) -> dict[str, Any]:
    """The provenance of the predictions, with what they are in metres and pixels of."""
    record = provenance("predict", settings.arguments(), settings.shards, model=checksum)
    record |= {
        "cameras": dict(done.cameras),
        "placed_by_extent": done.by_extent,
        "depth_sigma": {"median_mm": done.depth_sigma_mm, "definition": DEPTH_SIGMA},
        "reference_bone": {"mm": done.bone_mm, "of": done.bone_of},
    }
    return after(record, index.origins)


def _write(
    settings: PredictSettings, keys: list[str], hands: Placed, record: dict[str, Any]
) -> None:
    arrays = {"key": as_keys(keys), **hands._asdict()}
    del arrays["fitted"]
    write_npz(settings.output, "predictions", arrays, record)


def _export(path: str, model: PoseModel, index: ShardIndex, checksum: Mapping[str, str]) -> None:
    """Export the model, and say how well the export agrees with it."""
    require_onnx()
    crops = some_crops(index, model.size, CHECKED_CROPS)
    about = {"handclr": __version__, "model_sha256": next(iter(checksum.values()))}
    check = write_onnx(model, crops, path, about)
    if check is None:
        console.warn(f"{path}: not checked; pip install onnxruntime")
        return
    worst = f"{check.worst_mm:.2g} mm and {check.worst_px:.2g} px"
    told = f"differs by at most {worst} on {console.plural(check.crops, 'crop')}"
    if check.ties:
        told += f", but for {console.plural(check.ties, 'joint')} that lie in two places alike"
    console.say(f"predict: {path}, opset {OPSET}, {told}")
