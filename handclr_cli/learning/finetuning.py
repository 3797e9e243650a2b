"""Fine-tuning of the pose model on labelled crops, and its predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..contract.errors import HandclrError
from ..contract.fields import KEYPOINTS_2D, KEYPOINTS_3D
from ..contract.index import ShardIndex
from ..contract.sample import Sample
from .augmentation import AugmentationConfig, View, apply, apply_pose, draw, to_tensor
from .encoder import Encoder
from .hardware import Autocast, move
from .loading import batches
from .loop import Row
from .pose import REFERENCE_BONE, PoseNet, pose_loss, read_pose, targets
from .run import load_checkpoint

WRIST = REFERENCE_BONE[0]


class Labelled(NamedTuple):
    """A batch: uint8 images (N, H, W, 3), keypoints2d (N, 21, 2) view pixels, keypoints3d (N, 21, 3) metres."""

    images: Tensor
    keypoints2d: Tensor
    keypoints3d: Tensor


def pose_augmentation(size: int, rotation: float) -> AugmentationConfig:
    """Rotation, +-10 % of scale and +-5 % of shift, colour and a light blur, moving image, 2D and 3D together."""
    return AugmentationConfig(
        size=size, rotation=rotation, scale=(0.9, 1.1), translation=0.05, blur_probability=0.2, blur_sigma=(0.1, 1.0)
    )


class PoseDataset(Dataset[tuple[np.ndarray, np.ndarray, np.ndarray]]):
    """Augmented labelled crops; the augmentation depends on (seed, epoch, row) alone."""

    def __init__(self, index: ShardIndex, rows: np.ndarray, config: AugmentationConfig, seed: int) -> None:
        self.index, self.rows, self.config, self.seed = index, rows, config, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Row) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        epoch, row = at
        sample = self.index[int(self.rows[row])]
        view = draw(self.config, np.random.default_rng([self.seed, epoch, row]))
        return apply_pose(view, sample.image, sample.keypoints2d, sample.keypoints3d)


def collate_labelled(items: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Labelled:
    """Batch the items of a PoseDataset."""
    return Labelled(*(torch.from_numpy(np.stack(parts)) for parts in zip(*items, strict=True)))


def differentiate(model: PoseNet, batch: Labelled, device: torch.device, autocast: Autocast) -> dict[str, Tensor]:
    """Leave the gradients of the pose loss on a batch in the model; returns the loss and its parts."""
    batch = move(batch, device)
    images = to_tensor(batch.images)
    with autocast():
        maps = model(images)
    losses = pose_loss(maps, targets(batch.keypoints2d, batch.keypoints3d, images.shape[-1]))
    losses["total"].backward()
    return {"loss": losses.pop("total"), **losses}


def freeze(encoder: Encoder) -> None:
    """Keep the encoder as it is: no gradients, and batch norms that stay in evaluation mode while training."""
    encoder.requires_grad_(False)
    encoder.eval()
    encoder.train = lambda mode=True: encoder  # type: ignore[method-assign]


def labelled_rows(index: ShardIndex) -> np.ndarray:
    """Rows of the samples with 2D and 3D keypoints. Raises HandclrError where there are none."""
    rows = [row for row, sample in enumerate(index) if KEYPOINTS_2D in sample and KEYPOINTS_3D in sample]
    if not rows:
        raise HandclrError("no sample has keypoints2d.npy and keypoints3d.npy; make labelled shards by handclr import")
    return np.array(rows)


def choose_fraction(index: ShardIndex, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A seeded subset of the unique samples, each with all its versions (FreiHAND has four of each).

    A sample is what the JSON calls `sample`, else the key. Not the first n files, which would be one studio.
    """
    names = np.array([_unique_name(index[int(row)]) for row in rows])
    unique = np.unique(names)
    count = max(1, round(fraction * len(unique)))
    kept = np.random.default_rng(seed).permutation(unique)[:count]
    return rows[np.isin(names, kept)]


def _unique_name(sample: Sample) -> str:
    return str(sample.info.get("sample", sample.key))


@dataclass(frozen=True)
class MeanPose:
    """The training set's mean root-relative pose, float32 (21, 3) metres, and mean reference bone in metres."""

    pose: np.ndarray
    bone: float


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


def load_model(path: str | Path) -> tuple[PoseNet, int, MeanPose]:
    """Load model.pt: the model, its input side, the mean pose. Raises HandclrError if it is not one."""
    state = load_checkpoint(path)
    missing = {"kind", "arch", "size", "bone_m", "mean_pose", "state"} - state.keys()
    if missing or state["kind"] != "pose":
        raise HandclrError(f"{path}: not a pose model; give the model.pt of handclr finetune")
    model = PoseNet(Encoder(state["arch"]))
    try:
        model.load_state_dict(state["state"])
    except RuntimeError as error:
        raise HandclrError(f"{path}: its tensors are not those of a {state['arch']} pose model") from error
    return model, int(state["size"]), MeanPose(state["mean_pose"].numpy(), float(state["bone_m"]))


class _Plain(Dataset[np.ndarray]):
    def __init__(self, index: ShardIndex, rows: np.ndarray, size: int) -> None:
        self.index, self.rows, self.view = index, rows, View(size)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> np.ndarray:
        return apply(self.view, self.index[int(self.rows[at])].image)


@torch.inference_mode()
def predict(
    model: nn.Module, index: ShardIndex, rows: np.ndarray, size: int, batch: int, workers: int, device: torch.device
) -> Iterator[np.ndarray]:
    """Predict the poses of samples in order, a batch at a time: float32 (B, 21, 3), root-relative, reference bones."""
    model.to(device).eval()
    sampler = [list(range(first, min(first + batch, len(rows)))) for first in range(0, len(rows), batch)]
    with batches(_Plain(index, rows, size), sampler, _stack, workers, device) as loaded:
        for images in loaded:
            # In float32: in bfloat16 the hottest cell of a heatmap is often a tie.
            pose, _ = read_pose(model(to_tensor(move(images, device))))
            yield pose.cpu().numpy()


def _stack(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images))
