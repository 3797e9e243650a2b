"""How long and how fast to train, and in which order the rows come."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .. import console
from ..contract.errors import HandclrError, UsageError
from .distributed import Ranks
from .threads import ONE, Threads

Row = tuple[int, int]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    samples: rows to train on. batch: rows in a batch of all processes together; in each epoch, the
    rows that do not fill a batch are left out. images: how many each row shows. lr: the peak rate.
    threads: those that compute on a processor. deadline: when to stop as on SIGTERM, in seconds of
    `time.monotonic`. trial: on a processor, what to ask for instead to try a training that takes
    hours, in words; empty elsewhere.
    """

    samples: int
    batch: int
    epochs: int
    lr: float
    warmup_epochs: float
    seed: int
    save_every: int = 500
    workers: int = 0
    threads: Threads = ONE
    images: int = 1
    deadline: float = math.inf
    trial: str = ""

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
    """Batches of (epoch, row) from a given step to the end of the run.

    Each epoch has a seeded order of its own. The epoch travels with the row, so that a data set can
    draw an augmentation from (seed, epoch, row) alone: the result depends neither on the workers
    nor on where a run was interrupted. Each process takes its share of every batch.
    """

    def __init__(self, schedule: Schedule, first_step: int, ranks: Ranks = Ranks()) -> None:  # noqa: B008
        self.schedule, self.first_step = schedule, first_step
        self.share = ranks.share(schedule.batch)

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


def batch_within(batch: int, rows: int, noun: str, parts: int = 1, left: str = "") -> int:
    """The batch size, cut to the rows there are, for `parts` equal parts.

    `left` says of what and by which settings so many rows are left, where it is so. Raises
    HandclrError where a part would have fewer than two rows, UsageError where they cannot be
    equal.
    """
    most = rows - rows % parts
    if most < 2 * parts:
        apart = f" in {parts} parts" if parts > 1 else ""
        where = f"left {left}" if left else "in the input"
        few = f"{console.plural(rows, noun)} {where}: too few to train on{apart}"
        if not rows:
            raise HandclrError(f"{few}; did handclr extract find a hand?")
        more = "leave more, or add shards" if left else "add shards"
        raise HandclrError(f"{few}; {more}, for at least {2 * parts}")
    if batch % parts or batch < 2 * parts:
        uneven = f"cannot be cut into {parts} equal parts of two or more"
        raise UsageError(uneven, setting="batch")
    if batch > most:
        console.warn(f"only {console.plural(rows, noun)}: the batch of {batch} is cut to {most}")
    return min(batch, most)


def warmup_within(asked: float | None, epochs: int) -> float:
    """The epochs of warm-up: as asked, else a tenth of all (the published 10 of 100).

    Raises UsageError where nothing would be left after it.
    """
    if asked is not None and asked >= epochs:
        raise UsageError(
            f"must be less than the {epochs} epochs of the run", setting="warmup_epochs"
        )
    return epochs / 10 if asked is None else asked


def warmup_cosine(step: int, total: int, warmup: int, base: float) -> float:
    """The learning rate of a step: linear to `base` at warmup-1, then a cosine to 0 at `total`.

    The first step, 0, has the rate base/warmup, and not 0 as in PeCLR, where it changes nothing.
    """
    if step < warmup:
        return base * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    return base * 0.5 * (1.0 + math.cos(math.pi * progress))
