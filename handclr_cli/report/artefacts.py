"""The files of a run of the pipeline, read for the page: samples, numbers, provenance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from ..contract.index import ShardIndex
from ..contract.inputs import expand_inputs
from ..contract.jsontext import parse_json
from ..contract.npz import read_npz


@dataclass(frozen=True)
class StageRun:
    """A finished stage: its name, its command line as typed, and how many seconds it took."""

    name: str
    command: str
    seconds: float


@dataclass(frozen=True)
class ModelArtefacts:
    """A pose model: its name on the page, its run directory, and the files of its evaluation."""

    label: str
    run: Path
    predictions: Path
    metrics: Path

    @cached_property
    def report(self) -> dict[str, Any]:
        """The JSON of handclr evaluate."""
        return read_json(self.metrics)

    @cached_property
    def predicted(self) -> dict[str, np.ndarray]:
        """Arrays of the predictions file; raises HandclrError where it holds no truth."""
        arrays, _ = read_npz(str(self.predictions), "predictions")
        if "truth3d" not in arrays or "error_mm" not in arrays:
            why = "holds no truth; write it with handclr evaluate"
            raise HandclrError(f"{self.predictions}: {why}")
        return arrays

    @cached_property
    def rows(self) -> dict[bytes, int]:
        """The row of each key in the predictions file."""
        return {key: row for row, key in enumerate(self.predicted["key"].tolist())}


@dataclass(frozen=True)
class Artefacts:
    """Files and folders of a run of the pipeline.

    `hands`, `train` and `test` are shards, `truth` a folder of shards with the 3D truth of `hands`,
    `pose` and `pairs` NPZ files, `pairs_report` the JSON report of handclr mine, `pretraining` a
    run directory. All `models` are evaluated on the same samples; the errors of the first one
    decide which samples are shown.
    """

    hands: Path
    truth: Path
    pose: Path
    pairs: Path
    pairs_report: Path
    pretraining: Path
    train: Path
    test: Path
    models: tuple[ModelArtefacts, ...]

    @cached_property
    def hands_index(self) -> ShardIndex:
        """The crops."""
        return ShardIndex([str(self.hands)])

    @cached_property
    def truth_index(self) -> ShardIndex:
        """The truth of the crops, under their keys."""
        return ShardIndex(expand_inputs([str(self.truth)]))

    @cached_property
    def test_index(self) -> ShardIndex:
        """The labelled crops that the models were evaluated on."""
        return ShardIndex([str(self.test)])

    @cached_property
    def pose_arrays(self) -> dict[str, np.ndarray]:
        """Arrays of the pose file."""
        return read_npz(str(self.pose), "pose")[0]

    @cached_property
    def pair_arrays(self) -> dict[str, np.ndarray]:
        """Arrays of the pairs file."""
        return read_npz(str(self.pairs), "pairs")[0]

    @cached_property
    def pair_quality(self) -> dict[str, Any]:
        """How good the pairs are by their 3D truth, from the report of handclr mine.

        Raises HandclrError where the report has no such part.
        """
        quality = read_json(self.pairs_report).get("truth")
        if not isinstance(quality, dict):
            why = "does not measure the pairs by their truth; give handclr mine the truth"
            raise HandclrError(f"{self.pairs_report}: {why}")
        return quality

    def provenance(self) -> Iterator[tuple[str, Any]]:
        """The name and the provenance of each file."""
        yield self.hands.name, self.hands_index.origins
        yield self.train.name, ShardIndex([str(self.train)]).origins
        yield self.test.name, self.test_index.origins
        yield self.pose.name, read_npz(str(self.pose), "pose")[1]
        yield self.pairs.name, read_npz(str(self.pairs), "pairs")[1]
        for run in (self.pretraining, *(model.run for model in self.models)):
            yield f"{run.name}/config.json", read_json(run / "config.json")
        for model in self.models:
            yield model.predictions.name, read_npz(str(model.predictions), "predictions")[1]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises HandclrError naming a file that does not hold one."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HandclrError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise HandclrError(f"{path}: not JSON, or damaged; write it again") from error
    if not isinstance(found, dict):
        raise HandclrError(f"{path}: not a JSON object; write it again")
    return found
