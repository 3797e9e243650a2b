"""A trained pose model: its file, and its predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..contract.errors import HandclrError
from ..contract.index import ShardIndex
from ..hand.joints import REFERENCE_BONE, WRIST
from .augmentation import View, apply, to_tensor
from .encoder import Encoder
from .finetuning import TrainingLabels
from .hardware import move
from .loading import batches
from .pose import PoseNet
from .run import load_checkpoint


class Poses(NamedTuple):
    """Predictions for N crops, float32: xyz (N, 21, 3) metres from the wrist, camera axes; uv (N,
    21, 2) crop sides.

    The metres are those of a hand with the reference bone of the training set's mean.
    """

    xyz: np.ndarray
    uv: np.ndarray


@dataclass(frozen=True)
class MeanPose:
    """The training set's mean root-relative pose, float32 (21, 3) metres, and mean reference bone
    in metres.

    A joint without any label is at the wrist.
    """

    pose: np.ndarray
    bone: float


@dataclass(frozen=True)
class PoseModel:
    """A pose network on its device, the side of its input in pixels, and what it was trained on.

    Called with crops of right hands, uint8 (N, S, S, 3) RGB, it gives their Poses.
    """

    network: PoseNet
    size: int
    mean: MeanPose

    def __call__(self, crops: Sequence[np.ndarray] | np.ndarray) -> Poses:
        return self._poses(stack_crops([apply(View(self.size), crop) for crop in crops]))

    def predict(
        self, index: ShardIndex, rows: np.ndarray, batch: int, workers: int
    ) -> Iterator[Poses]:
        """Predict the poses of samples in order, a batch at a time."""
        sampler = [
            list(range(first, min(first + batch, len(rows))))
            for first in range(0, len(rows), batch)
        ]
        with batches(
            Resized(index, rows, self.size), sampler, stack_crops, workers, self._device
        ) as loaded:
            for images in loaded:
                yield self._poses(images)

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def _poses(self, images: Tensor) -> Poses:
        # In float32: in bfloat16 the hottest cell of a heatmap is often a tie.
        xyz, uv = self.network.predict(to_tensor(move(images, self._device)))
        return Poses((xyz * self.mean.bone).cpu().numpy(), (uv / self.size).cpu().numpy())


class Resized(Dataset[np.ndarray]):
    """Crops as the model sees them: rows of an index at a side, uint8 (size, size, 3) RGB."""

    def __init__(self, index: ShardIndex, rows: np.ndarray, size: int) -> None:
        self.index, self.rows, self.view = index, rows, View(size)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> np.ndarray:
        return apply(self.view, self.index[int(self.rows[at])].image)


def stack_crops(images: list[np.ndarray]) -> Tensor:
    """Batch the items of Resized."""
    return torch.from_numpy(np.stack(images))


def mean_pose(labels: TrainingLabels) -> MeanPose:
    """Average the labels that a model is trained on, of each joint those that there are."""
    poses = labels.keypoints3d.astype(np.float64)
    poses = poses - poses[:, WRIST : WRIST + 1]
    count = labels.valid.sum(axis=0)
    mean = np.where(labels.valid[..., None], poses, 0).sum(axis=0) / np.maximum(count, 1)[:, None]
    bones = np.linalg.norm(poses[:, REFERENCE_BONE[1]], axis=1)
    return MeanPose(mean.astype(np.float32), float(bones.mean()))


def save_payload(model: PoseNet, size: int, mean: MeanPose) -> dict[str, Any]:
    """What model.pt holds: plain types, and copies of the tensors on the CPU under
    unwrapped names.
    """
    return {
        "kind": "pose",
        "arch": model.encoder.arch,
        "head": model.kind,
        "size": size,
        "bone_m": mean.bone,
        "mean_pose": torch.from_numpy(mean.pose),
        "state": {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()},
    }


def load_model(path: str | Path, device: torch.device | str = "cpu") -> PoseModel:
    """Load model.pt of handclr finetune, ready to predict. Raises HandclrError if it is not one."""
    state = load_checkpoint(path)
    missing = {"kind", "arch", "size", "bone_m", "mean_pose", "state"} - state.keys()
    if missing or state["kind"] != "pose":
        raise HandclrError(f"{path}: not a pose model; give the model.pt of handclr finetune")
    network = PoseNet(Encoder(state["arch"]), head=state.get("head", "detnet"))
    try:
        network.load_state_dict({_current(name): tensor for name, tensor in state["state"].items()})
    except RuntimeError as error:
        kind = f"{state['arch']} pose model with the head {network.kind}"
        kind = f"{state['arch']} pose model with the head {network.kind}"
        raise HandclrError(f"{path}: its tensors are not those of a {kind}") from error
    mean = MeanPose(state["mean_pose"].numpy(), float(state["bone_m"]))
    return PoseModel(network.to(device).eval(), int(state["size"]), mean)


def _current(name: str) -> str:
    """What a tensor is called today; files from before there were several heads name detnet's
    without `head.`.
    """
    return name if name.startswith(("encoder.", "head.")) else f"head.{name}"
