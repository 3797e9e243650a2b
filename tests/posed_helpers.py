"""Hands in rows, made up, for the tests of what is written of them."""

from __future__ import annotations

import numpy as np
from labelled_helpers import pose

from handclr_cli.hand.camera import assumed_camera, crop_camera, project
from handclr_cli.hand.placement import OVER_SOURCE, Cut, placed
from handclr_cli.prediction.crops import Crop, columns_of
from handclr_cli.prediction.hands import PosedHands

WIDTH, HEIGHT = 640, 480


def crop_of(
    number: int,
    video: str = "clips/a.mp4",
    hand: str = "right",
    *,
    track: int | None = 7,
    time_s: float = 0.0,
) -> Crop:
    """A crop of a frame, whose camera is assumed."""
    box, flipped = (100, 50, 324, 274), hand == "left"
    camera = crop_camera(assumed_camera(WIDTH, HEIGHT, 60.0), box, 224, flipped)
    cut = Cut(224, box, flipped, camera, OVER_SOURCE)
    key = f"{video.rpartition('/')[2]}_{number:08d}_{hand[:1] or 'r'}"
    return Crop(key, video, number, time_s, hand, 0.9, track, 0.95, (WIDTH, HEIGHT), True, cut)


def hands_of(crops: list[Crop]) -> PosedHands:
    """Their hands: each a fan of fingers before the camera, seen without error."""
    xyz, uv = [], []
    for number, crop in enumerate(crops):
        there = pose(np.random.default_rng(number))
        xyz.append(there - there[:1])
        uv.append(project(there, crop.cut.camera) / crop.cut.side)
    shape = np.array(xyz).reshape(-1, 21, 3), np.array(uv).reshape(-1, 21, 2)
    return PosedHands(**columns_of(crops), placed=placed(*shape, [crop.cut for crop in crops]))
