"""What the study has measured: of the runs that are there, and of earlier ones that are kept in a
file.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from plan import PROCESSOR, Cell, Model, chain, encoder, fingerprint, models, tests_of
from scale import LABELS, METHODS, REAL, TESTS, Scale
from scipy.stats import t as student

from handclr_cli.contract.npz import read_npz
from handclr_cli.contract.output import atomic_write
from handclr_cli.evaluation.metrics import AUC_RANGES, area_shares
from handclr_cli.hand.alignment import joint_errors_mm

ALIGNMENT = "root+bone"
NOTES = "notes"


class Result(NamedTuple):
    """Of one method on one test set: what was measured of each image (seeds, 2, N), and the mean
    pose's error in mm.

    Measured: the mean error of the joints in mm, and what the image adds to the area under the PCK
    curve, 0..1.
    """

    images: np.ndarray
    mean_pose: float = 0.0

    @property
    def error(self) -> float:
        return float(self.images[:, 0].mean())

    @property
    def area(self) -> float:
        return float(self.images[:, 1].mean())

    def first(self, seeds: int) -> Result:
        """Of the first seeds alone."""
        return Result(self.images[:seeds], self.mean_pose)

    def interval(self, measure: int = 0) -> tuple[float, float]:
        """The 95 % interval of the mean: by Student's t over the seeds, and over the images, whose
        half-widths add as independent ones do.

        Few seeds make it wide, where a bootstrap of three would hold the true mean in three of four
        cases only. NaN where there is one seed: its images do not tell how far another one lies.
        """
        values = self.images[:, measure]
        if len(values) == 1:
            return math.nan, math.nan
        middle = float(values.mean())
        reach = math.hypot(*(_half_width(values.mean(axis=axis)) for axis in (0, 1)))
        return middle - reach, middle + reach


def _half_width(values: np.ndarray) -> float:
    """Of the 95 % interval of the mean of independent values (N,)."""
    spread = values.std(ddof=1) / math.sqrt(len(values))
    return float(student.ppf(0.975, len(values) - 1) * spread)


class Measured(NamedTuple):
    """A pose model on one test set (2, N), the mean pose's error in mm, the fingerprint of its
    commands, and the processor that they ran on.
    """

    images: np.ndarray
    mean_pose: float
    made_by: str
    processor: str


class Results:
    """What is known of a scale: in the folder of its runs, and in a file, where what other commands
    made is no more.
    """

    def __init__(self, scale: Scale, root: Path | None = None, file: Path | None = None) -> None:
        self.scale = scale
        made_by = {model.name: fingerprint(scale, model) for model in models(scale)}
        self._known: dict[str, Measured] = {}
        for name, one in _kept(file) if file and file.exists() else ():
            if made_by.get(name.rpartition("/")[0]) == one.made_by:
                self._known[name] = one
        if root:
            self._add(root, made_by)

    def _add(self, root: Path, made_by: dict[str, str]) -> None:
        """What the runs of a folder have, with the fingerprints of their commands by model: of what
        all commands that lead to it were run as they are planned.
        """
        done = lru_cache(maxsize=None)(partial(Cell.done, root=root))
        for model in models(self.scale):
            cells = list(takewhile(done, chain(self.scale, root, model, (root / REAL).exists())))
            found = {cell.name for cell in cells}
            for test in tests_of(self.scale, model):
                if f"evaluate/{model.name}/{test}" in found:
                    one = _read(root, model, test, made_by[model.name])
                    self._known[f"{model.name}/{test}"] = one

    def of(
        self, method: str, pool: str, fraction: float, test: str = TESTS[0], labels: str = LABELS[0]
    ) -> Result | None:
        """The seeds of one cell up to one that is not there; None where there are none."""
        of_seeds = (
            Model(encoder(method, pool, seed), fraction, labels) for seed in range(self.scale.seeds)
        )
        names = takewhile(self._known.__contains__, (f"{model.name}/{test}" for model in of_seeds))
        found = [self._known[name] for name in names]
        if not found:
            return None
        images = np.stack([one.images for one in found])
        return Result(images, float(np.mean([one.mean_pose for one in found])))

    def across(self, method: str, columns: Iterable[tuple[str, float, str]]) -> list[Result | None]:
        """A method in each column (pool, share of the labels, test set), of the seeds that all
        columns have in which it is.
        """
        found = [self.of(method, *column) for column in columns]
        seeds = min((len(result.images) for result in found if result), default=0)
        return [result and result.first(seeds) for result in found]

    def begun(self, pools: Iterable[str]) -> list[str]:
        """Those of the pools that some method was measured on, with the fewest labels."""
        small = min(self.scale.fractions)
        return [pool for pool in pools if any(self.of(name, pool, small) for name in METHODS)]

    def processors(self) -> dict[int, set[str]]:
        """The processors that each seed was measured on."""
        found: dict[int, set[str]] = defaultdict(set)
        for name, one in self._known.items():
            found[int(name.split("/")[2])].add(one.processor)
        return found

    def keep(self, file: Path) -> None:
        """Write all of it to a file, the images as float16."""
        arrays = {name: one.images.astype(np.float16) for name, one in self._known.items()}
        notes = {name: one[1:] for name, one in self._known.items()}
        with atomic_write(file, "npz") as out:
            arrays[NOTES] = np.array(json.dumps(notes))
            np.savez_compressed(out, allow_pickle=False, **arrays)


def _kept(file: Path) -> Iterator[tuple[str, Measured]]:
    with np.load(file) as npz:
        for name, notes in json.loads(str(npz[NOTES])).items():
            yield name, Measured(npz[name].astype(np.float64), *notes)


def _read(root: Path, model: Model, test: str, made_by: str) -> Measured:
    run = model.folder(root)
    arrays, _ = read_npz(str(run / f"{test}.npz"), "predictions")
    told = json.loads((run / f"{test}.json").read_text())
    errors = joint_errors_mm(arrays["keypoints3d"], arrays["truth3d"], ALIGNMENT)
    images = np.stack([errors.mean(axis=1), area_shares(errors, *AUC_RANGES["0-50"]).mean(axis=1)])
    mean_pose = told["mean_pose_of_training_set"][ALIGNMENT]["mpjpe_mm"]
    return Measured(images, mean_pose, made_by, (root / PROCESSOR).read_text().strip())
