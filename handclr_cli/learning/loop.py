"""The training loop of pretrain and finetune: seeded, resumable at any step, stopped politely by signals."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..console import progress
from ..contract.errors import HandclrError, Interrupted, Preempted
from .distributed import Ranks
from .hardware import ahead
from .loading import batches
from .optim import warmup_cosine
from .run import Run

FLUSH_INTERVAL_S = 2.0
EPOCH_SAVE_INTERVAL_S = 10.0
# An end of an epoch is saved where that costs at most this part of the time since the last save.
SAVE_SHARE = 0.02
Row = tuple[int, int]
Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train; a batch is `batch` of `samples` rows, what is left over is dropped.

    A batch is that of all processes together, each of its rows shows `images` images. time_limit: seconds after
    which to stop as on SIGTERM.
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
        return warmup_cosine(step, self.steps, round(self.warmup_epochs * self.epoch_steps), self.lr)


class EpochBatches:
    """Batches of (epoch, row) from a given step to the end of the run, each epoch in a seeded order of its own.

    The epoch travels with the row, so that a data set can draw an augmentation from (seed, epoch, row) alone
    and the result depends neither on the workers nor on where a run was interrupted. Each process takes its share
    of every batch.
    """

    def __init__(self, plan: Plan, first_step: int, ranks: Ranks = Ranks()) -> None:  # noqa: B008
        self.plan, self.first_step, self.share = plan, first_step, ranks.share(plan.batch)

    def __iter__(self) -> Iterator[list[Row]]:
        plan = self.plan
        for epoch in range(self.first_step // plan.epoch_steps, plan.epochs):
            order = np.random.default_rng([plan.seed, epoch]).permutation(plan.samples)
            skip = max(0, self.first_step - epoch * plan.epoch_steps)
            for index in range(skip, plan.epoch_steps):
                rows = order[index * plan.batch : (index + 1) * plan.batch][self.share]
                yield [(epoch, row) for row in rows.tolist()]

    def __len__(self) -> int:
        return self.plan.steps - self.first_step


class Stop:
    """Notes SIGTERM, Ctrl-C and the end of the time; saving happens in the loop, never in the handler.

    A second Ctrl-C interrupts at once.
    """

    def __init__(self, time_limit: float) -> None:
        self.reason = ""
        self.error: type[HandclrError] = Preempted
        self._deadline = time.monotonic() + time_limit

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

    def requested(self, ranks: Ranks) -> bool:
        """Whether to stop, which all processes answer alike."""
        if not self.reason and time.monotonic() > self._deadline:
            self.reason = "at the time limit"
        return ranks.any(bool(self.reason))

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.reason = "by SIGTERM"
        if number == signal.SIGINT:
            self.reason, self.error = "by Ctrl-C", Interrupted
            signal.signal(number, self._older[signal.SIGINT])


def train(
    run: Run,
    label: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset[Any],
    collate: Callable[[list[Any]], Any],
    differentiate: Callable[[Any], Losses],
    plan: Plan,
    device: torch.device,
    ranks: Ranks = Ranks(),  # noqa: B008
    examine: Callable[[int], Losses] = lambda epoch: {},
    before_save: Callable[[], None] = lambda: None,
) -> None:
    """Train `model` from the run's last save to the end of the plan.

    `differentiate(batch)` leaves the gradients of the loss in the model and returns scalars to log, among them
    "loss". `examine(epoch)` is asked at the end of each epoch for others. `before_save()` may write what belongs to
    the state that is saved next. With the state saved, raises Preempted after SIGTERM or at the time limit, Interrupted
    after Ctrl-C.
    """
    step = _resume(run, model, optimizer)
    if step == plan.steps:
        return
    model.train()
    recorder, saved, pause = _Recorder(run, plan, ranks), time.monotonic(), EPOCH_SAVE_INTERVAL_S
    with (
        Stop(plan.time_limit) as stop,
        progress(label, plan.steps, "steps", step) as advance,
        batches(dataset, EpochBatches(plan, step, ranks), collate, plan.workers, device) as loaded,
    ):
        for batch in ahead(loaded, device):
            lr = plan.lr_at(step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            losses = differentiate(batch)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            advance(1, **recorder.add(step, lr, losses))
            epoch, rest = divmod(step, plan.epoch_steps)
            if not rest and (found := examine(epoch)):
                recorder.note(step, epoch - 1, found)
            stopping = stop.requested(ranks)
            now = time.monotonic()
            epoch_ends = not rest and now - saved > pause
            if stopping or step == plan.steps or step % plan.save_every == 0 or epoch_ends:
                recorder.flush()
                before_save()
                run.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
                saved = time.monotonic()
                pause = max(EPOCH_SAVE_INTERVAL_S, (saved - now) / SAVE_SHARE)
            if stopping and step < plan.steps:
                why = f"stopped {stop.reason or 'with another process'}, saved at step {step:,}"
                raise stop.error(f"{why}; run the same command again to go on")


def _resume(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    state = run.load()
    if state is None:
        run.forget_after(0)
        return 0
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    run.forget_after(state["step"])
    return int(state["step"])


class _Recorder:
    """Collects losses on the device and writes them now and then, so that the loop seldom waits for it."""

    def __init__(self, run: Run, plan: Plan, ranks: Ranks) -> None:
        self.run, self.plan, self.ranks = run, plan, ranks
        self.names: list[str] = []
        self.pending: list[tuple[int, float, Tensor]] = []
        self.shown: dict[str, str] = {}
        self.begin = time.monotonic()

    def add(self, step: int, lr: float, losses: Losses) -> dict[str, str]:
        self.names = list(losses)
        values = torch.stack([value.detach().float() for value in losses.values()])
        self.pending.append((step, lr, self.ranks.mean(values)))
        if time.monotonic() - self.begin > FLUSH_INTERVAL_S:
            self.flush()
        return self.shown

    def note(self, step: int, epoch: int, found: Losses) -> None:
        self.flush()
        values = {name: round(float(value), 6) for name, value in found.items()}
        self.run.log([{"step": step, "epoch": epoch, **values}])
        self.shown.update({name: f"{value:.4f}" for name, value in values.items()})
        self.begin = time.monotonic()

    def flush(self) -> None:
        if not self.pending:
            return
        values = torch.stack([row for _, _, row in self.pending]).cpu().tolist()
        seconds = max(time.monotonic() - self.begin, 1e-9)
        rate = len(self.pending) * self.plan.batch * self.plan.images / seconds
        records = []
        for (step, lr, _), row in zip(self.pending, values, strict=True):
            epoch = (step - 1) // self.plan.epoch_steps
            named = {name: round(value, 6) for name, value in zip(self.names, row, strict=True)}
            records.append({"step": step, "epoch": epoch, "lr": lr, **named, "images_per_s": round(rate, 1)})
        if not np.isfinite(values).all():
            raise HandclrError(f"the loss is not finite near step {self.pending[-1][0]:,}; lower --lr")
        self.run.log(records)
        shown = {name: f"{value:.4f}" for name, value in zip(self.names, values[-1], strict=True)}
        self.shown = {**self.shown, **shown, "images/s": f"{rate:,.0f}"}
        self.pending.clear()
        self.begin = time.monotonic()
