"""A page of labelled crops with the skeletons of their labels."""

from __future__ import annotations

import math

import numpy as np

from ..console import printable
from ..contract.sample import Sample
from .sheets import Tile, grid_sheet

_COLUMNS = 8


def labelled_page(samples: list[Sample]) -> np.ndarray:
    """Crops in reading order, (H, W, 3) uint8 RGB: the valid joints, and where each is from.

    Raises HandclrError where there are none.
    """
    return grid_sheet([_tile(sample) for sample in samples], _COLUMNS)


def _tile(sample: Sample) -> Tile:
    info = sample.info
    side = f"{info['hand']}, mirrored" if info["flipped"] else info["hand"]
    drawn = np.where(sample.valid[:, None], sample.keypoints2d, math.nan)
    return Tile(sample.image, f"{info['index']}, {side}\n{printable(str(info['video']))}", drawn)
