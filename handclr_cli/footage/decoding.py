"""The frames of one video, or of a stretch of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from .frames import Frame, Header, OnSkip, Piece, Sampling, UnreadableError
from .roll import Roll, opened

PROMISE_KEPT = 0.9
# Where a video of constant frame rate has lost frames, few of its intervals are longer: at most
# this many, and this share, of at least so many frames. A variable rate has many.
_FEW = (3, 0.02)
_TELLING = 50
_LEAST_LOST_S = 1.0
# Matroska's and Flash's times are cut to milliseconds.
_TIME_UNIT_S = 0.001
# So many of the frames that failed are named.
_NAMED = 5


def read_header(path: Path) -> Header:
    """Read the header of a video; Header() where it cannot be opened."""
    try:
        with opened(path) as roll:
            return roll.header._replace(exact=roll.seeks_exactly())
    except UnreadableError:
        return Header()


def read_video(piece: Piece, on_skip: OnSkip) -> Iterator[Frame]:
    """Decode a stretch of a video and yield the sampled frames; pass what is missing to `on_skip`.

    Frames come as a player shows them: turned and mirrored as the container says, in square pixels,
    without the lines of another moment. Raises UnreadableError where the video cannot be opened, or
    holds no frame.
    """
    with opened(piece.footage.files[0]) as roll:
        failed: list[int] = []
        yield from _sampled(roll, piece, failed)
        if failed:
            on_skip(_unconverted(roll.path, failed))
        if roll.ended and (error := _missing(roll, piece, len(failed))):
            on_skip(error)


def _sampled(roll: Roll, piece: Piece, failed: list[int]) -> Iterator[Frame]:
    import av

    if not roll.forward():
        raise UnreadableError(roll.path, "no frame can be decoded")
    if piece.start > 0:
        roll.to_before(piece.start)
    chosen, number_of = _chooser(piece.sampling), _numberer(piece, roll)
    numbers = piece.sampling.numbers
    last = math.inf if numbers is None else max(numbers, default=-1)
    going = True
    while going and roll.time_s < piece.end:
        # It must see all frames, also those before the start: it compares each with the one before.
        if chosen(roll.count, roll.time_s) and roll.time_s >= piece.start:
            number = number_of()
            try:
                yield Frame(number, round(roll.time_s, 4), roll.image())
            except av.FFmpegError:
                failed.append(number)
        going = roll.count < last and roll.forward()


def _chooser(sampling: Sampling) -> Callable[[int, float], bool]:
    """A function that tells of each frame in turn, by its count and time, whether it is sampled."""
    if sampling.numbers is not None:
        wanted = frozenset(sampling.numbers)
        return lambda count, time_s: count in wanted
    ticks = -1

    def choose(count: int, time_s: float) -> bool:
        nonlocal ticks
        before = ticks
        if sampling.every:
            tick = count // sampling.every
        else:
            tick = int((time_s + _TIME_UNIT_S) * sampling.fps)
        ticks = max(before, tick)
        return ticks > before

    return choose


def _numberer(piece: Piece, roll: Roll) -> Callable[[], int]:
    """A function that numbers the frame last read: by count, in a cut video by time."""
    if not piece.cut:
        return lambda: roll.count
    last = -1

    def number() -> int:
        nonlocal last
        last = max(last + 1, round(roll.time_s * roll.fps))
        return last

    return number


def _unconverted(path: Path, numbers: list[int]) -> UnreadableError:
    named = ", ".join(f"{number:,}" for number in numbers[:_NAMED])
    more = f" and {len(numbers) - _NAMED:,} more" if len(numbers) > _NAMED else ""
    return UnreadableError(path, "frames cannot be converted", named + more)


def _missing(roll: Roll, piece: Piece, failed: int) -> UnreadableError | None:
    """What is wrong with a video that was read to its end; None where it holds what it should."""
    if piece.start and roll.time_s < piece.start:
        # The piece in which the video ended has said so.
        return None
    if detail := _cut_short(roll, piece):
        return UnreadableError(roll.path, "truncated or damaged", detail)
    if _has_gap(roll):
        return UnreadableError(roll.path, "a long stretch without frames", f"{roll.lost_s:,.1f} s")
    if piece.sampling.numbers is not None:
        missing = len(set(piece.sampling.numbers)) - roll.taken - failed
        reason = "requested frames are missing from the video"
        return UnreadableError(roll.path, reason, f"{missing:,}") if missing else None
    if roll.taken or failed or piece.cut:
        return None
    return UnreadableError(roll.path, "no frame can be decoded")


def _cut_short(roll: Roll, piece: Piece) -> str:
    """How much of what the header promises could be decoded, where that is too little."""
    header, frames, reached = roll.header, roll.count + 1, roll.reached_s
    if header.stated and reached < PROMISE_KEPT * header.duration_s:
        return f"{reached:,.1f} of {header.duration_s:,.1f} s can be decoded"
    if header.counted and not piece.cut and frames < PROMISE_KEPT * header.frames:
        return f"{frames:,} of {header.frames:,} frames can be decoded"
    return ""


def _has_gap(roll: Roll) -> bool:
    """Whether a video of constant frame rate lacks the frames of a long time."""
    frames, read_s = roll.count + 1, roll.reached_s - roll.begin
    few = roll.jumps <= _FEW[0] + _FEW[1] * frames and frames >= _TELLING and roll.header.fps > 0
    return few and roll.lost_s > max((1 - PROMISE_KEPT) * read_s, _LEAST_LOST_S)
