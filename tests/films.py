"""Videos of numbered pictures in every container that FFmpeg writes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import imageio_ffmpeg
import numpy as np

BITS = 10
SIZE = (32, 16 * BITS)

H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "40", "-bf", "2")


def numbered(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture that says its number in black and white bars, whatever a codec does to it; uint8
    (H, W, 3).
    """
    bits = [255 * (number >> bit & 1) for bit in range(BITS)]
    row = np.repeat(bits, size[1] // BITS)
    return np.broadcast_to(row[None, :, None], (size[0], len(row), 3)).astype(np.uint8)


def number_in(image: np.ndarray) -> int:
    """The number that a picture says, wherever it was scaled to."""
    columns = image.mean(axis=(0, 2))
    bars = [bar.mean() for bar in np.array_split(columns, BITS)]
    return sum(int(bar > 127) << bit for bit, bar in enumerate(bars))


def film(
    path: Path,
    frames: int | Iterable[np.ndarray],
    rate: float | str,
    *args: str,
    before: tuple[str, ...] = (),
) -> Path:
    """Write numbered pictures 0, 1, ... (or others of one size) as a video; args go to FFmpeg
    before the path.
    """
    pictures = (
        [numbered(number) for number in range(frames)] if isinstance(frames, int) else list(frames)
    )
    height, width = pictures[0].shape[:2]
    raw = (
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        f"{width}x{height}",
        "-r",
        str(rate),
        "-i",
        "-",
    )
    ffmpeg(
        *before, *raw, *args, str(path), stdin=b"".join(picture.tobytes() for picture in pictures)
    )
    return path


def ffmpeg(*args: str, stdin: bytes = b"") -> None:
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-hide_banner",
        "-loglevel",
        "error",
        "-y",
        "-threads",
        "1",
        *args,
    ]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
