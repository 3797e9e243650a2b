"""Shards of crops, written unit by unit; what becomes of the footage is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from .. import console
from ..contract.errors import HandclrError
from ..contract.sample import Sample
from ..contract.units import Unit, Units, UnitWriter
from ..work.crew import WorkerLostError
from ..work.skips import warn_skipped
from .extraction import Skipped, balanced
from .frames import NothingReadError, Piece

LOST = "worker process lost"

Answers = Iterator[tuple[Piece, Iterator[list[Sample] | Skipped]]]


class CropShards:
    """Writes units of `answers`: each piece of footage in turn, with the crops of its frames.

    `draw` is the seed by which as many left as right hands are drawn for each shard, None where all
    are kept. `counts` is what became of the footage so far, and `lost` are the units of footage
    that a worker process ended over.
    """

    def __init__(
        self,
        units: Units,
        answers: Answers,
        advance: console.Advance,
        *,
        draw: int | None,
        strict: bool,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.lost: list[Unit] = []
        self._units, self._answers, self._advance = units, answers, advance
        self._draw, self._strict = draw, strict
        self._named: Counter[str] = Counter()
        self._crops = 0

    def write(self, unit: Unit) -> None:
        """Write the next unit; the answers must come in the order of the units.

        Raises HandclrError where none of the footage of a single file or stream can be read.
        """
        with self._units.write(unit) as writer:
            samples = self._samples(unit, writer)
            if self._draw is not None:
                samples = balanced(samples, self._draw)
            for sample in samples:
                writer.counts[sample.info["hand"]] += 1
                writer.write(sample)
            if not self._units.resumable and writer.skipped and not writer.counts["frames"]:
                raise NothingReadError
        self.counts += writer.counts

    def _samples(self, unit: Unit, writer: UnitWriter) -> Iterator[Sample]:
        """Yield the crops of a unit; frames, and what was skipped, are counted on the way."""
        for _ in unit.rows:
            piece, looks = next(self._answers)
            before = writer.counts["frames"]
            try:
                for look in looks:
                    if isinstance(look, Skipped):
                        self._skip(look, writer)
                        continue
                    writer.counts["frames"] += 1
                    writer.counts["no hand"] += not look
                    self._advance(1, crops=self._crops)
                    self._crops += len(look)
                    yield from look
            except WorkerLostError as error:
                line = f"{piece.footage.files[0]}: {error}"
                self._skip(Skipped(line, piece.footage.name, LOST), writer)
                self.lost.append(unit)
            # A video counts where it begins.
            writer.counts["videos"] += piece.start == 0 and writer.counts["frames"] > before

    def _skip(self, skipped: Skipped, writer: UnitWriter) -> None:
        if self._strict:
            raise HandclrError(skipped.line)
        writer.counts[skipped.reason] += 1
        writer.skipped.append(f"{skipped.name}: {skipped.reason}")
        # On the terminal; the shard names all.
        self._named[skipped.reason] += 1
        warn_skipped(skipped.line, self._named[skipped.reason])
