"""A trained pose model: its file, and its predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..contract.errors import HandclrError
from ..contract.fields import JOINT_COUNT
from ..contract.index import ShardIndex
from ..contract.shipped import weights_file
from ..hand.joints import REFERENCE_BONE, WRIST
from .augmentation import View, apply_view, to_tensor
from .encoder import ARCHITECTURES, Encoder
from .guide import Guide, Landmarks
from .hardware import memory_errors, move
from .heads import HEADS
from .loading import grey, in_parts, mended_batches
from .pose import PoseNet
from .pose_head import ENCODER_STRIDE
from .run import load_checkpoint
from .training_labels import TrainingLabels
from .weights_file import refuse_not_finite

LARGEST_SIZE = 4096
_OWN_AXES = "crop"
# What a model may be called with.
Crops = np.ndarray | Tensor | Sequence[np.ndarray] | Sequence[Tensor]


class Poses(NamedTuple):
    """Predictions for N crops, float32: xyz (N, 21, 3) metres and uv (N, 21, 2) crop sides.

    xyz is counted from the wrist, along the axes of the crop's own camera, which looks through the
    middle of the crop. Its metres are those of a hand with the mean reference bone of the training
    set.
    """

    xyz: np.ndarray
    uv: np.ndarray


@dataclass(frozen=True)
class MeanPose:
    """The mean root-relative pose of a training set, and its mean reference bone in metres.

    pose float32 (21, 3) metres; a joint without any label is at the wrist.
    """

    pose: np.ndarray
    bone: float


@dataclass(frozen=True)
class PoseModel:
    """A pose network on its device, the side of its input in pixels, and what it was trained on.

    `own_axes`: xyz is along the axes of the crop's own camera; older models were trained to those
    of the source's.

    >>> import numpy as np, handclr_cli as handclr
    >>> model = handclr.load_model("model.pt")
    >>> poses = model([np.zeros((64, 64, 3), np.uint8), np.zeros((96, 96, 3), np.uint8)])
    >>> poses.xyz.shape, poses.uv.shape
    ((2, 21, 3), (2, 21, 2))
    """

    network: PoseNet
    size: int
    mean: MeanPose
    own_axes: bool = True

    @property
    def is_guided(self) -> bool:
        """Whether it also takes what the landmarker found in the crops."""
        return self.network.head.takes_guide

    def __call__(self, crops: Crops, hands: Sequence[Landmarks | None] | None = None) -> Poses:
        """Predict the poses of crops of right hands, in order.

        crops: uint8 RGB (N, S, S, 3), as an array or a tensor on any device, or a list of (S, S, 3)
        whose sides may differ; they are scaled to the model's side. hands: for a guided model, what
        the landmarker found in each crop, points (21, 2) in crop sides and world (21, 3), or None
        where it found nothing. Raises HandclrError where a shape or dtype is another.
        """
        images = [apply_view(View(self.size), crop) for crop in _square_crops(crops)]
        if not images:
            return Poses(np.zeros((0, 21, 3), np.float32), np.zeros((0, 21, 2), np.float32))
        return self._poses(stack_crops(images), hands)

    def predict(
        self, index: ShardIndex, rows: np.ndarray, batch: int, workers: int
    ) -> Iterator[Poses]:
        """Predict the poses of samples from the crops alone, in order, a batch at a time.

        Those of a crop that cannot be decoded are NaN.
        """
        crops, sampler = Resized(index, rows, self.size), in_parts(len(rows), batch)
        mend, device = grey(self.size), self._device
        with mended_batches(crops, sampler, stack_crops, workers, device, mend) as loaded:
            for images, failed in loaded:
                poses = self._poses(images)
                for values in poses:
                    values[list(failed)] = np.nan
                yield poses

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    @memory_errors("lower the batch")
    @torch.inference_mode()
    def _poses(self, images: Tensor, hands: Sequence[Landmarks | None] | None = None) -> Poses:
        guide = None
        if hands is not None and self.is_guided:
            guide = move(Guide.of(hands, self.size), self._device)
        # In float32: in bfloat16 the hottest cell of a heatmap is often a tie.
        xyz, uv = self.network.predict(to_tensor(move(images, self._device)), guide)
        return Poses((xyz * self.mean.bone).cpu().numpy(), (uv / self.size).cpu().numpy())


class Resized(Dataset[np.ndarray]):
    """Crops as the model sees them: rows of an index at a side, uint8 (size, size, 3) RGB."""

    def __init__(self, index: ShardIndex, rows: np.ndarray, size: int) -> None:
        self.index, self.rows, self.view = index, rows, View(size)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> np.ndarray:
        return apply_view(self.view, self.index[int(self.rows[at])].image)


def stack_crops(images: list[np.ndarray]) -> Tensor:
    """Batch the items of Resized."""
    return torch.from_numpy(np.stack(images))


def mean_pose(labels: TrainingLabels) -> MeanPose:
    """Average the labels that a model is trained on; of each joint, those that there are."""
    poses = labels.keypoints3d.astype(np.float64)
    poses = poses - poses[:, WRIST : WRIST + 1]
    count = labels.valid.sum(axis=0)
    mean = np.where(labels.valid[..., None], poses, 0).sum(axis=0) / np.maximum(count, 1)[:, None]
    bones = np.linalg.norm(poses[:, REFERENCE_BONE[1]], axis=1)
    return MeanPose(mean.astype(np.float32), float(bones.mean()))


def save_payload(model: PoseNet, size: int, mean: MeanPose) -> dict[str, Any]:
    """What model.pt holds: plain types, and copies of the network's tensors on the CPU."""
    return {
        "kind": "pose",
        "arch": model.encoder.arch,
        "head": model.kind,
        "size": size,
        "axes": _OWN_AXES,
        "bone_m": mean.bone,
        "mean_pose": torch.from_numpy(mean.pose),
        "state": {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()},
    }


def load_model(path: str | Path, device: torch.device | str = "cpu") -> PoseModel:
    """Load the model.pt of handclr finetune, or "handclr", ready to predict 3D poses.

    Raises HandclrError where the file is none.

    >>> import tempfile, numpy as np, handclr_cli as handclr
    >>> folder = tempfile.mkdtemp()
    >>> train = f"{folder}/train.tar"
    >>> labelled = handclr.SynthLabelledSettings(output=train, count=4, size=64, workers=1)
    >>> _ = handclr.run_synth_labelled(labelled)
    >>> how = {"arch": "resnet18", "head": "regress", "size": 32, "batch": 4, "epochs": 1}
    >>> where = {"run": f"{folder}/run", "device": "cpu", "workers": 0}
    >>> done = handclr.run_finetune(handclr.FinetuneSettings(shards=[train], **how, **where))
    >>> model = handclr.load_model(done.weights)
    >>> xyz, uv = model(np.zeros((2, 64, 64, 3), np.uint8))
    >>> xyz.shape, uv.shape
    ((2, 21, 3), (2, 21, 2))
    """
    path = weights_file(str(path))
    state = load_checkpoint(path)
    _check_payload(state, path)
    network = PoseNet(Encoder(state["arch"]), head=state["head"])
    try:
        network.load_state_dict(state["state"])
    except (RuntimeError, TypeError, AttributeError) as error:
        kind = f"{state['arch']} pose model with the head {network.kind}"
        raise HandclrError(f"{path}: its tensors are not those of a {kind}") from error
    refuse_not_finite(state["state"], path)
    mean = MeanPose(state["mean_pose"].float().numpy(), float(state["bone_m"]))
    own_axes = state.get("axes") == _OWN_AXES
    return PoseModel(network.to(device).eval(), int(state["size"]), mean, own_axes)


def _check_payload(state: dict[str, Any], path: str | Path) -> None:
    """Raise HandclrError where a checkpoint is no pose model, or says of it what cannot be."""
    missing = {"kind", "arch", "head", "size", "bone_m", "mean_pose", "state"} - state.keys()
    if missing or state["kind"] != "pose":
        raise HandclrError(f"{path}: not a pose model; give the model.pt of handclr finetune")
    size, bone, pose = state["size"], state["bone_m"], state["mean_pose"]
    tensors = state["state"].values() if isinstance(state["state"], dict) else [None]
    fine = {
        "arch": state["arch"] in ARCHITECTURES,
        "head": state["head"] in tuple(HEADS),
        "size": type(size) is int and 0 < size <= LARGEST_SIZE and not size % ENCODER_STRIDE,
        "bone_m": isinstance(bone, float) and 0 < bone < math.inf,
        "mean_pose": isinstance(pose, Tensor)
        and pose.shape == (JOINT_COUNT, 3)
        and pose.is_floating_point()
        and bool(torch.isfinite(pose).all()),
        "state": all(isinstance(tensor, Tensor) for tensor in tensors),
    }
    for name, good in fine.items():
        if not good:
            shown = f" {state[name]!r}"[:40] if isinstance(state[name], str | int | float) else ""
            why = f"its {name}{shown} is not one that handclr finetune writes"
            raise HandclrError(f"{path}: {why}; it is damaged, or of another version")


def _square_crops(crops: Crops) -> list[np.ndarray]:
    """Crops one by one, uint8 (S, S, 3); raises HandclrError where they are not such."""
    if isinstance(crops, np.ndarray | Tensor) and crops.ndim != 4:
        raise _unlike(f"{crops.dtype} of the shape {tuple(crops.shape)}")
    arrays = []
    for crop in crops:
        if not isinstance(crop, np.ndarray | Tensor):
            raise _unlike(f"{type(crop).__name__} in a {type(crops).__name__}")
        array = crop.numpy(force=True) if isinstance(crop, Tensor) else crop
        side = array.shape[0] if array.ndim else 0
        if array.dtype != np.uint8 or array.shape != (side, side, 3) or not side:
            raise _unlike(f"{array.dtype} of the shape {array.shape} for a crop")
        arrays.append(array)
    return arrays


def _unlike(found: str) -> HandclrError:
    wanted = "crops are uint8 RGB of the shape (N, S, S, 3), or a list of (S, S, 3)"
    return HandclrError(f"{wanted}, not {found}")
