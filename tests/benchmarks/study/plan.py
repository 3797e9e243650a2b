"""What the study runs: footage, pools, methods, labels and budgets of a scale, and the commands
that they take.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

NONE = "none"


class Pairing(NamedTuple):
    """How pairs are made of the same crops: options of `pca` and of `mine`, and one crop in how
    many has a pair.
    """

    pca: str = ""
    mine: str = ""
    one_in: int = 1


class Method(NamedTuple):
    """What is pre-trained: options of `pretrain`, the name of its pairing, how many times the
    epochs of its pool.
    """

    title: str
    options: str
    pairing: str = "paper"
    times: int = 1


PAIRINGS = {
    "paper": Pairing(),
    "half": Pairing(mine="--max-distance 50%", one_in=2),
    "28": Pairing(pca="--dim 28"),
}
# Spelt out, as it was measured before it was a preset: `handclr-soft` is this with a temperature of
# 0.1.
SOFT = "--method handclr --targets pose --undo crop"
METHODS = {
    "simclr": Method("SimCLR", "--method simclr"),
    "peclr": Method("PeCLR", "--method peclr"),
    "tempclr": Method("TempCLR", "--method tempclr"),
    "simhand": Method("SiMHand", "--method simhand"),
    "handclr": Method("HandCLR", "--method handclr"),
    "crop": Method("HandCLR, `--undo crop`", "--method handclr --undo crop"),
    "soft-crop": Method("`handclr-soft`, temperature 0.5", SOFT),
    "soft-self": Method(
        "`handclr-soft`, temperature 0.5, nothing mined", f"{SOFT} --positives self"
    ),
    "soft-cold": Method("`handclr-soft`, temperature 0.2", f"{SOFT} --temperature 0.2"),
    "soft-colder": Method("`handclr-soft`", f"{SOFT} --temperature 0.1"),
    "soft-coldest": Method("`handclr-soft`, temperature 0.05", f"{SOFT} --temperature 0.05"),
    "soft-unturned": Method(
        "`handclr-soft`, temperature 0.5, views not turned", f"{SOFT} --rotation 0"
    ),
    "soft-cold-unturned": Method(
        "`handclr-soft`, temperature 0.2, views not turned",
        f"{SOFT} --temperature 0.2 --rotation 0",
    ),
    "cold": Method("HandCLR, temperature 0.1", "--method handclr --temperature 0.1"),
    "half": Method("HandCLR, the nearer half of the pairs", "--method handclr", "half"),
    "soft-half": Method(
        "`handclr-soft`, the nearer half of the pairs", f"{SOFT} --temperature 0.1", "half"
    ),
    "28": Method("HandCLR, 28 dimensions", "--method handclr", "28"),
    "simclr-turned": Method("SimCLR, views turned as in PeCLR", "--method simclr --rotation 45"),
    "simclr-published": Method("SimCLR, augmented as published", "--method simclr --as-published"),
    "simclr-longer": Method("SimCLR, four times the steps", "--method simclr", times=4),
    "peclr-longer": Method("PeCLR, four times the steps", "--method peclr", times=4),
    "peclr-crop": Method("PeCLR, `--undo crop`", "--method peclr --undo crop"),
    "peclr-unturned": Method("PeCLR, views not turned", "--method peclr --rotation 0"),
    "handclr-unturned": Method("HandCLR, views not turned", "--method handclr --rotation 0"),
}
TITLES = {NONE: "no pre-training"} | {name: method.title for name, method in METHODS.items()}
# The headline, in as many seeds as the scale has; what else the paper has; what beats it.
PAPER = ("simclr", "peclr", "handclr")
OTHERS = ("tempclr", "simhand")
BEST = ("soft-crop", "soft-colder")
# What is followed over sizes of the pool, and over shares of the labels.
BY_POOL = ("peclr", "handclr")
BY_LABELS = (NONE, *PAPER, "soft-colder")
# Why PeCLR is not ahead of SimCLR, whose views are not turned: what is compared with what.
EXPLAINED = (
    ("simclr-turned", "simclr"),
    ("peclr-unturned", "peclr"),
    ("peclr", "simclr-turned"),
    ("peclr-unturned", "simclr"),
    ("peclr-crop", "simclr-turned"),
    ("peclr-longer", "simclr-longer"),
    ("peclr", "simclr-published"),
)
TESTS = ("lab", "wild")


class Pool(NamedTuple):
    """Crops to pre-train on: the first videos of the footage, and how often they are
    passed over.
    """

    videos: int
    epochs: int


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Steps are equal, since videos times epochs, and fraction times epochs, hardly vary; but for the
    pools that have the epochs of the main one. What the tables compare is run with `seeds` seeds,
    variants of the methods with `others`.
    """

    frames: int
    pools: dict[str, Pool]
    fractions: dict[float, int]
    main: str = "main"
    arch: str = "resnet18"
    size: int = 64
    # With AVX512-BF16 or AMX 1.8 times as fast as fp32; on a processor without them set it to fp32.
    precision: str = "bf16"
    fps: int = 6
    frame: tuple[int, int] = (384, 288)
    crop: int = 128
    labels: int = 1000
    tests: int = 1600
    batch: int = 128
    tune_batch: int = 32
    head: str = "regress"
    # Of the hands in fine-tuning, degrees; with so few steps better than 90, on 200 other crops and
    # two encoders.
    rotation: int = 30
    seeds: int = 3
    others: int = 1

    @property
    def equal_steps(self) -> list[str]:
        """The pools that are trained on for as many steps as the main one, the smallest first."""
        main = self.pools[self.main]
        return self._smallest_first(
            lambda pool: pool.videos * pool.epochs == main.videos * main.epochs
        )

    @property
    def equal_epochs(self) -> list[str]:
        """The pools that are trained on for as many epochs as the main one, the smallest first."""
        return self._smallest_first(lambda pool: pool.epochs == self.pools[self.main].epochs)

    def _smallest_first(self, chosen: Callable[[Pool], bool]) -> list[str]:
        names = (name for name, pool in self.pools.items() if chosen(pool))
        return sorted(names, key=lambda name: self.pools[name].videos)


CPU = Scale(
    12,
    {"main": Pool(1000, 5), "500": Pool(500, 10), "250": Pool(250, 20), "250-brief": Pool(250, 5)},
    {0.1: 100, 0.2: 50, 0.4: 25, 0.8: 12, 1.0: 10},
)
SCALES = {
    # Two cores, seven hours.
    "cpu": CPU,
    # Minutes: to see that all of it runs.
    "tiny": replace(
        CPU,
        frames=6,
        pools={"main": Pool(8, 2), "4": Pool(4, 4), "4-brief": Pool(4, 2)},
        fractions={0.5: 1, 1.0: 1},
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

    @property
    def line(self) -> str:
        """As one would type it."""
        return shlex.join(["handclr", *map(str, self.words)])


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

    @property
    def name(self) -> str:
        return f"{self.encoder.name}/{self.fraction:g}"

    def folder(self, root: Path) -> Path:
        return root / "finetune" / self.name


def encoder(method: str, pool: str, seed: int) -> Encoder:
    """The encoder of a method; without pre-training there is no pool."""
    return Encoder(method, NONE if method == NONE else pool, seed)


def flags(**options: object) -> tuple[object, ...]:
    """Options and their values as words."""
    words: tuple[object, ...] = ()
    for name, value in options.items():
        words += (f"--{name.replace('_', '-')}", value)
    return words


def models(scale: Scale) -> list[Model]:
    """All pose models of the study, each once, those first that most of it hangs on."""
    return list(dict.fromkeys(_wanted(scale)))


def _wanted(scale: Scale) -> Iterator[Model]:
    """What each table needs; some models are in several."""
    small, main = min(scale.fractions), scale.main
    for seed in range(scale.seeds):
        for method in (*BY_LABELS, *OTHERS, *BEST, "simclr-turned", "peclr-unturned"):
            yield Model(encoder(method, main, seed), small)
        for pool, method in product((*scale.equal_epochs, *scale.equal_steps), BY_POOL):
            yield Model(encoder(method, pool, seed), small)
        for fraction, method in product(sorted(scale.fractions)[:0:-1], BY_LABELS):
            yield Model(encoder(method, main, seed), fraction)
    for seed, method in product(range(scale.others), METHODS):
        yield Model(encoder(method, main, seed), small)


def fingerprint(scale: Scale, model: Model) -> str:
    """Of all commands that lead to a model: of results with the same one, the inputs were
    the same.
    """
    lines = "\n".join(cell.line for cell in chain(scale, Path("RUN"), model))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def chain(scale: Scale, root: Path, model: Model) -> Iterator[Cell]:
    """Every command that leads to a model and its results, in order."""
    yield from _labelled(scale, root)
    if model.encoder.method != NONE:
        yield from _pool(scale, root)
        yield from _pairs(scale, root, model.encoder.pool, METHODS[model.encoder.method].pairing)
        yield _pretrain(scale, root, model.encoder)
    yield from _model(scale, root, model)


def _labelled(scale: Scale, root: Path) -> Iterator[Cell]:
    """Labels of one laboratory; tests on people of another one, and in the wild."""
    sets = {
        "train": ("lab", scale.labels),
        "lab": ("lab", scale.tests),
        "wild": ("wild", scale.tests),
    }
    for seed, (name, (world, count)) in enumerate(sets.items(), 1):
        options = flags(world=world, count=count, size=scale.crop, seed=seed)
        output = ("-o", root / "labelled" / f"{name}.tar")
        yield Cell(f"labelled/{name}", ("synth", "labelled", *options, *output))


def _pool(scale: Scale, root: Path) -> Iterator[Cell]:
    """Film, and find hands and keypoints as in footage of anybody's."""
    folder, crops, hands = (root / kind / "wild" for kind in ("footage", "crops", "hands"))
    (width, height), videos = scale.frame, [pool.videos for pool in scale.pools.values()]
    length = flags(videos=max(videos), frames=scale.frames, fps=scale.fps)
    film = (*length, *flags(width=width, height=height))
    yield Cell("footage/wild", ("synth", "footage", folder, *film))
    # Every pool is a whole number of shards.
    shards = flags(fps=scale.fps, shard_size=min(videos) * scale.frames)
    # As a frame is looked at in the paper, and was when the study was made.
    plain = ("--look", "once", "--no-tracks")
    words = ("extract", folder, *shards, *plain, "-o", crops / "crops-%06d.tar")
    yield Cell("crops/wild", words)
    yield Cell("hands/wild", ("keypoints", crops, "-o", hands / "hands-%06d.tar"))


def _pairs(scale: Scale, root: Path, pool: str, pairing: str) -> Iterator[Cell]:
    """Mine the pairs of a pool."""
    how, folder = PAIRINGS[pairing], _pairs_of(scale, root, pool, pairing)
    pose, pairs, name = folder / "pose.npz", folder / "pairs.npz", folder.relative_to(root)
    yield Cell(f"{name}/pose", ("pca", shards_of(scale, root, pool), *how.pca.split(), "-o", pose))
    told = ("--truth", root / "footage" / "wild" / "truth", "--report", pairs.with_suffix(".json"))
    yield Cell(f"{name}/pairs", ("mine", pose, *how.mine.split(), *told, "-o", pairs))


def _pairs_of(scale: Scale, root: Path, pool: str, pairing: str) -> Path:
    videos = str(scale.pools[pool].videos)
    return root / "pools" / (videos if pairing == "paper" else f"{videos}-{pairing}")


def shards_of(scale: Scale, root: Path, pool: str) -> str:
    """The shards of a pool, as a range."""
    last = scale.pools[pool].videos // min(pool.videos for pool in scale.pools.values()) - 1
    return str(root / "hands" / "wild" / f"hands-{{000000..{last:06d}}}.tar")


def _model(scale: Scale, root: Path, model: Model) -> Iterator[Cell]:
    start, run = model.encoder, model.folder(root)
    weights = "random" if start.method == NONE else root / "pretrain" / start.name / "encoder.pt"
    options = flags(encoder=weights, arch=scale.arch, size=scale.size, head=scale.head)
    options += flags(precision=scale.precision, rotation=scale.rotation, fraction=model.fraction)
    options += flags(epochs=scale.fractions[model.fraction], batch=scale.tune_batch)
    options += flags(seed=start.seed, save_every=1000, run=run)
    yield Cell(f"finetune/{model.name}", ("finetune", root / "labelled" / "train.tar", *options))
    for test in TESTS:
        words = ("evaluate", root / "labelled" / f"{test}.tar", *flags(model=run / "model.pt"))
        output = ("-o", run / f"{test}.npz")
        yield Cell(f"evaluate/{model.name}/{test}", words + output, run / f"{test}.json")


def _pretrain(scale: Scale, root: Path, start: Encoder) -> Cell:
    method = METHODS[start.method]
    epochs = scale.pools[start.pool].epochs * method.times * PAIRINGS[method.pairing].one_in
    pairs = _pairs_of(scale, root, start.pool, method.pairing) / "pairs.npz"
    options = (*flags(pairs=pairs), *method.options.split())
    options += flags(arch=scale.arch, size=scale.size, precision=scale.precision, batch=scale.batch)
    options += flags(epochs=epochs, save_every=50, seed=start.seed)
    options += flags(run=root / "pretrain" / start.name)
    words = ("pretrain", shards_of(scale, root, start.pool), *options)
    return Cell(f"pretrain/{start.name}", words)
