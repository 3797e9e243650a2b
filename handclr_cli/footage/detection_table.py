"""Boxes of hands as one table: columns of any file of boxes, checked row by row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from ..contract.sample import LAST_FRAME

CORNERS = ("x0", "y0", "x1", "y1")
NEEDED = "video, frame (or image), x0, y0, x1, y1, hand"
_IS_LEFT = {
    **{"left": True, "l": True, "0": True, "0.0": True},
    **{"right": False, "r": False, "1": False, "1.0": False},
}
# Boxes that all end within so many pixels are given as shares of the frame.
_NORMALISED = 2.0
# No camera's frame is so wide, and a crop of such a box would fill the memory.
_WIDEST = 16_384


@dataclass(frozen=True)
class Table:
    """The boxes of a file, one row each.

    `names` of videos, or of images where `images`; `name_id` int32 (N,) counts in them; `frame`
    int32 (N,), 0 for images; `box` float64 (N, 4) x0, y0, x1, y1 in pixels; `score` float64 (N,);
    `left` bool (N,).
    """

    names: list[str]
    images: bool
    name_id: np.ndarray
    frame: np.ndarray
    box: np.ndarray
    score: np.ndarray
    left: np.ndarray


@dataclass(frozen=True)
class Chunk:
    """Some rows as they were read, by column, and where each is in the file."""

    places: Sequence[int]
    columns: dict[str, Sequence[Any]]


class TableReader:
    """Checks chunks of rows and joins them; places in the file `name` are counted in `unit`."""

    def __init__(self, name: str) -> None:
        self.name, self.unit = name, "line"
        self._ids: dict[Any, int] = {}
        self._images: bool | None = None

    def error(self, place: int, what: str) -> HandclrError:
        """An error about a row that cannot be used."""
        return HandclrError(f"{self.name}, {self.unit} {place}: {what}")

    def not_text(self, lines: int, error: UnicodeDecodeError) -> HandclrError:
        """An error about bytes that are not text, in what follows so many `lines`."""
        before = bytes(error.object[: error.start]).count(b"\n")
        return self.error(lines + before + 1, "not text in UTF-8; save it as UTF-8")

    def table(self, chunks: Iterable[Chunk]) -> Table:
        """All chunks as one table; raises HandclrError for the first row that cannot be used."""
        parts = [self._checked(chunk) for chunk in chunks]
        if not parts:
            raise HandclrError(f"{self.name}: holds no boxes; did the detector fail?")
        name_id, frame, box, score, left = map(np.concatenate, zip(*parts, strict=True))
        if box.max() <= _NORMALISED:
            why = "no box is wider than a pixel or two; write pixels, not shares of the frame"
            raise HandclrError(f"{self.name}: {why}")
        names = list(map(str, self._ids))
        return Table(names, bool(self._images), name_id, frame, box, score, left)

    def _checked(self, chunk: Chunk) -> tuple[np.ndarray, ...]:
        images = "video" not in chunk.columns
        if self._images not in (None, images):
            why = "some rows name an image, others video and frame; write one kind a file"
            raise self.error(chunk.places[0], why)
        self._images = images
        name_id = self._name_ids(chunk, "image" if images else "video")
        frame = np.zeros(len(chunk.places)) if images else self._numbers(chunk, "frame")
        odd = (frame < 0) | (frame > LAST_FRAME) | (frame % 1 != 0)
        self._refuse(chunk, odd, "frame", "not the number of a frame")
        box = self._boxes(chunk)
        score, left = self._numbers(chunk, "score"), self._left(chunk)
        self._refuse(chunk, (score < 0) | (score > 1), "score", "not within 0 and 1")
        return name_id, frame.astype(np.int32), box, score, left

    def _boxes(self, chunk: Chunk) -> np.ndarray:
        box = np.stack([self._numbers(chunk, corner) for corner in CORNERS], axis=1)
        sides = box[:, 2:] - box[:, :2]
        flat, wide = sides.min(axis=1) <= 0, sides.max(axis=1) > _WIDEST
        if flat.any():
            row = int(flat.argmax())
            why = f"the box {box[row].tolist()} has no area; write x0 < x1, y0 < y1"
            raise self.error(chunk.places[row], why)
        if wide.any():
            row = int(wide.argmax())
            raise self.error(chunk.places[row], f"a box of more than {_WIDEST:,} pixels")
        return box

    def _numbers(self, chunk: Chunk, column: str) -> np.ndarray:
        values = chunk.columns[column]
        try:
            found = np.fromiter(map(float, values), np.float64, len(values))
        except (TypeError, ValueError, OverflowError):
            found = np.array([_number_or_nan(value) for value in values])
        self._refuse(chunk, ~np.isfinite(found), column, "not a number")
        return found

    def _name_ids(self, chunk: Chunk, column: str) -> np.ndarray:
        values, known = chunk.columns[column], len(self._ids)
        try:
            found = [self._ids.setdefault(value, len(self._ids)) for value in values]
            named = all(_is_name(name) for name in islice(self._ids, known, None))
        except TypeError:  # a list or an object cannot be a key
            named = False
        if not named:
            nameless = np.array([not _is_name(value) for value in values])
            self._refuse(chunk, nameless, column, "not a name")
        return np.array(found, np.int32)

    def _left(self, chunk: Chunk) -> np.ndarray:
        values = chunk.columns["hand"]
        try:
            known = {value: _is_left(value) for value in set(values)}
            found = [known[value] for value in values]
        except TypeError:
            found = [_is_left(value) for value in values]
        unknown = np.array([side is None for side in found])
        why = "crops are mirrored by it: write left or right (l, r, or 0, 1)"
        self._refuse(chunk, unknown, "hand", why)
        return np.array(found, bool)

    def _refuse(self, chunk: Chunk, bad: np.ndarray, column: str, why: str) -> None:
        """Raise for the first bad row, if there is one."""
        if bad.any():
            row = int(bad.argmax())
            value = chunk.columns[column][row]
            what = f"{column} {value!r}: {why}"
            if value in (None, ""):
                lacking = f", and {NEEDED} are needed"
                if column == "score":
                    lacking = "; write 1 where it is not known"
                what = f"no {column}{lacking}"
            raise self.error(chunk.places[row], what)


def _number_or_nan(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and bool(str(value).strip())


def _is_left(value: Any) -> bool | None:
    return _IS_LEFT.get(str(value).strip().lower())
