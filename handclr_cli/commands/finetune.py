"""$ handclr finetune"""

from __future__ import annotations

from typing import Annotated

import typer

from .. import console, options
from ..contract.errors import HandclrError, UsageError
from ..contract.inputs import expand_inputs


def finetune(
    shards: options.Shards = None,
    run: options.RunFolder = "runs/finetune",
    encoder: Annotated[
        str,
        typer.Option(metavar="random|imagenet|FILE", help="Encoder to start from: encoder.pt or any ResNet weights."),
    ] = "random",
    arch: Annotated[
        str | None,
        typer.Option(help="resnet18, 34, 50, 101 or 152.", show_default="the encoder's, else resnet50"),
    ] = None,
    fraction: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the unique labelled samples, drawn by --seed.")
    ] = 1.0,
    freeze: Annotated[bool, typer.Option("--freeze", help="Train the head only.")] = False,
    size: Annotated[int, typer.Option(min=32, max=512, help="Side of the input, a multiple of 32.")] = 128,
    batch: Annotated[int, typer.Option(min=2, help="Crops in a batch.")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the samples.")] = 120,
    lr: Annotated[float, typer.Option(min=0.0, help="Peak learning rate.")] = 1e-3,
    warmup_epochs: Annotated[
        float | None, typer.Option(min=0.0, help="Epochs of linear warm-up.", show_default="a tenth of the epochs")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="adamw, lars or adam.")] = "adamw",
    weight_decay: Annotated[float, typer.Option(min=0.0, help="Of weights; biases and norms have none.")] = 0.0,
    rotation: Annotated[float, typer.Option(min=0.0, max=180.0, help="Rotate crops by up to +- degrees.")] = 90.0,
    precision: options.Precision = "auto",
    compiled: options.Compile = None,
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

    handclr finetune train.tar --fraction 0.1 --run runs/ten-percent

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
    from ..learning.distributed import ranks_of
    from ..learning.encoder import ARCHITECTURES, arch_of, build_encoder, read_encoder_state
    from ..learning.hardware import pick_device, pick_precision, place
    from ..learning.loop import Plan, train
    from ..learning.optim import OPTIMIZERS, build_optimizer, parameter_groups
    from ..learning.pose import PoseNet
    from ..learning.posemodel import mean_pose, save_payload
    from ..learning.run import Run, run_config

    options.choose("--optimizer", optimizer, OPTIMIZERS)
    arch = arch or ("resnet50" if encoder in ("random", "imagenet") else arch_of(read_encoder_state(encoder)))
    if arch is None:
        raise HandclrError(f"{encoder}: its architecture cannot be recognised; name it with --arch")
    options.choose("--arch", arch, ARCHITECTURES)
    if ranks_of().world > 1:
        raise HandclrError("finetune runs in one process in this version; start it without torchrun or srun -n")
    where = pick_device(device)
    autocast = pick_precision(precision, where)
    index = ShardIndex(sources)
    labelled = finetuning.labelled_rows(index)
    rows = finetuning.choose_fraction(index, labelled, fraction, seed)
    warmup_epochs = options.warmup_within(warmup_epochs, epochs)
    batch = options.batch_within(batch, len(rows), "labelled crops")
    record = run_config(
        "finetune",
        options.arguments(
            locals(), "encoder", "arch", "fraction", "freeze", "size", "batch", "epochs", "lr", "warmup_epochs",
            "optimizer", "weight_decay", "rotation", "precision",
        ),
        sources, index.keys, index.origins, seed=seed, rows=rows, weights=encoder,
    )  # fmt: skip
    book = Run(run, record, fresh)
    model = PoseNet(build_encoder(arch, encoder, seed), seed)
    if freeze:
        finetuning.freeze(model.encoder)
    place(model, where, compiled)
    jobs = options.worker_count(workers)
    plan = Plan(len(rows), batch, epochs, lr, warmup_epochs, seed, save_every, jobs, time_limit=seconds)
    console.say(
        f"finetune: {arch} from {encoder}, {len(rows):,} of {console.plural(len(labelled), 'labelled crop')} "
        f"({len(index) - len(labelled):,} without labels), "
        f"{plan.steps:,} steps of {batch} on {where}"
    )
    train(
        book,
        "finetune",
        model,
        build_optimizer(optimizer, parameter_groups([model], weight_decay), lr),
        finetuning.PoseDataset(index, rows, finetuning.pose_augmentation(size, rotation), seed),
        finetuning.collate_labelled,
        lambda batch: finetuning.differentiate(model, batch, where, autocast),
        plan,
        where,
    )
    path = book.save(save_payload(model, size, mean_pose(index, rows)), "model.pt")
    options.finish_run(book, "finetune", path)
