"""From a decoded frame to the picture that a player shows: upright, square pixels, whole lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# How far a matrix may be from a turn by quarters, and a mirror image, to be taken for one.
_TOLERANCE = 0.01


class Display:
    """Makes of the frames of one video what a player shows of them.

    size: width and height in square pixels of what is stored, before it is turned.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        from av.video.reformatter import VideoReformatter

        self._size, self._scaler = size, VideoReformatter()
        self._matrix: np.ndarray | None = None
        self._looked = False

    def image(self, frame: Any) -> np.ndarray:
        """The pixels of an av.VideoFrame, uint8 (H, W, 3) RGB.

        Raises av.FFmpegError where it cannot be converted.
        """
        if not self._looked:
            # Once: each frame that is asked for it is kept until garbage is collected.
            self._matrix, self._looked = _display_matrix(frame), True
        flat = self._scaler.reformat(
            frame, *self._size, format="rgb24", interpolation="BICUBIC", threads=1
        )
        image = flat.to_ndarray()
        return image if self._matrix is None else upright(image, self._matrix)


def whole(frames: Sequence[Any], place: int) -> Any:
    """The frame at `place` with the lines between those of one of its two fields filled in.

    frames: av.VideoFrames as they follow each other; those beside the place show what moves.
    """
    import av

    frame = frames[place]
    alike = [other for other in frames if _kind(other) == _kind(frame)]
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    graph.link_nodes(
        source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    ).configure()
    for other in (*alike, None):
        graph.push(other)
    for _ in range(alike.index(frame)):
        graph.pull()
    return graph.pull()


def upright(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a display matrix to an image: turn and mirror it; what it scales by is left out.

    matrix: (3, 3), of ISO 14496-12: [x, y, 1] of what is stored, times it, is what is shown.
    """
    axes = np.asarray(matrix, float)[:2, :2].T
    lengths = np.hypot(*axes)
    if not lengths.min() > 0:
        return image
    axes = axes / lengths
    if abs(np.linalg.det(axes)) < _TOLERANCE:
        return image
    quarters = np.rint(axes)
    if np.abs(axes - quarters).max() > _TOLERANCE:
        return _turned(image, axes)
    if quarters[0, 0] == 0:
        image = image.swapaxes(0, 1)
    right, down = quarters.sum(axis=1).astype(int)
    return np.ascontiguousarray(image[::down, ::right])


def _turned(image: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """The image along other axes, on a canvas that holds all of it; black beside it."""
    import cv2

    height, width = image.shape[:2]
    corners = axes @ np.array([[0, width, width, 0], [0, 0, height, height]], float)
    low, high = corners.min(axis=1), corners.max(axis=1)
    columns, rows = np.maximum(1, np.rint(high - low).astype(int)).tolist()
    return cv2.warpAffine(image, np.column_stack([axes, -low]), (columns, rows))


def _kind(frame: Any) -> tuple[int, int, str]:
    return frame.width, frame.height, frame.format.name


def _display_matrix(frame: Any) -> np.ndarray | None:
    from av.sidedata.sidedata import Type

    found = frame.side_data.get(Type.DISPLAYMATRIX)
    return None if found is None else np.frombuffer(found, np.int32)[:9].reshape(3, 3).copy()
