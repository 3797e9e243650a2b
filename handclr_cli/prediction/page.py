"""One self-contained HTML page of a film, the tracks of its hands, and a 3D view of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ..console import printable
from ..contract.output import atomic_write
from ..contract.version import __version__
from ..hand.joints import FINGERS
from ..report.sheets import FINGER_COLOURS
from ..report.templates import templates_of
from .hands import FilmFrame, PosedHands

_SIDES = ("", "left", "right")


@dataclass(frozen=True)
class HandsPage:
    """What a page shows.

    `title`: the name of the footage; `film`: MP4, the footage without drawings; `size`: width and
    height of the source in pixels; `frames` of the film in order; `hands` of this footage; `about`:
    lines that say what predicted them, by which camera, how large.
    """

    title: str
    film: bytes
    size: tuple[int, int]
    frames: Sequence[FilmFrame]
    hands: PosedHands
    about: Sequence[tuple[str, str]]


def write_page(path: str, page: HandsPage) -> None:
    """Write a page that plays the film and shows its hands in 3D, with nothing to be fetched.

    The file appears when it is complete. Raises HandclrError where it cannot be written.
    """
    about = [(printable(name), printable(text)) for name, text in page.about]
    page_of = templates_of(Path(__file__).parent).get_template("hands_page.html")
    text = page_of.render(
        version=__version__, title=printable(page.title), about=about, data=_data(page)
    )
    with atomic_write(path, "html") as file:
        file.write(text.encode("utf-8", "replace"))


def _data(page: HandsPage) -> Markup:
    """What the script of the page reads: JSON in which nothing ends the element that holds it."""
    fingers = []
    for name, joints in FINGERS.items():
        colour = "#{:02x}{:02x}{:02x}".format(*FINGER_COLOURS[name])
        fingers.append({"name": name, "colour": colour, "joints": joints})
    values = {
        "size": page.size,
        "film": base64.b64encode(page.film).decode(),
        "frames": dict(zip(("number", "time", "film"), _columns(page.frames), strict=True)),
        "hands": _hands(page),
        "fingers": fingers,
    }
    return Markup(
        json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    )


def _columns(frames: Sequence[FilmFrame]) -> tuple[list[Any], list[Any], list[Any]]:
    numbers, times, moments = [], [], []
    for frame in frames:
        numbers.append(frame.number)
        times.append(frame.time_s)
        moments.append(round(frame.film_s, 6))
    return numbers, times, moments


def _hands(page: HandsPage) -> dict[str, Any]:
    """The hands of the film's frames in order: places as base64 of little-endian float32."""
    places = {frame.number: place for place, frame in enumerate(page.frames)}
    at = np.array([places.get(number, -1) for number in page.hands.frame.tolist()], np.int64)
    rows = np.argsort(at, kind="stable")
    rows = rows[at[rows] >= 0]
    hands = page.hands.take(rows)
    scores = [None if np.isnan(score) else round(score, 3) for score in hands.score.tolist()]
    return {
        "frame": at[rows].tolist(),
        "side": [_SIDES.index(str(side)) for side in hands.hand.tolist()],
        "track": hands.track.tolist(),
        "score": scores,
        "space": _packed(hands.placed.source3d),
        "image": _packed(hands.placed.source2d),
    }


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()
