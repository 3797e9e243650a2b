"""A page of crops from any shards, with their keypoints where they have some."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from ..console import printable
from ..contract.errors import HandclrError
from ..contract.fields import IMAGE, KEYPOINTS_2D
from ..contract.sample import KEY, Sample
from .sheets import Tile, grid_sheet

_PICTURES = (IMAGE.suffix, *IMAGE.others, "webp")


def crops_page(samples: Iterable[Sample], on_skip: Callable[[HandclrError], None]) -> np.ndarray:
    """Crops in reading order, (H, W, 3) uint8 RGB, captioned with hand, video and frame.

    Errors of samples that cannot be drawn are passed to `on_skip`. Raises HandclrError where no
    sample can be drawn.
    """
    tiles = []
    for sample in samples:
        try:
            tiles.append(_tile(sample))
        except HandclrError as error:
            on_skip(error)
    return grid_sheet(tiles, max(1, round(math.sqrt(len(tiles)))))


def _tile(sample: Sample) -> Tile:
    points = None
    if KEYPOINTS_2D in sample:
        points = np.where(sample.valid[:, None], sample.keypoints2d, math.nan)
    return Tile(_picture(sample), _caption(sample), points)


def _picture(sample: Sample) -> np.ndarray:
    """The image of a sample, uint8 (H, W, 3) RGB; not square in other programs' WebDatasets."""
    import cv2

    suffix = next((suffix for suffix in _PICTURES if suffix in sample.members), None)
    where = f"{sample.source}: sample {sample.key}"
    if suffix is None:
        raise HandclrError(f"{where} has no image")
    data = np.frombuffer(sample.members[suffix], np.uint8)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(data, flags) if data.size else None
    except cv2.error as error:
        raise HandclrError(f"{where}: bad {suffix}") from error
    if image is None:
        raise HandclrError(f"{where}: bad {suffix}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _caption(sample: Sample) -> str:
    """Hand and frame, then the video on a second line; other keys as they are."""
    match = KEY.fullmatch(sample.key)
    if match is None:
        return printable(sample.key)
    hand = "left, mirrored" if match["hand"] == "l" else "right"
    return f"{hand}, {int(match['frame'])}\n{printable(match['video'])}"
