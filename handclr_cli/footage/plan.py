"""Which frames of footage are looked at, and which pieces go into which shard."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..contract.units import Part
from .video import Footage, Piece, Sampling, frames_of, pieces

if TYPE_CHECKING:
    from .detections import FootageDetections

    Boxes = Mapping[str, FootageDetections]


def sampling_of(footage: Footage, sampling: Sampling, boxes: Boxes | None) -> Sampling:
    """The frames of one footage: those that have boxes, where there are boxes by the id of the footage."""
    return sampling if boxes is None else replace(sampling, numbers=boxes[footage.id].numbers)


def pieces_of(
    footages: Sequence[Footage], sampling: Sampling, boxes: Boxes | None = None
) -> tuple[list[Piece], list[int]]:
    """Cut footage into pieces; returns them and about how many frames of each will be looked at."""
    cut = [
        (piece, chosen)
        for item in footages
        for chosen in [sampling_of(item, sampling, boxes)]
        for piece in pieces(item, chosen)
    ]
    return [piece for piece, _ in cut], [frames_of(piece, chosen) for piece, chosen in cut]


def units_of(pieces: Sequence[Piece], frames: Sequence[int], each: int | None) -> list[Part]:
    """Cut pieces, of so many frames to look at, in order into units of about `each`; one unit of all where it is None.

    A piece is never cut, so that a unit has up to a piece more. What a unit is made of does not depend on the pieces
    after it: footage whose name sorts last can be added to a finished set.
    """
    if each is None:
        return [Part(0, range(len(pieces)), {})]
    return [Part(number, rows, _made_of(number, pieces, rows)) for number, rows in enumerate(_slices(frames, each))]


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
    content = [(each.footage.name, each.start, each.end if math.isfinite(each.end) else None) for each in mine]
    text = json.dumps(content)
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return {"number": number, "pieces": len(rows), "sha256": digest[:16]}
