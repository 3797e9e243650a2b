"""How well a pose network in training does on crops that it is not trained on, and the best of it
so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..contract.errors import HandclrError, UsageError
from ..contract.index import ShardIndex
from ..hand.joints import REFERENCE_BONE, WRIST
from .augmentation import to_tensor
from .finetuning import TrainingLabels
from .loading import batches
from .pose import PoseNet
from .posemodel import MeanPose, Resized, stack_crops
from .run import Run

ROOT, ROOT_BONE = "mpjpe_root_mm", "mpjpe_root_bone_mm"
MODEL = "model.pt"
_BATCH = 128
_NO_LENGTH = 1e-12


@dataclass(frozen=True)
class Validation:
    """Held-out crops as the model sees them, and their truth, on the CPU.

    images uint8 (N, S, S, 3); keypoints3d (N, 21, 3) metres; valid (N, 21) bool: the joint has
    labels.
    """

    images: Tensor
    keypoints3d: Tensor
    valid: Tensor
    mean: MeanPose

    @torch.inference_mode()
    def __call__(self, network: PoseNet) -> dict[str, Tensor]:
        """The mean error of a joint in mm after root alignment, and after root and reference bone,
        in float32.
        """
        device, was_training = next(network.parameters()).device, network.training
        network.eval()
        parts = [
            network.predict(to_tensor(part.to(device)))[0].cpu()
            for part in self.images.split(_BATCH)
        ]
        network.train(was_training)
        return self._errors(torch.cat(parts) * self.mean.bone)

    def chance(self) -> dict[str, Tensor]:
        """The errors of predicting the training set's mean pose."""
        return self._errors(torch.from_numpy(self.mean.pose).expand_as(self.keypoints3d))

    def _errors(self, predicted: Tensor) -> dict[str, Tensor]:
        truth = self.keypoints3d
        return {
            ROOT: mpjpe_mm(predicted, truth, self.valid),
            ROOT_BONE: mpjpe_mm(_bone_scaled(predicted, truth), truth, self.valid),
        }


def build_validation(
    sources: Sequence[tuple[ShardIndex, TrainingLabels]], size: int, mean: MeanPose, workers: int
) -> Validation:
    """Decode what is held out, of one or several indices, for a model with inputs of `size` px."""
    images = []
    for index, labels in sources:
        parts = [
            range(first, min(first + _BATCH, len(labels)))
            for first in range(0, len(labels), _BATCH)
        ]
        with batches(
            Resized(index, labels.rows, size), parts, stack_crops, workers, torch.device("cpu")
        ) as loaded:
            images += [part.clone() for part in loaded]
    truths, valid = (
        torch.cat([torch.from_numpy(getattr(labels, name)) for _, labels in sources])
        for name in ("keypoints3d", "valid")
    )
    return Validation(torch.cat(images), truths, valid, mean)


def refuse_shared(train: TrainingLabels, held_out: TrainingLabels) -> None:
    """Raise UsageError where a unique sample, in whichever version, is trained on and
    validated on.
    """
    shared = sorted(set(train.names.tolist()) & set(held_out.names.tolist()))
    if shared:
        raise UsageError(
            f"--validation: {shared[0]} is also trained on ({len(shared):,} such); hold out other"
            " samples"
        )


def mpjpe_mm(predicted: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Mean distance with the wrists at one place: of each joint over the samples with its label,
    then of the joints.

    predicted and truth (N, 21, 3) metres; valid (N, 21) bool -> mm.
    """
    off = (_root_relative(predicted) - _root_relative(truth)).norm(dim=2)
    count = valid.sum(dim=0)
    means = torch.where(valid, off, 0).sum(dim=0) / count.clamp(min=1)
    return 1000 * means[count > 0].mean()


class BestKept:
    """Validates at the end of each epoch, and keeps the weights of the one with the least ROOT_BONE
    error.

    They are written as model.pt together with the run's own saves: what a run that was killed goes
    on from, and what its log says, then has the best weights until there in that file.
    """

    def __init__(
        self,
        run: Run,
        measure: Callable[[], dict[str, Tensor]],
        snapshot: Callable[[], dict[str, Any]],
    ):
        self.run, self.measure, self.snapshot = run, measure, snapshot
        self._least: float | None = None
        self._pending: dict[str, Any] | None = None

    def __call__(self, epoch: int) -> dict[str, Tensor]:
        """Validate; returns what to log."""
        found = self.measure()
        error = round(float(found[ROOT_BONE]), 6)  # as the log has it, which a rerun has it from
        if self._least is None:
            self._least = min(self._logged(), default=math.inf)
        if error < self._least:
            self._least, self._pending = error, self.snapshot()
        return found

    def write(self) -> None:
        """Write the best weights, where they have changed."""
        if self._pending is not None:
            self.run.save(self._pending, MODEL)
            self._pending = None

    def finish(self) -> tuple[Path, float, int]:
        """model.pt, its error in mm and its epoch, counted from 1. Raises HandclrError where the
        file is gone.
        """
        path = self.run.folder / MODEL
        if not path.exists():
            raise HandclrError(
                f"{path} is gone, and only --fresh makes it again; model-last.pt is the last"
                " epoch's"
            )
        error, epoch = min(
            (record[ROOT_BONE], record["epoch"])
            for record in self.run.records()
            if ROOT_BONE in record
        )
        return path, error, epoch + 1

    def _logged(self) -> list[float]:
        return [record[ROOT_BONE] for record in self.run.records() if ROOT_BONE in record]


def _root_relative(pose: Tensor) -> Tensor:
    return pose - pose[:, WRIST : WRIST + 1]


def _bone_scaled(predicted: Tensor, truth: Tensor) -> Tensor:
    """The prediction with the true length of the reference bone, as it is where the bone has no
    length in either.
    """
    start, end = REFERENCE_BONE
    own, true = ((pose[:, end] - pose[:, start]).norm(dim=1) for pose in (predicted, truth))
    usable = (own > _NO_LENGTH) & (true > _NO_LENGTH)
    scale = torch.where(usable, true / own.clamp(min=_NO_LENGTH), 1)
    return _root_relative(predicted) * scale[:, None, None]
