"""Tables of predicted hands, one row a hand: CSV, JSON lines, or the arrays of an NPZ file."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..choices import TableFormat
from ..console import printable
from ..contract.errors import UsageError
from ..contract.inputs import STDIN
from ..contract.npz import as_keys, write_npz
from ..contract.output import output_file, write_json
from ..contract.provenance import Provenance
from ..hand.joints import JOINT_NAMES
from .hands import PosedHands

_SUFFIXES: dict[str, TableFormat] = {".csv": "csv", ".jsonl": "jsonl", ".npz": "npz"}
_IN_SPACE = tuple(f"{joint}_{axis}" for joint in JOINT_NAMES for axis in "xyz")
_IN_IMAGE = tuple(f"{joint}_{axis}" for joint in JOINT_NAMES for axis in "uv")
_LENS = ("camera_fx", "camera_fy", "camera_cx", "camera_cy")
COLUMNS = (
    *("video", "frame", "time_s", "hand", "score", "track"),
    *(*_IN_SPACE, *_IN_IMAGE, "side_score", "depth_sigma", *_LENS, "key"),
)
UNITS = {
    "time_s": "seconds since the first frame",
    "_x, _y, _z": "metres in the camera's frame of the source: x right, y down, z forward",
    "_u, _v": "pixels of the source as it is shown, from its upper left corner, centres at .5",
    "score, side_score": "0 to 1: of the hand's side in its frame, and in all its track",
    "depth_sigma": "metres, standard deviation of the hand's z; inf: placed by its extent",
    "camera_fx, camera_fy, camera_cx, camera_cy": "pixels, pinhole camera of the source",
    "track": "number in its video, from 1",
}


def format_of(path: str | None, asked: TableFormat | None) -> TableFormat:
    """The format of a table: the one asked for, else that of the suffix; npz of a stream.

    Raises UsageError where neither says.
    """
    if asked:
        return asked
    suffix = os.path.splitext(path or STDIN)[1].lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if path in (None, STDIN) or _is_stream(str(path)):
        return "npz"
    why = f"{path}: tables are {', '.join(_SUFFIXES)}; name one of these, or say the format"
    raise UsageError(why, setting="output")


def sidecar(path: str | None, form: TableFormat) -> str | None:
    """The file beside a table of text that says what its numbers are; None where there is none."""
    if path in (None, STDIN) or form == "npz" or _is_stream(str(path)):
        return None
    return f"{path}.json"


def write_table(path: str, form: TableFormat, hands: PosedHands, record: Provenance) -> None:
    """Write a table, `-` being standard output; of text, what its numbers are beside it.

    The numbers are the same in all formats, to the last digit of a float32. Raises HandclrError
    where it cannot be written.
    """
    if form == "npz":
        write_npz(path, "predictions", arrays_of(hands), record)
        return
    lines = _csv_lines(hands) if form == "csv" else _json_lines(hands)
    with output_file(path, form, is_text=True) as file:
        for line in lines:
            file.write(line.encode("utf-8", "replace"))
        # A table that cannot be written leaves nothing beside it.
        file.flush()
        if beside := sidecar(path, form):
            write_json(beside, {**record, "units": UNITS, "cameras": _cameras(hands)})


def arrays_of(hands: PosedHands) -> dict[str, np.ndarray]:
    """The arrays of the NPZ file."""
    arrays = {"key": as_keys(hands.key.tolist()), **hands.placed._asdict()}
    del arrays["fitted"]
    for name in ("video", "hand"):
        arrays[name] = as_keys(getattr(hands, name).tolist())
    for name in ("frame", "time_s", "score", "track", "side_score"):
        arrays[name] = getattr(hands, name)
    return arrays


def _csv_lines(hands: PosedHands) -> Iterator[str]:
    """A line of names, then one for each hand; what is unknown is empty."""
    line = io.StringIO()
    write = csv.writer(line, lineterminator="\n").writerow
    places = _texts(hands.placed.source3d), _texts(hands.placed.source2d)
    lenses = _texts(hands.placed.camera)
    write(COLUMNS)
    for row in range(len(hands)):
        if line.tell() > 1 << 16:
            yield line.getvalue()
            line.seek(0)
            line.truncate()
        frame, track = int(hands.frame[row]), int(hands.track[row])
        lens = lenses[row]
        write(
            [
                printable(str(hands.video[row])),
                "" if frame < 0 else frame,
                _number(hands.time_s[row]),
                hands.hand[row],
                _number(hands.score[row]),
                track or "",
                *places[0][row],
                *places[1][row],
                _number(hands.side_score[row]),
                str(hands.placed.depth_sigma[row]),
                *(lens[0], lens[4], lens[2], lens[5]),
                printable(str(hands.key[row])),
            ]
        )
    yield line.getvalue()


def _json_lines(hands: PosedHands) -> Iterator[str]:
    """An object for each hand, with the names of the NPZ file; what is unknown is null."""
    columns = {}
    for name in ("source3d", "source2d", "camera"):
        array = getattr(hands.placed, name)
        columns[name] = np.array(_texts(array), np.float64).reshape(array.shape).tolist()
    for row in range(len(hands)):
        sigma = float(str(hands.placed.depth_sigma[row]))
        values: dict[str, Any] = {
            "video": hands.video[row],
            "frame": int(hands.frame[row]) if hands.frame[row] >= 0 else None,
            "time_s": _known(hands.time_s[row]),
            "hand": hands.hand[row] or None,
            "score": _known(hands.score[row]),
            "track": int(hands.track[row]) or None,
            **{name: columns[name][row] for name in ("source3d", "source2d")},
            "side_score": _known(hands.side_score[row]),
            "depth_sigma": _known(sigma),
            "camera": columns["camera"][row],
            "key": hands.key[row],
        }
        yield json.dumps(values, separators=(",", ":")) + "\n"


def _texts(array: np.ndarray) -> list[list[str]]:
    """The shortest text of each number of the rows of a float32 array (N, ...) that reads as it."""
    return array.reshape(len(array), -1).astype(str).tolist() if len(array) else []


def _number(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _cameras(hands: PosedHands) -> dict[str, Any]:
    """The camera matrix of each video; None where its hands were seen by several."""
    found: dict[str, Any] = {}
    for video in dict.fromkeys(hands.video.tolist()):
        cameras = hands.placed.camera[hands.video == video]
        # Computed back from those of crops, the same camera differs in its last digits.
        middle = np.median(cameras, axis=0)
        alike = np.allclose(cameras, middle, rtol=1e-5, atol=1e-3)
        found[printable(video)] = middle.tolist() if alike else None
    return found


def _is_stream(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path)
