"""Which frames of footage are looked at, and which pieces go into which shard."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..contract.units import Part, one_part
from .video import Footage, Piece, Sampling, frames_of, pieces

if TYPE_CHECKING:
    from .frames import FootageDetections

    Boxes = Mapping[str, FootageDetections]


def sampling_of(piece: Piece, sampling: Sampling) -> Sampling:
    """The frames of a piece to look at: where its boxes are known, those that have some."""
    return sampling if piece.boxes is None else replace(sampling, numbers=piece.boxes.numbers)


def pieces_of(
    footages: Sequence[Footage], sampling: Sampling, boxes: Boxes | None = None
) -> tuple[list[Piece], list[int]]:
    """Cut footage into pieces; returns them and about how many frames of each will be looked at.

    boxes: by the id of each footage; a piece takes its own with it.
    """
    found = [piece for footage in footages for piece in _cut(footage, sampling, boxes)]
    return found, [frames_of(piece, sampling_of(piece, sampling)) for piece in found]


def _cut(footage: Footage, sampling: Sampling, boxes: Boxes | None) -> list[Piece]:
    if boxes is None:
        return pieces(footage, sampling)
    mine = boxes[footage.id]
    return [
        replace(
            piece,
            boxes=mine.between(piece.numbers[0], piece.numbers[-1]) if piece.numbers else mine,
        )
        for piece in pieces(footage, replace(sampling, numbers=()))
    ]


def units_of(pieces: Sequence[Piece], frames: Sequence[int], each: int | None) -> list[Part]:
    """Cut pieces, of so many frames to look at, in order into units of about `each`; one unit of
    all where it is None.

    A piece is never cut: one with more is a unit of its own. What a unit is made of does not depend
    on those after it: where footage is added whose name sorts last, only the last unit is another.
    """
    if each is None:
        return one_part(len(pieces))
    return [
        Part(number, rows, _made_of(number, pieces, rows))
        for number, rows in enumerate(_slices(frames, each))
    ]


def _slices(frames: Sequence[int], each: int) -> Iterator[range]:
    first = held = 0
    for row, count in enumerate(frames):
        if held and held + count > each:
            yield range(first, row)
            first, held = row, 0
        held += count
    if frames:
        yield range(first, len(frames))


def _made_of(number: int, pieces: Sequence[Piece], rows: range) -> dict[str, Any]:
    mine = [pieces[row] for row in rows]
    content = [
        (
            each.footage.name,
            each.start,
            each.end if math.isfinite(each.end) else None,
            *_images(each),
        )
        for each in mine
    ]
    text = json.dumps(content)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return {"number": number, "pieces": len(rows), "sha256": digest[:16]}


def _images(piece: Piece) -> list[str]:
    """The images of a piece, because one more or less in the folder moves the others."""
    return [] if piece.footage.is_video else [file.name for file in piece.footage.files]
