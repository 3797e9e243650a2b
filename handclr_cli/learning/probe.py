"""What a frozen encoder knows of the pose: its nearest neighbours' 2D keypoints as a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import console
from ..contract.errors import HandclrError
from ..contract.index import ShardIndex
from ..contract.inputs import expand_inputs
from ..hand.normalise import pose_vectors
from ..work.skips import Skips
from .augmentation import View, apply_view, to_tensor
from .encoder import Encoder
from .store import CropStore

NEIGHBOURS = 8
BANK = 4096
_BATCH = 256


@dataclass(frozen=True)
class PoseViews:
    """Crops as the encoder sees them: images uint8 (N, H, W, 3), normalised 2D poses (N, 21, 2)."""

    images: Tensor
    poses: Tensor


class Probe:
    """Predicts the poses of held-out crops from their nearest neighbours in a bank, by feature.

    Poses are 2D, centred in the keypoints' bounding box, in units of its longer side.
    """

    def __init__(self, bank: PoseViews, held_out: PoseViews, device: torch.device) -> None:
        self.bank, self.held_out, self.device = bank, held_out, device

    @torch.inference_mode()
    def __call__(self, encoder: Encoder) -> dict[str, Tensor]:
        """The mean error of a joint over the held-out crops, in longer sides of the hand."""
        was_training = encoder.training
        encoder.eval()
        bank, query = (
            F.normalize(self._features(encoder, views.images), dim=1)
            for views in (self.bank, self.held_out)
        )
        encoder.train(was_training)
        near = (query @ bank.T).topk(min(NEIGHBOURS, len(bank)), dim=1)
        predicted = self.bank.poses[near.indices.cpu()].mean(dim=1)
        return {"probe": _error(predicted, self.held_out.poses)}

    def chance(self) -> float:
        """The error of predicting the bank's mean pose."""
        mean = self.bank.poses.mean(dim=0)
        return float(_error(mean.expand_as(self.held_out.poses), self.held_out.poses))

    def _features(self, encoder: Encoder, images: Tensor) -> Tensor:
        parts = [encoder(to_tensor(part.to(self.device))).float() for part in images.split(_BATCH)]
        return torch.cat(parts)


def open_probe(
    sources: Sequence[str],
    crops: CropStore,
    size: int,
    seed: int,
    device: torch.device,
    unread: set[str],
) -> Probe:
    """The probe over held-out crops, as `build_probe` has it; says what the mean pose scores."""
    held_out = ShardIndex(expand_inputs(sources))
    probe = build_probe(crops.index, held_out, crops.side, size, seed, device, unread)
    console.say(f"probe: predicting the mean pose would score {probe.chance():.4f}")
    return probe


def build_probe(
    train: ShardIndex,
    held_out: ShardIndex,
    side: int,
    size: int,
    seed: int,
    device: torch.device,
    unread: set[str] | None = None,
) -> Probe:
    """A probe of the held-out crops that have keypoints, where there are too many of a sample.

    Its bank is a seeded sample of the crops trained on, of BANK at most as well. `side` is what
    crops are decoded to and `size` what the encoder sees. `unread` gets what is said of crops that
    cannot be read. Raises HandclrError where crops with keypoints are missing, or a held-out crop
    is also trained on.
    """
    shared = next((key for key in held_out.keys if key in train), None)
    if shared is not None:
        trained = f"crop {shared} is also trained on; hold out whole videos"
        raise HandclrError(trained, setting="probe")
    order = np.random.default_rng(seed).permutation(len(train))
    unread = set() if unread is None else unread
    bank = _pose_views(train, order, side, size, "the shards", unread)
    chosen = np.arange(len(held_out))
    if len(chosen) > BANK:
        chosen = np.random.default_rng(seed).permutation(len(held_out))
    known = _pose_views(held_out, chosen, side, size, "the probe", unread)
    return Probe(bank, known, device)


def _pose_views(
    index: ShardIndex, order: np.ndarray, side: int, size: int, name: str, unread: set[str]
) -> PoseViews:
    """The first crops with keypoints, in a given order: at most as many as the bank may hold.

    Those that cannot be read are named and passed over; so are, unnamed, those known as damaged.
    """
    store, view, skips = CropStore(index, side), View(size), Skips()
    chosen: list[tuple[np.ndarray, np.ndarray, int]] = []
    for row in order.tolist():
        if row in index.damaged or not (sample := index[row]).has_pose:
            continue
        try:
            chosen.append((apply_view(view, store[row]), sample.keypoints2d, sample.side))
        except HandclrError as error:
            skips.add(error)
            unread.add(str(error))
            continue
        skips.used()
        if len(chosen) == BANK:
            break
    skips.check()
    if not chosen:
        missing = f"no crop of {name} has keypoints2d.npy; make them with handclr keypoints"
        raise HandclrError(missing, setting="probe")
    images, keypoints, sides = (np.stack(column) for column in zip(*chosen, strict=True))
    poses = torch.from_numpy(pose_vectors(keypoints, sides, "box")).float()
    return PoseViews(torch.from_numpy(images), poses.unflatten(1, (-1, 2)))


def _error(predicted: Tensor, truth: Tensor) -> Tensor:
    return (predicted - truth).norm(dim=2).mean()
