"""The error of a pose network on crops that it is not trained on, and the best weights so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
import torch
from torch import Tensor

from ..contract.errors import HandclrError, UsageError
from ..contract.index import ShardIndex
from ..hand.alignment import Alignment, joint_errors_mm, joint_means, mean_over_joints
from .augmentation import to_tensor
from .guide import Guide
from .loading import Told, grey, in_parts, mended_batches
from .pose import PoseNet
from .posemodel import MeanPose, Resized, stack_crops
from .run import MODEL, Run
from .training_labels import TrainingLabels

ROOT, ROOT_BONE = "mpjpe_root_mm", "mpjpe_root_bone_mm"
ALIGNMENTS: dict[str, Alignment] = {ROOT: "root", ROOT_BONE: "root+bone"}
_BATCH = 128


@dataclass(frozen=True)
class Validation:
    """Held-out crops as the model sees them, on the CPU, and their truth.

    images uint8 (N, S, S, 3), and what the landmarker found in them; keypoints3d (N, 21, 3) metres;
    valid (N, 21) bool: the joint has labels.
    """

    images: Tensor
    guide: Guide
    keypoints3d: np.ndarray
    valid: np.ndarray
    mean: MeanPose

    @torch.inference_mode()
    def __call__(self, network: PoseNet) -> dict[str, float]:
        """MPJPE in mm after root alignment, and after root and reference bone."""
        device, was_training = next(network.parameters()).device, network.training
        network.eval()
        parts = []
        for rows in torch.arange(len(self.images)).split(_BATCH):
            guide = Guide(*(field[rows].to(device) for field in self.guide))
            images = to_tensor(self.images[rows].to(device))
            parts.append(network.predict(images, guide)[0].cpu())
        network.train(was_training)
        return self.errors((torch.cat(parts) * self.mean.bone).numpy())

    def chance(self) -> dict[str, float]:
        """The errors of predicting the training set's mean pose."""
        return self.errors(np.broadcast_to(self.mean.pose, self.keypoints3d.shape))

    def errors(self, predicted: np.ndarray) -> dict[str, float]:
        """The errors of predictions (N, 21, 3) in metres, as `handclr evaluate` has them.

        NaN where a prediction is not finite, so that a training which has diverged ends with what
        its loss says.
        """
        if not np.isfinite(predicted).all():
            return dict.fromkeys(ALIGNMENTS, math.nan)
        found = {}
        for name, alignment in ALIGNMENTS.items():
            off = joint_errors_mm(predicted, self.keypoints3d, alignment, self.valid)
            found[name] = float(mean_over_joints(joint_means(off, self.valid)))
        return found


def build_validation(
    sources: Sequence[tuple[ShardIndex, TrainingLabels]],
    size: int,
    mean: MeanPose,
    workers: int,
    unread: set[str] | None = None,
) -> Validation:
    """Decode held-out crops, of one or several indices, for a model with inputs of `size` px.

    Those that cannot be decoded are named, also in `unread`, and left out; raises HandclrError
    where none can.
    """
    images, kept, told = [], [], Told("it is not validated on", unread)
    for index, labels in sources:
        crops, parts = Resized(index, labels.rows, size), in_parts(len(labels), _BATCH)
        how = stack_crops, workers, torch.device("cpu"), grey(size)
        with mended_batches(crops, parts, *how) as loaded:
            for part in loaded:
                good = np.ones(len(part.batch), bool)
                good[list(part.failed)] = False
                images.append(told(part)[good])
                kept.append(good)
    (_, labels), *others = sources
    for _, more in others:
        labels = labels.followed_by(more)
    there = np.concatenate(kept)
    if not there.any():
        raise HandclrError("none of the crops to validate on can be decoded")
    labels = labels.take(there)
    guide = Guide.of(labels.hands(), size)
    return Validation(torch.cat(images), guide, labels.keypoints3d, labels.valid, mean)


def refuse_shared(train: TrainingLabels, held_out: TrainingLabels) -> None:
    """Raise UsageError where a unique sample, in any version, is trained on and validated on."""
    shared = sorted(set(train.names.tolist()) & set(held_out.names.tolist()))
    if shared:
        both = f"{shared[0]} is also trained on ({len(shared):,} such)"
        advice = "use a validation set that shares no samples"
        raise UsageError(f"{both}; {advice}", setting="validation")


class BestKept:
    """Validates at the end of each epoch, and keeps the weights with the least ROOT_BONE error.

    They are written as model.pt when the run saves its state: a run that was killed thus goes on
    with the best weights up to that state, as its log has them.
    """

    def __init__(
        self,
        run: Run,
        measure: Callable[[], Mapping[str, SupportsFloat]],
        snapshot: Callable[[], dict[str, Any]],
    ) -> None:
        self.run, self.measure, self.snapshot = run, measure, snapshot
        self._least: float | None = None
        self._pending: dict[str, Any] | None = None

    def __call__(self, epoch: int) -> Mapping[str, SupportsFloat]:
        """Validate; returns what to log."""
        found = self.measure()
        error = round(float(found[ROOT_BONE]), 6)  # as in the log, from which a rerun reads it
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
        """model.pt, its error in mm and its epoch, counted from 1.

        Raises HandclrError where no epoch predicted finite numbers, or the file is gone.
        """
        path = self.run.folder / MODEL
        validated = [(error, epoch) for error, epoch in self._validated() if math.isfinite(error)]
        if not validated:
            diverged = "no epoch predicted finite poses on the validation set, so none is the best"
            advice = "lower the rate and start the run anew; model-last.pt is of the last epoch"
            raise HandclrError(f"{diverged}; {advice}", setting="lr")
        if not path.exists():
            advice = "start the run anew to make it again; model-last.pt is of the last epoch"
            raise HandclrError(f"{path} is gone; {advice}")
        error, epoch = min(validated)
        return path, error, epoch + 1

    def _logged(self) -> list[float]:
        return [error for error, _ in self._validated() if math.isfinite(error)]

    def _validated(self) -> list[tuple[float, int]]:
        """The error and the epoch of each validation in the log."""
        whole = [record for record in self.run.records() if {ROOT_BONE, "epoch"} <= record.keys()]
        return [(record[ROOT_BONE], record["epoch"]) for record in whole]
