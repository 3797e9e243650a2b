"""$ handclr finetune"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options
from ..contract.errors import HandclrError, UsageError
from ..contract.inputs import expand_inputs
from ..learning import schedule
from ..work import cores

if TYPE_CHECKING:
    from ..contract.index import ShardIndex
    from ..learning.finetuning import TrainingLabels
    from ..learning.posemodel import MeanPose
    from ..learning.validation import Validation


def finetune(
    shards: options.Shards = None,
    run: options.RunFolder = "runs/finetune",
    encoder: Annotated[
        str,
        typer.Option(
            metavar="random|imagenet|FILE",
            help="Encoder to start from: encoder.pt or any ResNet weights.",
        ),
    ] = "random",
    arch: Annotated[
        str | None,
        typer.Option(
            help="resnet18, 34, 50, 101 or 152.", show_default="the encoder's, else resnet50"
        ),
    ] = None,
    head: Annotated[
        str, typer.Option(help="detnet (heat and location maps), softargmax or regress.")
    ] = "detnet",
    fraction: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Share of the unique labelled samples, drawn by --seed."
        ),
    ] = 1.0,
    hold_out: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=0.9,
            help="Share of the unique samples to validate on, drawn by --seed before --fraction.",
        ),
    ] = 0.0,
    validation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHARDS",
            help="Labelled crops to validate on after each epoch.",
            show_default=False,
        ),
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Train the head only.")] = False,
    size: Annotated[
        int, typer.Option(min=32, max=512, help="Side of the input, a multiple of 32.")
    ] = 128,
    batch: Annotated[
        int, typer.Option(min=2, help="Crops in a batch, of all processes together.")
    ] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the samples.")] = 120,
    lr: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = 1e-3,
    warmup_epochs: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Epochs of linear warm-up.", show_default="a tenth of the epochs"
        ),
    ] = None,
    optimizer: Annotated[str, typer.Option(help="adamw, lars or adam.")] = "adamw",
    weight_decay: Annotated[
        float, typer.Option(min=0.0, help="Of weights; biases and norms have none.")
    ] = 0.0,
    rotation: Annotated[
        float, typer.Option(min=0.0, max=180.0, help="Rotate crops by up to +- degrees.")
    ] = 90.0,
    cache: Annotated[
        str, typer.Option(help="Keep decoded crops: none, ram, gpu or auto.")
    ] = "auto",
    precision: options.Precision = "auto",
    compiled: options.Compile = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Log for TensorBoard too.")
    ] = False,
    time_limit: options.TimeLimit = None,
    save_every: options.SaveEvery = 500,
    workers: options.Workers = None,
    device: options.Device = "auto",
    fresh: options.Fresh = False,
    config: options.Config = None,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train a 3D hand pose model; print the path of model.pt.

    handclr import freihand FreiHAND/ | handclr finetune - --encoder runs/pretrain/encoder.pt

    handclr finetune train.tar --fraction 0.1 --hold-out 0.1 --run runs/ten-percent

    torchrun --nproc-per-node 8 -m handclr_cli finetune train/ --validation val.tar --batch 1024

    Run the same command again to go on after an interruption.
    """
    sources = expand_inputs(shards or [])
    seconds = options.seconds_of(time_limit)
    if fraction <= 0:
        raise UsageError("--fraction: must be above 0")
    if size % 32:
        raise UsageError(f"--size {size}: must be a multiple of 32")
    from ..contract.index import ShardIndex
    from ..learning import finetuning
    from ..learning.distributed import distribute, joined, ranks_of
    from ..learning.encoder import ARCHITECTURES, arch_of, build_encoder, read_encoder_state
    from ..learning.hardware import pick_device, pick_precision, place
    from ..learning.heads import HEADS
    from ..learning.loop import train
    from ..learning.optim import OPTIMIZERS, build_optimizer, parameter_groups
    from ..learning.pose import PoseNet
    from ..learning.posemodel import mean_pose, save_payload
    from ..learning.run import Run, run_config
    from ..learning.schedule import Schedule
    from ..learning.store import CropStore, choose_cache, crop_side
    from ..learning.validation import MODEL, BestKept

    options.choose("--optimizer", optimizer, OPTIMIZERS)
    options.choose("--head", head, HEADS)
    arch = arch or (
        "resnet50" if encoder in ("random", "imagenet") else arch_of(read_encoder_state(encoder))
    )
    if arch is None:
        raise HandclrError(f"{encoder}: its architecture cannot be recognised; name it with --arch")
    options.choose("--arch", arch, ARCHITECTURES)
    ranks = ranks_of()
    console.State.muted = not ranks.main
    where = pick_device(device, ranks.local)
    autocast = pick_precision(precision, where)
    index = ShardIndex(sources)
    labelled = finetuning.read_labels(index)
    kept, held = finetuning.hold_out(labelled, hold_out, seed)
    labels = finetuning.choose_fraction(kept, fraction, seed)
    warmup_epochs = schedule.warmup_within(warmup_epochs, epochs)
    batch = schedule.batch_within(batch, len(labels), "labelled crops", ranks.world)
    record = run_config(
        "finetune",
        options.arguments(
            locals(), "encoder", "arch", "head", "fraction", "hold_out", "validation", "freeze", "size", "batch",
            "epochs", "lr", "warmup_epochs", "optimizer", "weight_decay", "rotation", "precision",
        ),
        sources, index.keys, index.origins, seed=seed, rows=labels.rows, weights=encoder,
    )  # fmt: skip
    augmentation = finetuning.pose_augmentation(size, rotation)
    warped = where.type == "cuda"
    side = crop_side(index, size / min(augmentation.scale))
    cache = choose_cache(cache, len(labels), side, where, warped, ranks.neighbours)
    made = "views" if not warped else "draws" if cache == "gpu" else "crops"
    crops = CropStore(index, side, keep=cache == "ram")
    jobs = cores.worker_count(workers, ranks.neighbours)
    plan = Schedule(
        len(labels), batch, epochs, lr, warmup_epochs, seed, save_every, jobs, time_limit=seconds
    )
    console.say(
        f"finetune: {arch} from {encoder}, {head}, {len(labels):,} of"
        f" {console.plural(len(labelled), 'labelled crop')} ({len(index) - len(labelled):,} without"
        f" labels), {plan.steps:,} steps of {batch} on"
        f" {where}{f' x {ranks.world}' if ranks.world > 1 else ''}, crops of {side} px, cache"
        f" {cache}"
    )
    mean = mean_pose(labels)
    with joined(ranks, where):
        book = Run(run, record, fresh, ranks, tensorboard)
        model = PoseNet(build_encoder(arch, encoder, seed), seed, head)
        if freeze:
            finetuning.freeze(model.encoder)
        objective = finetuning.PoseObjective(
            distribute(place(model, where, compiled), ranks, where),
            model.head,
            size,
            where,
            autocast,
            ranks,
            made,
            crops.on_device(where, jobs, labels.rows.tolist()) if cache == "gpu" else None,
        )
        watch = (
            _validation(index, labels, held, validation or [], size, mean, jobs)
            if ranks.main
            else None
        )
        best = (
            BestKept(book, lambda: watch(model), lambda: save_payload(model, size, mean))
            if watch
            else None
        )
        train(
            book,
            "finetune",
            model,
            build_optimizer(optimizer, parameter_groups([model], weight_decay), lr),
            finetuning.PoseDataset(crops, labels, augmentation, seed, made),
            finetuning.collate_labelled,
            objective,
            plan,
            where,
            ranks,
            best or (lambda epoch: {}),
            best.write if best else (lambda: None),
        )
        path = book.save(save_payload(model, size, mean), "model-last.pt" if best else MODEL)
    if best:
        path, error, epoch = best.finish()
        console.say(
            f"finetune: {path.name} is of epoch {epoch:,}, the best on validation: {error:.2f} mm"
        )
    if ranks.main:
        options.finish_run(book, "finetune", path)


def _validation(
    index: ShardIndex,
    trained: TrainingLabels,
    held: TrainingLabels,
    shards: list[str],
    size: int,
    mean: MeanPose,
    workers: int,
) -> Validation | None:
    """What is held out and what is named, if anything; says what knowing nothing would score."""
    from ..contract.index import ShardIndex
    from ..learning.finetuning import read_labels
    from ..learning.validation import ROOT_BONE, build_validation, refuse_shared

    sources = [(index, held)] if len(held) else []
    if shards:
        other = ShardIndex(expand_inputs(shards))
        sources.append((other, read_labels(other)))
        refuse_shared(trained, sources[-1][1])
    if not sources:
        return None
    found = build_validation(sources, size, mean, workers)
    console.say(
        f"validation: {console.plural(len(found.images), 'crop')}; predicting the mean pose would"
        f" score {float(found.chance()[ROOT_BONE]):.2f} mm after root and bone"
    )
    return found
