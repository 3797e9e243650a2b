"""The training loop of pretrain and finetune: seeded, resumable at any step, ended by signals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from .. import console
from ..console import progress
from ..contract.errors import HandclrError
from .distributed import Ranks
from .hardware import prefetch
from .loading import Told, mended_batches, repeat_others
from .run import LAST, Run
from .schedule import EpochBatches, Schedule
from .speed import Speed
from .stopping import Stop, saved_when_stopped
from .threads import computing_with

FLUSH_INTERVAL_S = 2.0
EPOCH_SAVE_INTERVAL_S = 10.0
# The end of an epoch is saved where that costs at most this part of the time since the last save.
SAVE_SHARE = 0.02
Losses = dict[str, Tensor]
Measures = Mapping[str, SupportsFloat]


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
    unread: set[str] | None = None,
) -> None:
    """Train `model` from the run's last save to the end of the schedule.

    `differentiate(batch)` leaves the gradients of the loss in the model and returns scalars to log,
    among them "loss". `examine(epoch)` gives other scalars to log at the end of each epoch.
    `before_save()` may write what belongs to the state that is saved next. `unread` gets what is
    said of each crop that cannot be read, for which others stand in. With the state saved, raises
    Preempted after SIGTERM or at the time limit, Interrupted after Ctrl-C, and HandclrError where
    no more batches come.
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
    stop = Stop(schedule.deadline, ranks)
    with (
        stop,
        computing_with(threads),
        progress(label, schedule.steps, "steps", first) as advance,
        mended_batches(
            dataset, sampler, collate, schedule.workers, device, repeat_others, stop.look
        ) as loaded,
        saved_when_stopped(state.saved),
    ):
        told = map(Told("another stands in for it", unread), loaded)
        for batch in stop.between(prefetch(told, device), schedule.steps - first):
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
        self._at = step
        self._saved, self._pause = time.monotonic(), EPOCH_SAVE_INTERVAL_S

    def due(self, every: int, epoch_ends: bool) -> bool:
        """Whether to save after this step."""
        late = time.monotonic() - self._saved > self._pause
        return self.step % every == 0 or (epoch_ends and late)

    def saved(self) -> int:
        """Save it where it is not; returns its step."""
        if self._at != self.step:
            self.save()
        return self.step

    def save(self) -> None:
        """Save it, and find out how long that takes."""
        begin = time.monotonic()
        for call in self._before:
            call()
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        self.run.save({"step": self.step, "threads": self._threads, **tensors})
        self._at, self._saved = self.step, time.monotonic()
        self._pause = max(EPOCH_SAVE_INTERVAL_S, (self._saved - begin) / SAVE_SHARE)


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
        finite = np.isfinite(values).all(axis=1)
        whole = len(records) if finite.all() else int(finite.argmin())
        self.run.log(records[:whole])
        if whole < len(records):
            fresh = console.called("fresh", True)
            bad = f"the loss is not finite at step {records[whole]['step']:,}"
            advice = f"lower the rate and start the run anew ({fresh})"
            raise HandclrError(f"{bad}; {advice}", setting="lr")
        shown = {name: f"{value:.4f}" for name, value in zip(self.names, values[-1], strict=True)}
        self.shown = {**self.shown, **shown, "images/s": f"{rate:,.0f}"}
        self.pending.clear()
        self.begin = time.monotonic()
