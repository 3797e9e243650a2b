"""Videos of the footage with the hands drawn on it that were found there."""

from __future__ import annotations

import itertools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import console
from ..contract.errors import HandclrError, UsageError
from ..contract.index import ShardIndex
from ..contract.inputs import identities
from ..contract.sample import KEY, video_id
from ..footage.frames import Footage, OnSkip, Sampling
from ..footage.sources import find_sources, sampling_of
from ..footage.video import read_frames
from ..hand.film import video_writer
from ..hand.joints import WRIST
from ..report.sheets import draw_skeleton

# For images, which have no times: slow enough to follow.
IMAGES_PER_S = 10.0
_LEFT, _RIGHT = (20, 20, 20), (255, 255, 255)
# Lines are one pixel wide for each 70 pixels of the hand's longer side, within these limits.
_PIXELS_PER_WIDTH = 70
_WIDTHS = (1, 10)
_SUFFIX = ".mp4"
_PLACE = "{video}"
_STEM_BYTES = 200

# The JSON of crops by their rows.
_Crops = dict[int, dict[str, Any]]


@dataclass(frozen=True)
class Film:
    """A video to write: its path, the footage to draw on, and the JSON of its crops by row."""

    path: str
    footage: Footage
    sampling: Sampling
    crops: _Crops


def plan_films(index: ShardIndex, path: str, named: Sequence[str]) -> list[Film]:
    """Plan one film for each video that the crops of an index were cut from.

    `path` is an MP4 file; for several videos a folder, which is made, or a file name with {video}
    in it, which stands for the start of the video's keys as `file_stems` makes it a name. `named`
    says where the footage is, as for find_sources. Raises UsageError where the path does not fit,
    the footage is not found, or the crops do not say which frame they are from.
    """
    crops, heads = _crops_by_video(index)
    if len(index) and not crops:
        why = "the crops do not say which frame they are from, and where in it"
        raise UsageError(why, setting="overlay")
    if lost := len(index) - sum(map(len, crops.values())):
        which = f"{console.plural(lost, 'crop')} of {len(index):,}"
        console.warn(f"{which} do not say which frame of which video they are from; not drawn")
    paths = _paths(path, file_stems([heads[video] for video in crops]))
    sources, sampling = find_sources(list(crops), index.origins, named), sampling_of(index.origins)
    films = []
    for at, video in zip(paths, crops, strict=True):
        films.append(Film(at, sources[video], sampling, crops[video]))
    read = identities(str(file) for film in films for file in film.footage.files)
    if own := [film.path for film in films if identities([film.path], standard=1) & read]:
        why = f"{own[0]} is the footage itself; write to another name"
        raise UsageError(why, setting="overlay")
    return films


def _crops_by_video(index: ShardIndex) -> tuple[dict[str, _Crops], dict[str, str]]:
    """The JSON of crops by video and row, and how the keys of each video start.

    Crops that do not say where they are from are left out, and so are unreadable ones: the
    prediction reports those.
    """
    crops: dict[str, _Crops] = defaultdict(dict)
    heads: dict[str, str] = {}
    for row in range(len(index)):
        try:
            sample = index[row]
            info, video = sample.info, sample.video
        except HandclrError:  # damaged JSON, or of no known video
            continue
        if isinstance(info.get("frame"), int) and "box" in info:
            match = KEY.fullmatch(sample.key)
            heads.setdefault(video, match["video"] if match else video_id(video))
            crops[video][row] = {**info, "hand": sample.hand}
    return crops, heads


def drawn_hand(info: dict[str, Any], points: np.ndarray) -> DrawnHand:
    """The hand of the crop whose JSON is `info`; `points` (21, 2) are pixels of the frame."""
    left = {"left": True, "right": False}.get(str(info.get("hand")))
    if left is None and info.get("flipped") is not None:
        left = bool(info["flipped"])
    size = info.get("source_size")
    width_height = (int(size[0]), int(size[1])) if size else None
    return DrawnHand(info["frame"], info.get("time_s"), points, left, width_height)


@dataclass(frozen=True)
class DrawnHand:
    """A hand on a frame of footage.

    `frame` is the frame's number and `time_s` its time, None for images; `points` (21, 2) pixels;
    `left` or right hand, None where unknown; `size` width and height of the frame that its crop
    was cut from, None where unknown.
    """

    frame: int
    time_s: float | None
    points: np.ndarray
    left: bool | None
    size: tuple[int, int] | None = None


def write_overlay(
    path: str,
    footage: Footage,
    sampling: Sampling,
    hands: Sequence[DrawnHand],
    on_skip: OnSkip,
    advance: Callable[[], object] = lambda: None,
) -> tuple[int, int]:
    """Write a video of the sampled frames with the hands drawn on them, as fast as the footage.

    Returns the numbers of frames and of hands drawn. Raises HandclrError where no frame can be
    decoded, or the hands were cut from frames of another size.
    """
    frames = read_frames(footage, sampling, on_skip)
    first = next(frames, None)
    if first is None:
        why = f"{footage.files[0]}: no frame can be decoded; name other footage"
        raise HandclrError(why, setting="footage")
    there: dict[int, list[DrawnHand]] = defaultdict(list)
    for hand in hands:
        there[hand.frame].append(hand)
    size, counts = (first.image.shape[1], first.image.shape[0]), [0, 0]
    with video_writer(path, pace(hands, sampling), size, mark=True) as write:
        for frame in itertools.chain([first], frames):
            on_it = there[frame.number]
            for hand in on_it:
                _check_size(hand, frame.image, footage)
            write(draw_hands(frame.image, on_it))
            counts[0] += 1
            counts[1] += len(on_it)
            advance()
    return counts[0], counts[1]


def draw_hands(image: np.ndarray, hands: Sequence[DrawnHand]) -> np.ndarray:
    """Return a copy of an RGB uint8 (H, W, 3) image with hands drawn on it.

    Each finger has a colour, and lines are wider on larger hands. Right hands are outlined in white
    with an R at the wrist, left hands in black with an L, others in white without a letter.
    """
    low, high = _WIDTHS
    for hand in hands:
        side = float(np.ptp(hand.points, axis=0).max())
        width = min(max(round(side / _PIXELS_PER_WIDTH), low), high)
        outline = _LEFT if hand.left else _RIGHT
        image = draw_skeleton(image, hand.points, width=width + 1 + width // 2, colour=outline)
        image = draw_skeleton(image, hand.points, width=width)
        if hand.left is not None:
            _tag(image, hand, width)
    return image


def pace(hands: Sequence[DrawnHand], sampling: Sampling) -> float:
    """Frames per second at which sampled frames play as fast as the footage they are from.

    The rate of the footage is derived from the numbers and times of the hands' frames.
    """
    times = sorted((hand.frame, hand.time_s) for hand in hands if hand.time_s is not None)
    native = None
    if times and times[-1][0] > times[0][0] and times[-1][1] > times[0][1]:
        native = (times[-1][0] - times[0][0]) / (times[-1][1] - times[0][1])
    if sampling.every:
        return native / sampling.every if native else IMAGES_PER_S
    if not times:
        return IMAGES_PER_S
    return min(sampling.fps, native or sampling.fps)


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


def _paths(path: str, heads: Sequence[str]) -> list[str]:
    if _PLACE in path and path.endswith(_SUFFIX):
        return [path.replace(_PLACE, head) for head in heads]
    if path.endswith(_SUFFIX):
        if len(heads) > 1:
            why = f"the crops are of {len(heads):,} videos; name a folder, or {_PLACE}{_SUFFIX}"
            raise UsageError(why, setting="overlay")
        return [path][: len(heads)]
    if os.path.splitext(path)[1] and not os.path.isdir(path):
        raise UsageError(f"writes MP4; name a file {_SUFFIX}, or a folder", setting="overlay")
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise HandclrError(f"cannot make the folder {path}: {error.strerror or error}") from error
    return [os.path.join(path, f"{head}{_SUFFIX}") for head in heads]


def _tag(image: np.ndarray, hand: DrawnHand, width: int) -> None:
    """Put the letter of the side on the wrist, in place."""
    import cv2

    paper, ink = (_LEFT, _RIGHT) if hand.left else (_RIGHT, _LEFT)
    x, y = np.rint(np.clip(hand.points[WRIST] - 0.5, -30_000, 30_000)).astype(int).tolist()
    radius, scale = 4 + 2 * width, 0.3 + 0.13 * width
    cv2.circle(image, (x, y), radius, paper, -1, cv2.LINE_AA)
    letter, thick = "L" if hand.left else "R", max(1, width // 2)
    (across, up), _ = cv2.getTextSize(letter, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    at = (x - across // 2, y + up // 2)
    cv2.putText(image, letter, at, cv2.FONT_HERSHEY_SIMPLEX, scale, ink, thick, cv2.LINE_AA)


def _check_size(hand: DrawnHand, image: np.ndarray, footage: Footage) -> None:
    height, width = image.shape[:2]
    if hand.size is None or hand.size == (width, height):
        return
    cut_from = f"the crops were cut from {hand.size[0]}x{hand.size[1]}"
    raise HandclrError(
        f"{footage.files[0]}: frames of {width}x{height}, but {cut_from}; "
        "name the footage that they are from",
        setting="footage",
    )
