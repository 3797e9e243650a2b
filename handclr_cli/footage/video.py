"""Footage as a sequence of frames: videos through OpenCV, folders of images, single images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from .decoding import FALLBACK_FPS, read_header, read_video
from .finding import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_footage
from .frames import Footage, Frame, Header, OnSkip, Piece, Sampling, UnreadableError
from .images import chosen_images, image_pieces, read_images

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Footage",
    "Frame",
    "Header",
    "OnSkip",
    "Piece",
    "Sampling",
    "UnreadableError",
    "find_footage",
    "frames_of",
    "pieces",
    "read_frames",
    "read_piece",
]

# Long enough that a seek and what is decoded in vain before the slice cost little.
SLICE_S = 300.0
PIECE_IMAGES = 500
# Of a video whose header does not say how long it is: 2 Mbit/s.
_GUESSED_BYTES_PER_S = 250_000


def pieces(footage: Footage, sampling: Sampling) -> list[Piece]:
    """Cut one footage into the pieces that can be read on their own, in order.

    A video whose header promises more than SLICE_S seconds is cut into slices of that length if it
    is sampled by time, at no more than half its frame rate; folders of images are cut into pieces
    of PIECE_IMAGES. Opens the video, unless it is sampled by numbers. What cannot be opened is one
    piece: reading it names the reason.
    """
    if not footage.is_video:
        return image_pieces(footage, PIECE_IMAGES)
    if sampling.numbers is not None:
        return [Piece(footage)]
    header = read_header(footage.files[0])
    if sampling.every:
        return [Piece(footage, header=header)]
    edges = [0.0, *_edges(header, sampling.fps), math.inf]
    return [Piece(footage, start, end, header) for start, end in itertools.pairwise(edges)]


def frames_of(piece: Piece, sampling: Sampling) -> int:
    """Estimate how many frames `read_piece` will yield, from the header alone; 0 where it cannot be
    opened.
    """
    if not piece.footage.is_video:
        return len(chosen_images(piece, sampling))
    if sampling.numbers is not None:
        return len(set(sampling.numbers))
    header = piece.header or read_header(piece.footage.files[0])
    seconds = header.duration_s or header.size / _GUESSED_BYTES_PER_S
    fps = header.fps or FALLBACK_FPS
    if sampling.every:
        return math.ceil((header.frames or seconds * fps) / sampling.every)
    stretch = max(0.0, min(piece.end, seconds) - piece.start)
    return max(1, round(stretch * min(sampling.fps, fps))) if seconds else 0


def read_piece(piece: Piece, sampling: Sampling, on_skip: OnSkip) -> Iterator[Frame]:
    """Decode a piece in order and yield the sampled frames; what cannot be decoded is handed to
    `on_skip`.

    The pieces of a footage together yield the frames that one reading of all of it chooses. A
    frame's number is the count of the frames decoded before it. In a video of several pieces, where
    nobody can count, it is in all of them the time since the first frame times the nominal frame
    rate, rounded, and at least one more than the number before: at a constant rate the same. No two
    frames of a video have one number.
    """
    if not piece.footage.is_video:
        yield from read_images(piece, sampling, on_skip)
        return
    try:
        yield from read_video(piece, sampling, on_skip)
    except UnreadableError as error:
        on_skip(error)


def read_frames(footage: Footage, sampling: Sampling, on_skip: OnSkip) -> Iterator[Frame]:
    """Decode all pieces of a footage in order, as `read_piece` does."""
    for piece in pieces(footage, sampling):
        yield from read_piece(piece, sampling, on_skip)


def _edges(header: Header, fps: float) -> list[float]:
    """Where to cut: past the middle of a sampling interval, half-way between two frames of a
    constant rate.

    There, what rounding does to times moves no frame to the other side; and as an interval has two
    numbers or more, the one frame chosen between its start and the cut always has one left.
    """
    if not header.exact or 2 * fps > header.fps:
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
