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

# For each video: every worker process has a core of its own.
THREADS = 1
TRUSTED_FPS = (0.1, 1000.0)
FALLBACK_FPS = 30.0
# How long before the start of a stretch the first frame is looked for.
LEAD_S = 2.0
# A seek that ends further before it is used only where the video is known to go on that long.
FAR_S = 60.0
PROMISE_KEPT = 0.9
# Where a video of constant frame rate has lost frames, few of its intervals are longer: at most
# this many, and this share, of at least so many frames. A variable rate has many.
_FEW = (3, 0.02)
_TELLING = 50
_LEAST_LOST_S = 1.0
# How MP4 and QuickTime files go on after four bytes; how MPEG program streams, in which only some
# frames have a time, begin.
_ISO_MEDIA = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_PROGRAM_STREAM = b"\0\0\1\xba"
# Matroska's and Flash's times are cut to milliseconds.
_TIME_UNIT_S = 0.001
# A shorter time between two frames comes from the container's clock, not from the camera.
_LEAST_S = 0.5 / TRUSTED_FPS[1]
# The reader stops at a packet that cannot be decoded, but can be asked again, which is quick at the
# end of a file.
_TRIES = 100
_TRIES_WHERE_MORE_IS_PROMISED = 10_000


def read_header(path: Path) -> Header:
    """Read the header of a video; Header() where it cannot be opened."""
    import cv2

    try:
        with _opened(path) as (_, header):
            return header
    except (UnreadableError, cv2.error):
        return Header()


def read_video(piece: Piece, on_skip: OnSkip) -> Iterator[Frame]:
    """Decode a stretch of a video and yield the sampled frames; pass what is missing to `on_skip`.

    Raises UnreadableError where the video cannot be opened, or holds no frame.
    """
    import cv2

    path = piece.footage.files[0]
    try:
        with _opened(path) as (capture, header):
            header = piece.header or header
            roll = _Roll(capture, path, header)
            yield from _sampled(roll, piece)
            if roll.ended and (error := _missing(roll, piece, header)):
                on_skip(error)
    except cv2.error as error:
        raise UnreadableError(path, "cannot be decoded", error.err) from error


class _Roll:
    """An open video, frame by frame.

    It knows the count and the time of the frame last grabbed, and how much time without frames
    there was. Times are those of the container where they increase, else they follow the nominal
    frame rate.
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
            # Matroska's header says when the video ends, not how long it is.
            self.promised_s -= before_s if 0 < before_s < self.promised_s else 0.0
        elif now - before > 1.5 / self.fps:
            self.jumps += 1
            self.lost_s += now - before - 1 / self.fps
        self.count += 1
        self.time_s = now
        return True

    def to_before(self, time_s: float) -> bool:
        """Grab a frame before a time, the first at the earliest; False where the video ends before.

        A seek goes by the nominal frame rate, and may end up too late or far too early.
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
        """The frame's own time stamp, which need not begin at 0; 0 before OpenCV 4.11."""
        import cv2

        if not hasattr(cv2, "CAP_PROP_PTS"):
            return 0.0
        return self.capture.get(cv2.CAP_PROP_PTS) / self.fps


def _sampled(roll: _Roll, piece: Piece) -> Iterator[Frame]:
    if not roll.forward():
        raise UnreadableError(roll.path, "no frame can be decoded")
    if piece.start > 0:
        roll.ended = not roll.to_before(roll.origin + piece.start)
        roll.begin = roll.time_s
    chosen, number_of = _chooser(piece.sampling), _numberer(piece, roll)
    numbers = piece.sampling.numbers
    last = math.inf if numbers is None else max(numbers, default=-1)
    going = not roll.ended
    while going and roll.time_s - roll.origin < piece.end:
        # It must see all frames, also those before the start: it compares each with the one before.
        if chosen(roll.count, roll.time_s) and roll.time_s - roll.origin >= piece.start:
            number = number_of()
            if (image := roll.image()) is not None:
                yield Frame(number, round(roll.time_s, 4), image)
        going = roll.count < last and roll.forward()


def _chooser(sampling: Sampling) -> Callable[[int, float], bool]:
    """A function that tells of each frame in turn, by its count and time, whether it is sampled."""
    if sampling.numbers is not None:
        wanted = frozenset(sampling.numbers)
        return lambda count, time_s: count in wanted
    ticks = -1

    def choose(count: int, time_s: float) -> bool:
        nonlocal ticks
        before = ticks
        if sampling.every:
            tick = count // sampling.every
        else:
            tick = int((time_s + _TIME_UNIT_S) * sampling.fps)
        ticks = max(before, tick)
        return ticks > before

    return choose


def _numberer(piece: Piece, roll: _Roll) -> Callable[[], int]:
    """A function that numbers the frame last grabbed: by count, in a cut video by time."""
    if not piece.cut:
        return lambda: roll.count
    last = -1

    def number() -> int:
        nonlocal last
        last = max(last + 1, round((roll.time_s - roll.origin) * roll.fps))
        return last

    return number


def _missing(roll: _Roll, piece: Piece, header: Header) -> UnreadableError | None:
    """What is wrong with a video that was read to its end; None where it holds what it should."""
    if piece.start and roll.time_s - roll.origin < piece.start:
        # The piece in which the video ended has said so.
        return None
    if detail := _cut_short(roll, piece, header):
        return UnreadableError(roll.path, "truncated or damaged", detail)
    if _has_gap(roll, header):
        return UnreadableError(roll.path, "a long stretch without frames", f"{roll.lost_s:,.1f} s")
    if piece.sampling.numbers is not None:
        missing = len(set(piece.sampling.numbers)) - roll.taken
        reason = "requested frames are missing from the video"
        return UnreadableError(roll.path, reason, f"{missing:,}") if missing else None
    if roll.taken or piece.cut:
        return None
    return UnreadableError(roll.path, "no frame can be decoded")


def _cut_short(roll: _Roll, piece: Piece, header: Header) -> str:
    """How much of what the header promises could be decoded, where that is too little."""
    frames, reached = roll.count + 1, roll.time_s + 1 / roll.fps
    if reached < PROMISE_KEPT * roll.promised_s:
        return f"{reached:,.1f} of {roll.promised_s:,.1f} s can be decoded"
    if header.counted and not piece.cut and frames < PROMISE_KEPT * header.frames:
        return f"{frames:,} of {header.frames:,} frames can be decoded"
    return ""


def _has_gap(roll: _Roll, header: Header) -> bool:
    """Whether a video of constant frame rate lacks the frames of a long time."""
    frames, read_s = roll.count + 1, roll.time_s + 1 / roll.fps - roll.begin
    few = roll.jumps <= _FEW[0] + _FEW[1] * frames and frames >= _TELLING and header.fps > 0
    return few and roll.lost_s > max((1 - PROMISE_KEPT) * read_s, _LEAST_LOST_S)


def _ends_before(time_s: float, path: Path) -> bool:
    """Whether all packets are earlier than a time.

    Nothing is decoded, so this is as fast as reading the file.
    """
    import cv2

    capture, last = cv2.VideoCapture(), 0.0
    if capture.open(os.path.abspath(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1]):
        while last < 1000 * time_s and capture.grab():
            last = max(last, capture.get(cv2.CAP_PROP_POS_MSEC))
    capture.release()
    # Packets without times are all at 0.
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
    one_thread = [cv2.CAP_PROP_N_THREADS, THREADS]
    return capture.open(name, cv2.CAP_FFMPEG, one_thread) or capture.open(name)


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
