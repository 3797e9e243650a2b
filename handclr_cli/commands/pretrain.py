"""$ handclr pretrain"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from .. import choices, options
from ..contract.claims import Reads
from . import trainers


def pretrain(
    shards: options.Shards = None,
    run: options.RunFolder = "runs/pretrain",
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NPZ",
            help="Pairs of handclr mine, for mined positives; a folder or a quoted pattern for "
            "parts.",
            show_default=False,
        ),
        Reads(".npz"),
    ] = None,
    method: Annotated[
        choices.MethodName,
        typer.Option(help="Preset of --positives, --undo, --weights and --targets."),
    ] = "handclr",
    positives: Annotated[
        choices.PositiveSource | None,
        typer.Option(
            help="Positives: the crop itself, the same hand before or after in time, or mined.",
            show_default="the method's",
        ),
    ] = None,
    undo: Annotated[
        choices.Undo | None,
        typer.Option(
            help="Undo the augmentation's geometry in latent space: in units of the extent of the "
            "latents (raw: not normalised before), or exactly, in those of the crop.",
            show_default="the method's",
        ),
    ] = None,
    weights: Annotated[
        choices.Weighting | None,
        typer.Option(help="Weigh pairs by 2D pose distance.", show_default="the method's"),
    ] = None,
    targets: Annotated[
        choices.TargetKind | None,
        typer.Option(
            help="What a view should resemble: its positive, or all views, by 2D pose distance.",
            show_default="the method's",
        ),
    ] = None,
    spread: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Width of --targets pose, in median distances of a batch.",
            show_default="0.15",
        ),
    ] = None,
    top_k: Annotated[
        int, typer.Option(min=1, help="Draw each positive from this many mined ones.")
    ] = 1,
    min_side_score: options.MinSideScore = 0.0,
    as_published: Annotated[
        bool,
        typer.Option("--as-published", help="Augment as the published code does, quirks included."),
    ] = False,
    arch: options.Arch = "resnet50",
    init: Annotated[
        str,
        typer.Option(
            metavar="random|imagenet|handclr|FILE",
            help="Initial weights of the encoder; handclr: the bundled encoder. The published "
            "code starts from imagenet.",
        ),
        options.ENCODER,
    ] = "random",
    size: trainers.Size = 128,
    batch: Annotated[
        int, typer.Option(min=2, help="Pairs in a batch, of all processes together.")
    ] = 256,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1,
            help="Encode a batch in this many parts; the loss stays the whole batch's, batch norms "
            "see a part.",
        ),
    ] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the pairs.")] = 100,
    lr: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Peak learning rate.",
            show_default="1e-4 * sqrt(batch); lars: 0.075 * sqrt(batch)",
        ),
    ] = None,
    warmup_epochs: trainers.WarmupEpochs = None,
    optimizer: options.Optimizer = "adamw",
    weight_decay: trainers.WeightDecay = 1e-6,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Temperature of NT-Xent.", show_default="0.5; handclr-soft: 0.1"
        ),
    ] = None,
    rotation: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=180.0,
            help="Rotate views by up to this many degrees either way; not with --as-published.",
            show_default="45, 0 if not undone",
        ),
    ] = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SHARDS",
            help="Held-out crops with keypoints, to measure the features on.",
            show_default=False,
        ),
        Reads(".tar"),
    ] = None,
    probe_every: Annotated[
        int, typer.Option(min=1, help="Epochs between probes; the last is always probed.")
    ] = 10,
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
    """Pre-train an encoder; print the path of encoder.pt.

    handclr pretrain hands.tar --pairs pairs.npz --run runs/handclr

    handclr pretrain hands/ --method peclr --arch resnet18 --size 64 --device cpu

    torchrun --nproc-per-node 8 -m handclr_cli pretrain hands/ --pairs pairs.npz --batch 8192

    Run the same command again to go on after an interruption.
    """
    began = time.monotonic()
    sources, seconds = options.sources(shards), options.seconds_of(time_limit)
    from ..learning.pretrain_job import PretrainSettings, run_pretrain

    settings = PretrainSettings(
        shards=sources,
        run=run,
        pairs=pairs or (),
        method=method,
        positives=positives,
        undo=undo,
        weights=weights,
        targets=targets,
        spread=spread,
        top_k=top_k,
        min_side_score=min_side_score,
        as_published=as_published,
        arch=arch,
        init=init,
        size=size,
        batch=batch,
        accumulate=accumulate,
        epochs=epochs,
        lr=lr,
        warmup_epochs=warmup_epochs,
        optimizer=optimizer,
        weight_decay=weight_decay,
        temperature=temperature,
        rotation=rotation,
        probe=probe or (),
        probe_every=probe_every,
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
    trainers.finish("pretrain", run_pretrain(settings))
