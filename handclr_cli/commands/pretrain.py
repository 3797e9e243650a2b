"""$ handclr pretrain"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .. import console, options
from ..contract.errors import UsageError
from ..contract.inputs import expand_inputs
from ..learning import schedule
from ..work import cores

if TYPE_CHECKING:
    import torch

    from ..contract.index import ShardIndex
    from ..contract.provenance import Provenance
    from ..learning.positives import Positives
    from ..learning.probe import Probe
    from ..learning.store import CropStore


def pretrain(
    shards: options.Shards = None,
    run: options.RunFolder = "runs/pretrain",
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NPZ",
            help=(
                "Mined pairs by handclr mine, for mined positives. A folder or a quoted pattern for"
                " parts."
            ),
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help=(
                "handclr, handclr-soft, peclr, tempclr, simclr or simhand: presets of the next"
                " four."
            )
        ),
    ] = "handclr",
    positives: Annotated[
        str | None,
        typer.Option(help="self, neighbour (in time) or mined.", show_default="the method's"),
    ] = None,
    undo: Annotated[
        str | None,
        typer.Option(
            help=(
                "Undo the augmentation's geometry in latent space: none, extent (of the latents) or"
                " crop (exactly)."
            ),
            show_default="the method's",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weigh pairs by 2D pose distance: none, linear or sigmoid.",
            show_default="the method's",
        ),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            help=(
                "What a view should resemble: positive (its own), or pose (all views, by 2D pose"
                " distance)."
            ),
            show_default="the method's",
        ),
    ] = None,
    spread: Annotated[
        float | None,
        typer.Option(
            min=0.001, help="Width of --targets pose, in median distances.", show_default="0.15"
        ),
    ] = None,
    top_k: Annotated[
        int, typer.Option(min=1, help="Draw each positive from this many mined ones.")
    ] = 1,
    as_published: Annotated[
        bool,
        typer.Option("--as-published", help="Augment as the published code does, quirks included."),
    ] = False,
    arch: Annotated[str, typer.Option(help="resnet18, 34, 50, 101 or 152.")] = "resnet50",
    init: Annotated[
        str,
        typer.Option(
            metavar="random|imagenet|FILE", help="Where the encoder starts; published: imagenet."
        ),
    ] = "random",
    size: Annotated[int, typer.Option(min=32, max=512, help="Side of the views in pixels.")] = 128,
    batch: Annotated[
        int, typer.Option(min=2, help="Pairs in a batch, of all processes together.")
    ] = 256,
    accumulate: Annotated[
        int,
        typer.Option(
            min=1,
            help=(
                "Encode a batch in this many parts; the loss stays the whole batch's, batch norms"
                " see a part."
            ),
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
    warmup_epochs: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Epochs of linear warm-up.", show_default="a tenth of the epochs"
        ),
    ] = None,
    optimizer: Annotated[str, typer.Option(help="adamw, lars or adam.")] = "adamw",
    weight_decay: Annotated[
        float, typer.Option(min=0.0, help="Of weights; biases and norms have none.")
    ] = 1e-6,
    temperature: Annotated[
        float | None,
        typer.Option(min=0.001, help="Of NT-Xent.", show_default="0.5; handclr-soft: 0.1"),
    ] = None,
    rotation: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=180.0,
            help="Rotate views by up to +- degrees; not with --as-published.",
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
    ] = None,
    probe_every: Annotated[
        int, typer.Option(min=1, help="Epochs between probes; the last is always probed.")
    ] = 10,
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
    """Pre-train an encoder; print the path of encoder.pt.

    handclr pretrain hands.tar --pairs pairs.npz --run runs/handclr

    handclr pretrain hands/ --method peclr --arch resnet18 --size 64 --device cpu

    torchrun --nproc-per-node 8 -m handclr_cli pretrain hands/ --pairs pairs.npz --batch 8192

    Run the same command again to go on after an interruption.
    """
    sources = expand_inputs(shards or [])
    seconds = options.seconds_of(time_limit)
    from ..contract.index import ShardIndex
    from ..learning.distributed import distribute, joined, ranks_of
    from ..learning.encoder import ARCHITECTURES
    from ..learning.hardware import pick_device, pick_precision, place
    from ..learning.loop import train
    from ..learning.optim import OPTIMIZERS, build_optimizer, default_lr, parameter_groups
    from ..learning.pretraining import ContrastiveModel, Objective, augmentation_of, choose_method
    from ..learning.run import Run, run_config
    from ..learning.schedule import Schedule
    from ..learning.store import CropStore, choose_cache, crop_side
    from ..learning.targets import SPREAD
    from ..learning.views import PairDataset, collate_views

    options.choose("--arch", arch, ARCHITECTURES)
    options.choose("--optimizer", optimizer, OPTIMIZERS)
    recipe = choose_method(
        method, temperature, positives=positives, undo=undo, weights=weights, targets=targets
    )
    temperature = recipe.temperature
    if recipe.positives == "mined" and not pairs:
        raise UsageError(
            f"--method {method} needs --pairs: make them with handclr pca and handclr mine"
        )
    ranks = ranks_of()
    console.State.muted = not ranks.main
    where = pick_device(device, ranks.local)
    autocast = pick_precision(precision, where)
    index = ShardIndex(sources)
    pool, origins = _positives(index, recipe.positives, pairs or [], top_k)
    warmup_epochs = schedule.warmup_within(warmup_epochs, epochs)
    batch = schedule.batch_within(batch, len(pool), "pairs", ranks.world * accumulate)
    lr = lr if lr is not None else default_lr(optimizer, batch)
    # None where it plays no part, so that runs that began before it was an option go on.
    spread = (spread or SPREAD) if recipe.targets == "pose" else None
    augmentation = augmentation_of(recipe, size, rotation, as_published)
    rotation = augmentation.rotation
    record = run_config(
        "pretrain",
        options.arguments(
            locals(), "method", "positives", "undo", "weights", "targets", "spread", "top_k", "as_published",
            "arch", "init", "size", "batch", "accumulate", "epochs", "lr", "warmup_epochs", "optimizer",
            "weight_decay", "temperature", "rotation", "precision",
        ),
        sources, index.keys, origins, seed=seed, rows=pool.table(), weights=init,
    ) | {"recipe": recipe.record()}  # fmt: skip
    warped = where.type == "cuda" and not as_published
    side = index[0].side if as_published else crop_side(index, size / min(augmentation.scale))
    cache = choose_cache(cache, len(index), side, where, warped, ranks.neighbours)
    made = (
        "published"
        if as_published
        else "views"
        if not warped
        else "draws"
        if cache == "gpu"
        else "crops"
    )
    crops = CropStore(index, side, keep=cache == "ram")
    jobs = cores.worker_count(workers, ranks.neighbours)
    plan = Schedule(
        len(pool),
        batch,
        epochs,
        lr,
        warmup_epochs,
        seed,
        save_every,
        jobs,
        images=2,
        time_limit=seconds,
    )
    console.say(
        f"pretrain: {method}, {arch} from {init}, {console.plural(len(pool), 'pair')}"
        f" ({len(index) - len(pool):,} crops without one), {plan.steps:,} steps of {batch} on"
        f" {where}{f' x {ranks.world}' if ranks.world > 1 else ''}, crops of {side} px, cache"
        f" {cache}"
    )
    with joined(ranks, where):
        book = Run(run, record, fresh, ranks, tensorboard)
        model = ContrastiveModel.build(arch, init, seed)
        objective = Objective(
            distribute(place(model, where, compiled), ranks, where),
            recipe,
            size,
            where,
            autocast,
            ranks,
            accumulate,
            made,
            crops.on_device(where, jobs) if cache == "gpu" else None,
            spread or SPREAD,
        )
        watch = _probe(probe, index, crops, size, seed, where) if probe and ranks.main else None
        train(
            book,
            "pretrain",
            model,
            build_optimizer(optimizer, parameter_groups([model], weight_decay), lr),
            PairDataset(crops, pool, augmentation, seed, made, posed=recipe.joints),
            collate_views,
            objective,
            plan,
            where,
            ranks,
            lambda epoch: (
                watch(model.encoder)
                if watch and (epoch % probe_every == 0 or epoch == epochs)
                else {}
            ),
        )
        path = book.save(
            {name: tensor.cpu() for name, tensor in model.encoder.state_dict().items()},
            "encoder.pt",
        )
    if ranks.main:
        options.finish_run(book, "pretrain", path)


def _positives(
    index: ShardIndex, source: str, pairs: list[str], top_k: int
) -> tuple[Positives, list[Provenance]]:
    """The positives of the crops, and where crops and pairs come from."""
    from ..contract.npz import read_npz
    from ..learning import positives

    if source != "mined":
        return (positives.own if source == "self" else positives.neighbours)(index), list(
            index.origins
        )
    files = [read_npz(path, "pairs") for path in expand_inputs(pairs, ".npz")]
    found = positives.mined(index, [arrays for arrays, _ in files], top_k)
    return found, [*index.origins, *(origin for _, origin in files if origin)]


def _probe(
    shards: list[str],
    index: ShardIndex,
    crops: CropStore,
    size: int,
    seed: int,
    device: torch.device,
) -> Probe:
    """The probe over held-out crops; says what knowing nothing would score."""
    from ..contract.index import ShardIndex
    from ..learning.probe import build_probe

    probe = build_probe(index, ShardIndex(expand_inputs(shards)), crops.side, size, seed, device)
    console.say(f"probe: predicting the mean pose would score {probe.chance():.4f}")
    return probe
