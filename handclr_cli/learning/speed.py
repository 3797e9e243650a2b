"""What is said of a training's speed, each once: how long it will take, and that it became slow."""

from __future__ import annotations

import time
from collections import deque
from statistics import median

from .. import console
from .schedule import Schedule

# A training that takes longer on a processor is announced, once its speed is known.
LONG_S = 3600.0
# The speed of the first minutes is what the later speed is compared with.
FIRST_S = 120.0
LATER_S = 60.0
# Two threads beside a busy process on two cores keep two fifths; a fair share is two thirds.
SLOW = 0.5


class Speed:
    """Notes how fast steps are made, and says what follows from it.

    `threads` are those that compute; 0 where a GPU does.
    """

    def __init__(self, label: str, schedule: Schedule, threads: int) -> None:
        self.label, self.schedule, self.threads = label, schedule, threads
        self._notes = 0
        self._first: list[float] = []
        self._later: deque[tuple[float, float]] = deque()
        self._begin = 0.0
        self._said = False

    def note(self, step: int, images: int, seconds: float) -> float:
        """So many images were shown in so many seconds, up to this step; returns the rate.

        The first ones count for nothing: loading and tuning delay them.
        """
        rate, now = images / max(seconds, 1e-9), time.monotonic()
        self._notes += 1
        if self._notes == 1:
            self._begin = now
        elif now - self._begin <= FIRST_S:
            self._first.append(rate)
        elif self._first and not self._said:
            self._compare(rate, now)
        if self._notes == 2:
            self._announce(step, rate)
        return rate

    def _announce(self, step: int, rate: float) -> None:
        """Say how long the rest takes, where that is long on a processor."""
        images = (self.schedule.steps - step) * self.schedule.batch * self.schedule.images
        if self.schedule.trial and images / rate > LONG_S:
            about = f"about {duration(images / rate)} on this processor"
            console.say(f"{self.label}: {about}; to try it: {self.schedule.trial}")

    def _compare(self, rate: float, now: float) -> None:
        """Say so where the rate of the last minute is a fraction of the first ones.

        Medians, so that a moment in which everything was stopped does not count.
        """
        self._later.append((now, rate))
        if now - self._later[0][0] < LATER_S:
            return
        first, later = median(self._first), median(each for _, each in self._later)
        self._later.popleft()
        if later > SLOW * first:
            return
        self._said = True
        slower = f"{later:,.0f} images/s, and {first:,.0f} in the first minutes"
        advice = "do other programs use this machine?"
        if self.threads > 1:
            fewer = console.called("threads", self.threads // 2)
            advice = f"beside other programs fewer threads are quicker: run it again with {fewer}"
        console.warn(f"{self.label}: {slower}; {advice}")


def duration(seconds: float) -> str:
    """More than an hour in words, roughly: `7 h`, `3 days`."""
    hours = seconds / 3600
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
