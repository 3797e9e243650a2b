"""Which pieces of footage go into which shard."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

from ..contract.units import Part
from .video import Piece


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
