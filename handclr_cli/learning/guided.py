"""A head that sees what the landmarker found in a crop, beside the crop itself."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..contract.fields import JOINT_COUNT
from .ground_truth import PoseTruth
from .guide import Guide
from .pose_head import (
    ENCODER_STRIDE,
    Mean,
    Points,
    PoseHead,
    Regress,
    kaiming,
    point_loss,
    read_points,
)

_TOLD = 5 * JOINT_COUNT + 3
_NARROW, _WIDE = 256, 512


class GuidedPoints(NamedTuple):
    """Joints from the crop alone, and with the help of landmarks where these are `found` (N,)."""

    alone: Points
    helped: Points
    found: Tensor


class Guided(PoseHead):
    """Two regressions: of the crop alone, and of what the landmarker got wrong of its hand.

    The landmarker sees more pixels than the encoder and knows more people than any training set
    here; its depth is weak, which the crop tells, and synthetic hands teach. Where it found
    nothing, the crop alone is left.
    """

    takes_guide = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alone = Regress(channels)
        self.look = nn.Sequential(
            nn.Linear(channels, _NARROW, bias=False), nn.BatchNorm1d(_NARROW), nn.ReLU()
        )
        self.told = nn.Sequential(
            nn.Linear(_TOLD, _NARROW), nn.ReLU(), nn.Linear(_NARROW, _NARROW), nn.ReLU()
        )
        self.mend = nn.Sequential(
            *(nn.Linear(2 * _NARROW, _WIDE), nn.ReLU(), nn.Linear(_WIDE, _WIDE), nn.ReLU()),
            nn.Linear(_WIDE, 5 * JOINT_COUNT),
        )
        for layers in (self.look, self.told, self.mend):
            layers.apply(kaiming)
        # It starts from what it is told.
        for parameter in self.mend[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, guide: Guide | None = None) -> GuidedPoints:
        """Predict the joints, with what is known of them."""
        if guide is None:
            guide = Guide.nothing(len(features), features.device)
        alone = self.alone(features)
        # In full precision: in bfloat16 landmarks would lose what they are good for.
        with torch.autocast(features.device.type, enabled=False):
            seen = self.look(features.float().mean(dim=(2, 3)))
            points, middle, extent, world = guide.scaled()
            side = ENCODER_STRIDE * features.shape[-1]
            place = torch.cat([middle / side - 0.5, extent / side], dim=2)
            told = torch.cat([part.flatten(1) for part in (points, world, place)], dim=1)
            off = self.mend(torch.cat([seen, self.told(told)], dim=1)).unflatten(
                1, (JOINT_COUNT, 5)
            )
            helped = Points(world + off[..., :3], guide.points + off[..., 3:] * extent)
        return GuidedPoints(alone, helped, guide.found)

    def read(self, outputs: GuidedPoints) -> tuple[Tensor, Tensor]:
        """The helped joints where there was help, else those of the crop alone."""
        alone, helped = read_points(outputs.alone), read_points(outputs.helped)
        found = outputs.found[:, None, None]
        return torch.where(found, helped[0], alone[0]), torch.where(found, helped[1], alone[1])

    def loss(
        self, outputs: GuidedPoints, truth: PoseTruth, mean: Mean = lambda counts: counts
    ) -> dict[str, Tensor]:
        """The sum of the two totals, and the parts of both as `point_loss` has them.

        What has 2D labels alone has them of the landmarker, and says nothing of its faults.
        """
        alone = point_loss(outputs.alone, truth, mean)
        judged = outputs.found & truth.valid.any(dim=1)
        helped = point_loss(outputs.helped, truth.only(judged), mean)
        parts = {f"helped_{name}": value for name, value in helped.items() if name != "total"}
        return {**alone, **parts, "total": alone["total"] + helped["total"]}
