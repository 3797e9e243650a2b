"""What the study runs: the models that its tables need, and the commands that lead to each."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

from scale import (
    BY_LABELS,
    BY_POOL,
    BY_STEPS,
    LABELS,
    METHODS,
    NONE,
    OTHERS,
    PAIRINGS,
    REAL,
    REAL_TESTS,
    TESTS,
    VALIDATION,
    Scale,
)

REAL_FPS = 10
# The folder of crops with true keypoints.
TRUE = "true"
# The labelled real sets: what `import` calls them, and their parts.
IMPORTED = {
    "freihand-train": ("freihand", "train"),
    "freihand": ("freihand", "eval"),
    "dexycb": ("dexycb", "all"),
}
# The note of the processor that a folder's runs are of.
PROCESSOR = "processor.txt"


@dataclass(frozen=True)
class Cell:
    """One command, of handclr or a script beside this file, under the name by which it is done
    once; what it prints goes to `output`.
    """

    name: str
    words: tuple[object, ...]
    output: Path | None = None
    program: str = "handclr"

    @property
    def line(self) -> str:
        """As one would type it."""
        return shlex.join([self.program, *map(str, self.words)])

    def done(self, root: Path) -> bool:
        """Whether it was run in a folder; a note of another command under its name ends the study,
        for its results would mix.
        """
        note = root / "done" / self.name
        if not note.is_file():
            return False
        if note.read_text().strip() != self.line:
            todo = "remove it and what it made, or name another folder"
            sys.exit(f"{note}: was made by another command; {todo}")
        return True


class Encoder(NamedTuple):
    """What a pose model starts from."""

    method: str
    pool: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}/{self.pool}/{self.seed}"


class Model(NamedTuple):
    """A pose model: an encoder, and the labels it was fine-tuned on, or a fraction of them."""

    encoder: Encoder
    fraction: float
    labels: str = LABELS[0]

    @property
    def name(self) -> str:
        labels = "" if self.labels == LABELS[0] else f"-{self.labels}"
        return f"{self.encoder.name}/{self.fraction:g}{labels}"

    @property
    def needs_real(self) -> bool:
        """Whether it needs films or labels that are not made here."""
        return self.encoder.pool == REAL or self.labels != LABELS[0]

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
    """What each table needs, a seed after the other, so that one machine has all of a seed; some
    models are in several.
    """
    small = min(scale.fractions)
    for seed in range(scale.seeds):
        for method in (*BY_LABELS, *OTHERS):
            yield Model(encoder(method, scale.main, seed), small)
        for fraction, method in product(sorted(scale.fractions)[:0:-1], BY_LABELS):
            yield Model(encoder(method, scale.main, seed), fraction)
        for budget, method in product(scale.budgets, BY_STEPS):
            yield Model(encoder(method, budget, seed), small)
        for pool, method in product((*scale.equal_epochs, *scale.equal_steps), BY_POOL):
            yield Model(encoder(method, pool, seed), small)
        if seed < scale.others:
            for method in METHODS:
                yield Model(encoder(method, scale.main, seed), small)
        for labels, pool, method in product(LABELS, (scale.main, REAL), BY_LABELS):
            yield Model(encoder(method, pool, seed), max(scale.fractions), labels)


def tests_of(scale: Scale, model: Model, real: bool = True) -> Iterator[str]:
    """The sets that a model is evaluated on: the real ones where it has all labels."""
    if model.labels == LABELS[0]:
        yield from (*TESTS, VALIDATION)
    if real and model.fraction == max(scale.fractions):
        yield from REAL_TESTS


def fingerprint(scale: Scale, model: Model) -> str:
    """Of all commands that lead to a model: of results with the same one, the inputs were
    the same.
    """
    lines = "\n".join(cell.line for cell in chain(scale, Path("RUN"), model))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def chain(scale: Scale, root: Path, model: Model, real: bool = True) -> Iterator[Cell]:
    """Every command that leads to a model and its results, in order; of `real` images too."""
    yield from _labelled(scale, root)
    if real:
        yield from _imported(root)
    if model.encoder.method != NONE:
        for part in parts_of(scale, model.encoder.pool):
            yield from _footage(scale, root, part)
            if PAIRINGS[METHODS[model.encoder.method].pairing].true:
                yield _true_hands(root, part)
        if model.encoder.pool == REAL:
            yield from _found(scale, root, REAL, root / REAL / "videos", REAL_FPS, ())
        yield from _pairs(scale, root, model.encoder.pool, METHODS[model.encoder.method].pairing)
        yield _pretrain(scale, root, model.encoder)
    yield _finetune(scale, root, model)
    for test in tests_of(scale, model, real):
        yield _evaluate(root, model, test)


def _labelled(scale: Scale, root: Path) -> Iterator[Cell]:
    """Labels of one laboratory; tests on people of another one, and in the wild; a third one, to
    choose by.
    """
    sets = {
        "train": ("lab", scale.labels),
        "lab": ("lab", scale.tests),
        "wild": ("wild", scale.tests),
        VALIDATION: ("lab", scale.tests // 2),
    }
    for seed, (name, (world, count)) in enumerate(sets.items(), 1):
        options = flags(world=world, count=count, size=scale.crop, seed=seed)
        output = ("-o", root / "labelled" / f"{name}.tar")
        yield Cell(f"labelled/{name}", ("synth", "labelled", *options, *output))


def _footage(scale: Scale, root: Path, part: int) -> Iterator[Cell]:
    """Film a part, and find hands and keypoints as in footage of anybody's."""
    name = part_name(part)
    folder = root / "footage" / name
    length = flags(videos=scale.part, frames=scale.frames, fps=scale.fps)
    width, height = scale.frame
    film = (*length, *flags(width=width, height=height, seed=part))
    yield Cell(f"footage/{name}", ("synth", "footage", folder, *film))
    # As a frame is looked at in the paper.
    yield from _found(scale, root, name, folder, scale.fps, ("--look", "once", "--no-tracks"))


def _true_hands(root: Path, part: int) -> Cell:
    """The crops of a part with true keypoints."""
    name = part_name(part)
    folders = root / "hands" / name, root / "footage" / name / "truth", root / TRUE / name
    return Cell(f"{TRUE}/{name}", folders, program="true_hands.py")


def _found(
    scale: Scale, root: Path, name: str, films: Path, fps: int, look: tuple[str, ...]
) -> Iterator[Cell]:
    """Find the hands of films, and their keypoints."""
    crops, hands = root / "crops" / name, root / "hands" / name
    # Every pool is a whole number of shards.
    shards = flags(fps=fps, shard_size=_smallest(scale) * scale.frames)
    words = ("extract", films, *shards, *look, "-o", crops / "crops-%06d.tar")
    yield Cell(f"crops/{name}", words)
    yield Cell(f"hands/{name}", ("keypoints", crops, "-o", hands / "hands-%06d.tar"))


def _imported(root: Path) -> Iterator[Cell]:
    """The labelled real sets."""
    for name, (kind, split) in IMPORTED.items():
        words = ("import", kind, root / REAL / kind, *flags(split=split))
        yield Cell(f"labelled/{name}", (*words, "-o", root / "labelled" / f"{name}.tar"))


def part_name(part: int) -> str:
    return f"wild-{part}" if part else "wild"


def parts_of(scale: Scale, pool: str) -> range:
    """The parts of the footage that a pool takes videos of."""
    return range(-(-scale.pools[pool].videos // scale.part))


def _smallest(scale: Scale) -> int:
    return min(pool.videos for pool in scale.pools.values() if pool.videos)


def _pairs(scale: Scale, root: Path, pool: str, pairing: str) -> Iterator[Cell]:
    """Mine the pairs of a pool."""
    how, folder = PAIRINGS[pairing], _pairs_of(scale, root, pool, pairing)
    pose, pairs, name = folder / "pose.npz", folder / "pairs.npz", folder.relative_to(root)
    shards = shards_of(scale, root, pool, how.true)
    yield Cell(f"{name}/pose", ("pca", *shards, *how.pca.split(), "-o", pose))
    words: tuple[object, ...] = ("mine", pose)
    for part, shard in zip(parts_of(scale, pool), shards, strict=False):
        truth = root / "footage" / part_name(part) / "truth"
        words += flags(truth=truth, shards=shard)
    words += flags(report=pairs.with_suffix(".json"))
    yield Cell(f"{name}/pairs", (*words, "-o", pairs))


def _pairs_of(scale: Scale, root: Path, pool: str, pairing: str) -> Path:
    videos = str(scale.pools[pool].videos or pool)
    return root / "pools" / (videos if pairing == "paper" else f"{videos}-{pairing}")


def shards_of(scale: Scale, root: Path, pool: str, true: bool = False) -> list[str]:
    """The shards of a pool, a range of each part; those with true keypoints, if asked."""
    if pool == REAL:
        return [str(root / "hands" / REAL)]
    videos, found = scale.pools[pool].videos, []
    for part in parts_of(scale, pool):
        last = min(videos - part * scale.part, scale.part) // _smallest(scale) - 1
        shards = f"hands-{{000000..{last:06d}}}.tar"
        found.append(str(root / (TRUE if true else "hands") / part_name(part) / shards))
    return found


def _finetune(scale: Scale, root: Path, model: Model) -> Cell:
    start, run = model.encoder, model.folder(root)
    weights = "random" if start.method == NONE else root / "pretrain" / start.name / "encoder.pt"
    options = flags(encoder=weights, arch=scale.arch, size=scale.size, head=scale.head)
    options += flags(precision=scale.precision, rotation=scale.rotation, fraction=model.fraction)
    epochs, train = scale.fractions[model.fraction], "train"
    if model.labels != LABELS[0]:
        epochs, train = scale.real_epochs, f"{model.labels}-train"
    options += flags(epochs=epochs, batch=scale.tune_batch)
    options += flags(seed=start.seed, save_every=1000, run=run)
    shards = root / "labelled" / f"{train}.tar"
    return Cell(f"finetune/{model.name}", ("finetune", shards, *options))


def _evaluate(root: Path, model: Model, test: str) -> Cell:
    run = model.folder(root)
    words = ("evaluate", root / "labelled" / f"{test}.tar", *flags(model=run / "model.pt"))
    output = ("-o", run / f"{test}.npz")
    return Cell(f"evaluate/{model.name}/{test}", words + output, run / f"{test}.json")


def _pretrain(scale: Scale, root: Path, start: Encoder) -> Cell:
    method = METHODS[start.method]
    epochs = scale.pools[start.pool].epochs
    pairs = _pairs_of(scale, root, start.pool, method.pairing) / "pairs.npz"
    options = (*flags(pairs=pairs), *method.options.split())
    options += flags(arch=scale.arch, size=scale.size, precision=scale.precision, batch=scale.batch)
    options += flags(epochs=epochs, save_every=500, seed=start.seed)
    options += flags(run=root / "pretrain" / start.name)
    shards = shards_of(scale, root, start.pool, PAIRINGS[method.pairing].true)
    words = ("pretrain", *shards, *options)
    return Cell(f"pretrain/{start.name}", words)
