"""Boxes of hands as other programs write them: CSV, JSON lines, and what the 100DOH
detector gives.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import PurePath
from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from ..contract.inputs import STDIN, display_name, open_source

CORNERS = ("x0", "y0", "x1", "y1")
# The frame has eight digits in a key.
LAST_FRAME = 99_999_999
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
# Small enough for the caches of a processor: twice as fast as larger ones.
_CHUNK = 2_000
_DETS = "hand_dets"
# x1, y1, x2, y2, score, state of contact, three of the offset to the object, side.
_DETS_WIDTH, _DETS_SCORE, _DETS_SIDE = 10, 4, 9
_IS_LEFT = {
    "left": True,
    "l": True,
    "0": True,
    "0.0": True,
    "right": False,
    "r": False,
    "1": False,
    "1.0": False,
}
_NEEDED = "video, frame (or image), x0, y0, x1, y1, hand"
# A pixel or two are no hand: these are shares of the frame.
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
class _Chunk:
    """Some rows as they were read, by column, and where each is in the file."""

    places: Sequence[int]
    columns: dict[str, Sequence[Any]]


def read_table(source: str) -> Table:
    """Read a file of boxes, `-` is standard input; raises HandclrError naming the line that cannot
    be used.
    """
    reader = _Reader(display_name(source))
    file = open_source(source)
    # Not newline=None: a lone carriage return would end a line, and the places of errors would be
    # wrong.
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n")
    start: list[str] = []
    try:
        for line in lines:
            start.append(line)
            if not line.isspace():
                break
        head = start[-1].lstrip() if start else ""
        suffix = "" if source == STDIN else PurePath(source).suffix.lower()
        text = chain(start, lines)
        if head.startswith("["):
            return reader.table(_json_chunks(_entries(text, reader), reader))
        if suffix in JSON_SUFFIXES or (suffix != ".csv" and head.startswith("{")):
            return reader.table(_json_chunks(_records(text, reader), reader))
        return reader.table(_csv_chunks(text, reader))
    except UnicodeDecodeError as error:
        raise reader.not_text(len(start), error) from error
    except OSError as error:
        raise HandclrError(f"cannot read {reader.name}: {error.strerror or error}") from error
    finally:
        lines.detach()
        if source != STDIN:
            file.close()


class _Reader:
    """Checks chunks of rows and puts them together; `unit` is what places in the file are counted
    in.
    """

    def __init__(self, name: str) -> None:
        self.name, self.unit = name, "line"
        self._ids: dict[Any, int] = {}
        self._images: bool | None = None

    def error(self, place: int, what: str) -> HandclrError:
        """The one line about a row that cannot be used."""
        return HandclrError(f"{self.name}, {self.unit} {place}: {what}")

    def not_text(self, lines: int, error: UnicodeDecodeError) -> HandclrError:
        """The error of bytes that are no text, after so many `lines` of what is decoded in larger
        pieces.
        """
        before = bytes(error.object[: error.start]).count(b"\n")
        return self.error(lines + before + 1, "not text in UTF-8; save it as UTF-8")

    def table(self, chunks: Iterable[_Chunk]) -> Table:
        """All chunks as one table."""
        parts = [self._checked(chunk) for chunk in chunks]
        if not parts:
            raise HandclrError(f"{self.name}: holds no boxes; did the detector fail?")
        name_id, frame, box, score, left = (
            np.concatenate(column) for column in zip(*parts, strict=True)
        )
        if box.max() <= _NORMALISED:
            raise HandclrError(
                f"{self.name}: no box is wider than a pixel or two; write pixels, not shares of the"
                " frame"
            )
        return Table(
            [str(name) for name in self._ids], bool(self._images), name_id, frame, box, score, left
        )

    def _checked(self, chunk: _Chunk) -> tuple[np.ndarray, ...]:
        images = "video" not in chunk.columns
        if self._images not in (None, images):
            raise self.error(
                chunk.places[0],
                "some rows name an image, others video and frame; write one kind a file",
            )
        self._images = images
        name_id = self._name_ids(chunk, "image" if images else "video")
        frame = np.zeros(len(chunk.places)) if images else self._numbers(chunk, "frame")
        self._refuse(
            chunk,
            (frame < 0) | (frame > LAST_FRAME) | (frame % 1 != 0),
            "frame",
            "not the number of a frame",
        )
        box = np.stack([self._numbers(chunk, corner) for corner in CORNERS], axis=1)
        flat = (box[:, 2] <= box[:, 0]) | (box[:, 3] <= box[:, 1])
        if flat.any():
            row = int(flat.argmax())
            raise self.error(
                chunk.places[row],
                f"the box {box[row].tolist()} has no area; write x0 < x1, y0 < y1",
            )
        wide = np.maximum(box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]) > _WIDEST
        if wide.any():
            raise self.error(
                chunk.places[int(wide.argmax())], f"a box of more than {_WIDEST:,} pixels"
            )
        return (
            name_id,
            frame.astype(np.int32),
            box,
            self._numbers(chunk, "score"),
            self._left(chunk),
        )

    def _numbers(self, chunk: _Chunk, column: str) -> np.ndarray:
        values = chunk.columns[column]
        try:
            found = np.fromiter(map(float, values), np.float64, len(values))
        except (TypeError, ValueError, OverflowError):
            found = np.array([_number_or_nan(value) for value in values])
        self._refuse(chunk, ~np.isfinite(found), column, "not a number")
        return found

    def _name_ids(self, chunk: _Chunk, column: str) -> np.ndarray:
        values, known = chunk.columns[column], len(self._ids)
        try:
            found = [self._ids.setdefault(value, len(self._ids)) for value in values]
            named = all(_is_name(name) for name in islice(self._ids, known, None))
        except TypeError:  # a list or an object cannot be a key
            named = False
        if not named:
            self._refuse(
                chunk, np.array([not _is_name(value) for value in values]), column, "not a name"
            )
        return np.array(found, np.int32)

    def _left(self, chunk: _Chunk) -> np.ndarray:
        values = chunk.columns["hand"]
        try:
            known = {value: _is_left(value) for value in set(values)}
            found = [known[value] for value in values]
        except TypeError:
            found = [_is_left(value) for value in values]
        unknown = np.array([side is None for side in found])
        self._refuse(
            chunk, unknown, "hand", "crops are mirrored by it: write left or right (l, r, or 0, 1)"
        )
        return np.array(found, bool)

    def _refuse(self, chunk: _Chunk, bad: np.ndarray, column: str, why: str) -> None:
        """Raise for the first bad row, if there is one."""
        if bad.any():
            row = int(bad.argmax())
            value = chunk.columns[column][row]
            what = (
                f"no {column}, and {_NEEDED} are needed"
                if value in (None, "")
                else f"{column} {value!r}: {why}"
            )
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


def _csv_chunks(lines: Iterable[str], reader: _Reader) -> Iterator[_Chunk]:
    rows = csv.reader(lines, skipinitialspace=True, strict=True)
    filled = filter(None, rows)
    try:
        header = [column.strip().lower() for column in next(filled, [])]
        columns = _known_columns(header, rows.line_num, reader)
        while chunk := [(rows.line_num, row) for row in islice(filled, _CHUNK)]:
            places, fields = zip(*chunk, strict=True)
            if set(map(len, fields)) != {len(header)}:
                place, row = next((place, row) for place, row in chunk if len(row) != len(header))
                raise reader.error(place, f"{len(row)} columns, where the header has {len(header)}")
            values = list(zip(*fields, strict=True))
            found: dict[str, Sequence[Any]] = {
                column: values[position] for column, position in columns.items()
            }
            yield _Chunk(places, {"score": [1.0] * len(places)} | found)
    except csv.Error as error:
        raise reader.error(rows.line_num, f"not CSV ({error})") from error
    except UnicodeDecodeError as error:
        raise reader.not_text(rows.line_num, error) from error


def _known_columns(header: list[str], line: int, reader: _Reader) -> dict[str, int]:
    """Where the columns of a CSV are that mean something here."""
    if not header:
        raise HandclrError(f"{reader.name}: is empty; did the detector fail?")
    named = ("image",) if "image" in header and "video" not in header else ("video", "frame")
    for column in (*named, *CORNERS, "hand"):
        if column not in header:
            why = "crops are mirrored by it" if column == "hand" else f"{_NEEDED} are needed"
            raise reader.error(line, f"the header names no column {column}; {why}")
    found = {
        column: header.index(column)
        for column in (*named, *CORNERS, "score", "hand")
        if column in header
    }
    for column in found:
        if header.count(column) > 1:
            raise reader.error(line, f"the header names the column {column} twice")
    return found


def _records(lines: Iterable[str], reader: _Reader) -> Iterator[tuple[int, dict[str, Any]]]:
    """JSON objects, one a line."""
    place = 0
    try:
        for place, line in enumerate(lines, 1):
            if not line.isspace():
                yield place, _record(json.loads(line), place, reader)
    except UnicodeDecodeError as error:
        raise reader.not_text(place, error) from error
    except (ValueError, RecursionError) as error:
        raise reader.error(place, f"not JSON ({error})") from error


def _entries(lines: Iterable[str], reader: _Reader) -> Iterator[tuple[int, dict[str, Any]]]:
    """JSON objects of one list that is the whole file."""
    parts: list[str] = []
    try:
        parts.extend(lines)
        found = json.loads("".join(parts))
    except UnicodeDecodeError as error:
        raise reader.not_text(len(parts), error) from error
    except (ValueError, RecursionError) as error:
        raise HandclrError(f"{reader.name}: not JSON ({error})") from error
    reader.unit = "entry"
    for place, record in enumerate(found, 1):
        yield place, _record(record, place, reader)


def _record(found: Any, place: int, reader: _Reader) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise reader.error(place, "not a JSON object")
    return found


def _json_chunks(
    records: Iterator[tuple[int, dict[str, Any]]], reader: _Reader
) -> Iterator[_Chunk]:
    while chunk := list(islice(records, _CHUNK)):
        places: Sequence[int]
        places, found = zip(*chunk, strict=True)
        columns: dict[str, Sequence[Any]] = {}
        if any(_DETS in record for record in found):
            places, found, columns = _detected(places, found, reader)
            if not places:
                continue
        else:
            columns = {name: [record.get(name) for record in found] for name in (*CORNERS, "hand")}
            columns["score"] = [record.get("score", 1.0) for record in found]
        named = (
            ("image",) if "image" in found[0] and "video" not in found[0] else ("video", "frame")
        )
        columns |= {name: [record.get(name) for record in found] for name in named}
        yield _Chunk(places, columns)


def _detected(
    places: Sequence[int], records: Sequence[dict[str, Any]], reader: _Reader
) -> tuple[Sequence[int], Sequence[dict[str, Any]], dict[str, Sequence[Any]]]:
    """One row for each detection of the 100DOH detector: its place, its record, its columns."""
    rows = []
    for place, record in zip(places, records, strict=True):
        dets = record.get(_DETS, ...)
        if not (dets is None or isinstance(dets, list)):
            raise reader.error(
                place,
                f"{_DETS} must be rows of {_DETS_WIDTH} numbers, or null where there is no hand",
            )
        for det in dets or ():
            if not isinstance(det, list) or len(det) != _DETS_WIDTH:
                raise reader.error(place, f"a row of {_DETS} is not {_DETS_WIDTH} numbers: {det}")
            rows.append((place, record, det))
    if not rows:
        return (), (), {}
    where, owners, found = zip(*rows, strict=True)
    values = list(zip(*found, strict=True))
    columns = dict(zip(CORNERS, values, strict=False))
    return where, owners, {**columns, "score": values[_DETS_SCORE], "hand": values[_DETS_SIDE]}
