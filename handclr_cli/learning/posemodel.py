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
from .augmentation import View, apply, to_tensor
from .encoder import Encoder
from .hardware import move
from .loading import batches
from .pose import REFERENCE_BONE, PoseNet, read_pose
from .run import load_checkpoint

WRIST = REFERENCE_BONE[0]


class Poses(NamedTuple):
    """Predictions for N crops, float32: xyz (N, 21, 3) metres from the wrist, camera axes; uv (N, 21, 2) crop sides.

    The metres are those of a hand with the reference bone of the training set's mean.
    """

    xyz: np.ndarray
    uv: np.ndarray


@dataclass(frozen=True)
class MeanPose:
    """The training set's mean root-relative pose, float32 (21, 3) metres, and mean reference bone in metres."""

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
        return self._poses(_stack([apply(View(self.size), crop) for crop in crops]))

    def predict(self, index: ShardIndex, rows: np.ndarray, batch: int, workers: int) -> Iterator[Poses]:
        """Predict the poses of samples in order, a batch at a time."""
        sampler = [list(range(first, min(first + batch, len(rows)))) for first in range(0, len(rows), batch)]
        with batches(_Resized(index, rows, self.size), sampler, _stack, workers, self._device) as loaded:
            for images in loaded:
                yield self._poses(images)

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def _poses(self, images: Tensor) -> Poses:
        # In float32: in bfloat16 the hottest cell of a heatmap is often a tie.
        xyz, uv = read_pose(self.network(to_tensor(move(images, self._device))))
        return Poses((xyz * self.mean.bone).cpu().numpy(), (uv / self.size).cpu().numpy())


class _Resized(Dataset[np.ndarray]):
    def __init__(self, index: ShardIndex, rows: np.ndarray, size: int) -> None:
        self.index, self.rows, self.view = index, rows, View(size)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> np.ndarray:
        return apply(self.view, self.index[int(self.rows[at])].image)


def _stack(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images))


def mean_pose(index: ShardIndex, rows: np.ndarray) -> MeanPose:
    """Average the labels that a model is trained on."""
    total, bones = np.zeros((21, 3)), 0.0
    for row in rows.tolist():
        pose = index[row].keypoints3d.astype(np.float64)
        pose = pose - pose[WRIST]
        total += pose
        bones += float(np.linalg.norm(pose[REFERENCE_BONE[1]]))
    return MeanPose((total / len(rows)).astype(np.float32), bones / len(rows))


def save_payload(model: PoseNet, size: int, mean: MeanPose) -> dict[str, Any]:
    """What model.pt holds: plain types and tensors under unwrapped names."""
    return {
        "kind": "pose",
        "arch": model.encoder.arch,
        "size": size,
        "bone_m": mean.bone,
        "mean_pose": torch.from_numpy(mean.pose),
        "state": {name: tensor.cpu() for name, tensor in model.state_dict().items()},
    }


def load_model(path: str | Path, device: torch.device | str = "cpu") -> PoseModel:
    """Load model.pt of handclr finetune, ready to predict. Raises HandclrError if it is not one."""
    state = load_checkpoint(path)
    missing = {"kind", "arch", "size", "bone_m", "mean_pose", "state"} - state.keys()
    if missing or state["kind"] != "pose":
        raise HandclrError(f"{path}: not a pose model; give the model.pt of handclr finetune")
    network = PoseNet(Encoder(state["arch"]))
    try:
        network.load_state_dict(state["state"])
    except RuntimeError as error:
        raise HandclrError(f"{path}: its tensors are not those of a {state['arch']} pose model") from error
    mean = MeanPose(state["mean_pose"].numpy(), float(state["bone_m"]))
    return PoseModel(network.to(device).eval(), int(state["size"]), mean)
