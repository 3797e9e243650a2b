"""Heads of the pose model: from the encoder's features to maps or points, readout and loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..contract.fields import JOINT_COUNT
from .ground_truth import PoseTruth
from .guided import Guided
from .pose_head import (
    LITTLE,
    WIDTH,
    Mean,
    PointHead,
    Points,
    PoseHead,
    Regress,
    branch,
    kaiming,
    start_flat,
    up,
    with_places,
)

STRIDE = 4
HEAT_WEIGHT, DELTA_WEIGHT, LOCATION_WEIGHT = 100.0, 1.0, 10.0
HEAT_BIAS = -2.5


class PoseMaps(NamedTuple):
    """Maps at a quarter of the input's side.

    heat (N, 21, h, w) in [0, 1]; delta and location (N, 21, 3, h, w).
    """

    heat: Tensor
    delta: Tensor
    location: Tensor


class DetNet(PoseHead):
    """DetNet (Zhou et al. 2020): heat, delta and location maps at a quarter of the input's side."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.deconv = nn.Sequential(*up(channels), *up(WIDTH), *up(WIDTH))
        self.heat = branch(WIDTH + 2, JOINT_COUNT)
        self.delta = branch(WIDTH + 2 + JOINT_COUNT, 3 * JOINT_COUNT)
        self.location = branch(WIDTH + 2 + 4 * JOINT_COUNT, 3 * JOINT_COUNT)
        self.apply(kaiming)
        # Nearly all of a heatmap is zero: if it started at a half, the first hundreds of steps
        # would only lower it.
        start_flat(self.heat, HEAT_BIAS)

    def forward(self, features: Tensor) -> PoseMaps:
        """Predict the maps, h = H/4 and w = W/4."""
        x = with_places(self.deconv(features))
        heat = self.heat(x).sigmoid()
        x = torch.cat([x, heat], dim=1)
        delta = self.delta(x)
        location = self.location(torch.cat([x, delta], dim=1))
        return PoseMaps(
            heat, delta.unflatten(1, (JOINT_COUNT, 3)), location.unflatten(1, (JOINT_COUNT, 3))
        )

    def read(self, outputs: PoseMaps) -> tuple[Tensor, Tensor]:
        """Read the location at each joint's hottest cell.

        The 2D position is refined within the cell by a parabola through the log heat (exact for a
        Gaussian; in a border cell there is no refinement along that axis).
        """
        heat = outputs.heat.float()
        n, joints, h, w = heat.shape
        cell = heat.flatten(2).argmax(dim=2)
        at = cell[:, :, None, None].expand(n, joints, 3, 1)
        location = outputs.location.float().flatten(3).gather(3, at)[..., 0]
        row, column = cell // w, cell % w
        logs = heat.clamp(min=1e-6).log().flatten(2)
        u = column + _refine(logs, cell, 1, (column > 0) & (column < w - 1))
        v = row + _refine(logs, cell, w, (row > 0) & (row < h - 1))
        return location - location[:, :1], (torch.stack([u, v], dim=2) + 0.5) * STRIDE

    def loss(
        self, outputs: PoseMaps, truth: PoseTruth, mean: Mean = lambda counts: counts
    ) -> dict[str, Tensor]:
        """The total, "heat", "delta" and "location".

        heat: half the squared error per cell, summed over the 21 joints, averaged over the batch's
        visible ones. delta, location: squared error summed over x, y, z, averaged with the true
        heat as weight over the joints with labels. The published code takes an un-squared norm over
        the whole batch for these two, so that their weight shrinks as the batch grows.
        """
        target = heatmaps(truth)
        weights = target * truth.valid[..., None, None], target * truth.delta_valid[..., None, None]
        sums = torch.stack([count.float().sum() for count in (truth.visible, *weights)])
        counts = mean(sums).clamp(min=LITTLE)

        def weighted(predicted: Tensor, true: Tensor, weight: Tensor) -> Tensor:
            return ((predicted.float() - true[..., None, None]).square().sum(dim=2) * weight).sum()

        error = (outputs.heat.float() - target).square().mean(dim=(2, 3)) * truth.visible
        heat = 0.5 * JOINT_COUNT * error.sum() / counts[0]
        location = weighted(outputs.location, truth.location, weights[0]) / counts[1]
        delta = weighted(outputs.delta, truth.delta, weights[1]) / counts[2]
        total = HEAT_WEIGHT * heat + DELTA_WEIGHT * delta + LOCATION_WEIGHT * location
        return {"total": total, "heat": heat, "delta": delta, "location": location}


class SoftArgmax(PointHead):
    """DetNet's up-convolutions, and integral regression (Sun et al. 2018) of the joints.

    2D by the mean place, 3D by the mean of a location map with the heat as weight.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.deconv = nn.Sequential(*up(channels), *up(WIDTH), *up(WIDTH))
        self.heat = branch(WIDTH + 2, JOINT_COUNT)
        self.location = branch(WIDTH + 2, 3 * JOINT_COUNT)
        self.apply(kaiming)
        start_flat(self.heat, 0.0)
        start_flat(self.location, 0.0)

    def forward(self, features: Tensor) -> Points:
        """Predict the joints."""
        x = with_places(self.deconv(features))
        h, w = x.shape[2:]
        heat = self.heat(x).float().flatten(2).softmax(dim=2)
        location = self.location(x).float().unflatten(1, (JOINT_COUNT, 3)).flatten(3)
        planes = heat.unflatten(2, (h, w))
        columns, rows = (torch.arange(side, device=x.device) + 0.5 for side in (w, h))
        u, v = (planes.sum(dim=2) * columns).sum(dim=2), (planes.sum(dim=3) * rows).sum(dim=2)
        return Points((location * heat[:, :, None]).sum(dim=3), torch.stack([u, v], dim=2) * STRIDE)


HEADS: dict[str, Callable[[int], PoseHead]] = {
    "detnet": DetNet,
    "softargmax": SoftArgmax,
    "regress": Regress,
    "guided": Guided,
}


def heatmaps(truth: PoseTruth) -> Tensor:
    """Gaussians at the joints' exact places: (N, 21, size/4, size/4) float32.

    Their peak is 1, their sigma one cell. The published code truncates the place to a cell. A joint
    outside the view has its Gaussian at the nearest border, where its readout tends to land.
    """
    centre = (truth.uv.clamp(0, truth.size) / STRIDE - 0.5)[..., None]
    cells = torch.arange(truth.size // STRIDE, device=centre.device, dtype=torch.float32)
    falloff = torch.exp(-0.5 * (cells - centre) ** 2)
    return falloff[:, :, 1, :, None] * falloff[:, :, 0, None, :]


def _refine(logs: Tensor, cell: Tensor, step: int, inside: Tensor) -> Tensor:
    """Offset of the parabola's peak along one axis, within half a cell; 0 where not `inside`."""
    last = logs.shape[2] - 1
    here = logs.gather(2, cell[..., None])[..., 0]
    before = logs.gather(2, (cell - step).clamp(min=0)[..., None])[..., 0]
    after = logs.gather(2, (cell + step).clamp(max=last)[..., None])[..., 0]
    offset = 0.5 * (after - before) / (2 * here - before - after).clamp(min=1e-6)
    return torch.where(inside, offset.clamp(-0.5, 0.5), torch.zeros_like(offset))
