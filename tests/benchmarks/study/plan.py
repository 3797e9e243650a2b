"""What the study runs: footage, pools, methods, labels and budgets of a scale, and the commands that they take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

NONE = "none"
METHODS: dict[str, tuple[str, ...]] = {
    "simclr": ("--method", "simclr"),
    "peclr": ("--method", "peclr"),
    "tempclr": ("--method", "tempclr"),
    "simhand": ("--method", "simhand"),
    "handclr": ("--method", "handclr"),
    "soft": ("--method", "handclr", "--targets", "pose"),
    "crop": ("--method", "handclr", "--undo", "crop"),
    "soft-crop": ("--method", "handclr", "--targets", "pose", "--undo", "crop"),
}
TITLES = {
    NONE: "no pre-training",
    "simclr": "SimCLR",
    "peclr": "PeCLR",
    "tempclr": "TempCLR",
    "simhand": "SiMHand",
    "handclr": "HandCLR",
    "soft": "HandCLR, soft targets",
    "crop": "HandCLR, `--undo crop`",
    "soft-crop": "HandCLR, soft targets, `--undo crop`",
}
PAPER = ("simclr", "peclr", "handclr")
BEST = ("soft-crop",)
TESTS = ("lab", "wild")


class Footage(NamedTuple):
    """Procedural videos of the wild world."""

    videos: int
    frames: int


class Pool(NamedTuple):
    """Crops to pre-train on: the first videos of a footage, and how often they are passed over."""

    footage: str
    videos: int
    epochs: int


@dataclass(frozen=True)
class Scale:
    """How large everything is; budgets are equal: pool times epochs, and fraction times epochs, hardly vary.

    The methods of the paper are run with `seeds` seeds on the `main` pool and the least labels, what else the tables
    have with `others`.
    """

    footage: dict[str, Footage]
    pools: dict[str, Pool]
    fractions: dict[float, int]
    main: str
    arch: str = "resnet18"
    size: int = 64
    fps: int = 6
    frame: tuple[int, int] = (384, 288)
    crop: int = 128
    labels: int = 1000
    tests: int = 400
    batch: int = 128
    tune_batch: int = 32
    head: str = "regress"
    seeds: int = 3
    others: int = 1


CPU = Scale(
    {"wild": Footage(1000, 12), "long": Footage(250, 24)},
    {
        "1000": Pool("wild", 1000, 2),
        "500": Pool("wild", 500, 4),
        "250": Pool("wild", 250, 8),
        "long": Pool("long", 250, 4),
    },
    {0.1: 50, 0.2: 25, 0.4: 12, 0.8: 6, 1.0: 5},
    main="1000",
)
SCALES = {
    # Two cores, six hours.
    "cpu": CPU,
    # Minutes: to see that all of it runs.
    "tiny": replace(
        CPU,
        footage={"wild": Footage(8, 6), "long": Footage(4, 12)},
        pools={"8": Pool("wild", 8, 1), "4": Pool("wild", 4, 2), "long": Pool("long", 4, 1)},
        fractions={0.5: 1, 1.0: 1},
        main="8",
        labels=16,
        tests=8,
        batch=8,
        tune_batch=4,
        seeds=2,
    ),
}


@dataclass(frozen=True)
class Cell:
    """One command, under the name by which it is done once; what it prints goes to `output`."""

    name: str
    words: tuple[object, ...]
    output: Path | None = None


class Encoder(NamedTuple):
    """What a pose model starts from."""

    method: str
    pool: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}/{self.pool}/{self.seed}"


class Model(NamedTuple):
    """A pose model: an encoder, and the fraction of the labels it was fine-tuned on."""

    encoder: Encoder
    fraction: float

    def folder(self, root: Path) -> Path:
        return root / "finetune" / self.encoder.name / f"{self.fraction:g}"


def encoder(method: str, pool: str, seed: int) -> Encoder:
    """The encoder of a method; without pre-training there is no pool."""
    return Encoder(method, NONE if method == NONE else pool, seed)


def models(scale: Scale) -> Iterator[Model]:
    """All pose models of the study, those first that most of it hangs on."""
    small, main = min(scale.fractions), scale.main
    for seed in range(scale.seeds):
        for method in (NONE, *PAPER, *BEST):
            yield Model(encoder(method, main, seed), small)
    for seed in range(scale.others):
        for fraction, method in product(sorted(scale.fractions)[:0:-1], (NONE, *PAPER, *BEST)):
            yield Model(encoder(method, main, seed), fraction)
        for method in METHODS:
            yield Model(encoder(method, main, seed), small)
        for pool, method in product(scale.pools, (*PAPER, *BEST)):
            yield Model(encoder(method, pool, seed), small)


def cells(scale: Scale, root: Path) -> Iterator[Cell]:
    """Every command of the study in an order in which it can be run; none twice."""
    made: set[str] = set()
    for cell in _repeated(scale, root):
        if cell.name not in made:
            made.add(cell.name)
            yield cell


def _repeated(scale: Scale, root: Path) -> Iterator[Cell]:
    """All that each model needs, before the model."""
    yield from _labelled(scale, root)
    for model in models(scale):
        if model.encoder.method != NONE:
            yield from _pool(scale, root, model.encoder.pool)
            yield _pretrain(scale, root, model.encoder)
        yield from _model(scale, root, model)


def _labelled(scale: Scale, root: Path) -> Iterator[Cell]:
    """Labels of one laboratory; tests on people of another one, and in the wild."""
    sets = {"train": ("lab", scale.labels), "lab": ("lab", scale.tests), "wild": ("wild", scale.tests)}
    for seed, (name, (world, count)) in enumerate(sets.items(), 1):
        output = root / "labelled" / f"{name}.tar"
        options = ("--world", world, "--count", count, "--size", scale.crop, "--seed", seed, "-o", output)
        yield Cell(f"labelled/{name}", ("synth", "labelled", *options))


def _pool(scale: Scale, root: Path, name: str) -> Iterator[Cell]:
    """Film, find hands and keypoints as in footage of anybody's, and mine."""
    footage = scale.pools[name].footage
    total, frames = scale.footage[footage]
    folder, crops, hands = (root / kind / footage for kind in ("footage", "crops", "hands"))
    width, height = scale.frame
    film = ("--videos", total, "--frames", frames, "--fps", scale.fps, "--width", width, "--height", height)
    each = _videos_of_shard(scale, footage)
    yield Cell(f"footage/{footage}", ("synth", "footage", folder, *film))
    shards = ("--fps", scale.fps, "--shard-size", each * frames, "-o", crops / "crops-%06d.tar")
    yield Cell(f"crops/{footage}", ("extract", folder, *shards))
    yield Cell(f"hands/{footage}", ("keypoints", crops, "-o", hands / "hands-%06d.tar"))
    pose, pairs = (root / "pools" / name / file for file in ("pose.npz", "pairs.npz"))
    yield Cell(f"pools/{name}/pose", ("pca", shards_of(scale, root, name), "-o", pose))
    told = ("--truth", folder / "truth", "--report", pairs.with_suffix(".json"), "-o", pairs)
    yield Cell(f"pools/{name}/pairs", ("mine", pose, *told))


def _videos_of_shard(scale: Scale, footage: str) -> int:
    """So many that every pool is a whole number of shards."""
    return min(pool.videos for pool in scale.pools.values() if pool.footage == footage)


def shards_of(scale: Scale, root: Path, pool: str) -> str:
    """The shards of a pool, as a range."""
    footage, videos, _ = scale.pools[pool]
    last = videos // _videos_of_shard(scale, footage) - 1
    return str(root / "hands" / footage / f"hands-{{000000..{last:06d}}}.tar")


def _model(scale: Scale, root: Path, model: Model) -> Iterator[Cell]:
    start, run = model.encoder, model.folder(root)
    weights = "random" if start.method == NONE else root / "pretrain" / start.name / "encoder.pt"
    options = ("--encoder", weights, "--arch", scale.arch, "--size", scale.size, "--head", scale.head)
    options += ("--fraction", model.fraction, "--epochs", scale.fractions[model.fraction], "--batch", scale.tune_batch)
    options += ("--seed", start.seed, "--save-every", 1000, "--run", run)
    name = f"{start.name}/{model.fraction:g}"
    yield Cell(f"finetune/{name}", ("finetune", root / "labelled" / "train.tar", *options))
    for test in TESTS:
        words = ("evaluate", root / "labelled" / f"{test}.tar", "--model", run / "model.pt", "-o", run / f"{test}.npz")
        yield Cell(f"evaluate/{name}/{test}", words, run / f"{test}.json")


def _pretrain(scale: Scale, root: Path, start: Encoder) -> Cell:
    options = ("--pairs", root / "pools" / start.pool / "pairs.npz", *METHODS[start.method])
    options += ("--arch", scale.arch, "--size", scale.size, "--batch", scale.batch)
    options += ("--epochs", scale.pools[start.pool].epochs, "--save-every", 50, "--seed", start.seed)
    run = root / "pretrain" / start.name
    return Cell(f"pretrain/{start.name}", ("pretrain", shards_of(scale, root, start.pool), *options, "--run", run))
