"""Footage as a sequence of frames: cut into pieces that are read one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

from .decoding import read_header, read_video
from .frames import (
    Footage,
    FootageDetections,
    Frame,
    Header,
    OnSkip,
    Piece,
    Sampling,
    UnreadableError,
)
from .images import image_pieces, read_images
from .kinds import refuse_unread
from .roll import FALLBACK_FPS

# So long that the seek, and the frames decoded before the slice begins, cost little.
SLICE_S = 300.0
PIECE_IMAGES = 500
# Of a video whose header does not say how long it is: 2 Mbit/s.
_GUESSED_BYTES_PER_S = 250_000


def pieces(
    footage: Footage,
    sampling: Sampling,
    boxes: FootageDetections | None = None,
    header: Header | None = None,
) -> list[Piece]:
    """Cut one footage into the pieces that can be read on their own, in order.

    A video whose header promises more than SLICE_S seconds is cut into slices of that length if it
    is sampled by time, at no more than half its frame rate; folders of images are cut into pieces
    of PIECE_IMAGES. Where `boxes` are given, the frames that have some are looked at, whatever the
    sampling says, and each piece holds its own. The video is opened, unless it is sampled by
    numbers or its `header` is given. A video that cannot be opened is one piece: reading it names
    the reason.
    """
    if boxes is not None:
        sampling = replace(sampling, numbers=boxes.numbers)
    if not footage.is_video:
        return image_pieces(footage, sampling, boxes, PIECE_IMAGES)
    if sampling.numbers is not None:
        return [Piece(footage, sampling, frames=len(set(sampling.numbers)), boxes=boxes)]
    if header is None:
        header = read_header(footage.files[0])
    edges = [0.0, *_edges(header, sampling), math.inf]
    found = []
    for start, end in itertools.pairwise(edges):
        frames = _estimate(header, sampling, start, end)
        found.append(Piece(footage, sampling, start, end, header, frames=frames))
    return found


def read_piece(piece: Piece, on_skip: OnSkip) -> Iterator[Frame]:
    """Decode a piece in order and yield the sampled frames.

    What cannot be decoded is passed to `on_skip`. The pieces of a footage together yield the frames
    that one reading of all of it chooses.

    A frame's number is the count of the frames decoded before it. In a video of several pieces the
    number is, because seeking does not count frames, the time since the first frame times the
    nominal frame rate, rounded, and at least one more than the number before: at a constant rate
    the same. No two frames of a video have the same number.
    """
    if not piece.footage.is_video:
        yield from read_images(piece, on_skip)
        return
    try:
        refuse_unread(piece.footage.files[0])
        yield from read_video(piece, on_skip)
    except UnreadableError as error:
        on_skip(error)


def read_frames(footage: Footage, sampling: Sampling, on_skip: OnSkip) -> Iterator[Frame]:
    """Decode all pieces of a footage in order, as `read_piece` does."""
    for piece in pieces(footage, sampling):
        yield from read_piece(piece, on_skip)


def _estimate(header: Header, sampling: Sampling, start: float, end: float) -> int:
    """About how many frames a stretch of a video has to look at, told from the header alone.

    0 where the video cannot be opened.
    """
    seconds = header.duration_s or header.size / _GUESSED_BYTES_PER_S
    fps = header.fps or FALLBACK_FPS
    if sampling.every:
        return math.ceil((header.frames or seconds * fps) / sampling.every)
    stretch = max(0.0, min(end, seconds) - start)
    return max(1, round(stretch * min(sampling.fps, fps))) if seconds else 0


def _edges(header: Header, sampling: Sampling) -> list[float]:
    """Where to cut a video, in seconds.

    A cut is past the middle of a sampling interval, half-way between two frames of a constant rate.
    There, rounded times move no frame to the other side; and as an interval has two frame numbers
    or more, the one frame chosen between its start and the cut always has one left.
    """
    fps = sampling.fps
    if sampling.every or not header.exact or 2 * fps > header.fps:
        return []
    intervals = max(1, round(SLICE_S * fps))
    edges: list[float] = []
    while header.duration_s > SLICE_S:
        middle = ((len(edges) + 1) * intervals + 0.5) / fps
        edge = (math.ceil(middle * header.fps - 0.5) + 0.5) / header.fps
        if edge >= header.duration_s:
            break
        edges.append(edge)
    return edges
