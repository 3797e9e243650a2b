"""One open video through FFmpeg: the stream that is shown, and its frames in order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..work.pulse import beat
from .clock import Clock
from .frames import Header, UnreadableError
from .images import size_and_start
from .pixels import Display, whole

# For each video: every worker process has a core of its own.
THREADS = 1
TRUSTED_FPS = (0.1, 1000.0)
FALLBACK_FPS = 30.0
# How long before the start of a stretch the first frame is looked for.
LEAD_S = 2.0
# A stream that gives nothing but errors so often in a row has ended.
_TRIES = 1000
# Wider or narrower pixels come from damage.
_ASPECTS = (Fraction(1, 8), Fraction(8))
# So nearly square they are left as they are: scaling would only blur them.
_SQUARE = Fraction(1, 100)
# The formats whose files store a time for every frame, and where each of them, or of the key
# frames, is.
_INDEXED = frozenset({"mov", "matroska", "avi"})
# Of these the length is known from what was read of the stream, and nothing states it.
_UNSTATED = frozenset({"mpegts", "mpeg", "h264", "hevc", "m4v", "mpegvideo", "mjpeg", "obu", "ogg"})
# Times that follow from the header's rate alone, which may be wrong.
_COUNTED = frozenset({"avi"})
_OPTIONS = {
    # Nothing that a file names is fetched.
    "protocol_whitelist": "file",
    # A step back of a joined stream is not taken for a clock of 33 bits that has wrapped.
    "correct_ts_overflow": "0",
}
# Files that name other files to play.
_PLAYLISTS = frozenset({"hls", "concat", "concatf", "dash", "imf"})


class Roll:
    """An open video, frame by frame; it knows the count and the time of the one last read.

    `time_s` is that since the first frame of the video, by its container's clock.
    """

    def __init__(self, container: Any, stream: Any, path: Path, header: Header) -> None:
        self.path, self.header, self.fps = path, header, header.fps or FALLBACK_FPS
        self.count, self.time_s, self.taken = -1, 0.0, 0
        self.begin = 0.0
        self.jumps, self.lost_s = 0, 0.0
        self.ended = False
        self._container, self._stream = container, stream
        self._clock = Clock(1 / self.fps)
        self._clocked = header.fps > 0 or _format(container) not in _COUNTED
        self._display = Display(_shown_size(stream))
        self._frames = _decoded(container, stream)
        self._before: Any = None
        self._frame: Any = None
        self._after: Any = None

    def forward(self) -> bool:
        """Read the next frame; False at the end."""
        frame = self._after or next(self._frames, None)
        self._after = None
        if frame is None:
            self.ended = True
            return False
        self._before, self._frame = self._frame, frame
        before, self.time_s = self.time_s, self._clock.tell(self._stamp_s(frame))
        if self.time_s - before > 1.5 / self.fps:
            self.jumps += 1
            self.lost_s += self.time_s - before - 1 / self.fps
        self.count += 1
        return True

    def to_before(self, time_s: float) -> None:
        """Read a frame before a time, the first at the earliest."""
        origin_s = self._stamp_s(self._frame) or 0.0
        lead = LEAD_S
        while lead < time_s:
            now = self._sought(origin_s + time_s - lead)
            if now is not None and 0 <= now < time_s:
                self.time_s = self.begin = now
                return
            lead *= 2
        self._sought(origin_s)
        self._clock.begin_again()
        self.time_s = self._clock.tell(origin_s)

    def seeks_exactly(self) -> bool:
        """Whether a seek gives the frames and times that reading from the beginning does.

        So it is where an index lists times that increase, up to the end, of data that are there.
        """
        import av

        if _format(self._container) not in _INDEXED:
            return False
        try:  # Matroska's index is read when it is needed.
            self._container.seek(self._stream.start_time or 0, stream=self._stream)
        except av.FFmpegError:
            return False
        entries = list(self._stream.index_entries)
        if len(entries) < 2:
            return False
        increasing = all(one.timestamp < two.timestamp for one, two in pairwise(entries))
        last_s = float((entries[-1].timestamp - entries[0].timestamp) * self._stream.time_base)
        there = all(entry.pos + entry.size <= self.header.size for entry in entries)
        return increasing and there and last_s > 0.5 * self.header.duration_s

    @property
    def reached_s(self) -> float:
        """When the frame last read ends."""
        lasts_s = float((self._frame.duration or 0) * self._stream.time_base) if self._frame else 0
        return self.time_s + max(lasts_s, 1 / self.fps)

    def image(self) -> np.ndarray:
        """The frame last read as it is shown, uint8 (H, W, 3) RGB.

        Raises av.FFmpegError where it cannot be converted.
        """
        frame = self._frame
        if frame.interlaced_frame:
            self._after = self._after or next(self._frames, None)
            beside = [self._before, frame, self._after]
            there = [other for other in beside if other is not None]
            frame = whole(there, there.index(frame))
        image = self._display.image(frame)
        self.taken += 1
        return image

    def _sought(self, stamp_s: float) -> float | None:
        """Read the first frame that a seek to a time stamp finds; its time, None without one."""
        import av

        self._before = self._frame = self._after = None
        try:
            ticks = int(stamp_s / self._stream.time_base)
            self._container.seek(ticks, stream=self._stream)
        except av.FFmpegError:
            return None
        self._frames = _decoded(self._container, self._stream)
        self._frame = next(self._frames, None)
        if self._frame is None:
            return None
        return self._clock.move_to(self._stamp_s(self._frame))

    def _stamp_s(self, frame: Any) -> float | None:
        ticks = frame.dts if frame.pts is None else frame.pts
        if ticks is None or not self._clocked:
            return None
        return float(ticks * self._stream.time_base)


@contextmanager
def opened(path: Path) -> Iterator[Roll]:
    """Open a video before its first frame.

    Raises UnreadableError where there is none to open.
    """
    import av

    size, _ = size_and_start(path)
    av.logging.set_level(av.logging.PANIC)
    try:
        # FFmpeg would take the head of a relative name with a colon for a protocol.
        container = av.open(f"file:{os.path.abspath(path)}", options=_OPTIONS)
    except (av.FFmpegError, ValueError) as error:
        raise UnreadableError(path, "cannot be opened as a video") from error
    with container:
        if _PLAYLISTS & set(container.format.name.split(",")):
            raise UnreadableError(path, "cannot be opened as a video", "a list of other files")
        stream = _shown(container.streams.video)
        if stream is None:
            raise UnreadableError(path, "cannot be opened as a video")
        stream.codec_context.thread_count = THREADS
        yield Roll(container, stream, path, _header(container, stream, size))


def _shown(streams: Any) -> Any:
    """The stream that a player shows: the default one, of several the largest; no cover picture."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
    # A stream that FFmpeg has no decoder for has no context, and no size.
    known = [stream for stream in streams if stream.codec_context is not None]
    moving = [stream for stream in known if not stream.disposition & still and stream.width]

    def rank(stream: Any) -> tuple[bool, int]:
        return bool(stream.disposition & Disposition.default), stream.width * stream.height

    return max(moving, key=rank, default=None)


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """The frames of a stream from where the container is; what cannot be decoded is passed over."""
    import av

    packets, failed = container.demux(stream), 0
    while failed < _TRIES:
        beat()
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError:
            # A generator ends with its exception, the reading need not.
            packets, failed = container.demux(stream), failed + 1
            continue
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        failed = 0
        yield from frames


def _shown_size(stream: Any) -> tuple[int, int]:
    """Width and height of what is stored, in square pixels."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not _ASPECTS[0] <= aspect <= _ASPECTS[1] or abs(aspect - 1) < _SQUARE:
        aspect = Fraction(1)
    return max(1, round(stream.width * aspect)), stream.height


def _format(container: Any) -> str:
    return container.format.name.split(",")[0]


def _header(container: Any, stream: Any, size: int) -> Header:
    fps = float(stream.guessed_rate or stream.average_rate or 0)
    fps = fps if TRUSTED_FPS[0] <= fps <= TRUSTED_FPS[1] else 0.0
    frames = stream.frames if 0 < stream.frames <= size else 0
    if _format(container) in _COUNTED:
        # FFmpeg shortens what an AVI promises where its data end early.
        duration_s = frames / fps if fps else 0.0
    else:
        duration_s = _duration_s(container, stream)
    # Before an edit list begins there may be frames that are only needed to decode it.
    kept = [entry for entry in stream.index_entries if not entry.is_discard]
    indexed = _format(container) == "mov" and len(stream.index_entries) == stream.frames
    return Header(
        fps,
        len(kept) if indexed else frames,
        size,
        duration_s,
        stated=_format(container) not in _UNSTATED,
        counted=indexed,
    )


def _duration_s(container: Any, stream: Any) -> float:
    if stream.duration:
        return max(0.0, float(stream.duration * stream.time_base))
    seconds = (container.duration or 0) / 1_000_000
    if _format(container) == "matroska" and stream.start_time:
        # Its header says when the video ends, not how long it is.
        before_s = float(stream.start_time * stream.time_base)
        seconds -= before_s if 0 < before_s < seconds else 0.0
    return max(0.0, seconds)
