"""Which pieces of footage are looked at, and which of them go into which shard."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..contract.units import Part, one_part
from .frames import Footage, FootageDetections, Header, Piece, Sampling
from .headers import headers_of
from .naming import image_number
from .video import pieces


def pieces_of(
    footages: Sequence[Footage],
    sampling: Sampling,
    boxes: Mapping[str, FootageDetections] | None = None,
) -> list[Piece]:
    """Cut footage into pieces; each knows which frames are looked at, and about how many.

    boxes: by the id of each footage; a piece takes its own with it.
    """
    known: dict[Path, Header] = {}
    if boxes is None and sampling.numbers is None:
        known = headers_of([footage.files[0] for footage in footages if footage.is_video])
    found: list[Piece] = []
    for footage in footages:
        own = None if boxes is None else boxes[footage.id]
        found += pieces(footage, sampling, own, known.get(footage.files[0]))
    return found


def units_of(pieces: Sequence[Piece], each: int | None) -> list[Part]:
    """Cut pieces in order into units of about `each` frames to look at; one unit of all for None.

    A piece is never cut: one with more frames is a unit of its own. What a unit is made of does not
    depend on the pieces after it: footage that is added, and whose name sorts last, changes the
    last unit only.
    """
    if each is None:
        return one_part(len(pieces))
    slices = enumerate(_slices(pieces, each))
    return [Part(number, rows, _made_of(number, pieces, rows)) for number, rows in slices]


def _slices(pieces: Sequence[Piece], each: int) -> Iterator[range]:
    first = held = 0
    for row, piece in enumerate(pieces):
        if held and held + piece.frames > each:
            yield range(first, row)
            first, held = row, 0
        held += piece.frames
    if pieces:
        yield range(first, len(pieces))


def _made_of(number: int, pieces: Sequence[Piece], rows: range) -> dict[str, Any]:
    text = json.dumps([_identity(pieces[row]) for row in rows])
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return {"number": number, "pieces": len(rows), "sha256": digest[:16]}


def _identity(piece: Piece) -> list[Any]:
    """What tells a piece from any other; its images too, as one more moves the others."""
    end = piece.end if math.isfinite(piece.end) else None
    images = [] if piece.footage.is_video else [file.name for file in piece.footage.files]
    counted = piece.numbers[:1] if _counted(piece) else ()
    return [piece.footage.name, piece.start, end, *images, *counted]


def _counted(piece: Piece) -> bool:
    """Whether images have other numbers than their names say, which another image may change."""
    named = zip(piece.numbers, map(image_number, piece.footage.files), strict=False)
    return any(number != told for number, told in named if told is not None)
