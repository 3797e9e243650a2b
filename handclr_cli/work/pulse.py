"""The pulse of a worker process, which tells slow work from work that hangs.

A result may be hours of decoding away from the one before, so the work says at each of its steps
that it goes on: a packet of a video, a look for hands, a file. A step takes seconds at most.
"""

from __future__ import annotations

from typing import Any


class _State:
    """A counter in memory that a worker process shares with its crew; None in other processes."""

    beats: Any = None


def begin(beats: Any) -> None:
    """Let this process count its steps in a ctypes integer that another one looks at."""
    _State.beats = beats


def beat() -> None:
    """Say that the work goes on; of two threads that do so at once, one may not be counted."""
    if _State.beats is not None:
        _State.beats.value += 1
