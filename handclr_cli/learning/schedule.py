"""How long and how fast to train, and in which order the rows come."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .. import console
from ..contract.errors import HandclrError, UsageError
from .distributed import Ranks
from .optim import warmup_cosine

Row = tuple[int, int]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; a batch is `batch` of `samples` rows, what is left over is
    dropped.

    A batch is that of all processes together, each of its rows shows `images` images. time_limit:
    seconds after which to stop as on SIGTERM.
    """

    samples: int
    batch: int
    epochs: int
    lr: float
    warmup_epochs: float
    seed: int
    save_every: int = 500
    workers: int = 0
    images: int = 1
    time_limit: float = math.inf

    @property
    def epoch_steps(self) -> int:
        return self.samples // self.batch

    @property
    def steps(self) -> int:
        return self.epoch_steps * self.epochs

    def lr_at(self, step: int) -> float:
        """Warm-up, then cosine."""
        return warmup_cosine(
            step, self.steps, round(self.warmup_epochs * self.epoch_steps), self.lr
        )


class EpochBatches:
    """Batches of (epoch, row) from a given step to the end of the run, each epoch in a seeded order
    of its own.

    The epoch travels with the row, so that a data set can draw an augmentation from (seed, epoch,
    row) alone and the result depends neither on the workers nor on where a run was interrupted.
    Each process takes its share of every batch.
    """

    def __init__(self, schedule: Schedule, first_step: int, ranks: Ranks = Ranks()) -> None:  # noqa: B008
        self.schedule, self.first_step, self.share = (
            schedule,
            first_step,
            ranks.share(schedule.batch),
        )

    def __iter__(self) -> Iterator[list[Row]]:
        plan = self.schedule
        for epoch in range(self.first_step // plan.epoch_steps, plan.epochs):
            order = np.random.default_rng([plan.seed, epoch]).permutation(plan.samples)
            skip = max(0, self.first_step - epoch * plan.epoch_steps)
            for index in range(skip, plan.epoch_steps):
                rows = order[index * plan.batch : (index + 1) * plan.batch][self.share]
                yield [(epoch, row) for row in rows.tolist()]

    def __len__(self) -> int:
        return self.schedule.steps - self.first_step


def batch_within(batch: int, rows: int, noun: str, parts: int = 1) -> int:
    """The batch size, cut to the rows there are, for `parts` equal parts.

    Raises HandclrError where a part would have less than two rows, UsageError where they cannot be
    equal.
    """
    most = rows - rows % parts
    if most < 2 * parts:
        raise HandclrError(
            f"{rows} {noun} in the input: too few to train on{f' in {parts} parts' * (parts > 1)}"
        )
    if batch % parts or batch < 2 * parts:
        raise UsageError(f"--batch {batch}: cannot be cut into {parts} equal parts of two or more")
    if batch > most:
        console.warn(f"only {rows} {noun}: --batch {batch} is cut to {most}")
    return min(batch, most)


def warmup_within(asked: float | None, epochs: int) -> float:
    """The warm-up, a tenth of the epochs (the published 10 of 100); raises UsageError where it is
    the whole run.
    """
    if asked is not None and asked >= epochs:
        raise UsageError(f"--warmup-epochs {asked:g}: must be less than --epochs {epochs}")
    return epochs / 10 if asked is None else asked
