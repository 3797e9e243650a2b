"""Synthetic videos as files: MPEG-4 by OpenCV, the same bytes on every machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..contract.errors import HandclrError
from ..contract.output import atomic_write

_CODEC = "mp4v"
_SUFFIX = ".mp4"


@contextmanager
def video_writer(
    path: str | Path, fps: float, size: tuple[int, int]
) -> Iterator[Callable[[np.ndarray], None]]:
    """Open an MP4: gives a function that appends uint8 (H, W, 3) RGB frames of `size`.

    The file gets its name when the block ends without an exception. size: width and height in
    pixels, even. Raises UsageError where a file of another kind is there, HandclrError where the
    video cannot be encoded or written.
    """
    import cv2

    if os.path.exists(path) and not os.path.isfile(path):
        raise HandclrError(f"cannot write {path}: not a file")
    # OpenCV writes to the name of the temporary file, and chooses the container by its suffix.
    with atomic_write(path, "mp4", _SUFFIX) as file:
        part, frames = Path(file.name), 0
        writer = cv2.VideoWriter()
        try:
            code = cv2.VideoWriter.fourcc(*_CODEC)
            if not writer.open(str(part), cv2.CAP_FFMPEG, code, fps, size):
                _refuse_full_disk(file)
                raise HandclrError(f"{path}: OpenCV can encode no such video here ({_CODEC})")

            def write(image: np.ndarray) -> None:
                nonlocal frames
                writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                frames += 1

            yield write
            writer.release()
            # The encoder says nothing of a full disk.
            if (written := _frames(part)) != frames:
                raise HandclrError(
                    f"cannot write {path}: "
                    f"{written:,} of {frames:,} frames were encoded; disk full?"
                )
        finally:
            writer.release()


def _refuse_full_disk(file: BinaryIO) -> None:
    """Raise OSError where nothing can be written to a file, of which an encoder says nothing."""
    file.write(bytes(4096))
    file.flush()


def _frames(path: Path) -> int:
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
