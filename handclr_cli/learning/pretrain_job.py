"""The job of `handclr pretrain`: from crops and their positives to an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from .. import console
from ..choices import Arch, MethodName, PositiveSource, TargetKind, Undo, Weighting
from ..contract.index import ShardIndex
from ..contract.inputs import expand_inputs
from ..contract.npz import read_npz
from ..contract.pairs import PairsFile, checked_parts
from ..contract.provenance import Provenance
from ..work.skips import Skips
from . import positives
from .augmentation import AugmentationConfig
from .encoder import check_init
from .loop import Measures, train
from .optim import build_optimizer, default_lr, parameter_groups
from .positives import Positives
from .pretraining import ContrastiveModel, Method, Objective, augmentation_of, choose_method
from .probe import open_probe
from .run import Run, run_config
from .schedule import batch_within, warmup_within
from .setup import Machine, Setup, TrainResult, TrainSettings, set_up
from .targets import SPREAD
from .usable import usable_positives
from .views import PairDataset, collate_views


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(TrainSettings):
    """What `run_pretrain` trains on, and how; a row is a crop that has a positive."""

    recorded: ClassVar = (
        *("method", "positives", "undo", "weights", "targets", "spread", "top_k", "as_published"),
        *("arch", "init", "size", "batch", "accumulate", "epochs", "lr", "warmup_epochs"),
        *("optimizer", "weight_decay", "temperature", "rotation", "precision"),
    )
    sparing: ClassVar = "lower the batch or the size, or encode a batch in more parts"
    derived: ClassVar = ("batch", "lr", "warmup_epochs", "temperature", "rotation", "spread")

    run: str = "runs/pretrain"
    """The run directory, made if it is not there; a run in it with equal settings is resumed."""
    batch: int = 256
    """Pairs in a batch, of all processes together; cut to what there is."""
    epochs: int = 100
    """Passes over the pairs."""
    lr: float | None = None
    """Peak learning rate; None: 1e-4, for lars 0.075, times the square root of the batch."""
    weight_decay: float = 1e-6
    """Decay of weights; biases and norms have none."""
    pairs: Sequence[str] = ()
    """Files of mined pairs, folders or patterns of them, for mined positives."""
    method: MethodName = "handclr"
    """The preset of the next four."""
    positives: PositiveSource | None = None
    """Which crops are positives of each other; None: as in the method."""
    undo: Undo | None = None
    """How the augmentation's geometry is undone in latent space; None: as in the method."""
    weights: Weighting | None = None
    """How pairs are weighed by the distance of their 2D poses; None: as in the method."""
    targets: TargetKind | None = None
    """What a view should resemble; None: as in the method."""
    spread: float | None = None
    """Width of soft targets in median distances of poses; None: 0.15."""
    top_k: int = 1
    """Draw each positive from this many mined ones."""
    min_side_score: float = 0.0
    """Leave out crops whose side is less sure, by the JSON's `side_score`, 0 to 1."""
    as_published: bool = False
    """Augment as the published code does, quirks included."""
    arch: Arch = "resnet50"
    """Depth of the ResNet."""
    init: str = "random"
    """Where the encoder starts: random, imagenet, handclr (the encoder that comes with it), or the
    path of a weights file."""
    accumulate: int = 1
    """Encode a batch in this many parts: the loss is the whole batch's, batch norms see a part."""
    temperature: float | None = None
    """Temperature of NT-Xent; None: as in the method."""
    rotation: float | None = None
    """Rotate views by up to +- degrees; None: 45, and 0 where it is not undone."""
    probe: Sequence[str] = ()
    """Held-out crops with keypoints, to measure the features on."""
    probe_every: int = 10
    """Epochs between probes; the last is always probed."""

    def arguments(self) -> dict[str, Any]:
        """The recorded fields, and the least side score where there is one."""
        found = super().arguments()
        if self.min_side_score > 0:
            found["min_side_score"] = self.min_side_score
        return found


def run_pretrain(settings: PretrainSettings) -> TrainResult:
    """Pre-train an encoder by contrast of views (paper, Sec. 3.3); writes encoder.pt in its run.

    Raises UsageError for settings that do not go together, or where the directory holds another
    run; HandclrError where crops, positives or memory are missing; Preempted or Interrupted with
    the state saved, after which the same settings go on.

    >>> import handclr_cli as handclr
    >>> crops = {"shards": ["hands.tar"], "pairs": ["pairs.npz"]}
    >>> settings = handclr.PretrainSettings(**crops, run="runs/pretrain", epochs=20)
    >>> handclr.run_pretrain(settings).weights  # doctest: +SKIP
    PosixPath('runs/pretrain/encoder.pt')
    """
    method = _method(settings)
    check_init(settings.init, settings.arch)
    machine = Machine.of(settings)
    files = _pair_files(settings, method)
    index = ShardIndex(settings.shards, measured=True)
    pool, origins = _positives(settings, method.positives, index, files)
    skips = Skips()
    usable = usable_positives(
        index, pool, settings.min_side_score, _is_posed(settings, method), skips
    )
    pool = usable.pool
    augmentation = augmentation_of(method, settings.size, settings.rotation, settings.as_published)
    asked = settings.arguments()
    left = (
        f"by {console.called('min_side_score', settings.min_side_score)}" if usable.doubtful else ""
    )
    settings = _derived(settings, method, augmentation, len(pool), machine.ranks.world, left)
    record = run_config(
        "pretrain",
        asked,
        settings.shards,
        index.keys,
        origins,
        seed=settings.seed,
        rows=pool.table(),
        weights=settings.init,
        contents={"image_sizes": index.image_sizes.tobytes(), **usable.contents()},
    )
    setup = set_up(
        settings,
        machine,
        index,
        augmentation,
        (settings.arch, settings.init),
        samples=len(pool),
        images=2,
        cached=range(len(index)),
        published=settings.as_published,
    )
    console.say(f"pretrain: {_words(settings, len(pool), len(index), usable.doubtful)}, {setup}")
    with setup.opened(record | {"recipe": method.record() | settings.recipe()}) as run:
        weights = _train(settings, method, pool, augmentation, setup, run)
        return setup.result(run, weights, skips.count)


def _words(settings: PretrainSettings, pairs: int, crops: int, doubtful: int) -> str:
    """What is trained on, in words, as a training begins."""
    begins = f"{settings.method}, {settings.arch} from {settings.init}"
    said = f"{begins}, {console.plural(pairs, 'pair')} ({crops - pairs:,} crops without one)"
    if settings.min_side_score > 0:
        said += f", {console.plural(doubtful, 'crop')} of a doubtful side left out"
    return said


def _method(settings: PretrainSettings) -> Method:
    """The method with its choices; raises UsageError for options that do not go with it."""
    method = choose_method(
        settings.method,
        settings.temperature,
        positives=settings.positives,
        undo=settings.undo,
        weights=settings.weights,
        targets=settings.targets,
    )
    method.check_options(settings.method, settings.pairs, settings.spread, settings.top_k)
    return method


def _pair_files(settings: PretrainSettings, method: Method) -> list[PairsFile]:
    """The files of mined pairs, where needed; raises where they, or held-out crops, are not there.

    Read before the crops, which may come from a pipe.
    """
    if settings.probe:
        expand_inputs(settings.probe)
    named = expand_inputs(settings.pairs, ".npz") if settings.pairs else []
    if method.positives == "mined":
        return checked_parts([read_npz(path, "pairs") for path in named])
    if named:
        console.warn(f"positives are {method.positives}: the mined pairs are not read")
    return []


def _positives(
    settings: PretrainSettings, source: PositiveSource, index: ShardIndex, files: list[PairsFile]
) -> tuple[Positives, list[Provenance | None]]:
    """The positives of the crops, and where crops and pairs come from."""
    origins: list[Provenance | None] = list(index.origins)
    if source == "self":
        return positives.own(index), origins
    if source == "neighbour":
        return positives.neighbours(index), origins
    origins += [origin for _, origin in files]
    return positives.mined(index, [arrays for arrays, _ in files], settings.top_k), origins


def _is_posed(settings: PretrainSettings, method: Method) -> bool:
    """Whether crops need keypoints."""
    return method.joints != "none" or settings.as_published


def _derived(
    settings: PretrainSettings,
    method: Method,
    augmentation: AugmentationConfig,
    pairs: int,
    world: int,
    left: str,
) -> PretrainSettings:
    """The settings with what follows from the method, the number of pairs and the machine.

    The spread is None where it plays no part.
    """
    warmup = warmup_within(settings.warmup_epochs, settings.epochs)
    batch = batch_within(settings.batch, pairs, "pair", world * settings.accumulate, left)
    return replace(
        settings,
        batch=batch,
        lr=default_lr(settings.optimizer, batch) if settings.lr is None else settings.lr,
        warmup_epochs=warmup,
        spread=(settings.spread or SPREAD) if method.targets == "pose" else None,
        temperature=method.temperature,
        rotation=augmentation.rotation,
    )


def _train(
    settings: PretrainSettings,
    method: Method,
    pool: Positives,
    augmentation: AugmentationConfig,
    setup: Setup,
    run: Run,
) -> Path:
    """Train to the end of the schedule; returns the path of the encoder's weights."""
    assert settings.lr is not None
    machine, seed = setup.machine, settings.seed
    model = ContrastiveModel.build(settings.arch, settings.init, seed)
    objective = Objective(
        model=setup.placed(model),
        method=method,
        size=settings.size,
        device=machine.device,
        autocast=machine.autocast,
        ranks=machine.ranks,
        parts=settings.accumulate,
        made=setup.made,
        crops=setup.cached_crops(),
        spread=settings.spread or SPREAD,
    )
    groups, probe = parameter_groups([model], settings.weight_decay), None
    if settings.probe and machine.ranks.main:
        probe = open_probe(
            settings.probe, setup.crops, settings.size, seed, machine.device, setup.unread
        )

    def examine(epoch: int) -> Measures:
        due = epoch % settings.probe_every == 0 or epoch == settings.epochs
        return probe(model.encoder) if probe and due else {}

    train(
        run=run,
        label="pretrain",
        model=model,
        optimizer=build_optimizer(settings.optimizer, groups, settings.lr),
        dataset=PairDataset(setup.crops, pool, augmentation, seed, setup.made, method.joints),
        collate=collate_views,
        differentiate=objective,
        schedule=setup.schedule,
        device=machine.device,
        ranks=machine.ranks,
        examine=examine,
        unread=setup.unread,
    )
    state = {name: tensor.cpu() for name, tensor in model.encoder.state_dict().items()}
    return run.save(state, "encoder.pt")
