"""Files of boxes from other programs: CSV, JSON lines, and the output of the 100DOH detector."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import PurePath
from typing import Any

from ..contract.errors import HandclrError
from ..contract.inputs import STDIN, display_name, open_source
from .detection_table import CORNERS, NEEDED, Chunk, Table, TableReader

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
# Small enough for the caches of a processor: twice as fast as larger ones.
_CHUNK = 2_000
_DETS = "hand_dets"
# x1, y1, x2, y2, score, state of contact, three of the offset to the object, side.
_DETS_WIDTH, _DETS_SCORE, _DETS_SIDE = 10, 4, 9


def read_table(source: str) -> Table:
    """Read a file of boxes, `-` is standard input.

    Raises HandclrError naming the first line, or entry of a JSON list, that cannot be used.
    """
    reader = TableReader(display_name(source))
    file = open_source(source)
    # Not newline=None: a lone carriage return would end a line, and errors would name wrong lines.
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


def _csv_chunks(lines: Iterable[str], reader: TableReader) -> Iterator[Chunk]:
    rows = csv.reader(lines, skipinitialspace=True, strict=True)
    filled = filter(None, rows)
    try:
        header = [column.strip().lower() for column in next(filled, [])]
        columns = _known_columns(header, rows.line_num, reader)
        while chunk := [(rows.line_num, row) for row in islice(filled, _CHUNK)]:
            places, fields = zip(*chunk, strict=True)
            if set(map(len, fields)) != {len(header)}:
                place, row = next(each for each in chunk if len(each[1]) != len(header))
                raise reader.error(place, f"{len(row)} columns, where the header has {len(header)}")
            values = list(zip(*fields, strict=True))
            found: dict[str, Sequence[Any]] = {"score": [1.0] * len(places)}
            found |= {column: values[position] for column, position in columns.items()}
            yield Chunk(places, found)
    except csv.Error as error:
        raise reader.error(rows.line_num, f"not CSV ({error})") from error
    except UnicodeDecodeError as error:
        raise reader.not_text(rows.line_num, error) from error


def _known_columns(header: list[str], line: int, reader: TableReader) -> dict[str, int]:
    """The positions of the columns of a CSV that are used."""
    if not header:
        raise HandclrError(f"{reader.name}: is empty; did the detector fail?")
    named = ("image",) if "image" in header and "video" not in header else ("video", "frame")
    for column in (*named, *CORNERS, "hand"):
        if column not in header:
            why = "crops are mirrored by it" if column == "hand" else f"{NEEDED} are needed"
            raise reader.error(line, f"the header names no column {column}; {why}")
    found = {}
    for column in (*named, *CORNERS, "score", "hand"):
        if header.count(column) > 1:
            raise reader.error(line, f"the header names the column {column} twice")
        if column in header:
            found[column] = header.index(column)
    return found


def _records(lines: Iterable[str], reader: TableReader) -> Iterator[tuple[int, dict[str, Any]]]:
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


def _entries(lines: Iterable[str], reader: TableReader) -> Iterator[tuple[int, dict[str, Any]]]:
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


def _record(found: Any, place: int, reader: TableReader) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise reader.error(place, "not a JSON object")
    return found


def _json_chunks(
    records: Iterator[tuple[int, dict[str, Any]]], reader: TableReader
) -> Iterator[Chunk]:
    while chunk := list(islice(records, _CHUNK)):
        places: Sequence[int]
        places, found = zip(*chunk, strict=True)
        columns: dict[str, Sequence[Any]] = {}
        if any(_DETS in record for record in found):
            places, found, columns = _detected(places, found, reader)
            if not places:
                continue
        else:
            for name in (*CORNERS, "hand"):
                columns[name] = [record.get(name) for record in found]
            columns["score"] = [record.get("score", 1.0) for record in found]
        images = "image" in found[0] and "video" not in found[0]
        for name in ("image",) if images else ("video", "frame"):
            columns[name] = [record.get(name) for record in found]
        yield Chunk(places, columns)


def _detected(
    places: Sequence[int], records: Sequence[dict[str, Any]], reader: TableReader
) -> tuple[Sequence[int], Sequence[dict[str, Any]], dict[str, Sequence[Any]]]:
    """One row for each detection of the 100DOH detector: its place, its record, its columns."""
    rows = []
    for place, record in zip(places, records, strict=True):
        dets = record.get(_DETS, ...)
        if not (dets is None or isinstance(dets, list)):
            why = f"{_DETS} must be rows of {_DETS_WIDTH} numbers, or null where there is no hand"
            raise reader.error(place, why)
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
