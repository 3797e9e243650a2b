"""Videos to write: MP4 with H.264 where OpenCV can encode it, else with MPEG-4."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..contract.errors import HandclrError
from ..contract.kinds import FILM_MARK
from ..contract.output import atomic_write

CODECS = ("avc1", "mp4v")
_SUFFIX = ".mp4"


@contextmanager
def video_writer(
    path: str | Path,
    fps: float,
    size: tuple[int, int],
    codecs: Sequence[str] = CODECS,
    *,
    mark: bool = False,
) -> Iterator[Callable[[np.ndarray], None]]:
    """Open an MP4: gives a function that appends uint8 (H, W, 3) RGB frames.

    The file gets its name when the block ends without an exception. size: width and height in
    pixels; one more where they are odd, which the formats cannot hold. A frame of another size is
    scaled to fit, between black borders. codecs: the first that OpenCV can encode here is used.
    With `mark` the file says that handclr drew it, and replaces only a file that says so too.
    Raises UsageError where a file of another kind is there, HandclrError where the video cannot be
    encoded or written.
    """
    import cv2

    width, height = (side + side % 2 for side in size)
    if os.path.exists(path) and not os.path.isfile(path):
        raise HandclrError(f"cannot write {path}: not a file")
    # OpenCV writes to the name of the temporary file, and chooses the container by its suffix.
    with atomic_write(path, "film" if mark else "mp4", _SUFFIX) as file:
        part, frames = Path(file.name), 0
        writer = cv2.VideoWriter()
        try:
            if not any(_opens(writer, part, codec, fps, (width, height)) for codec in codecs):
                _refuse_full_disk(file)
                raise HandclrError(
                    f"{path}: OpenCV can encode no such video here ({', '.join(codecs)})"
                )

            def write(image: np.ndarray) -> None:
                nonlocal frames
                writer.write(cv2.cvtColor(_fitted(image, width, height), cv2.COLOR_RGB2BGR))
                frames += 1

            yield write
            writer.release()
            # The encoder says nothing of a full disk.
            if (written := _frames(part)) != frames:
                raise HandclrError(
                    f"cannot write {path}: "
                    f"{written:,} of {frames:,} frames were encoded; disk full?"
                )
            file.seek(0, os.SEEK_END)
            file.write(FILM_MARK if mark else b"")
        finally:
            writer.release()


def _refuse_full_disk(file: BinaryIO) -> None:
    """Raise OSError where nothing can be written to a file, of which an encoder says nothing."""
    file.write(bytes(4096))
    file.flush()


def _opens(writer: Any, path: Path, codec: str, fps: float, size: tuple[int, int]) -> bool:
    import cv2

    return bool(writer.open(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size))


def _frames(path: Path) -> int:
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()


def _fitted(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The image on a canvas of this size; only what does not fit, or is far smaller, is resized."""
    import cv2

    have = image.shape[1], image.shape[0]
    if have == (width, height):
        return image
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
