"""What the study compares: methods, recipes, pools, labels and budgets of a scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

NONE = "none"


class Pairing(NamedTuple):
    """How pairs are made of the same crops: options of `pca`, and whether by true keypoints."""

    pca: str = ""
    true: bool = False


class Method(NamedTuple):
    """What is pre-trained: options of `pretrain`, and the name of its pairing."""

    title: str
    options: str
    pairing: str = "paper"


PAIRINGS = {
    "paper": Pairing(),
    "depth": Pairing("--keypoints both"),
    "true": Pairing("--keypoints world --dim 28", true=True),
}
METHODS = {
    "simclr": Method("SimCLR", "--method simclr"),
    "peclr": Method("PeCLR", "--method peclr"),
    "tempclr": Method("TempCLR", "--method tempclr"),
    "simhand": Method("SiMHand", "--method simhand"),
    "handclr": Method("HandCLR", "--method handclr"),
    "soft": Method("`handclr-soft`", "--method handclr-soft"),
    "simclr-turned": Method("SimCLR, views turned", "--method simclr --rotation 45"),
    "simclr-cold": Method("SimCLR, temperature 0.1", "--method simclr --temperature 0.1"),
    "simclr-published": Method("SimCLR, augmented as published", "--method simclr --as-published"),
    "peclr-unturned": Method("PeCLR, views not turned", "--method peclr --rotation 0"),
    "peclr-crop": Method("PeCLR, `--undo crop`", "--method peclr --undo crop"),
    "peclr-cold": Method("PeCLR, temperature 0.1", "--method peclr --temperature 0.1"),
    "peclr-raw": Method("PeCLR, `--undo raw-extent`", "--method peclr --undo raw-extent"),
    "peclr-published": Method("PeCLR, augmented as published", "--method peclr --as-published"),
    "handclr-unturned": Method("HandCLR, views not turned", "--method handclr --rotation 0"),
    "handclr-crop": Method("HandCLR, `--undo crop`", "--method handclr --undo crop"),
    "handclr-cold": Method("HandCLR, temperature 0.1", "--method handclr --temperature 0.1"),
    "handclr-published": Method(
        "HandCLR, augmented as published", "--method handclr --as-published"
    ),
    "soft-self": Method("`handclr-soft`, nothing mined", "--method handclr-soft --positives self"),
    "soft-deep": Method("`handclr-soft`, mined with depth", "--method handclr-soft", "depth"),
    "soft-true": Method(
        "`handclr-soft`, true hands for pairs and targets", "--method handclr-soft", "true"
    ),
}


TITLES = {NONE: "no pre-training"} | {name: method.title for name, method in METHODS.items()}
# The headline; what else the papers have; what beats it.
PAPER = ("simclr", "peclr", "handclr")
OTHERS = ("tempclr", "simhand")
BEST = ("soft",)
SHOWN = (NONE, *PAPER[:-1], *OTHERS, PAPER[-1], *BEST)
# What is followed over budgets, over sizes of the pool, and over shares and kinds of the labels.
BY_STEPS = (*PAPER, *BEST)
BY_POOL = PAPER
BY_LABELS = (NONE, *PAPER, *BEST)
# The recipes of each method, one choice changed at a time; the best is chosen on the validation
# set.
RECIPES = {name: [other for other in METHODS if other.split("-")[0] == name] for name in PAPER}
TESTS = ("lab", "wild")
VALIDATION = "validation"
# Real films to pre-train on, and real images: what RUN/real has in `videos`, `freihand`, `dexycb`.
REAL = "real"
REAL_TESTS = ("freihand", "dexycb")
# What is fine-tuned on: labels of a synthetic laboratory, or real ones.
LABELS = ("lab", "freihand")


class Pool(NamedTuple):
    """Crops to pre-train on: the first videos of the footage, and how often they are
    passed over.
    """

    videos: int
    epochs: int


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    The pool "real" is of the films that are there. Footage is made in parts of `part` videos, of
    which each has its number as seed. Steps are equal where videos times epochs, and fraction times
    epochs, are. What the tables compare is run with `seeds` seeds, the recipes of the methods with
    `others`.
    """

    frames: int
    pools: dict[str, Pool]
    fractions: dict[float, int]
    main: str = "main"
    part: int = 1000
    arch: str = "resnet18"
    size: int = 32
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
    # Of the 400 labels of FreiHAND's layout, for as many steps as of the others.
    real_epochs: int = 25
    seeds: int = 3
    others: int = 1

    @property
    def equal_steps(self) -> list[str]:
        """The pools that are trained on for as many steps as the main one, the smallest first."""
        main = self.pools[self.main]
        return self._in_order(lambda pool: pool.videos * pool.epochs == main.videos * main.epochs)

    @property
    def equal_epochs(self) -> list[str]:
        """The pools that are trained on for as many epochs as the main one, the smallest first."""
        return self._in_order(lambda pool: pool.epochs == self.pools[self.main].epochs)

    @property
    def budgets(self) -> list[str]:
        """The main pool with each number of epochs, the fewest first."""
        return self._in_order(lambda pool: pool.videos == self.pools[self.main].videos)

    def _in_order(self, chosen: Callable[[Pool], bool]) -> list[str]:
        names = (name for name, pool in self.pools.items() if chosen(pool))
        return sorted(names, key=self.pools.__getitem__)


CPU = Scale(
    12,
    {
        "main": Pool(1000, 12),
        "4-epochs": Pool(1000, 4),
        "24-epochs": Pool(1000, 24),
        "48-epochs": Pool(1000, 48),
        "500": Pool(500, 24),
        "250": Pool(250, 48),
        "2000": Pool(2000, 6),
        "4000": Pool(4000, 3),
        "250-brief": Pool(250, 12),
        "500-brief": Pool(500, 12),
        "2000-long": Pool(2000, 12),
        "4000-long": Pool(4000, 12),
        # As many steps as of the main one, with 2,500 crops.
        REAL: Pool(0, 60),
    },
    {0.1: 100, 0.2: 50, 0.4: 25, 0.8: 12, 1.0: 10},
)
SCALES = {
    "cpu": CPU,
    # Minutes: to see that all of it runs.
    "tiny": replace(
        CPU,
        frames=6,
        pools={
            "main": Pool(4, 2),
            "1-epoch": Pool(4, 1),
            "2": Pool(2, 4),
            "2-brief": Pool(2, 2),
            "8": Pool(8, 1),
            REAL: Pool(0, 1),
        },
        real_epochs=1,
        part=4,
        fractions={0.5: 1, 1.0: 1},
        labels=16,
        tests=8,
        batch=8,
        tune_batch=4,
        seeds=2,
    ),
}
