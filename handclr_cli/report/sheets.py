"""Contact sheets: hand crops with captions and skeletons, side by side."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import dataclass

import numpy as np

from ..console import shortened
from ..contract.errors import HandclrError
from ..contract.output import atomic_write
from ..hand.joints import FINGERS, WRIST

TILE = 128
_GAP = 4
_QUERY_GAP = 8
_COLUMN_GAP = 36
_ROW_GAP = 12
_MARGIN = 16
_LINE = 14
_FONT_SCALE = 0.34
# Characters of a caption that are tried: more fit into no tile.
_FITTED = 100
_WHITE = 255
_INK = (40, 40, 40)
_RULE = (200, 200, 200)
# Okabe and Ito's palette, which colour-blind people can tell apart.
FINGER_COLOURS = {
    "thumb": (230, 159, 0),
    "index": (86, 180, 233),
    "middle": (0, 158, 115),
    "ring": (240, 228, 66),
    "pinky": (204, 121, 167),
}


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet.

    `image` (H, W, 3) uint8 RGB; `caption` lines, each shortened to the tile's width; `keypoints2d`
    (21, 2) image pixels, drawn as a skeleton.
    """

    image: np.ndarray
    caption: str = ""
    keypoints2d: np.ndarray | None = None


def draw_skeleton(
    image: np.ndarray,
    keypoints2d: np.ndarray,
    scale: float = 1.0,
    width: int = 1,
    colour: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """Return a copy of an RGB uint8 image with the hand's bones drawn on it.

    `keypoints2d` (21, 2), multiplied by `scale`, are pixels of `image` with centres at .5. Points
    that are not finite are left out. Lines are `width` pixels wide, in `colour` or else in a colour
    for each finger.
    """
    canvas = np.ascontiguousarray(image).copy()
    add_skeleton(canvas, keypoints2d, scale, width, colour)
    return canvas


def add_skeleton(
    canvas: np.ndarray,
    keypoints2d: np.ndarray,
    scale: float = 1.0,
    width: int = 1,
    colour: tuple[int, int, int] | None = None,
) -> None:
    """Draw as `draw_skeleton` does, but on the image itself, which is contiguous."""
    import cv2

    shift = 4
    # OpenCV puts pixel centres at whole numbers and takes points as fixed-point integers.
    points = np.asarray(keypoints2d, dtype=np.float64) * scale - 0.5
    visible = [bool(np.isfinite(point).all()) for point in points]
    fixed = np.rint(np.clip(np.nan_to_num(points), -30_000, 30_000) * 2**shift).astype(int).tolist()
    for finger, joints in FINGERS.items():
        chain, ink = (WRIST, *joints), colour or FINGER_COLOURS[finger]
        for start, end in itertools.pairwise(chain):
            if visible[start] and visible[end]:
                cv2.line(canvas, fixed[start], fixed[end], ink, width, cv2.LINE_AA, shift)
        for joint in joints:
            if visible[joint]:
                radius = 3 * width * 2**shift // 2
                cv2.circle(canvas, fixed[joint], radius, ink, -1, cv2.LINE_AA, shift)


def grid_sheet(tiles: list[Tile], columns: int) -> np.ndarray:
    """Lay tiles out in reading order, `columns` to a line; returns an RGB uint8 page."""
    if not tiles:
        raise HandclrError("there is nothing to draw: the contact sheet has no tiles")
    text = _caption_height(tiles)
    cell = (TILE + _GAP, TILE + text + _GAP)
    columns = max(1, min(columns, len(tiles)))
    page = _page(columns * cell[0] - _GAP, math.ceil(len(tiles) / columns) * cell[1] - _GAP)
    for index, tile in enumerate(tiles):
        line, column = divmod(index, columns)
        _paste(page, tile, _MARGIN + column * cell[0], _MARGIN + line * cell[1])
    return page


def pair_sheet(rows: list[list[Tile]]) -> np.ndarray:
    """Lay out queries and their positives; returns an RGB uint8 page that is roughly square.

    Each row is a query followed by its positives, drawn left to right with a rule between them;
    several rows share a line, farther from each other than a query is from its positives.
    """
    rows = [row for row in rows if row]
    if not rows:
        raise HandclrError("there is nothing to draw: the contact sheet has no pairs")
    text = _caption_height(list(itertools.chain.from_iterable(rows)))
    positives = max(len(row) for row in rows) - 1
    width = TILE + positives * (TILE + _GAP) + _COLUMN_GAP
    width += (2 * _QUERY_GAP - _GAP) * (positives > 0)
    height = TILE + text + _ROW_GAP
    columns = max(1, min(len(rows), round(math.sqrt(len(rows) * height / width))))
    page = _page(columns * width - _COLUMN_GAP, math.ceil(len(rows) / columns) * height - _ROW_GAP)
    for index, row in enumerate(rows):
        line, column = divmod(index, columns)
        x, y = _MARGIN + column * width, _MARGIN + line * height
        _paste(page, row[0], x, y)
        x += TILE + _QUERY_GAP
        if len(row) > 1:
            page[y : y + TILE, x - 1 : x + 1] = _RULE
        for place, tile in enumerate(row[1:]):
            _paste(page, tile, x + _QUERY_GAP + place * (TILE + _GAP), y)
    return page


def write_png(path: str | os.PathLike[str], image_rgb: np.ndarray) -> None:
    """Write an RGB uint8 image as PNG; the file appears when it is complete."""
    import cv2

    bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise HandclrError(f"cannot encode {path} as PNG; draw fewer tiles")
    with atomic_write(path, "png") as file:
        file.write(data.tobytes())


def _page(width: int, height: int) -> np.ndarray:
    """Return a white page with room for `width` x `height` pixels inside its margins."""
    return np.full((height + 2 * _MARGIN, width + 2 * _MARGIN, 3), _WHITE, dtype=np.uint8)


def _caption_height(tiles: list[Tile]) -> int:
    """Return the pixels that the longest caption needs below its tile."""
    lines = max(len(tile.caption.splitlines()) for tile in tiles)
    return lines * _LINE + 4 * (lines > 0)


def _paste(page: np.ndarray, tile: Tile, x: int, y: int) -> None:
    """Draw a tile, fitted into its square, and its caption below; (x, y) is its top left corner."""
    import cv2

    height, width = tile.image.shape[:2]
    scale = TILE / max(height, width)
    fitted = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = cv2.resize(tile.image, fitted, interpolation=how)
    if tile.keypoints2d is not None:
        image = draw_skeleton(image, tile.keypoints2d, scale)
    left, top = x + (TILE - fitted[0]) // 2, y + (TILE - fitted[1]) // 2
    page[top : top + fitted[1], left : left + fitted[0]] = image
    for number, line in enumerate(tile.caption.splitlines()):
        text, at = _fit(shortened(line, _FITTED)), (x, y + TILE + (number + 1) * _LINE - 2)
        cv2.putText(page, text, at, cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, _INK, 1, cv2.LINE_AA)


def _fit(text: str) -> str:
    """Cut the middle out of a caption that is wider than a tile."""
    import cv2

    def width(candidate: str) -> int:
        return cv2.getTextSize(candidate, cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, 1)[0][0]

    if width(text) <= TILE:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shorter = f"{text[: kept // 2]}..{text[len(text) - (kept + 1) // 2 :]}"
        if width(shorter) <= TILE:
            return shorter
    return ""
