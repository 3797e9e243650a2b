"""$ handclr finetune"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from .. import choices, console, options
from ..contract.claims import Reads
from . import trainers


def finetune(
    shards: options.Shards = None,
    run: options.RunFolder = "runs/finetune",
    encoder: Annotated[
        str,
        typer.Option(
            metavar="random|imagenet|handclr|FILE",
            help="Initial weights of the encoder; handclr: the bundled encoder; else an "
            "encoder.pt or any weights of a ResNet.",
        ),
        options.ENCODER,
    ] = "random",
    arch: Annotated[
        choices.Arch | None,
        typer.Option(help="Depth of the ResNet.", show_default="the encoder's, else resnet50"),
    ] = None,
    head: Annotated[
        choices.HeadName,
        typer.Option(
            help="How the pose is read. detnet: from heat and location maps; softargmax: from "
            "their means; regress: without maps; guided: also from what the landmarker found.",
        ),
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
        Reads(".tar"),
    ] = None,
    freeze: Annotated[bool, typer.Option("--freeze", help="Train the head only.")] = False,
    size: Annotated[
        int, typer.Option(min=32, max=512, help="Side of the input, a multiple of 32.")
    ] = 128,
    batch: Annotated[
        int, typer.Option(min=2, help="Crops in a batch, of all processes together.")
    ] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the samples.")] = 120,
    lr: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Peak learning rate.", show_default="1e-3; lars: 0.075 * sqrt(batch)"
        ),
    ] = None,
    warmup_epochs: trainers.WarmupEpochs = None,
    optimizer: options.Optimizer = "adamw",
    weight_decay: trainers.WeightDecay = 0.0,
    rotation: Annotated[
        float,
        typer.Option(
            min=0.0, max=180.0, help="Rotate crops by up to this many degrees either way."
        ),
    ] = 90.0,
    mix: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=0.95,
            help="Share of crops with 2D keypoints only among those that are shown; 0: none.",
        ),
    ] = 0.0,
    cache: options.Cache = "auto",
    precision: options.Precision = "auto",
    compiled: options.Compile = None,
    log: trainers.Log = None,
    time_limit: options.TimeLimit = None,
    save_every: options.SaveEvery = 500,
    workers: options.Workers = None,
    threads: options.Threads = None,
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

    handclr keypoints --keep-empty synthetic.tar -o told.tar

    handclr finetune told.tar hands.tar --head guided --mix 0.25

    torchrun --nproc-per-node 8 -m handclr_cli finetune train/ --validation val.tar --batch 1024

    Run the same command again to go on after an interruption.
    """
    began = time.monotonic()
    sources, seconds = options.sources(shards), options.seconds_of(time_limit)
    from ..learning.finetune_job import FinetuneSettings, run_finetune

    settings = FinetuneSettings(
        shards=sources,
        run=run,
        encoder=encoder,
        arch=arch,
        head=head,
        fraction=fraction,
        hold_out=hold_out,
        validation=validation,
        freeze=freeze,
        size=size,
        batch=batch,
        epochs=epochs,
        lr=lr,
        warmup_epochs=warmup_epochs,
        optimizer=optimizer,
        weight_decay=weight_decay,
        rotation=rotation,
        mix=mix,
        cache=cache,
        precision=precision,
        compiled=compiled,
        log=log or (),
        time_limit=seconds - (time.monotonic() - began),
        save_every=save_every,
        workers=workers,
        threads=threads,
        device=device,
        fresh=fresh,
        seed=seed,
    )
    done = run_finetune(settings)
    if done.best:
        epoch, error = done.best
        best = f"{done.weights.name} is of epoch {epoch:,}, the best on validation"
        console.say(f"finetune: {best}: {error:.2f} mm")
    trainers.finish("finetune", done)
