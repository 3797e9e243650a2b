"""The films and pages of hands: what they are of, where they go, and how they are made."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import console
from ..contract.errors import HandclrError, UsageError
from ..contract.index import ShardIndex
from ..footage.frames import Footage, Frame, OnSkip, Sampling
from ..footage.sources import find_sources
from ..footage.video import read_frames
from ..hand.film import Encoding, Write, encoded, film_writer, require_encoder
from .crops import frame_of
from .hands import FilmFrame, PosedHands
from .overlay import DrawnHand, draw_hands, drawn_hands
from .page import HandsPage, write_page

# For images, which have no times: slow enough to follow.
IMAGES_PER_S = 10.0
_PLACE = "{video}"
_STEM_BYTES = 200
# The film of a page: small enough to be sent on, with moments that are quickly found.
_PAGE_PX, _PAGE_FILM = 960, Encoding(crf=28, key_frames=15)


@dataclass(frozen=True)
class Film:
    """What is to be made of one footage: an `overlay` (MP4), a `page` (HTML), or both.

    `video` is the name by which its hands are known; `sampling` says which frames are shown.
    """

    footage: Footage
    sampling: Sampling
    video: str
    overlay: str | None
    page: str | None


class Drawn(NamedTuple):
    """What was written: `hands` of the `known` ones are on its frames, from `source`."""

    paths: list[str]
    frames: int
    hands: int
    known: int
    source: str


def footage_of(index: ShardIndex, named: Sequence[str]) -> dict[str, Footage]:
    """Find the footage of the videos that the crops of an index name, by these names.

    `named` says where it is, as for `find_sources`. Raises UsageError where it is not found, or no
    crop says which frame of which video it is from.
    """
    counts: dict[str, int] = defaultdict(int)
    for row in range(len(index)):
        with contextlib.suppress(HandclrError):  # which the prediction reports
            sample = index[row]
            if frame_of(sample) >= 0 and "box" in sample.info:
                counts[sample.video] += 1
    if len(index) and not counts:
        why = "the crops do not say which frame they are from, and where in it"
        raise UsageError(f"{why}; nothing can be drawn of them")
    if lost := len(index) - sum(counts.values()):
        which = f"{console.plural(lost, 'crop')} of {len(index):,}"
        console.warn(f"{which} do not say which frame of which video they are from; not drawn")
    return find_sources(list(counts), index.origins, named)


def plan_films(
    sources: Mapping[str, Footage], sampling: Sampling, overlay: str | None, page: str | None
) -> list[Film]:
    """Plan a film and a page for each footage, by the name of its video.

    `overlay` and `page` are files .mp4 and .html; for several videos a folder, which is made, or a
    name with {video} in it, which stands for the name of the footage's own file as `file_stems`
    makes it one. Raises UsageError where a name does not fit.
    """
    if sources:
        require_encoder()
    stems = file_stems([_stem(footage) for footage in sources.values()])
    films = _paths(overlay, ".mp4", stems, "overlay")
    pages = _paths(page, ".html", stems, "page")
    planned = []
    for (video, footage), film, sheet in zip(sources.items(), films, pages, strict=True):
        planned.append(Film(footage, sampling, video, film, sheet))
    return planned


def file_stems(names: Sequence[str]) -> list[str]:
    """Names of files, without suffix, for texts of any origin, in the folder that they are put in.

    They have neither separators nor what is not visible, differ even where capitals do not count,
    and leave room for a suffix. An ordinary name stays as it is.
    """
    stems: list[str] = []
    taken: set[str] = set()
    for name in names:
        # Characters that no file system, or not all of them, can have in a name.
        safe = re.sub(r'[/\\:*?"<>|]', "_", console.printable(name))
        short = safe.encode()[:_STEM_BYTES].decode("utf-8", "ignore")
        first = stem = re.sub(r"^[.\s]+", "_", short) or "video"
        number = 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{first}-{number}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def make_film(
    film: Film,
    hands: PosedHands,
    about: Sequence[tuple[str, str]],
    on_skip: OnSkip,
    advance: Callable[[], object] = lambda: None,
) -> Drawn:
    """Draw the hands of a video on its frames, and make the page of them: one reading for both.

    `about` are lines for the page. Raises HandclrError where no frame can be decoded, or the hands
    were cut from frames of another size.
    """
    frames = read_frames(film.footage, film.sampling, on_skip)
    first = next(frames, None)
    if first is None:
        why = f"{film.footage.files[0]}: no frame can be decoded; name other footage"
        raise HandclrError(why, setting="footage")
    size = (first.image.shape[1], first.image.shape[0])
    shown: list[FilmFrame] = []
    drawn = 0
    there = hands.placed.source2d.copy()
    with tempfile.TemporaryDirectory() as place:
        small = os.path.join(place, "film.mp4")
        with _Writers(film, size, small) as writers:
            for each in itertools.chain([first], frames):
                shown.append(_moment(each, first, len(shown)))
                rows = np.flatnonzero(hands.frame == each.number)
                here = hands.take(rows)
                _check_size(here.size, each.image, film.footage)
                there[rows] = _fitted_points(there[rows], each.image, size)
                drawn += len(rows)
                writers.write(each.image, drawn_hands(here), shown[-1].film_s)
                advance()
        if film.page is not None:
            title, data = film.footage.name, Path(small).read_bytes()
            seen = replace(hands, placed=hands.placed._replace(source2d=there))
            write_page(film.page, HandsPage(title, data, size, shown, seen, about))
    paths = [path for path in (film.overlay, film.page) if path is not None]
    known = int((hands.frame >= 0).sum())
    return Drawn(paths, len(shown), drawn, known, str(film.footage.files[0]))


class _Writers(contextlib.ExitStack):
    """The open overlay, and the plain and smaller film of the page, as far as they are asked for.

    A context manager: the films are complete when it ends.
    """

    def __init__(self, film: Film, size: tuple[int, int], small: str) -> None:
        super().__init__()
        self._film, self._size, self._small = film, size, small
        self._overlay: Write | None = None
        self._plain: Write | None = None

    def __enter__(self) -> _Writers:
        super().__enter__()
        try:
            self._open()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def _open(self) -> None:
        if self._film.overlay is not None:
            self._overlay = self.enter_context(film_writer(self._film.overlay, self._size))
        if self._film.page is not None:
            share = min(1.0, _PAGE_PX / max(self._size))
            size = max(2, round(self._size[0] * share)), max(2, round(self._size[1] * share))
            shown = str(self._film.page)
            self._plain = self.enter_context(encoded(self._small, size, _PAGE_FILM, shown))

    def write(self, image: np.ndarray, hands: Sequence[DrawnHand], film_s: float) -> None:
        """Append a frame with its hands."""
        if self._overlay is not None:
            self._overlay(draw_hands(image, hands), film_s)
        if self._plain is not None:
            self._plain(image, film_s)


def _moment(frame: Frame, first: Frame, place: int) -> FilmFrame:
    """When a frame is shown: as in its video from the first on, images one after the other."""
    if frame.time_s is None or first.time_s is None:
        return FilmFrame(frame.number, frame.time_s, place / IMAGES_PER_S)
    return FilmFrame(frame.number, frame.time_s, frame.time_s - first.time_s)


def _fitted_points(points: np.ndarray, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (..., 2) of an image where a film of another size shows them."""
    own = np.array(image.shape[1::-1])
    scale = float((size / own).min())
    return points * scale + (size - scale * own) / 2


def _stem(footage: Footage) -> str:
    """The name of a footage's own file, or of the folder of its images."""
    first = footage.files[0]
    return first.stem if len(footage.files) == 1 else first.resolve().parent.name


def _paths(
    path: str | None, suffix: str, stems: Sequence[str], setting: str
) -> Sequence[str | None]:
    """Where each film or page goes."""
    if path is None:
        return [None] * len(stems)
    if path.endswith(suffix) and _PLACE in path:
        return [path.replace(_PLACE, stem) for stem in stems]
    if path.endswith(suffix):
        if len(stems) > 1:
            why = f"there are {len(stems):,} videos; name a folder, or {_PLACE}{suffix}"
            raise UsageError(why, setting=setting)
        return [path] * len(stems)
    if os.path.splitext(path)[1] and not os.path.isdir(path):
        raise UsageError(f"name a file {suffix}, or a folder", setting=setting)
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise HandclrError(f"cannot make the folder {path}: {error.strerror or error}") from error
    return [os.path.join(path, f"{stem}{suffix}") for stem in stems]


def _check_size(cut_from: np.ndarray, image: np.ndarray, footage: Footage) -> None:
    """Raise HandclrError where hands were cut from frames of another size (N, 2), if known."""
    size = image.shape[1::-1]
    for width, height in cut_from.tolist():
        if width and height and (width, height) != size:
            raise HandclrError(
                f"{footage.files[0]}: frames of {size[0]}x{size[1]}, but the crops were cut from "
                f"{width}x{height}; name the footage that they are from",
                setting="footage",
            )
