"""The training loop of pretrain and finetune: seeded, resumable at any step, ended by signals."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, SupportsFloat

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from .. import console
from ..console import progress
from ..contract.errors import HandclrError, Interrupted, Preempted
from .distributed import Ranks
from .hardware import prefetch
from .loading import Told, mended_batches, repeat_others
from .run import LAST, Run
from .schedule import EpochBatches, Schedule
from .speed import Speed
from .threads import computing_with

FLUSH_INTERVAL_S = 2.0
EPOCH_SAVE_INTERVAL_S = 10.0
# The end of an epoch is saved where that costs at most this part of the time since the last save.
SAVE_SHARE = 0.02
Losses = dict[str, Tensor]
Measures = Mapping[str, SupportsFloat]


class HeardError(BaseException):
    """A signal came while a batch was waited for; no reader of crops may take it for its own."""


class Stop:
    """Notes SIGTERM, Ctrl-C and the end of the time, for the loop to save and stop.

    Nothing is saved in the handler itself. A second Ctrl-C interrupts at once.
    """

    def __init__(self, time_limit: float) -> None:
        self.reason = ""
        self.error: type[HandclrError] = Preempted
        self._deadline = time.monotonic() + time_limit
        self._waiting = False

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

    def between(self, batches: Iterable[Any], ranks: Ranks) -> Iterator[Any]:
        """The batches; a signal that comes while the next one is waited for raises HeardError.

        Not so with several processes, which all have to stop after the same step.
        """
        iterator, end = iter(batches), object()
        while True:
            self._waiting = ranks.world == 1
            try:
                batch = next(iterator, end)
            finally:
                self._waiting = False
            if batch is end:
                return
            yield batch

    def stopped(self, step: int) -> HandclrError:
        """The error that ends a training whose state is saved."""
        why = f"stopped {self.reason or 'with another process'}, saved at step {step:,}"
        return self.error(f"{why}; run the same command again to go on")

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.reason = "by SIGTERM"
        if number == signal.SIGINT:
            self.reason, self.error = "by Ctrl-C", Interrupted
            signal.signal(number, self._older[signal.SIGINT])
        if self._waiting:
            self._waiting = False
            raise HeardError


def train(
    *,
    run: Run,
    label: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset[Any],
    collate: Callable[[list[Any]], Any],
    differentiate: Callable[[Any], Losses],
    schedule: Schedule,
    device: torch.device,
    ranks: Ranks = Ranks(),  # noqa: B008
    examine: Callable[[int], Measures] = lambda epoch: {},
    before_save: Callable[[], None] = lambda: None,
) -> None:
    """Train `model` from the run's last save to the end of the schedule.

    `differentiate(batch)` leaves the gradients of the loss in the model and returns scalars to log,
    among them "loss". `examine(epoch)` gives other scalars to log at the end of each epoch.
    `before_save()` may write what belongs to the state that is saved next. With the state saved,
    raises Preempted after SIGTERM or at the time limit, Interrupted after Ctrl-C.
    """
    first, began_with = _resume(run, model, optimizer)
    if first == schedule.steps:
        return
    run.track(first + 1)
    model.train()
    threads = schedule.threads.of_run(began_with)
    speed = Speed(label, schedule, threads if device.type == "cpu" else 0)
    recorder, sampler = _Recorder(run, speed, ranks), EpochBatches(schedule, first, ranks)
    state = _State(run, model, optimizer, first, threads, (recorder.flush, before_save))
    stop = Stop(schedule.time_limit)

    def stopped() -> HandclrError:
        state.save()
        return stop.stopped(state.step)

    def waiting() -> None:
        # Of several processes all have to stop after the same step.
        if ranks.world == 1 and stop.requested(ranks):
            raise stopped()

    with (
        stop,
        computing_with(threads),
        _ended_when_heard(stopped),
        progress(label, schedule.steps, "steps", first) as advance,
        mended_batches(
            dataset, sampler, collate, schedule.workers, device, repeat_others, waiting
        ) as loaded,
    ):
        told = map(Told("another stands in for it"), loaded)
        for batch in stop.between(prefetch(told, device), ranks):
            lr = schedule.lr_at(state.step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            losses = differentiate(batch)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.step += 1
            step = state.step
            advance(1, **recorder.add(step, lr, losses))
            epoch, rest = divmod(step, schedule.epoch_steps)
            if not rest and (found := examine(epoch)):
                recorder.note(step, epoch - 1, found)
            stopping = stop.requested(ranks)
            if stopping and step < schedule.steps:
                raise stopped()
            if step == schedule.steps or state.due(schedule.save_every, not rest):
                state.save()


class _State:
    """The state of a training, and when it was saved last; `before` are called before each save."""

    def __init__(
        self,
        run: Run,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        step: int,
        threads: int,
        before: Sequence[Callable[[], None]],
    ) -> None:
        self.run, self.model, self.optimizer, self.step = run, model, optimizer, step
        self._threads, self._before = threads, before
        self._saved, self._pause = time.monotonic(), EPOCH_SAVE_INTERVAL_S

    def due(self, every: int, epoch_ends: bool) -> bool:
        """Whether to save after this step."""
        late = time.monotonic() - self._saved > self._pause
        return self.step % every == 0 or (epoch_ends and late)

    def save(self) -> None:
        """Save it, and find out how long that takes."""
        begin = time.monotonic()
        for call in self._before:
            call()
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        self.run.save({"step": self.step, "threads": self._threads, **tensors})
        self._saved = time.monotonic()
        self._pause = max(EPOCH_SAVE_INTERVAL_S, (self._saved - begin) / SAVE_SHARE)


@contextlib.contextmanager
def _ended_when_heard(stopped: Callable[[], HandclrError]) -> Iterator[None]:
    try:
        yield
    except HeardError:
        error = stopped()
    else:
        return
    raise error


def _resume(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, int | None]:
    """The step to go on from, and the threads that came so far; None if that was not noted."""
    run.begin()
    state = run.load()
    if state is None:
        run.forget_after(0)
        return 0, None
    try:
        step, threads = int(state["step"]), state.get("threads")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except Exception as error:  # whatever torch raises where the parts do not fit together
        path = run.folder / LAST
        anew = f"start the run anew ({console.called('fresh', True)})"
        why = f"not the state of this run, or damaged; {anew}"
        raise HandclrError(f"{path}: {why}") from error
    run.forget_after(step)
    return step, threads


class _Recorder:
    """Collects losses on the device and writes them now and then.

    Reading a loss waits for the device, which the loop is thus seldom made to do.
    """

    def __init__(self, run: Run, speed: Speed, ranks: Ranks) -> None:
        self.run, self.speed, self.schedule, self.ranks = run, speed, speed.schedule, ranks
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

    def note(self, step: int, epoch: int, found: Measures) -> None:
        self.flush()
        values = {name: round(float(value), 6) for name, value in found.items()}
        self.run.log([{"step": step, "epoch": epoch, **values}])
        self.shown.update({name: f"{value:.4f}" for name, value in values.items()})
        self.begin = time.monotonic()

    def flush(self) -> None:
        if not self.pending:
            return
        values = torch.stack([row for _, _, row in self.pending]).cpu().tolist()
        images = len(self.pending) * self.schedule.batch * self.schedule.images
        rate = self.speed.note(self.pending[-1][0], images, time.monotonic() - self.begin)
        records = []
        for (step, lr, _), row in zip(self.pending, values, strict=True):
            epoch = (step - 1) // self.schedule.epoch_steps
            named = {name: round(value, 6) for name, value in zip(self.names, row, strict=True)}
            records.append(
                {"step": step, "epoch": epoch, "lr": lr, **named, "images_per_s": round(rate, 1)}
            )
        if not np.isfinite(values).all():
            near = f"the loss is not finite near step {self.pending[-1][0]:,}; lower the rate"
            raise HandclrError(near, setting="lr")
        self.run.log(records)
        shown = {name: f"{value:.4f}" for name, value in zip(self.names, values[-1], strict=True)}
        self.shown = {**self.shown, **shown, "images/s": f"{rate:,.0f}"}
        self.pending.clear()
        self.begin = time.monotonic()
