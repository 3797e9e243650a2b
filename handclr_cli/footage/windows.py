"""Parts of an image to look at, which may reach beyond it, and what is found in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..hand.square import Box, mirror
from .frames import Hand

Find = Callable[[np.ndarray], list[Hand]]


class _Window(NamedTuple):
    """The pixels of a window, its corner in the image, and how many of its pixels one of the image
    makes, across and down.
    """

    pixels: np.ndarray
    corner: np.ndarray
    scale: np.ndarray


def look_in(
    image: np.ndarray,
    box: Box,
    find: Find,
    *,
    mirrored: bool = False,
    largest: int | None = None,
    black: bool = False,
) -> list[Hand]:
    """Find the hands in a window of an image, in pixels of the image.

    image: uint8 (H, W, 3) RGB. Where `box` (x0, y0, x1, y1) reaches beyond the image, its edge
    pixels are repeated, or it is `black`; a hand whose middle lies there is left out. `mirrored`:
    the mirror image is looked at; sides and points are those of the image all the same. `largest`:
    the longer side of the window in pixels at most; a larger one is shrunk.
    """
    window = _window(image, box, largest or max(box[2] - box[0], box[3] - box[1]), black)
    if window is None:
        return []
    hands = []
    for hand in find(mirror(window.pixels) if mirrored else window.pixels):
        if mirrored:
            hand = hand.mirrored(window.pixels.shape[1])
        hand = replace(hand, keypoints=hand.keypoints / window.scale + window.corner)
        if _is_in(hand, image):
            hands.append(hand)
    return hands


def with_border(image: np.ndarray, share: float) -> Box:
    """The window that shows an image with a border of a share of its longer side."""
    height, width = image.shape[:2]
    border = round(share * max(height, width))
    return -border, -border, width + border, height + border


def whole_image(image: np.ndarray) -> Box:
    """The window that shows an image as it is."""
    return 0, 0, image.shape[1], image.shape[0]


def tile_boxes(width: int, height: int, share: float, common: float) -> Iterator[Box]:
    """Squares that cover an image, of a `share` of its shorter side, row by row.

    Neighbours have at least `common` of their width in common, so that what is no larger than that
    lies in one of them whole. None where one square is all of the image.
    """
    side = round(share * min(width, height))
    if side < 1 or (side == width and side == height):
        return
    for y in _steps(height, side, common):
        for x in _steps(width, side, common):
            yield x, y, x + side, y + side


def _steps(length: int, side: int, common: float) -> list[int]:
    count = 1 + math.ceil((length - side) / (side * (1 - common)))
    return [round(float(place)) for place in np.linspace(0, length - side, count)]


def _window(image: np.ndarray, box: Box, largest: int, black: bool) -> _Window | None:
    """A window of an image; None where it shows nothing of it."""
    import cv2

    low, high, limit = np.array(box[:2]), np.array(box[2:]), (image.shape[1], image.shape[0])
    first, last = np.clip(low, 0, limit), np.clip(high, 0, limit)
    if (last <= first).any():
        return None
    pixels = image[first[1] : last[1], first[0] : last[0]]
    share = largest / int(max(high - low))
    if share < 1:
        size = np.maximum(np.round((last - first) * share), 1).astype(int).tolist()
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    scale = np.array(pixels.shape[1::-1]) / (last - first)
    left, top = np.round((first - low) * scale).astype(int).tolist()
    right, bottom = np.round((high - last) * scale).astype(int).tolist()
    if left or top or right or bottom:
        # NumPy's padding takes three times as long.
        kind = cv2.BORDER_CONSTANT if black else cv2.BORDER_REPLICATE
        pixels = cv2.copyMakeBorder(pixels, top, bottom, left, right, kind)
    return _Window(np.ascontiguousarray(pixels), first - (left, top) / scale, scale)


def _is_in(hand: Hand, image: np.ndarray) -> bool:
    """Whether the middle of a hand's box is in the image."""
    middle = (hand.keypoints.min(axis=0) + hand.keypoints.max(axis=0)) / 2
    return bool(np.all(middle > 0) and np.all(middle < (image.shape[1], image.shape[0])))
