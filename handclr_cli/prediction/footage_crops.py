"""The crops of the hands in footage, found as `handclr extract` finds them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence

from .. import console
from ..contract.errors import HandclrError
from ..contract.sample import Sample
from ..footage.extraction import (
    FRAMES_PER_PROCESS,
    FRAMES_PER_WORKER,
    Extraction,
    Skipped,
)
from ..footage.frames import Footage, NothingReadError, Sampling
from ..footage.plan import pieces_of
from ..work import cores
from ..work.crew import Crew, WorkerLostError
from ..work.skips import warn_skipped


class FootageCrops:
    """Finds the hands of footage, a frame after the other, by `workers` processes.

    `counts` is what became of it: "frames" and, by the reason, inputs that were skipped. `read` are
    the names of footage of which some frame was read; `seconds` and `processes` say how long it
    took and with how many.
    """

    def __init__(
        self, footage: Sequence[Footage], sampling: Sampling, work: Extraction, strict: bool
    ) -> None:
        self.footage, self.sampling = footage, sampling
        self.counts: Counter[str] = Counter()
        self.read: set[str] = set()
        self.seconds, self.processes = 0.0, 1
        self._work, self._strict = work, strict

    @property
    def skipped(self) -> int:
        """How many inputs were skipped."""
        return self.counts.total() - self.counts["frames"]

    def samples(self, workers: int | None) -> Iterator[Sample]:
        """Yield the crops in the order of the footage, the same for any number of processes.

        Raises HandclrError where none of the footage can be read or, if strict, for the first that
        cannot.
        """
        begin = time.monotonic()
        pieces = pieces_of(self.footage, self.sampling)
        frames = [piece.frames for piece in pieces]
        chosen = cores.finder_count(workers, sum(frames), FRAMES_PER_WORKER)
        self.processes = max(1, min(chosen, len(pieces)))
        hands = 0
        with (
            Crew(self._work, chosen, FRAMES_PER_PROCESS) as crew,
            console.progress("predict", sum(frames), "frames") as advance,
        ):
            for piece, looks in crew.answers(pieces, frames):
                for crops in self._looks(piece.footage, looks):
                    hands += len(crops)
                    advance(1, hands=hands)
                    yield from crops
        self.seconds = time.monotonic() - begin
        if self.skipped and not self.read:
            raise NothingReadError

    def _looks(
        self, footage: Footage, looks: Iterator[list[Sample] | Skipped]
    ) -> Iterator[list[Sample]]:
        """Yield the crops of each frame; what was skipped is named and counted."""
        try:
            for look in looks:
                if isinstance(look, Skipped):
                    self._skip(look.line, look.reason)
                else:
                    self.counts["frames"] += 1
                    self.read.add(footage.name)
                    yield look
        except WorkerLostError as error:
            self._skip(f"{footage.files[0]}: {error}", "worker process lost")

    def _skip(self, line: str, reason: str) -> None:
        if self._strict:
            raise HandclrError(line)
        self.counts[reason] += 1
        warn_skipped(line, self.counts[reason])
