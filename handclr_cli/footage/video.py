"""Footage as a sequence of frames: videos through OpenCV, folders of images, single images."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract.errors import HandclrError, UsageError
from ..contract.sample import video_id, video_names

VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"),
    *(".wmv", ".flv", ".3gp", ".ogv", ".mjpeg", ".gif"),
)
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
PROMISE_KEPT = 0.9
TRUSTED_FPS = (0.1, 1000.0)


class UnreadableError(HandclrError):
    """Footage that cannot be opened or decoded; it can be skipped."""


OnSkip = Callable[[UnreadableError], None]


@dataclass(frozen=True)
class Footage:
    """One video, or the sorted images of one folder: its name, the head of its keys, its files."""

    name: str
    id: str
    files: tuple[Path, ...]
    is_video: bool


@dataclass(frozen=True)
class Frame:
    """A decoded frame: its number in the footage, its time in seconds (None for images), uint8 (H, W, 3) RGB."""

    number: int
    time_s: float | None
    image: np.ndarray


@dataclass(frozen=True)
class Sampling:
    """Which frames to keep: about `fps` a second of a video, or every N-th of a video or image folder."""

    fps: float = 1.0
    every: int | None = None


def find_footage(arguments: Sequence[str]) -> list[Footage]:
    """List the footage under files, folders and wildcards, folders recursively and in sorted order.

    A file named by the user is taken whatever its suffix; in folders, suffixes decide. A folder's images are
    one sequence, an image named on its own is one of a single frame. Raises UsageError for a path that does not
    exist, or where a folder holds no footage.
    """
    groups = [group for argument in arguments for group in _groups(argument)]
    distinct: dict[str, Group] = {}
    for group in groups:
        distinct.setdefault(os.path.realpath(group[0]), group)
    names = video_names([Path(os.path.abspath(path)) for path, _, _ in distinct.values()])
    return [
        Footage(name, video_id(name), files, is_video)
        for name, (_, files, is_video) in zip(names, distinct.values(), strict=True)
    ]


def read_frames(footage: Footage, sampling: Sampling, on_skip: OnSkip) -> Iterator[Frame]:
    """Decode the footage in order and yield the sampled frames; what cannot be decoded is handed to `on_skip`."""
    try:
        yield from _read_video(footage, sampling) if footage.is_video else _read_images(footage, sampling, on_skip)
    except UnreadableError as error:
        on_skip(error)


Group = tuple[Path, tuple[Path, ...], bool]


def _groups(argument: str) -> list[Group]:
    path = Path(argument)
    if path.is_dir():
        found = list(_walk(path))
        if not found:
            raise UsageError(f"{argument}: no videos or images in this folder")
        return found
    if path.exists():
        return [(path, (path,), path.suffix.lower() not in IMAGE_SUFFIXES)]
    matches = sorted(glob.glob(argument, recursive=True))
    if not matches:
        raise UsageError(f"{argument}: no such file or folder")
    return [group for match in matches for group in _groups(match)]


def _walk(folder: Path) -> Iterator[Group]:
    for root, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        files = [Path(root, name) for name in sorted(names) if not name.startswith(".")]
        images = tuple(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES)
        if images:
            yield Path(root), images, False
        for file in files:
            if file.suffix.lower() in VIDEO_SUFFIXES:
                yield file, (file,), True


def _read_video(footage: Footage, sampling: Sampling) -> Iterator[Frame]:
    import cv2

    path = footage.files[0]
    if not _is_utf8(path):
        raise UnreadableError(f"{path}: OpenCV takes names in UTF-8 only; rename it")
    # FFmpeg would take the head of a relative name with a colon for a protocol.
    capture = cv2.VideoCapture(os.path.abspath(path))
    try:
        if not capture.isOpened():
            raise UnreadableError(f"{path}: cannot be opened as a video")
        clock = _Clock(capture.get(cv2.CAP_PROP_FPS))
        number, ticks, seen = 0, -1, 0
        while capture.grab():
            time_s = clock.at(number, capture.get(cv2.CAP_PROP_POS_MSEC))
            tick = number // sampling.every if sampling.every else int(time_s * sampling.fps + 1e-6)
            if tick > ticks:
                ticks = tick
                decoded, image = capture.retrieve()
                if decoded:
                    seen += 1
                    yield Frame(number, round(time_s, 4), cv2.cvtColor(_as_bgr(image), cv2.COLOR_BGR2RGB))
            number += 1
        if seen == 0:
            raise UnreadableError(f"{path}: no frame can be decoded")
        promised = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if number < PROMISE_KEPT * promised:
            raise UnreadableError(f"{path}: truncated or damaged: frames {number:,} to {promised:,}")
    finally:
        capture.release()


def _is_utf8(path: Path) -> bool:
    try:
        os.path.abspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _Clock:
    """Times of frames: the container's where they move forward, else from the nominal frame rate."""

    def __init__(self, fps: float) -> None:
        self.fps = fps if TRUSTED_FPS[0] <= fps <= TRUSTED_FPS[1] else 30.0
        self.last = -1.0

    def at(self, number: int, position_ms: float) -> float:
        time_s = position_ms / 1000.0
        if not self.last < time_s < float("inf"):
            time_s = 0.0 if self.last < 0 else self.last + 1.0 / self.fps
        self.last = time_s
        return time_s


def _read_images(footage: Footage, sampling: Sampling, on_skip: OnSkip) -> Iterator[Frame]:
    import cv2

    numbered = sorted(zip(_numbers(footage.files), footage.files, strict=True))
    for position, (number, path) in enumerate(numbered):
        if sampling.every and position % sampling.every:
            continue
        try:
            data = np.fromfile(path, np.uint8)
        except OSError as error:
            on_skip(UnreadableError(f"{path}: {error.strerror}"))
            continue
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if image is None:
            on_skip(UnreadableError(f"{path}: cannot be decoded as an image"))
            continue
        yield Frame(number, None, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def _numbers(files: Sequence[Path]) -> Sequence[int]:
    """The numbers at the end of the names, if every file has one of its own (frame_000030.jpg), else 0, 1, ..."""
    found = [re.search(r"(\d{1,8})$", file.stem) for file in files]
    numbers = [int(match[1]) for match in found if match]
    return numbers if len(files) > 1 and len(set(numbers)) == len(files) else range(len(files))


def _as_bgr(image: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image
