"""Tracks of predicted hands filtered over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..hand.placement import Cut
from ..hand.smoothing import IMAGES_PER_S, smooth
from ..hand.square import to_crop, to_source


def smoothed(
    xyz: np.ndarray,
    uv: np.ndarray,
    cuts: Sequence[Cut],
    track: np.ndarray,
    video: np.ndarray,
    frame: np.ndarray,
    time_s: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Filter each track's poses, and its points in the source, before they are placed.

    xyz (N, 21, 3) metres from the wrist; uv (N, 21, 2) crop sides; the rest (N,) in any order, as
    `PosedHands` has it. The crops move with the hand, so that points are filtered where they are in
    the source. Frames are counted where a track has hands without a time. Hands of no track (0)
    stay as they are.
    """
    xyz, uv = np.array(xyz, np.float64), np.array(uv, np.float64)
    seen = [to_source(at, cut.box, 1, cut.flipped) for at, cut in zip(uv, cuts, strict=True)]
    points = np.array(seen).reshape(-1, *uv.shape[1:])
    mirrored = np.array([cut.flipped for cut in cuts], bool)
    for rows in _tracks(track, video, frame, mirrored):
        times = _times(frame[rows], time_s[rows])
        xyz[rows] = smooth(xyz[rows], times)
        points[rows] = smooth(points[rows], times)
        for row in rows.tolist():
            uv[row] = to_crop(points[row], cuts[row].box, 1, cuts[row].flipped)
    return xyz, uv


def _tracks(
    track: np.ndarray, video: np.ndarray, frame: np.ndarray, mirrored: np.ndarray
) -> list[np.ndarray]:
    """The rows of each track in the order of their frames, those of mirrored crops apart."""
    found: dict[tuple[str, int, bool], list[int]] = {}
    for row in np.argsort(frame, kind="stable").tolist():
        if track[row] > 0:
            name = (video[row], int(track[row]), bool(mirrored[row]))
            found.setdefault(name, []).append(row)
    return [np.array(rows) for rows in found.values()]


def _times(frame: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    """When the rows of a track were seen, in seconds, rising whatever their JSON says."""
    times = time_s if np.isfinite(time_s).all() else frame / IMAGES_PER_S
    return np.maximum.accumulate(times)
