"""What both trainers are told, and what a training runs on: machine, crops, schedule and run."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from .. import console
from ..choices import Cache, OptimizerName, PrecisionName
from ..contract.index import ShardIndex
from ..contract.settings import Settings
from ..work import cores
from .augmentation import AugmentationConfig
from .distributed import Ranks, distribute, joined_ranks, ranks_of
from .hardware import (
    Autocast,
    ViewsMade,
    memory_errors,
    pick_device,
    pick_precision,
    to_device,
    views_made,
)
from .run import Run, alone_in
from .schedule import Schedule
from .store import CropStore, choose_cache, crop_side
from .threads import Threads, pick_threads
from .trackers import check_trackers, opened_trackers


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """What both trainers are told."""

    sparing: ClassVar[str] = "lower the batch or the size"
    """What to do where the device runs out of memory."""
    derived: ClassVar[tuple[str, ...]] = ()
    """Those of the recorded fields that a training works out where they are left open."""

    shards: Sequence[str]
    """Sources of crops: tar files, URLs, or - for standard input."""
    run: str
    """The run directory, made if it is not there; a run in it with equal settings is resumed."""
    size: int = 128
    """Side of the network's input in pixels."""
    batch: int
    """Rows in a batch, of all processes together; cut to what there is."""
    epochs: int
    """Passes over the rows."""
    lr: float | None
    """Peak learning rate."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up; None is a tenth of the epochs."""
    optimizer: OptimizerName = "adamw"
    """How weights are moved."""
    weight_decay: float
    """Decay of weights; biases and norms have none."""
    cache: Cache = "auto"
    """Where decoded crops are kept; auto is the quickest that fits into half of what is free."""
    precision: PrecisionName = "auto"
    """Of the forward passes; auto is bf16 on CUDA, else fp32."""
    compiled: bool | None = None
    """Compile the model; None: on CUDA."""
    log: Sequence[str] = ()
    """Where to log beside log.jsonl: tensorboard, wandb, mlflow."""
    time_limit: float = math.inf
    """Seconds after which to save and stop, from the beginning of the command."""
    save_every: int = 500
    """Steps between saves; ends of epochs are saved too."""
    workers: int | None = None
    """Processes that decode crops and make views, 0: this one; None: one for each core."""
    threads: int | None = None
    """Threads that compute on a processor; None: those that the run began with, or else one for
    each core that is idle."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    fresh: bool = False
    """Start a run anew that is already there."""
    seed: int = 0
    """The same seed gives the same weights."""

    def recipe(self) -> dict[str, Any]:
        """What the derived fields came to; what plays no part is left out."""
        values = {name: getattr(self, name) for name in self.derived}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class TrainResult:
    """What a training made: the file of the weights, and the records of the log that have a loss.

    `main`: this is the process that speaks for all; the others know no records. `skipped` counts
    the crops that cannot be used.
    """

    weights: Path
    records: list[dict[str, Any]]
    main: bool
    skipped: int = 0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What there is to train on, and until when, in seconds of `time.monotonic`.

    `workers` data processes feed each of the `ranks`.
    """

    device: torch.device
    autocast: Autocast
    ranks: Ranks
    workers: int
    threads: Threads
    deadline: float

    @classmethod
    def of(cls, settings: TrainSettings) -> Machine:
        """Find the processes of this training and its device; all but the main process are muted.

        Raises UsageError where the environment of several processes is incomplete, or the library
        of a tracker is not installed; HandclrError where the device is not there.
        """
        deadline = time.monotonic() + settings.time_limit
        check_trackers(settings.log)
        ranks = ranks_of()
        console.State.muted = not ranks.main
        device = pick_device(settings.device, ranks.local)
        return cls(
            device=device,
            autocast=pick_precision(settings.precision, device),
            ranks=ranks,
            workers=cores.worker_count(settings.workers, ranks.neighbours),
            threads=pick_threads(settings.threads, device, ranks.neighbours),
            deadline=deadline,
        )


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What one training runs on.

    crops: those of its shards, decoded to the side that views need; cache: where they are kept;
    made: where the views of them are made; schedule: for how long, and how fast; unread: what was
    said of crops that could not be read, of each once.
    """

    settings: TrainSettings
    machine: Machine
    crops: CropStore
    cache: str
    made: ViewsMade
    schedule: Schedule
    unread: set[str] = field(default_factory=set)

    @contextlib.contextmanager
    def opened(self, record: Mapping[str, Any]) -> Iterator[Run]:
        """Connect the processes for a block, and open the run whose configuration is `record`."""
        settings, ranks = self.settings, self.machine.ranks
        names = settings.log if ranks.main else ()
        with (
            joined_ranks(ranks, self.machine.device),
            alone_in(settings.run, ranks),
            opened_trackers(names, settings.run) as trackers,
            memory_errors(settings.sparing),
        ):
            yield Run(settings.run, record, settings.fresh, ranks, trackers)

    def placed(self, model: nn.Module) -> nn.Module:
        """The model on the device, compiled where asked for, distributed over the processes."""
        device = self.machine.device
        model = to_device(model, device, self.settings.compiled)
        return distribute(model, self.machine.ranks, device)

    def cached_crops(self, rows: Sequence[int] | None = None) -> Tensor | None:
        """The crops of some rows, or all, on the device: uint8 (N, R, R, 3); None if not kept."""
        if self.made is not ViewsMade.FROM_CACHE:
            return None
        device, workers = self.machine.device, self.machine.workers
        with memory_errors(f"keep the crops elsewhere ({console.called('cache', 'none')})"):
            return self.crops.on_device(device, workers, rows, self.unread)

    def result(self, run: Run, weights: Path, skipped: int) -> TrainResult:
        """What the training made, told by its log; all processes must ask.

        Beside the `skipped`, of all crops, those that the process which met most could not read.
        """
        ranks = self.machine.ranks
        records = run.records() if ranks.main else []
        with_loss = [record for record in records if "loss" in record]
        return TrainResult(weights, with_loss, ranks.main, skipped + ranks.most(len(self.unread)))

    def __str__(self) -> str:
        """The setup in words, as a trainer begins."""
        world = self.machine.ranks.world
        device = f"{self.machine.device}{f' x {world}' if world > 1 else ''}"
        steps = console.plural(self.schedule.steps, "step")
        batches = f"{steps} of {self.schedule.batch} on {device}"
        return f"{batches}, crops of {self.crops.side} px, cache {self.cache}"


def set_up(
    settings: TrainSettings,
    machine: Machine,
    index: ShardIndex,
    augmentation: AugmentationConfig,
    start: tuple[str, str],
    *,
    samples: int,
    images: int = 1,
    cached: Sequence[int] | np.ndarray,
    published: bool = False,
) -> Setup:
    """Decide where crops are kept and views are made, and for how long to train.

    `samples` rows are trained on, each of which shows `images` images; the crops of the rows
    `cached` would be kept. `start` is the architecture of the encoder, and what it starts from. The
    batch, rate and warm-up of the settings are those of the run. `published` views are made of
    whole crops by the data processes. Raises UsageError or HandclrError where crops cannot be kept
    where asked.
    """
    assert settings.lr is not None and settings.warmup_epochs is not None
    wanted = settings.size / min(augmentation.scale)
    side = crop_side(index) if published else crop_side(index, wanted)
    on_device = machine.device.type == "cuda" and not published
    neighbours = machine.ranks.neighbours
    cache = choose_cache(settings.cache, len(cached), side, machine.device, on_device, neighbours)
    schedule = Schedule(
        samples=samples,
        batch=settings.batch,
        epochs=settings.epochs,
        lr=settings.lr,
        warmup_epochs=settings.warmup_epochs,
        seed=settings.seed,
        save_every=settings.save_every,
        workers=machine.workers,
        threads=machine.threads,
        images=images,
        deadline=machine.deadline,
        trial=trial_of(settings, *start) if machine.device.type == "cpu" else "",
    )
    return Setup(
        settings=settings,
        machine=machine,
        crops=CropStore(index, side, keep=cached if cache == "ram" else ()),
        cache=cache,
        made=views_made(machine.device, cache, published),
        schedule=schedule,
    )


def trial_of(settings: TrainSettings, arch: str, start: str) -> str:
    """What to ask for to try a training on a processor, as the user writes it, or a GPU.

    Settings that are so already are left out.
    """
    asked = []
    # The weights of a file are of their own architecture.
    if start in ("random", "imagenet") and arch != "resnet18":
        asked.append(console.called("arch", "resnet18"))
    if settings.size > 64:
        asked.append(console.called("size", 64))
    if settings.epochs > 5:
        asked.append(console.called("epochs", 5))
    return " ".join(asked) or f"a GPU ({console.called('device', 'cuda')}), or fewer crops"
