"""Boxes of hands that another detector found, matched to the footage."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..contract.errors import UsageError
from ..contract.inputs import display_name
from .detection_file import read_table
from .detection_table import Table
from .frames import Footage, FootageDetections, Sampling
from .path_match import find_by_tail
from .video import pieces


@dataclass(frozen=True)
class Detections:
    """The boxes of a file; `source` is its name in messages."""

    source: str
    table: Table

    def match(self, footages: Sequence[Footage], min_score: float = 0.0) -> Matched:
        """Find the footage of the boxes, without those below `min_score`.

        Videos are matched by the longest common tail of the path, with or without the file's
        suffix; images, where the file names these, by their name and the tail of their folder.
        Raises UsageError where a name fits several files, or nothing fits.
        """
        table = self.table
        if table.images:
            rows, numbers = _images(table.names, footages, self.source).T
            frame = numbers[table.name_id]
        else:
            places = [_place(footage) for footage in footages]
            rows = np.array(find_by_tail(table.names, places, self.source))
            frame = table.frame
        row = rows[table.name_id]
        keep = np.flatnonzero((row >= 0) & (table.score >= min_score))
        keep = keep[np.lexsort((-table.score[keep], frame[keep], row[keep]))]
        place = np.column_stack([row[keep], frame[keep], table.score[keep]])
        again = _repeated(place, np.column_stack([table.box[keep], table.left[keep]]))
        keep = keep[~again]
        row, frame = row[keep], frame[keep].astype(np.int32)
        edges = np.searchsorted(row, np.arange(len(footages) + 1))
        found = {}
        for footage, start, end in zip(footages, edges[:-1], edges[1:], strict=True):
            if start < end:
                part = keep[start:end]
                found[footage.id] = FootageDetections(
                    frame[start:end], table.box[part], table.score[part], table.left[part]
                )
        notes = self._notes(rows, footages, found)
        if again.any():
            which = f"{again.sum():,} boxes come again in their frame and are taken once"
            notes.append(f"{self.source}: {which}")
        return Matched(found, tuple(notes))

    def _notes(
        self, rows: np.ndarray, footages: Sequence[Footage], found: dict[str, FootageDetections]
    ) -> list[str]:
        noun, names = "images" if self.table.images else "videos", self.table.names
        lost = np.flatnonzero(rows < 0)
        if len(lost) == len(names):
            why = f"none of its {len(names):,} {noun} is in the footage"
            example = f"it names {names[0]}, the footage has {_place(footages[0])}"
            raise UsageError(f"{self.source}: {why}: {example}")
        notes = []
        if len(lost):
            which = f"{len(lost):,} of {len(names):,} {noun} are not in the footage and left out"
            notes.append(f"{self.source}: {which}, {names[lost[0]]} first")
        if missing := [footage.name for footage in footages if footage.id not in found]:
            which = f"has no boxes for {len(missing):,} of {len(footages):,} videos"
            notes.append(f"{self.source}: {which}, which are left out, {missing[0]} first")
        return notes


@dataclass(frozen=True)
class Matched:
    """The boxes of each footage that has some, by its id, and warnings of one line each."""

    found: dict[str, FootageDetections]
    notes: tuple[str, ...]


def read_detections(source: str) -> Detections:
    """Read boxes from CSV or JSON lines, `-` is standard input.

    CSV has a header, in any order: video and frame, or image; x0, y0, x1, y1 in pixels; hand (left,
    right, l, r, or as in 100DOH 0 for left, 1 for right); score, 1 where the column is missing.
    JSON objects, one a line or all in one list, have the same names; or `hand_dets`, the rows of 10
    numbers that the 100DOH detector gives, null where it found no hand. Other columns are ignored.
    Raises HandclrError naming the first line that cannot be used.
    """
    return Detections(display_name(source), read_table(source))


def boxes_of(
    detections: Detections,
    footages: Sequence[Footage],
    warn: Callable[[str], None],
    min_score: float = 0.0,
) -> dict[str, FootageDetections]:
    """The boxes of each footage that has some, by its id; see `Detections.match`."""
    matched = detections.match(footages, min_score)
    for note in matched.notes:
        warn(note)
    return matched.found


def _repeated(place: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Which rows say the same as one before, bool (N,).

    `place` (N, K) is sorted, so that most rows differ from their neighbours in it; `rest` (N, M).
    """
    found = np.zeros(len(place), bool)
    alike = (place[1:] == place[:-1]).all(axis=1)
    near = np.flatnonzero(np.append(alike, False) | np.append(False, alike))
    both = np.ascontiguousarray(np.hstack([place[near], rest[near]]), np.float64)
    whole = both.view(np.dtype((np.void, both.itemsize * both.shape[1]))).ravel()
    found[near] = True
    found[near[np.unique(whole, return_index=True)[1]]] = False
    return found


def _place(footage: Footage) -> str:
    """The path that a video, a folder of images or a single image is matched by."""
    path = os.path.abspath(footage.files[0])
    alone = footage.is_video or os.path.basename(path) == footage.name.rpartition("/")[2]
    return path if alone else os.path.dirname(path)


def _images(names: Sequence[str], footages: Sequence[Footage], source: str) -> np.ndarray:
    """The row of the footage of each image, and its number there; -1 and -1 where there is none.

    Returns int64 (len(names), 2).
    """
    folders = _folders(footages)
    here = list(folders)
    named = [os.path.split(name) for name in names]
    tails = list(dict.fromkeys(folder for folder, _ in named if folder))
    # Where there is one folder, it is meant whatever it is called.
    rows = [0] * len(tails) if len(here) == 1 else find_by_tail(tails, here, source)
    where = {tail: folders[here[row]] for tail, row in zip(tails, rows, strict=True) if row >= 0}
    everywhere: dict[str, tuple[int, int]] = {}
    repeated: set[str] = set()
    for files in folders.values():
        repeated |= everywhere.keys() & files.keys()
        everywhere |= files
    found = np.full((len(names), 2), -1)
    for position, (folder, name) in enumerate(named):
        if not folder and name in repeated:
            raise UsageError(
                f"{source}: {name} is in several folders of the footage; write the folder too"
            )
        found[position] = (where.get(folder, {}) if folder else everywhere).get(name, (-1, -1))
    return found


def _folders(footages: Sequence[Footage]) -> dict[str, dict[str, tuple[int, int]]]:
    """The images of each folder by file name: the row of the footage and the number there."""
    folders: dict[str, dict[str, tuple[int, int]]] = {}
    for row, footage in enumerate(footages):
        if footage.is_video:
            continue
        for piece in pieces(footage, Sampling()):
            for number, path in zip(piece.numbers, piece.footage.files, strict=True):
                folder, name = os.path.split(os.path.abspath(path))
                folders.setdefault(folder, {})[name] = (row, number)
    return folders
