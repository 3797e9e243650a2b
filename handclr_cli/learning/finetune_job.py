"""The job of `handclr finetune`: from labelled crops to a 3D hand pose model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import console
from ..choices import Arch, HeadName
from ..contract.errors import HandclrError, UsageError
from ..contract.index import ShardIndex
from ..contract.inputs import expand_inputs
from ..work.skips import Skips
from .augmentation import AugmentationConfig
from .encoder import arch_of, build_encoder, check_init, read_encoder_state
from .finetuning import (
    PoseDataset,
    PoseObjective,
    collate_labelled,
    freeze,
    pose_augmentation,
)
from .loop import train
from .optim import build_optimizer, default_lr, parameter_groups
from .pose import PoseNet
from .pose_head import ENCODER_STRIDE
from .posemodel import MeanPose, mean_pose, save_payload
from .run import MODEL, Run, run_config
from .schedule import batch_within, warmup_within
from .setup import Machine, Setup, TrainResult, TrainSettings, set_up
from .training_labels import (
    TrainingLabels,
    choose_fraction,
    hold_out,
    read_training_labels,
)
from .validation import ROOT_BONE, BestKept, build_validation, refuse_shared

LAST_MODEL = "model-last.pt"


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(TrainSettings):
    """What `run_finetune` trains on, and how; a row is a labelled crop."""

    recorded: ClassVar = (
        *("encoder", "arch", "head", "fraction", "hold_out", "validation", "freeze", "size"),
        *("batch", "epochs", "lr", "warmup_epochs", "optimizer", "weight_decay", "rotation"),
        "precision",
    )
    derived: ClassVar = ("arch", "batch", "lr", "warmup_epochs")

    run: str = "runs/finetune"
    """The run directory, made if it is not there; a run in it with equal settings is resumed."""
    batch: int = 128
    """Crops in a batch, of all processes together; cut to what there is."""
    epochs: int = 120
    """Passes over the labelled crops."""
    lr: float | None = None
    """Peak learning rate; None: 1e-3, for lars 0.075 times the square root of the batch."""
    weight_decay: float = 0.0
    """Decay of weights; biases and norms have none."""
    encoder: str = "random"
    """Where the encoder starts: random, imagenet, handclr (the encoder that comes with it), or the
    path of a weights file."""
    arch: Arch | None = None
    """Depth of the ResNet; None: that of the encoder's file, else resnet50."""
    head: HeadName = "detnet"
    """What makes a pose of the encoder's features."""
    fraction: float = 1.0
    """Share of the unique labelled samples to train on, drawn by the seed; above 0."""
    hold_out: float = 0.0
    """Share of the unique samples to validate on, drawn by the seed before the fraction."""
    validation: Sequence[str] | None = None
    """Sources of labelled crops to validate on after each epoch."""
    freeze: bool = False
    """Train the head only."""
    rotation: float = 90.0
    """Rotate crops by up to +- degrees."""
    mix: float = 0.0
    """Share of the crops shown that have 2D keypoints alone, below 1; 0 leaves those out."""

    def arguments(self) -> dict[str, Any]:
        """The recorded fields; the share of crops with 2D keypoints alone is one where there is."""
        return {**super().arguments(), "mix": self.mix or None}


@dataclass(frozen=True)
class FinetuneResult(TrainResult):
    """What `run_finetune` made; the weights are those of the best epoch where there is one."""

    best: BestEpoch | None = None


class BestEpoch(NamedTuple):
    """The epoch, counted from 1, with the least error on validation after root and bone."""

    epoch: int
    error_mm: float


class _Data(NamedTuple):
    """Labels to train on and to validate on, and how many labelled samples there are in all.

    Those to train on with 2D labels alone come last, and `flat` of them are shown in an epoch.
    `skipped` counts labelled samples that cannot be used, and `skipped_held` those of the shards to
    validate on.
    """

    labels: TrainingLabels
    held: list[tuple[ShardIndex, TrainingLabels]]
    labelled: int
    skipped: int
    flat: int = 0
    skipped_held: int = 0

    @property
    def shown(self) -> int:
        """How many crops an epoch shows."""
        return int(self.labels.posed.sum()) + self.flat

    def contents(self) -> dict[str, bytes]:
        """What a run is known by, of its labels and of those that it is validated on."""
        found = {"labels": self.labels.digests.tobytes()}
        if self.held:
            held = [labels.digests for _, labels in self.held]
            found["validation_labels"] = np.concatenate(held).tobytes()
        return found


def run_finetune(settings: FinetuneSettings) -> FinetuneResult:
    """Train a 3D hand pose model (paper, Sec. 4.1); writes model.pt in its run.

    With validation, model.pt has the weights of the epoch with the least error, and model-last.pt
    those of the last. Raises UsageError for settings that do not go together, or where the
    directory holds another run; HandclrError where labels, weights or memory are missing; Preempted
    or Interrupted with the state saved, after which the same settings go on.

    >>> import handclr_cli as handclr
    >>> start = {"shards": ["labelled.tar"], "encoder": "runs/pretrain/encoder.pt"}
    >>> settings = handclr.FinetuneSettings(**start, run="runs/finetune", hold_out=0.1)
    >>> handclr.run_finetune(settings).weights  # doctest: +SKIP
    PosixPath('runs/finetune/model.pt')
    """
    _check(settings)
    asked = settings.arguments()
    settings = replace(settings, arch=_arch(settings))
    check_init(settings.encoder, str(settings.arch))
    machine = Machine.of(settings)
    index = ShardIndex(settings.shards, measured=True)
    data = _data(settings, index)
    count = data.shown
    settings = _derived(settings, data, machine.ranks.world)
    record = run_config(
        "finetune",
        asked,
        settings.shards,
        index.keys,
        index.origins,
        seed=settings.seed,
        rows=data.labels.rows,
        weights=settings.encoder,
        contents=data.contents(),
        shown=count,
    )
    augmentation = pose_augmentation(settings.size, settings.rotation)
    setup = set_up(
        settings,
        machine,
        index,
        augmentation,
        (str(settings.arch), settings.encoder),
        samples=count,
        cached=data.labels.rows,
    )
    console.say(f"finetune: {_words(settings, data, len(index))}, {setup}")
    with setup.opened(record | {"recipe": settings.recipe()}) as run:
        path, best = _train(settings, data, augmentation, setup, run)
        made = setup.result(run, path, data.skipped + data.skipped_held)
    if best is None:
        return FinetuneResult(**vars(made))
    path, error, epoch = best.finish()
    return FinetuneResult(**vars(replace(made, weights=path)), best=BestEpoch(epoch, error))


def _left(settings: FinetuneSettings, labelled: int) -> str:
    """Of how many crops some are left, and by which settings; empty where all are trained on."""
    cuts = []
    if settings.fraction < 1:
        cuts.append(console.called("fraction", settings.fraction))
    if settings.hold_out:
        cuts.append(console.called("hold_out", settings.hold_out))
    return f"of {labelled:,} by {' and '.join(cuts)}" if cuts else ""


def _derived(settings: FinetuneSettings, data: _Data, world: int) -> FinetuneSettings:
    """The settings with what follows from the number of labels and the machine."""
    warmup = warmup_within(settings.warmup_epochs, settings.epochs)
    left = _left(settings, data.labelled)
    batch = batch_within(settings.batch, data.shown, "labelled crop", world, left)
    usual = default_lr("lars", batch) if settings.optimizer == "lars" else 1e-3
    lr = usual if settings.lr is None else settings.lr
    return replace(settings, batch=batch, warmup_epochs=warmup, lr=lr)


def _words(settings: FinetuneSettings, data: _Data, samples: int) -> str:
    """What is trained on, in words, as a training begins."""
    posed = int(data.labels.posed.sum())
    head: str = settings.head
    if head == "guided":
        head += f" ({int(data.labels.corrected.sum()):,} with landmarks)"
    begins = f"{settings.arch} from {settings.encoder}, {head}, {posed:,} of"
    said = f"{begins} {console.plural(data.labelled, 'labelled crop')}"
    flat = len(data.labels) - posed
    if flat:
        said += f" and {flat:,} with 2D keypoints alone, {data.flat:,} in an epoch"
    return f"{said} ({samples - data.labelled - flat - data.skipped:,} without labels)"


def _check(settings: FinetuneSettings) -> None:
    if not 0 <= settings.mix < 1:
        raise UsageError("must be a share below 1", setting="mix")
    if settings.fraction <= 0:
        raise UsageError("must be above 0", setting="fraction")
    if settings.size % ENCODER_STRIDE:
        raise UsageError(f"must be a multiple of {ENCODER_STRIDE}", setting="size")
    if settings.validation:
        expand_inputs(settings.validation)


def _arch(settings: FinetuneSettings) -> Arch:
    """The architecture: as asked, else that of the encoder's file, else resnet50."""
    if settings.arch:
        return settings.arch
    if settings.encoder in ("random", "imagenet"):
        return "resnet50"
    found = arch_of(read_encoder_state(settings.encoder))
    if found is None:
        unknown = f"the architecture of {settings.encoder} cannot be recognised; name it"
        raise HandclrError(unknown, setting="arch")
    return found


def _data(settings: FinetuneSettings, index: ShardIndex) -> _Data:
    """The labels of an index, split by the seed."""
    skips = Skips()
    found = read_training_labels(index, skips, flat=settings.mix > 0)
    labelled, others = found.take(found.posed), found.take(~found.posed)
    kept, left_out = hold_out(labelled, settings.hold_out, settings.seed)
    chosen, flat = choose_fraction(kept, settings.fraction, settings.seed), 0
    if settings.mix:
        if not len(others):
            why = "shows crops with 2D keypoints alone, and there are none"
            raise UsageError(f"{why}; name shards of handclr keypoints too", setting="mix")
        flat = max(1, round(len(chosen) * settings.mix / (1 - settings.mix)))
        chosen = chosen.followed_by(others)
    if settings.head == "guided" and not chosen.corrected.any():
        why = "is told what the landmarker found in the crops, and none with 3D labels has that"
        advice = "pass the labelled crops through handclr keypoints first"
        raise UsageError(f"{why}; {advice}", setting="head", value="guided")
    held, skips_held = [(index, left_out)] if len(left_out) else [], Skips()
    if settings.validation:
        other = ShardIndex(expand_inputs(settings.validation))
        held.append((other, read_training_labels(other, skips_held)))
        refuse_shared(chosen, held[-1][1])
    return _Data(chosen, held, len(labelled), skips.count, flat, skips_held.count)


def _train(
    settings: FinetuneSettings,
    data: _Data,
    augmentation: AugmentationConfig,
    setup: Setup,
    run: Run,
) -> tuple[Path, BestKept | None]:
    """Train to the end of the schedule; returns the path of the last epoch's weights.

    With validation, also what keeps the weights of the best epoch.
    """
    assert settings.arch is not None and settings.lr is not None
    machine, labels = setup.machine, data.labels
    encoder = build_encoder(settings.arch, settings.encoder, settings.seed)
    model = PoseNet(encoder, settings.seed, settings.head)
    if settings.freeze:
        freeze(model.encoder)
    objective = PoseObjective(
        model=setup.placed(model),
        head=model.head,
        size=settings.size,
        device=machine.device,
        autocast=machine.autocast,
        ranks=machine.ranks,
        made=setup.made,
        crops=setup.cached_crops(labels.rows.tolist()),
    )
    mean = mean_pose(labels.take(labels.posed))
    best = _best(settings, data, mean, setup, model, run) if machine.ranks.main else None
    groups = parameter_groups([model], settings.weight_decay)
    train(
        run=run,
        label="finetune",
        model=model,
        optimizer=build_optimizer(settings.optimizer, groups, settings.lr),
        dataset=PoseDataset(
            setup.crops, labels, augmentation, settings.seed, setup.made, data.flat
        ),
        collate=collate_labelled,
        differentiate=objective,
        schedule=setup.schedule,
        device=machine.device,
        ranks=machine.ranks,
        examine=best or (lambda epoch: {}),
        before_save=best.write if best else (lambda: None),
        unread=setup.unread,
    )
    payload = save_payload(model, settings.size, mean)
    return run.save(payload, LAST_MODEL if best else MODEL), best


def _best(
    settings: FinetuneSettings,
    data: _Data,
    mean: MeanPose,
    setup: Setup,
    model: PoseNet,
    run: Run,
) -> BestKept | None:
    """What keeps the weights of the best epoch, where there is something to validate on."""
    if not data.held:
        return None
    size = settings.size
    validation = build_validation(data.held, size, mean, setup.machine.workers, setup.unread)
    console.say(
        f"validation: {console.plural(len(validation.images), 'crop')}; predicting the mean pose "
        f"would score {validation.chance()[ROOT_BONE]:.2f} mm after root and bone"
    )
    return BestKept(run, lambda: validation(model), lambda: save_payload(model, size, mean))
