"""Folders of images as a sequence of frames."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..work.pulse import beat
from .frames import Footage, FootageDetections, Frame, OnSkip, Piece, Sampling, UnreadableError
from .naming import numbered
from .several import holds_several


def image_pieces(
    footage: Footage, sampling: Sampling, boxes: FootageDetections | None, size: int
) -> list[Piece]:
    """Cut a folder of images, in the natural order of their names, into pieces of `size` images.

    boxes: of the whole folder; each piece takes its own, and looks at the images that have some.
    """
    ordered = numbered(footage.files)
    pieces = []
    for start in range(0, len(ordered), size):
        numbers, files = zip(*ordered[start : start + size], strict=True)
        own = None
        if boxes is not None:
            own = boxes.between(numbers[0], numbers[-1])
            sampling = replace(sampling, numbers=own.numbers)
        end = start + len(files)
        part = replace(footage, files=files)
        piece = Piece(part, sampling, start, end, numbers=numbers, boxes=own)
        pieces.append(replace(piece, frames=len(_chosen(piece))))
    return pieces


def read_images(piece: Piece, on_skip: OnSkip) -> Iterator[Frame]:
    """Decode the chosen images of a piece in order; pass those that fail to `on_skip`."""
    for number, path in _chosen(piece):
        beat()
        try:
            yield Frame(number, None, _decode(path))
        except UnreadableError as error:
            on_skip(error)


def size_and_start(path: Path) -> tuple[int, bytes]:
    """Return the size of a file and its first eight bytes.

    Raises UnreadableError for anything but a regular file that is not empty: opening a pipe could
    wait for ever.
    """
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableError(path, "folder cannot be listed")
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError(path, "not a regular file")
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise UnreadableError(path, error.strerror or "cannot be read") from error
    if not head:
        raise UnreadableError(path, "empty file")
    return status.st_size, head


def _chosen(piece: Piece) -> list[tuple[int, Path]]:
    """The number and path of each image of a piece that its sampling chooses."""
    images = list(zip(piece.numbers, piece.footage.files, strict=True))
    if piece.sampling.numbers is not None:
        wanted = frozenset(piece.sampling.numbers)
        return [image for image in images if image[0] in wanted]
    every = piece.sampling.every or 1
    return images[-int(piece.start) % every :: every]


def _decode(path: Path) -> np.ndarray:
    import cv2

    size_and_start(path)
    try:
        data = np.fromfile(path, np.uint8)
        if holds_several(data.data):
            raise UnreadableError(path, "several pictures in one file", "convert it to a video")
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except OSError as error:
        raise UnreadableError(path, error.strerror or "cannot be read") from error
    except cv2.error:
        image = None
    if image is None:
        raise UnreadableError(path, "cannot be decoded as an image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
