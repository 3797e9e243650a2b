"""The time of each frame of a video, from the time stamps that its container gives."""

from __future__ import annotations

# What a repeated time stamp is moved on by; times are kept to four digits.
NUDGE_S = 1e-4
# Stamps that step back further begin anew, as where two streams were joined.
STEP_BACK_S = 1.0
# So many frames that do not get on make no clock.
STUCK = 30


class Clock:
    """Turns time stamps into times since the first frame that increase from frame to frame.

    Where stamps increase, the times are theirs. A repeated one, or one a little earlier than that
    before, is moved on by NUDGE_S, and what comes after is not. After a long step back, where there
    are no stamps, and where they stand still, time goes on by `period_s` a frame.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.time_s: float | None = None
        self._shift = 0.0
        self._nudged = 0

    def tell(self, stamp_s: float | None) -> float:
        """The time in seconds of the next frame, by its stamp in seconds, which may be missing."""
        before = self.time_s
        if before is None:
            self._shift = -(stamp_s or 0.0)
            self.time_s = 0.0
        else:
            self.time_s = self._after(before, stamp_s)
        return self.time_s

    def move_to(self, stamp_s: float | None) -> float | None:
        """Forget the frame before; the time of the one found by a seek, None where it has none."""
        self._nudged = 0
        self.time_s = None if stamp_s is None else stamp_s + self._shift
        return self.time_s

    def begin_again(self) -> None:
        """Forget everything: the next frame is the first."""
        self.time_s, self._shift, self._nudged = None, 0.0, 0

    def _after(self, before: float, stamp_s: float | None) -> float:
        if stamp_s is None:
            return before + self.period_s
        now = stamp_s + self._shift
        if now > before:
            self._nudged = 0
            return now
        self._nudged += 1
        if before - now < STEP_BACK_S and self._nudged < STUCK:
            return before + NUDGE_S
        self._shift += before + self.period_s - now
        return before + self.period_s
