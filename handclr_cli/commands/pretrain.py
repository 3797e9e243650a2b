"""$ handclr pretrain"""

from __future__ import annotations

from typing import Annotated

import typer

from .. import console, options
from ..contract.errors import UsageError
from ..contract.inputs import expand_inputs


def pretrain(
    shards: options.Shards = None,
    run: options.RunFolder = "runs/pretrain",
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NPZ",
            help="Mined pairs by handclr mine; handclr needs them. A folder or a quoted pattern for its parts.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="handclr, peclr or simclr.")] = "handclr",
    arch: Annotated[str, typer.Option(help="resnet18, 34, 50, 101 or 152.")] = "resnet50",
    init: Annotated[
        str,
        typer.Option(metavar="random|imagenet|FILE", help="Where the encoder starts; published: imagenet."),
    ] = "random",
    size: Annotated[int, typer.Option(min=32, max=512, help="Side of the views in pixels.")] = 128,
    batch: Annotated[int, typer.Option(min=2, help="Pairs in a batch.")] = 256,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the pairs.")] = 100,
    lr: Annotated[
        float | None,
        typer.Option(min=0.0, help="Peak learning rate.", show_default="1e-4 * sqrt(batch); lars: 0.075 * sqrt(batch)"),
    ] = None,
    warmup_epochs: Annotated[
        float | None, typer.Option(min=0.0, help="Epochs of linear warm-up.", show_default="a tenth of the epochs")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="adamw, lars or adam.")] = "adamw",
    weight_decay: Annotated[float, typer.Option(min=0.0, help="Of weights; biases and norms have none.")] = 1e-6,
    temperature: Annotated[float, typer.Option(min=0.001, help="Of NT-Xent.")] = 0.5,
    rotation: Annotated[float, typer.Option(min=0.0, max=180.0, help="Rotate views by up to +- degrees.")] = 45.0,
    save_every: options.SaveEvery = 500,
    workers: options.Workers = None,
    device: options.Device = "auto",
    fresh: options.Fresh = False,
    seed: options.Seed = 0,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Pre-train an encoder; print the path of encoder.pt.

    handclr pretrain hands.tar --pairs pairs.npz --run runs/handclr

    handclr pretrain hands/ --method peclr --arch resnet18 --size 64 --device cpu

    Run the same command again to go on after an interruption.
    """
    sources = expand_inputs(shards or [])
    from ..contract.index import ShardIndex
    from ..contract.npz import read_npz
    from ..learning.encoder import ARCHITECTURES, build_encoder, seeded
    from ..learning.loop import Plan, pick_device, train
    from ..learning.optim import OPTIMIZERS, build_optimizer, default_lr, parameter_groups
    from ..learning.pretraining import (
        METHODS,
        ContrastiveModel,
        PairDataset,
        augmentation_of,
        collate_views,
        mined_pairs,
        own_pairs,
    )
    from ..learning.projection import ProjectionHead
    from ..learning.run import Run, run_config

    options.choose("--method", method, METHODS)
    options.choose("--arch", arch, ARCHITECTURES)
    options.choose("--optimizer", optimizer, OPTIMIZERS)
    if METHODS[method].mined and not pairs:
        raise UsageError(f"--method {method} needs --pairs: make them with handclr pca and handclr mine")
    where = pick_device(device)
    index = ShardIndex(sources)
    origins = list(index.origins)
    rows = own_pairs(index)
    if METHODS[method].mined:
        files = [read_npz(source, "pairs") for source in expand_inputs(pairs or [], ".npz")]
        rows = mined_pairs(index, [arrays for arrays, _ in files])
        origins += [origin for _, origin in files if origin]
    warmup_epochs = options.warmup_within(warmup_epochs, epochs)
    batch = options.batch_within(batch, len(rows), "pairs")
    lr = lr if lr is not None else default_lr(optimizer, batch)
    config = run_config(
        "pretrain",
        options.arguments(
            locals(), "method", "arch", "init", "size", "batch", "epochs", "lr", "warmup_epochs", "optimizer",
            "weight_decay", "temperature", "rotation",
        ),
        sources, index.keys, origins, seed=seed, rows=rows, weights=init,
    )  # fmt: skip
    book = Run(run, config, fresh)
    encoder = build_encoder(arch, init, seed)
    with seeded(seed):
        head = ProjectionHead(encoder.channels)
    model = ContrastiveModel(encoder, head, METHODS[method], temperature).to(where)
    plan = Plan(len(rows), batch, epochs, lr, warmup_epochs, seed, save_every, options.worker_count(workers))
    console.say(
        f"pretrain: {method}, {arch} from {init}, {console.plural(len(rows), 'pair')} "
        f"({len(index) - len(rows):,} crops without one), "
        f"{plan.steps:,} steps of {batch} on {where}"
    )
    train(
        book,
        "pretrain",
        model,
        build_optimizer(optimizer, parameter_groups([model], weight_decay), lr),
        PairDataset(index, rows, augmentation_of(METHODS[method], size, rotation), seed),
        collate_views,
        lambda views: model.losses(views, where),
        plan,
        where,
    )
    path = book.save({name: tensor.cpu() for name, tensor in encoder.state_dict().items()}, "encoder.pt")
    options.finish_run(book, "pretrain", path)
