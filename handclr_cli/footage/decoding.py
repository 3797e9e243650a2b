"""The frames of one video, or of a stretch of it, through OpenCV."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .frames import Frame, Header, OnSkip, Piece, Sampling, UnreadableError
from .images import look_at

# Every worker process has a core of its own.
THREADS = 1
TRUSTED_FPS = (0.1, 1000.0)
FALLBACK_FPS = 30.0
# How long before the start of a stretch to look for a first frame.
LEAD_S = 2.0
# Frames further before it are decoded in vain only where the video is known to go on that long.
FAR_S = 60.0
PROMISE_KEPT = 0.9
# Where a constant frame rate lost frames few intervals are longer, of so many or more; a variable
# one has many.
_FEW = (3, 0.02)
_TELLING = 50
_LEAST_LOST_S = 1.0
# How MP4 and QuickTime begin, from the fifth byte; how MPEG program streams do, where but some
# frames have a time.
_ISO_MEDIA = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_PROGRAM_STREAM = b"\0\0\1\xba"
# Matroska's and Flash's times are cut to milliseconds.
_TIME_UNIT_S = 0.001
# Less between two frames is the clock of the container, not of the camera.
_LEAST_S = 0.5 / TRUSTED_FPS[1]
# The reader stops at a packet that cannot be decoded, but can be asked again; at the end that is
# quick.
_TRIES = 100
_TRIES_WHERE_MORE_IS_PROMISED = 10_000


def read_header(path: Path) -> Header:
    """Look at what a video says of itself; Header() where it cannot be opened."""
    import cv2

    try:
        with _opened(path) as (_, header):
            return header
    except (UnreadableError, cv2.error):
        return Header()


def read_video(piece: Piece, sampling: Sampling, on_skip: OnSkip) -> Iterator[Frame]:
    """Decode a stretch of a video and yield the sampled frames; what turns out to be missing goes
    to `on_skip`.

    Raises UnreadableError where the video cannot be opened, or holds no frame.
    """
    import cv2

    path = piece.footage.files[0]
    try:
        with _opened(path) as (capture, header):
            header = piece.header or header
            roll = _Roll(capture, path, header)
            yield from _sampled(roll, piece, sampling)
            if roll.ended and (error := _missing(roll, piece, header, sampling)):
                on_skip(error)
    except cv2.error as error:
        raise UnreadableError(path, "cannot be decoded", error.err) from error


class _Roll:
    """An open video, frame by frame: count and time of the frame last grabbed, and what was missed
    between them.

    Times are the container's where they move forward, else the nominal frame rate's.
    """

    def __init__(self, capture: Any, path: Path, header: Header) -> None:
        self.capture, self.path, self.fps = capture, path, header.fps or FALLBACK_FPS
        self.promised_s = header.duration_s
        self.count, self.time_s, self.taken = -1, -1.0, 0
        self.origin = self.begin = 0.0
        self.jumps, self.lost_s = 0, 0.0
        self.ended = False

    def forward(self) -> bool:
        """Grab the next frame; False at the end."""
        if not self._grab():
            self.ended = True
            return False
        before, now = self.time_s, self._position()
        if not before + _LEAST_S < now < math.inf:
            now = 0.0 if before < 0 else before + 1 / self.fps
        if self.count < 0:
            now = self.origin = self.begin = max(now, 0.0)
            before_s = self._stamp_s() - now
            # Matroska promises when the video ends, not how long it is.
            self.promised_s -= before_s if 0 < before_s < self.promised_s else 0.0
        elif now - before > 1.5 / self.fps:
            self.jumps += 1
            self.lost_s += now - before - 1 / self.fps
        self.count += 1
        self.time_s = now
        return True

    def to_before(self, time_s: float) -> bool:
        """Grab a frame before the time, the first at the earliest; False where the video ends
        before the time.

        A seek counts by the nominal rate, and may come out too late or far too early.
        """
        import cv2

        lead, looked = LEAD_S, False
        while lead < time_s:
            self.capture.set(cv2.CAP_PROP_POS_MSEC, 1000 * (time_s - lead))
            there = self._grab() and 0 <= self._position() < time_s
            if not looked and (not there or self._position() < time_s - FAR_S):
                if _ends_before(time_s, self.path):
                    return False
                looked = True
            if there:
                self.time_s = self._position()
                return True
            lead *= 2
        _open(self.capture, self.path)
        self._grab()
        self.time_s = self.origin
        return True

    def image(self) -> np.ndarray | None:
        """The frame last grabbed, uint8 (H, W, 3) RGB; None where it is damaged."""
        import cv2

        decoded, image = self.capture.retrieve()
        if not decoded:
            return None
        self.taken += 1
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)

    def _grab(self) -> bool:
        more = self.time_s + 2 / self.fps < self.promised_s
        return any(
            self.capture.grab() for _ in range(_TRIES_WHERE_MORE_IS_PROMISED if more else _TRIES)
        )

    def _position(self) -> float:
        import cv2

        return self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000

    def _stamp_s(self) -> float:
        """The time that the container says, whenever the video starts; 0 before OpenCV 4.11."""
        import cv2

        return (
            self.capture.get(cv2.CAP_PROP_PTS) / self.fps if hasattr(cv2, "CAP_PROP_PTS") else 0.0
        )


def _sampled(roll: _Roll, piece: Piece, sampling: Sampling) -> Iterator[Frame]:
    if not roll.forward():
        raise UnreadableError(roll.path, "no frame can be decoded")
    if piece.start > 0:
        roll.ended = not roll.to_before(roll.origin + piece.start)
        roll.begin = roll.time_s
    chosen, number_of = _chooser(sampling), _numberer(piece, roll)
    last = max(sampling.numbers, default=-1) if sampling.numbers is not None else math.inf
    going = not roll.ended
    while going and roll.time_s - roll.origin < piece.end:
        # All are shown to it, those before the start too: it chooses by the one before.
        if chosen(roll.count, roll.time_s) and roll.time_s - roll.origin >= piece.start:
            number = number_of()
            if (image := roll.image()) is not None:
                yield Frame(number, round(roll.time_s, 4), image)
        going = roll.count < last and roll.forward()


def _chooser(sampling: Sampling) -> Callable[[int, float], bool]:
    """Tell of each frame in turn, by its count and time, whether it is sampled."""
    if sampling.numbers is not None:
        wanted = frozenset(sampling.numbers)
        return lambda count, time_s: count in wanted
    ticks = -1

    def choose(count: int, time_s: float) -> bool:
        nonlocal ticks
        before = ticks
        ticks = max(
            before,
            (
                count // sampling.every
                if sampling.every
                else int((time_s + _TIME_UNIT_S) * sampling.fps)
            ),
        )
        return ticks > before

    return choose


def _numberer(piece: Piece, roll: _Roll) -> Callable[[], int]:
    """Number the frame last grabbed: by count, in a cut video by time."""
    if not piece.cut:
        return lambda: roll.count
    last = -1

    def number() -> int:
        nonlocal last
        last = max(last + 1, round((roll.time_s - roll.origin) * roll.fps))
        return last

    return number


def _missing(
    roll: _Roll, piece: Piece, header: Header, sampling: Sampling
) -> UnreadableError | None:
    """What to say of a video that was read to its end, if it does not hold what it should."""
    if piece.start and roll.time_s - roll.origin < piece.start:
        # It is said by the piece in which it ended.
        return None
    frames, reached = roll.count + 1, roll.time_s + 1 / roll.fps
    if reached < PROMISE_KEPT * roll.promised_s:
        detail = f"{reached:,.1f} of {roll.promised_s:,.1f} s can be decoded"
    elif header.counted and not piece.cut and frames < PROMISE_KEPT * header.frames:
        detail = f"{frames:,} of {header.frames:,} frames can be decoded"
    else:
        detail = ""
    if detail:
        return UnreadableError(roll.path, "truncated or damaged", detail)
    few = roll.jumps <= _FEW[0] + _FEW[1] * frames and frames >= _TELLING and header.fps
    if few and roll.lost_s > max((1 - PROMISE_KEPT) * (reached - roll.begin), _LEAST_LOST_S):
        return UnreadableError(roll.path, "a long stretch without frames", f"{roll.lost_s:,.1f} s")
    if sampling.numbers is not None:
        missing = len(set(sampling.numbers)) - roll.taken
        return (
            UnreadableError(roll.path, "frames asked for are not in it", f"{missing:,}")
            if missing
            else None
        )
    return (
        None if roll.taken or piece.cut else UnreadableError(roll.path, "no frame can be decoded")
    )


def _ends_before(time_s: float, path: Path) -> bool:
    """Whether no packet is of the time or later: told without decoding, as quickly as the file is
    read.
    """
    import cv2

    capture, last = cv2.VideoCapture(), 0.0
    if capture.open(os.path.abspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1]):
        while last < 1000 * time_s and capture.grab():
            last = max(last, capture.get(cv2.CAP_PROP_POS_MSEC))
    capture.release()
    # Where packets have no times all are 0.
    return 0 < last < 1000 * time_s


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Header]]:
    import cv2

    size, head = look_at(path)
    try:
        os.path.abspath(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UnreadableError(path, "OpenCV takes names in UTF-8 only; rename it") from error
    capture = cv2.VideoCapture()
    try:
        if not _open(capture, path):
            raise UnreadableError(path, "cannot be opened as a video")
        yield capture, _header(capture, size, head)
    finally:
        capture.release()


def _open(capture: Any, path: Path) -> bool:
    import cv2

    # FFmpeg would take the head of a relative name with a colon for a protocol.
    name = os.path.abspath(path)
    return capture.open(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, THREADS]) or capture.open(
        name
    )


def _header(capture: Any, size: int, head: bytes) -> Header:
    import cv2

    fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return Header(
        fps if TRUSTED_FPS[0] <= fps <= TRUSTED_FPS[1] else 0.0,
        int(frames) if 0 < frames <= size else 0,
        size,
        counted=head[4:] in _ISO_MEDIA,
        exact=not head.startswith(_PROGRAM_STREAM),
    )
