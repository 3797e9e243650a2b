"""How a training ends before its schedule does: between two steps, in all processes alike."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from ..contract.errors import HandclrError, Interrupted, Preempted
from ..work.ending import answered
from .distributed import Ranks

# What a process tells the others before each step; of several the greatest counts.
_GOES_ON, _STOPS, _FAILS = range(3)


class HeardError(BaseException):
    """The wait for a batch is over without one; no reader of crops may take it for its own."""


class StoppedError(Exception):
    """The training ends after the step before, whose state is whole, by `error`."""

    def __init__(self, error: HandclrError) -> None:
        super().__init__(str(error))
        self.error = error


class Stop:
    """Notes SIGTERM, Ctrl-C and the end of the time, for the loop to save and stop.

    The time ends at `deadline`, in seconds of `time.monotonic`. Nothing is saved in the handler
    itself. A second Ctrl-C interrupts at once.
    """

    def __init__(self, deadline: float, ranks: Ranks = Ranks()) -> None:  # noqa: B008
        self.reason = ""
        self.error: type[HandclrError] = Preempted
        self._ranks = ranks
        self._deadline = deadline
        self._waiting = self._stepped = False

    def __enter__(self) -> Stop:
        # A shell lets its background jobs ignore Ctrl-C.
        older = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
        self._older = {one: handler for one, handler in older.items() if handler != signal.SIG_IGN}
        for number in self._older:
            signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._older.items():
            signal.signal(number, handler)

    def requested(self) -> bool:
        """Whether this process is to stop."""
        if not self.reason and time.monotonic() > self._deadline:
            self.reason = "at the time limit"
        return bool(self.reason)

    def look(self) -> None:
        """Raise HeardError where a wait for a batch is to end."""
        if self.reason or (self._stepped and self.requested()):
            raise HeardError

    def between(self, batches: Iterable[Any], count: int) -> Iterator[Any]:
        """The first batches, a step each, until one of the processes is to stop or gets none.

        All processes end after the same step: each is asked when it has its batch, or waits for
        none. Raises StoppedError.
        """
        iterator = iter(batches)
        for _ in range(count):
            # A training that is given too little time, over and over, makes a step each time.
            if self._stepped and self.requested():
                batch, state = None, _STOPS
            else:
                batch, state = self._next(iterator)
            together = self._ranks.most(max(state, _STOPS if self.reason else _GOES_ON))
            if together != _GOES_ON:
                raise StoppedError(self._end(batch if state == _FAILS else None, together))
            yield batch
            self._stepped = True

    def _next(self, iterator: Iterator[Any]) -> tuple[Any, int]:
        """A batch, or the error of who loads it, and what to tell the others."""
        try:
            self._waiting = True
            try:
                return next(iterator), _GOES_ON
            finally:
                self._waiting = False
        except HeardError:
            return None, _STOPS
        except HandclrError as error:
            return error, _FAILS

    def _end(self, failure: HandclrError | None, together: int) -> HandclrError:
        if failure is not None:
            return failure
        if together == _FAILS:
            lost = "another process of this training gets no crops; what it printed tells why"
            return HandclrError(lost)
        return self.error(f"stopped {self.reason or 'with another process'}")

    def _note(self, number: int, frame: FrameType | None) -> None:
        answered(number)
        self.reason = "by SIGTERM"
        if number == signal.SIGINT:
            self.reason, self.error = "by Ctrl-C", Interrupted
            signal.signal(number, self._older[signal.SIGINT])
        if self._waiting:
            self._waiting = False
            raise HeardError


@contextlib.contextmanager
def saved_when_stopped(save: Callable[[], int]) -> Iterator[None]:
    """Let `save`, which returns the step of what is saved, be called where a block is stopped.

    What the training ends by says so.
    """
    try:
        yield
    except StoppedError as stopped:
        error = stopped.error
    else:
        return
    saved = f"saved at step {save():,}; run the same command again to go on"
    mark = ", " if isinstance(error, Preempted | Interrupted) else "; "
    error.args = (f"{error.line()}{mark}{saved}",)
    raise error
