"""What a guided model is told beside a crop: the hand that MediaPipe's landmarker found in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..contract.fields import JOINT_COUNT
from ..hand.joints import REFERENCE_BONE

_LITTLE = 1e-6
Landmarks = tuple[np.ndarray, np.ndarray]


class Guide(NamedTuple):
    """Landmarks of N crops, float32; of those that are not `found`, bool (N,), they mean nothing.

    points (N, 21, 2) in input px; world (N, 21, 3) in any unit, from any origin, along the axes of
    the crop's own camera.
    """

    points: Tensor
    world: Tensor
    found: Tensor

    @classmethod
    def of(cls, hands: Sequence[Landmarks | None], size: int) -> Guide:
        """The guide of crops from their landmarks, points in crop sides and world, None without."""
        points = np.full((len(hands), JOINT_COUNT, 2), 0.5, np.float32)
        world = np.zeros((len(hands), JOINT_COUNT, 3), np.float32)
        for row, hand in enumerate(hands):
            if hand is not None:
                points[row], world[row] = hand
        found = torch.tensor([hand is not None for hand in hands], dtype=torch.bool)
        return cls(torch.from_numpy(points * size), torch.from_numpy(world), found)

    @classmethod
    def nothing(cls, count: int, device: torch.device) -> Guide:
        """The guide of crops of which nothing is known but the picture."""
        points = torch.zeros(count, JOINT_COUNT, 2, device=device)
        world = torch.zeros(count, JOINT_COUNT, 3, device=device)
        return cls(points, world, torch.zeros(count, dtype=torch.bool, device=device))

    def scaled(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The landmarks apart from where and how large they are.

        points (N, 21, 2) about their middle (N, 1, 2) in units of their extent (N, 1, 1), px, and
        world (N, 21, 3) from the wrist in reference bones.
        """
        middle = self.points.mean(dim=1, keepdim=True)
        off = self.points - middle
        extent = off.square().sum(dim=2).mean(dim=1).sqrt().clamp(min=_LITTLE)[:, None, None]
        start, end = REFERENCE_BONE
        world = self.world - self.world[:, start : start + 1]
        bone = world[:, end].norm(dim=1).clamp(min=_LITTLE)[:, None, None]
        return off / extent, middle, extent, world / bone
