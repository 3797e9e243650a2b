"""The training loop of pretrain and finetune: seeded, resumable at any step, stopped politely by SIGTERM."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..console import progress
from ..contract.errors import HandclrError, Preempted
from .optim import warmup_cosine
from .run import Run

FLUSH_EVERY = 10
EPOCH_SAVE_INTERVAL_S = 10.0
Row = tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train; a batch is `batch` of `samples` rows, what is left over is dropped."""

    samples: int
    batch: int
    epochs: int
    lr: float
    warmup_epochs: float
    seed: int
    save_every: int = 500
    workers: int = 0

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
    and the result depends neither on the workers nor on where a run was interrupted.
    """

    def __init__(self, plan: Plan, first_step: int) -> None:
        self.plan, self.first_step = plan, first_step

    def __iter__(self) -> Iterator[list[Row]]:
        plan = self.plan
        for epoch in range(self.first_step // plan.epoch_steps, plan.epochs):
            order = np.random.default_rng([plan.seed, epoch]).permutation(plan.samples)
            skip = max(0, self.first_step - epoch * plan.epoch_steps)
            for index in range(skip, plan.epoch_steps):
                rows = order[index * plan.batch : (index + 1) * plan.batch]
                yield [(epoch, row) for row in rows.tolist()]

    def __len__(self) -> int:
        return self.plan.steps - self.first_step


class Guarded(Dataset[Any]):
    """A data set whose HandclrErrors are items, so that they reach the trainer as they are and not as tracebacks."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, at: Any) -> Any:
        try:
            return self.dataset[at]
        except HandclrError as error:
            return error


@contextlib.contextmanager
def batches(
    dataset: Dataset[Any],
    sampler: Iterable[Any],
    collate: Callable[[list[Any]], Any],
    workers: int,
    device: torch.device,
) -> Iterator[Iterator[Any]]:
    """Load batches in `workers` processes, which end with the block whatever ends it.

    `sampler` yields lists of what `dataset` is indexed by. A HandclrError of an item is raised here.
    """

    def collate_or_error(items: list[Any]) -> Any:
        return next((item for item in items if isinstance(item, HandclrError)), None) or collate(items)

    loader = DataLoader(
        Guarded(dataset),
        batch_sampler=sampler,
        collate_fn=collate_or_error,
        num_workers=workers,
        worker_init_fn=calm_worker,
        pin_memory=device.type == "cuda",
        multiprocessing_context="fork" if workers else None,
    )
    iterator = iter(loader)
    try:
        yield (_raise_error(batch) for batch in iterator)
    except torch.OutOfMemoryError as error:
        raise HandclrError("the device is out of memory; lower --batch or --size") from error
    finally:
        # Workers ignore SIGTERM, which is how they would be ended at exit: without this, an error waits for ever.
        getattr(iterator, "_shutdown_workers", lambda: None)()


def _raise_error(batch: Any) -> Any:
    if isinstance(batch, HandclrError):
        raise batch
    return batch


class Stop:
    """Notes SIGTERM; saving happens in the loop, never in the handler."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Stop:
        self._older = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGTERM, self._older)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


def train(
    run: Run,
    label: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    dataset: Dataset[Any],
    collate: Callable[[list[Any]], Any],
    losses_of: Callable[[Any], dict[str, Tensor]],
    plan: Plan,
    device: torch.device,
) -> None:
    """Train `model` from the run's last save to the end of the plan.

    `losses_of(batch)` returns scalars, of which "loss" is minimised and all are logged. Raises Preempted
    after SIGTERM, with the state saved.
    """
    step = _resume(run, model, optimizer)
    if step == plan.steps:
        return
    model.train()
    recorder, saved = _Recorder(run, plan), time.monotonic()
    with (
        Stop() as stop,
        progress(label, plan.steps, "steps", step) as advance,
        batches(dataset, EpochBatches(plan, step), collate, plan.workers, device) as loaded,
    ):
        for batch in loaded:
            lr = plan.lr_at(step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                losses = losses_of(batch)
            losses["loss"].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            shown = recorder.add(step, lr, losses)
            advance(1, **shown)
            epoch_ends = step % plan.epoch_steps == 0 and time.monotonic() - saved > EPOCH_SAVE_INTERVAL_S
            if stop.requested or step == plan.steps or step % plan.save_every == 0 or epoch_ends:
                recorder.flush()
                run.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()})
                saved = time.monotonic()
            if stop.requested and step < plan.steps:
                raise Preempted(f"stopped by SIGTERM, saved at step {step:,}; run the same command again to go on")


def pick_device(name: str) -> torch.device:
    """Turn auto, cpu, cuda or cuda:N into a device that is there; several processes are not served yet."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise HandclrError("training runs in one process in this version; start it without torchrun")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HandclrError(f"--device {name} is not available here: {str(error).splitlines()[0]}") from error
    return device


def to_device(tensors: Any, device: torch.device) -> Any:
    """Move a tensor to the device without waiting for it."""
    return tensors.to(device, non_blocking=True)


def _resume(run: Run, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    state = run.load()
    if state is None:
        run.forget_after(0)
        return 0
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    run.forget_after(state["step"])
    return int(state["step"])


def calm_worker(worker: int) -> None:
    """Set up a data process: one thread, and signals left to the trainer."""
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Recorder:
    """Collects losses on the device and writes them in batches, so that the loop seldom waits for it."""

    def __init__(self, run: Run, plan: Plan) -> None:
        self.run, self.plan = run, plan
        self.names: list[str] = []
        self.pending: list[tuple[int, float, Tensor]] = []
        self.shown: dict[str, str] = {}
        self.begin = time.monotonic()

    def add(self, step: int, lr: float, losses: dict[str, Tensor]) -> dict[str, str]:
        self.names = list(losses)
        self.pending.append((step, lr, torch.stack([value.detach().float() for value in losses.values()])))
        if len(self.pending) >= FLUSH_EVERY:
            self.flush()
        return self.shown

    def flush(self) -> None:
        if not self.pending:
            return
        values = torch.stack([row for _, _, row in self.pending]).cpu().tolist()
        seconds = max(time.monotonic() - self.begin, 1e-9)
        rate = len(self.pending) * self.plan.batch / seconds
        records = []
        for (step, lr, _), row in zip(self.pending, values, strict=True):
            epoch = (step - 1) // self.plan.epoch_steps
            named = {name: round(value, 6) for name, value in zip(self.names, row, strict=True)}
            records.append({"step": step, "epoch": epoch, "lr": lr, **named, "samples_per_s": round(rate, 1)})
        if not np.isfinite(values).all():
            raise HandclrError(f"the loss is not finite near step {self.pending[-1][0]:,}; lower --lr")
        self.run.log(records)
        shown = {name: f"{value:.4f}" for name, value in zip(self.names, values[-1], strict=True)}
        self.shown = {**shown, "samples/s": f"{rate:,.0f}"}
        self.pending.clear()
        self.begin = time.monotonic()
