"""Which of the worker processes of a crew hang."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from .worker import Worker

# A worker without a pulse for so long hangs, while others have one. A step is a packet that is
# decoded, a look for hands, a file that is opened, and takes seconds at most; on a machine that is
# ten times as slow, or a disk that is a hundred times as slow, it takes minutes.
HANG_S = 600.0
# Where none has one, a server of files may be away, which is no film's fault and passes.
STALL_S = 1800.0
# A worker that starts loads its libraries, perhaps at the same time as a thousand others.
START_S = 1800.0
# The share of a limit that counts at once, at most: what was stopped together with its watch, or
# slept with the machine, gets another chance.
_SHARE = 0.1


class Watch:
    """Knows for how long each worker has had no pulse while it was waited for."""

    def __init__(self) -> None:
        self._before = time.monotonic()

    @property
    def tick_s(self) -> float:
        """How often to look at the workers, at least."""
        return _SHARE * min(HANG_S, STALL_S)

    def hanging(self, busy: Iterable[Worker], waited_for: Collection[Worker]) -> list[Worker]:
        """Those of the busy workers that hang.

        `waited_for` are those that would have been heard and have sent nothing. The others may be
        waiting themselves, until what they send is taken.
        """
        now = time.monotonic()
        passed = min(now - self._before, self.tick_s)
        self._before = now
        going = False
        for worker in busy:
            if worker.has_pulse() or worker not in waited_for:
                worker.silent_s = 0.0
            else:
                worker.silent_s += passed
            going = going or (worker.ready and worker.silent_s < 2 * self.tick_s)
        return [each for each in waited_for if each.silent_s >= _limit_s(each, going)]


def _limit_s(worker: Worker, others_go_on: bool) -> float:
    if not worker.ready:
        return START_S
    return HANG_S if others_go_on else STALL_S
