"""What the layouts of data sets share: the scenes they need, views of joints, files and folders."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..contract.errors import HandclrError, UsageError
from ..contract.temporary import temporary_folder
from ..hand.camera import project
from .shot import Shot


class LabelledScene(Protocol):
    """A world with hands in it; the same `subject` has the same bones and skin."""

    @property
    def subject(self) -> int:
        """Number of the person, from 0."""

    def shoot(self, time: int, camera: int = 0, backdrop: int = 0) -> Shot:
        """Take a picture.

        One `time` is one 3D pose for all cameras; another `backdrop` changes only what is behind.
        """


# Of the scene's number, the picture's width and height, and the sides of the hands in it.
MakeScene = Callable[[int, tuple[int, int], tuple[str, ...]], LabelledScene]
Advance = Callable[[int], None]

# Moments of a scene that a layout asks for at most: 0 to FRAMES - 1.
FRAMES = 8


def hand(shot: Shot, side: str) -> np.ndarray | None:
    """The joints of the shot's hand of a side, (21, 3) metres in the camera frame, or None."""
    return next((truth.keypoints3d for truth in shot.hands if truth.side == side), None)


def in_view(joints: np.ndarray, shot: Shot) -> np.ndarray:
    """Which camera-frame points (N, 3) are before the camera and in the picture, (N) bool."""
    before = joints[:, 2] > 0
    pixels = project(np.where(before[:, None], joints, [0, 0, 1]), shot.intrinsics)
    height, width = shot.image.shape[:2]
    return before & (pixels >= 0).all(axis=1) & (pixels < [width, height]).all(axis=1)


def keep(known: dict[str, np.ndarray], camera: str, matrix: np.ndarray, what: str) -> None:
    """Remember a camera's matrix; HandclrError where it differs from the one before (to 1e-6)."""
    if not np.allclose(known.setdefault(camera, matrix), matrix, rtol=0, atol=1e-6):
        why = "and the layout has one place for them; fix the camera"
        raise HandclrError(f"the {what} of camera {camera} change, {why}")


def shares(total: int, parts: int) -> list[int]:
    """Split a number into parts that differ by at most one, the larger ones first."""
    return [total // parts + (part < total % parts) for part in range(parts)]


@contextlib.contextmanager
def whole_folder(root: Path, count: int) -> Iterator[Path]:
    """Make a folder under a temporary name; it becomes `root` when the block ends well.

    Raises UsageError where `root` is something else than an empty folder or `count` is no number of
    images, HandclrError where the disk refuses.
    """
    if count < 1:
        raise UsageError(f"cannot write {count} images; ask for 1 or more")
    root = Path(os.path.realpath(root))
    try:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            why = "exists and is not an empty folder; remove it or give another name"
            raise UsageError(f"{root} {why}")
        with temporary_folder(root) as temporary:
            yield temporary
            os.replace(temporary, root)
    except OSError as error:
        raise HandclrError(f"cannot write {root}: {error.strerror or error}") from error


def save(path: Path, data: bytes) -> None:
    """Write a file, its folders too, and wait until it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def save_image(path: Path, image: np.ndarray) -> None:
    """Write a JPEG of quality 95: uint8, (H, W, 3) RGB or (H, W) grey."""
    import cv2

    pixels = np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else image
    save(path, cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())


def save_json(path: Path, content: Any) -> None:
    """Write JSON."""
    save(path, json.dumps(content).encode())


def save_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed NPZ file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    save(path, buffer.getvalue())
