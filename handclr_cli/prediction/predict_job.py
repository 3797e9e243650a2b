"""The job of `handclr predict`: from footage or crops to the 3D poses of their hands."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import console
from ..contract.claims import Read, Reads, Writes, Written, refuse_conflicts
from ..contract.errors import HandclrError, UsageError
from ..contract.provenance import Provenance, after, provenance
from ..contract.shipped import weights_file
from ..hand.camera import project
from ..hand.placement import DEPTH_SIGMA, median_sigma_mm, placed
from .crops import Crop, columns_of
from .estimators import Estimator, ModelEstimator, OnSkip, load_estimator
from .hands import PosedHands
from .settings import PredictSettings
from .sources import Pace, ShardSource, Source, source_of
from .tables import format_of, sidecar, write_table

if TYPE_CHECKING:
    from .films import Drawn, Film


class PredictResult(NamedTuple):
    """What `run_predict` did.

    hands: how many were predicted, by "left", "right" or ""; tracks: how many they make up; by:
    what predicted them; skipped: inputs that cannot be used; without_hand: crops in which the
    landmarker finds none; cameras: crops by how their camera is known; bone_mm: the reference bone,
    and bone_of what it is taken from; by_extent: hands that fit no certain place before the camera;
    depth_sigma_mm: the median of the others' `depth_sigma`; misfit_px: the median over the hands of
    the distance between their projected 3D joints and their 2D ones, in source pixels; both None
    where there are none; pace: of footage, how fast it was worked through; films: what was drawn.
    """

    hands: Counter[str]
    tracks: int
    by: str
    skipped: int
    without_hand: int
    cameras: Counter[str]
    bone_mm: float
    bone_of: str
    by_extent: int
    depth_sigma_mm: float | None
    misfit_px: float | None
    pace: Pace | None
    films: Sequence[Drawn] = ()


def run_predict(settings: PredictSettings) -> PredictResult:
    """Predict the 3D pose of each hand of footage or of crops, and draw them where that is asked.

    What cannot be had, or cannot be written, is found before the first frame is read. Raises
    HandclrError where the model cannot be loaded, none of the inputs can be read, or, if strict,
    the first cannot; UsageError where inputs or outputs do not fit each other.

    >>> import handclr_cli as handclr
    >>> where = {"inputs": ["hands.tar"], "model": "model.pt", "output": "predictions.npz"}
    >>> done = handclr.run_predict(handclr.PredictSettings(**where, workers=0, device="cpu"))
    >>> done.hands.total(), done.skipped
    (48, 0)
    """
    form = format_of(settings.output, settings.form)
    estimator = load_estimator(settings)
    source = source_of(settings, estimator.sees_crops)
    films, failed = _films(settings, source)
    _refuse_conflicts(settings, source, films)
    if settings.onnx:
        _export(settings.onnx, estimator, source)
    hands, done = _predicted(settings, estimator, source)
    if settings.output is not None:
        record = _record(settings, estimator, source, done)
        write_table(settings.output, form, hands, record)
    if failed:
        raise failed
    # What cannot be read of footage was named when its hands were looked for.
    on_skip = _warn if source.pace is None else _say_nothing
    drawn: list[Drawn] = []
    for film in films:
        if source.was_read(film.video):
            try:
                drawn.append(_made(film, hands, done, settings.fov, on_skip))
            except HandclrError as error:
                # The others are made all the same.
                if failed:
                    _warn(failed)
                failed = error
    if failed:
        raise failed
    return done._replace(films=drawn)


def _films(settings: PredictSettings, source: Source) -> tuple[list[Film], HandclrError | None]:
    """The films and pages to make; raises before the work where one cannot be.

    Of crops from a pipe that is known when the work before it is done: they are predicted all the
    same, and the error is for afterwards.
    """
    if settings.overlay is None and settings.page is None:
        return [], None
    console.silence_native_libraries()
    from .films import plan_films

    try:
        filmed = source.filmed(settings.footage)
        return plan_films(*filmed, settings.overlay, settings.page), None
    except HandclrError as error:
        if not source.piped or settings.output is None:
            raise
        return [], error


def _refuse_conflicts(settings: PredictSettings, source: Source, films: Sequence[Film]) -> None:
    """Raise UsageError where an output is an input, another output, or a file of another kind."""
    names = [*source.files, weights_file(settings.model)]
    names += [str(file) for film in films for file in film.footage.files]
    reads = [Read("inputs", name, Reads()) for name in names]
    writes = []
    for setting, kind in (("overlay", "film"), ("page", "html")):
        paths = [path for film in films if (path := getattr(film, setting))]
        for path in paths:
            folder, name = os.path.split(path)
            writes.append(Written(setting, folder, Writes(files=((name, kind),))))
    if settings.output is not None:
        form = format_of(settings.output, settings.form)
        writes.append(Written("output", settings.output, Writes(form)))
        if beside := sidecar(settings.output, form):
            folder, name = os.path.split(beside)
            writes.append(Written("output", folder, Writes(files=((name, "json"),))))
    if settings.onnx:
        writes.append(Written("onnx", settings.onnx, Writes("onnx")))
    refuse_conflicts(reads, writes)


def _export(path: str, estimator: Estimator, source: Source) -> None:
    from .exporting import export_model

    if not (isinstance(estimator, ModelEstimator) and isinstance(source, ShardSource)):
        why = "a model.pt is exported, and checked on crops; name shards of them"
        raise UsageError(why, setting="onnx")
    export_model(path, estimator, source)


def _predicted(
    settings: PredictSettings, estimator: Estimator, source: Source
) -> tuple[PosedHands, PredictResult]:
    """Predict all crops, filter their tracks where that is asked, and put them into space."""
    crops: list[Crop] = []
    parts = [(np.zeros((0, 21, 3)), np.zeros((0, 21, 2)))]
    for part in source.estimates(estimator, settings.fov):
        crops += part.crops
        parts.append((part.xyz, part.uv))
    xyz, uv = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    _warn_of_untold(crops)
    cuts, columns = [crop.cut for crop in crops], columns_of(crops)
    xyz, bone_mm, bone_of = estimator.sized(xyz, settings.bone, _persons(columns))
    if settings.smooth:
        from .smoothing import smoothed

        # Hands whose crops lie nowhere in a source are beside no others.
        tracks = np.where(columns["boxed"], columns["track"], 0)
        moments = [columns[name] for name in ("video", "frame", "time_s")]
        xyz, uv = smoothed(xyz, uv, cuts, tracks, *moments)
    hands = PosedHands(**columns, placed=placed(xyz, uv, cuts))
    done = PredictResult(
        **_told(hands),
        by=estimator.name,
        skipped=source.skipped,
        without_hand=estimator.without_hand,
        bone_mm=bone_mm,
        bone_of=bone_of,
        pace=source.pace,
    )
    return hands, done


def _told(hands: PosedHands) -> dict[str, Any]:
    """What `PredictResult` says of these hands alone: all of them, or those of one film."""
    return {
        "hands": Counter(hands.hand.tolist()),
        "tracks": _tracks(hands),
        "cameras": Counter(hands.known.tolist()),
        "by_extent": int((~hands.placed.fitted).sum()),
        "depth_sigma_mm": median_sigma_mm(hands.placed.depth_sigma),
        "misfit_px": _misfit_px(hands),
    }


def _warn_of_untold(crops: Sequence[Crop]) -> None:
    if untold := sum(not crop.cut.told for crop in crops):
        which = f"{console.plural(untold, 'crop')} with a box in the source"
        lack = "without hand or flipped in the JSON: taken for not mirrored there"
        console.warn(f"{which}, {lack}")


def _persons(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """A number for each track, and one for all hands of a video without, (N,)."""
    numbers: dict[tuple[str, int], int] = {}
    named = zip(columns["video"].tolist(), columns["track"].tolist(), strict=True)
    return np.array([numbers.setdefault(name, len(numbers)) for name in named], np.int64)


def _tracks(hands: PosedHands) -> int:
    known = hands.track > 0
    return len({*zip(hands.video[known].tolist(), hands.track[known].tolist(), strict=True)})


def _misfit_px(hands: PosedHands) -> float | None:
    """How far the 3D joints, projected by the camera, are from the 2D ones: the median hand."""
    if not len(hands):
        return None
    there = hands.placed
    off = project(there.source3d, there.camera) - there.source2d
    return round(float(np.median(np.linalg.norm(off, axis=-1).mean(axis=1))), 2)


def _record(
    settings: PredictSettings, estimator: Estimator, source: Source, done: PredictResult
) -> Provenance:
    """The provenance of the predictions, with what they are in metres and pixels of."""
    arguments = {**source.arguments, **settings.arguments()}
    checksums = {**source.checksums, **estimator.checksums}
    record: dict[str, Any] = provenance("predict", arguments, settings.inputs, model=checksums)
    record |= {
        "predicted_by": done.by,
        "cameras": dict(done.cameras),
        "placed_by_extent": done.by_extent,
        "depth_sigma": {"median_mm": done.depth_sigma_mm, "definition": DEPTH_SIGMA},
        "reference_bone": {"mm": done.bone_mm, "of": done.bone_of},
    }
    return after(record, source.origins)


def about_lines(done: PredictResult, fov: float) -> list[tuple[str, str]]:
    """What predicted, by which cameras, and how large hands are, for a page and for people."""
    cameras = []
    for known, count in done.cameras.items():
        angle = f" ({fov:g} degrees)" if "assumed" in known else ""
        how_many = f"{count:,} " if len(done.cameras) > 1 else ""
        cameras.append(f"{how_many}{known}{angle}")
    bone = f"reference bone {done.bone_mm:.1f} mm, {done.bone_of}"
    lines = [("predicted by", done.by), ("camera", ", ".join(cameras) or "none"), ("size", bone)]
    if done.misfit_px is not None:
        lines.append(("fit", f"3D falls {done.misfit_px:.1f} px beside the 2D (median)"))
    if done.depth_sigma_mm is not None:
        placed = f"+/- {done.depth_sigma_mm:.0f} mm if size and camera are right (median)"
        lines.append(("depth", placed))
    if done.by_extent:
        where = "fit no certain place before the camera and stand where their extent looks right"
        lines.append(("placed by extent", f"{done.by_extent:,} {where}"))
    return lines


def _made(film: Film, hands: PosedHands, done: PredictResult, fov: float, on_skip: OnSkip) -> Drawn:
    """Make a film and a page of the hands of a video, with what is told of these alone."""
    from .films import make_film

    own = hands.take((hands.video == film.video) & hands.boxed)
    about = about_lines(done._replace(**_told(own)), fov)
    label = "page" if film.overlay is None else "overlay"
    with console.progress(label, unit="frames") as advance:
        return make_film(film, own, about, on_skip, advance)


def _warn(error: HandclrError) -> None:
    console.warn(str(error))


def _say_nothing(error: HandclrError) -> None:
    """Pass over what was named before."""
