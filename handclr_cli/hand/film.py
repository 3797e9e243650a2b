"""Films to write: MP4 with H.264, which every player and browser shows, each frame at its time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..contract.errors import HandclrError
from ..contract.kinds import FILM_MARK
from ..contract.output import atomic_write

_CODEC = "libx264"
_SUFFIX = ".mp4"
_TICKS = 90_000
# Several threads of the encoder once gave other bytes.
_THREADS = "1"
# By which x264 chooses the level that a player must have; frames keep their own times.
_USUAL_RATE = 30
# ITU-R BT.709 in limited range. The film says so, as players take small ones for BT.601.
_BT709, _LIMITED = 1, 1

Write = Callable[[np.ndarray, float], None]


class Encoding(NamedTuple):
    """How a film is encoded: x264's constant rate factor, and frames from key frame to key frame.

    The fewer these are, the quicker a player finds a moment.
    """

    crf: int = 20
    key_frames: int = 60


FINE = Encoding()


@contextmanager
def film_writer(
    path: str | Path, size: tuple[int, int], encoding: Encoding = FINE
) -> Iterator[Write]:
    """Open an MP4: gives a function that appends uint8 (H, W, 3) RGB frames and their times in s.

    The file gets its name when the block ends without an exception, says that handclr drew it, and
    replaces only a file that says so too. size: width and height in pixels; one more where they are
    odd, which the format cannot hold. A frame of another size is scaled to fit, between black
    borders. A frame that is not later than the one before is shown right after it. Raises
    UsageError where a file of another kind is there, HandclrError where the film cannot be encoded
    or written.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise HandclrError(f"cannot write {path}: not a file")
    # FFmpeg writes to the name of the temporary file, as it moves the index to its start.
    with atomic_write(path, "film", _SUFFIX) as file:
        with encoded(file.name, size, encoding, str(path)) as write:
            yield write
        file.seek(0, os.SEEK_END)
        file.write(FILM_MARK)


@contextmanager
def encoded(
    name: str, size: tuple[int, int], encoding: Encoding, shown: str = ""
) -> Iterator[Write]:
    """Encode a film into a file at once, as `film_writer` does; errors call it `shown`."""
    import av
    from av.video.reformatter import VideoReformatter

    require_encoder()
    width, height = (side + side % 2 for side in size)
    shown, frames, last, lasting = shown or name, 0, -1, _TICKS // _USUAL_RATE
    av.logging.set_level(av.logging.PANIC)
    try:
        container = av.open(name, "w", format="mp4", options={"movflags": "+faststart"})
        try:
            stream, reformatter = _stream(container, (width, height), encoding), VideoReformatter()

            def write(image: np.ndarray, time_s: float) -> None:
                nonlocal frames, last, lasting
                now = max(last + 1, round(time_s * _TICKS))
                lasting = now - last if frames else lasting
                frames, last = frames + 1, now
                frame = _frame(reformatter, _fitted(image, width, height), now)
                _mux(container, stream, frame, lasting)

            yield write
            _mux(container, stream, None, lasting)
        finally:
            container.close()
    except av.FFmpegError as error:
        raise HandclrError(f"cannot write {shown}: {error.strerror or error}") from error
    # What is lost when the file is closed is not told.
    if (written := _frames(name)) != frames:
        lost = f"{written:,} of {frames:,} frames were encoded; disk full?"
        raise HandclrError(f"cannot write {shown}: {lost}")


def require_encoder() -> None:
    """Raise HandclrError where this build of PyAV cannot encode H.264."""
    import av

    if _CODEC not in av.codecs_available:
        why = f"this build of PyAV has no {_CODEC}, which films need"
        raise HandclrError(f"{why}; install the one that pip has: pip install av")


def _stream(container: Any, size: tuple[int, int], encoding: Encoding) -> Any:
    # Without frames that depend on later ones, players seek faster.
    options = {"crf": str(encoding.crf), "preset": "veryfast", "bf": "0", "threads": _THREADS}
    options["g"] = str(encoding.key_frames)
    stream = container.add_stream(_CODEC, rate=_USUAL_RATE, options=options)
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    stream.time_base = context.time_base = Fraction(1, _TICKS)
    context.color_primaries = context.color_trc = context.colorspace = _BT709
    context.color_range = _LIMITED
    return stream


def _frame(reformatter: Any, image: np.ndarray, ticks: int) -> Any:
    import av

    rgb = av.VideoFrame.from_ndarray(image, format="rgb24")
    frame = reformatter.reformat(
        rgb, format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED
    )
    frame.pts, frame.time_base = ticks, Fraction(1, _TICKS)
    return frame


def _mux(container: Any, stream: Any, frame: Any, lasting: int) -> None:
    """Encode a frame, None ends the film, whose last frame is shown for `lasting` ticks."""
    for packet in stream.encode(frame):
        packet.duration = lasting
        container.mux(packet)


def _frames(name: str) -> int:
    import av

    try:
        with av.open(name) as container:
            return container.streams.video[0].frames if container.streams.video else 0
    except av.FFmpegError:
        return 0


def _fitted(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The image on a canvas of this size; only what does not fit, or is far smaller, is resized."""
    import cv2

    have = image.shape[1], image.shape[0]
    if have == (width, height):
        return np.ascontiguousarray(image)
    if (have[0] + have[0] % 2, have[1] + have[1] % 2) == (width, height):
        below, right = height - have[1], width - have[0]
        return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
    scale = min(width / have[0], height / have[1])
    inside = (max(1, round(have[0] * scale)), max(1, round(have[1] * scale)))
    canvas = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inside[0]) // 2, (height - inside[1]) // 2
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, inside, interpolation=method)
    canvas[top : top + inside[1], left : left + inside[0]] = resized
    return canvas
