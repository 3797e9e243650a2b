"""Heads of the pose model: from the encoder's features to maps or points, readout and loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..contract.fields import JOINT_COUNT
from .ground_truth import PoseTruth

STRIDE = 4
ENCODER_STRIDE = 32
HEAT_WEIGHT, DELTA_WEIGHT, LOCATION_WEIGHT = 100.0, 1.0, 10.0
HEAT_BIAS, HEAT_STD = -2.5, 0.02
# Weighs the error of 2D points, in sides of the input, against that of 3D points, which is in
# reference bones, about four to a hand.
UV_WEIGHT = 4.0
_WIDTH = 256
_LITTLE = 1e-6
Mean = Callable[[Tensor], Tensor]


class PoseHead(nn.Module, ABC):
    """From features (N, channels, H/32, W/32) to outputs of the head's own kind.

    Lengths are in units of the reference bone, wrist to middle knuckle. `mean` of a loss averages
    the counts that it divides by over the processes of a training, so that their mean loss is that
    of the whole batch.
    """

    @abstractmethod
    def read(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """The pose, float32: xyz (N, 21, 3) in reference bones, uv (N, 21, 2) input px (x, y).

        xyz is counted from the wrist, along the axes of the camera.
        """

    @abstractmethod
    def loss(
        self, outputs: Any, truth: PoseTruth, mean: Mean = lambda counts: counts
    ) -> dict[str, Tensor]:
        """The weighted "total" and its unweighted parts; float32 scalars."""


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
        self.deconv = nn.Sequential(*_up(channels), *_up(_WIDTH), *_up(_WIDTH))
        self.heat = _branch(_WIDTH + 2, JOINT_COUNT)
        self.delta = _branch(_WIDTH + 2 + JOINT_COUNT, 3 * JOINT_COUNT)
        self.location = _branch(_WIDTH + 2 + 4 * JOINT_COUNT, 3 * JOINT_COUNT)
        self.apply(_kaiming)
        # Nearly all of a heatmap is zero: if it started at a half, the first hundreds of steps
        # would only lower it.
        _start_flat(self.heat, HEAT_BIAS)

    def forward(self, features: Tensor) -> PoseMaps:
        """Predict the maps, h = H/4 and w = W/4."""
        x = _with_places(self.deconv(features))
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
        counts = mean(sums).clamp(min=_LITTLE)

        def weighted(predicted: Tensor, true: Tensor, weight: Tensor) -> Tensor:
            return ((predicted.float() - true[..., None, None]).square().sum(dim=2) * weight).sum()

        error = (outputs.heat.float() - target).square().mean(dim=(2, 3)) * truth.visible
        heat = 0.5 * JOINT_COUNT * error.sum() / counts[0]
        location = weighted(outputs.location, truth.location, weights[0]) / counts[1]
        delta = weighted(outputs.delta, truth.delta, weights[1]) / counts[2]
        total = HEAT_WEIGHT * heat + DELTA_WEIGHT * delta + LOCATION_WEIGHT * location
        return {"total": total, "heat": heat, "delta": delta, "location": location}


class Points(NamedTuple):
    """Joints, float32: location (N, 21, 3) in reference bones, uv (N, 21, 2) in input px."""

    location: Tensor
    uv: Tensor


class _PointHead(PoseHead):
    """A head whose outputs are the joints themselves."""

    def read(self, outputs: Points) -> tuple[Tensor, Tensor]:
        return outputs.location - outputs.location[:, :1], outputs.uv

    def loss(
        self, outputs: Points, truth: PoseTruth, mean: Mean = lambda counts: counts
    ) -> dict[str, Tensor]:
        """The total, "location" and "uv": absolute errors, averaged over the batch's joints.

        They are summed over the axes. location: in reference bones, of the joints with labels; uv:
        in sides of the input, of the visible ones.
        """
        sums = torch.stack([count.float().sum() for count in (truth.valid, truth.visible)])
        counts = mean(sums).clamp(min=_LITTLE)
        off3d = (outputs.location.float() - truth.location).abs().sum(dim=2) * truth.valid
        off2d = (outputs.uv.float() - truth.uv).abs().sum(dim=2) * truth.visible
        location, uv = off3d.sum() / counts[0], off2d.sum() / counts[1] / truth.size
        return {"total": location + UV_WEIGHT * uv, "location": location, "uv": uv}


class SoftArgmax(_PointHead):
    """DetNet's up-convolutions, and integral regression (Sun et al. 2018) of the joints.

    2D by the mean place, 3D by the mean of a location map with the heat as weight.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.deconv = nn.Sequential(*_up(channels), *_up(_WIDTH), *_up(_WIDTH))
        self.heat = _branch(_WIDTH + 2, JOINT_COUNT)
        self.location = _branch(_WIDTH + 2, 3 * JOINT_COUNT)
        self.apply(_kaiming)
        _start_flat(self.heat, 0.0)
        _start_flat(self.location, 0.0)

    def forward(self, features: Tensor) -> Points:
        """Predict the joints."""
        x = _with_places(self.deconv(features))
        h, w = x.shape[2:]
        heat = self.heat(x).float().flatten(2).softmax(dim=2)
        location = self.location(x).float().unflatten(1, (JOINT_COUNT, 3)).flatten(3)
        planes = heat.unflatten(2, (h, w))
        columns, rows = (torch.arange(side, device=x.device) + 0.5 for side in (w, h))
        u, v = (planes.sum(dim=2) * columns).sum(dim=2), (planes.sum(dim=3) * rows).sum(dim=2)
        return Points((location * heat[:, :, None]).sum(dim=3), torch.stack([u, v], dim=2) * STRIDE)


class Regress(_PointHead):
    """Two layers on the mean feature: the smallest head, without maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, 2 * _WIDTH, bias=False),
            nn.BatchNorm1d(2 * _WIDTH),
            nn.ReLU(inplace=True),
            nn.Linear(2 * _WIDTH, 5 * JOINT_COUNT),
        )
        self.apply(_kaiming)
        _start_flat(self.layers, 0.0)

    def forward(self, features: Tensor) -> Points:
        """Predict the joints."""
        h, w = features.shape[2:]
        found = self.layers(features.mean(dim=(2, 3))).float().unflatten(1, (JOINT_COUNT, 5))
        u, v = found[..., 3] + 0.5, found[..., 4] + 0.5
        return Points(found[..., :3], torch.stack([u * w, v * h], dim=2) * ENCODER_STRIDE)


HEADS: dict[str, Callable[[int], PoseHead]] = {
    "detnet": DetNet,
    "softargmax": SoftArgmax,
    "regress": Regress,
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


def _with_places(x: Tensor) -> Tensor:
    """Add two channels that tell each cell where it is, from -1 to 1."""
    n, _, h, w = x.shape
    across = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype).expand(n, 1, h, w)
    down = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype)[:, None].expand(n, 1, h, w)
    return torch.cat([x, across, down], dim=1)


def _refine(logs: Tensor, cell: Tensor, step: int, inside: Tensor) -> Tensor:
    """Offset of the parabola's peak along one axis, within half a cell; 0 where not `inside`."""
    last = logs.shape[2] - 1
    here = logs.gather(2, cell[..., None])[..., 0]
    before = logs.gather(2, (cell - step).clamp(min=0)[..., None])[..., 0]
    after = logs.gather(2, (cell + step).clamp(max=last)[..., None])[..., 0]
    offset = 0.5 * (after - before) / (2 * here - before - after).clamp(min=1e-6)
    return torch.where(inside, offset.clamp(-0.5, 0.5), torch.zeros_like(offset))


def _up(channels: int) -> tuple[nn.Module, ...]:
    """One up-convolution by two."""
    deconv = nn.ConvTranspose2d(channels, _WIDTH, kernel_size=4, stride=2, padding=1, bias=False)
    return deconv, nn.BatchNorm2d(_WIDTH), nn.ReLU(inplace=True)


def _branch(channels: int, out: int) -> nn.Sequential:
    """A 3x3 convolution with batch norm and ReLU, then 1x1 to `out` channels."""
    return nn.Sequential(
        nn.Conv2d(channels, _WIDTH, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(_WIDTH),
        nn.ReLU(inplace=True),
        nn.Conv2d(_WIDTH, out, kernel_size=1),
    )


def _kaiming(module: nn.Module) -> None:
    """Kaiming-normal weights and zero biases."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _start_flat(layers: nn.Sequential, bias: float) -> None:
    """Let the last layer begin with nearly the same output everywhere."""
    last = layers[-1]
    assert isinstance(last, (nn.Conv2d, nn.Linear)) and last.bias is not None
    nn.init.normal_(last.weight, std=HEAT_STD)
    nn.init.constant_(last.bias, bias)
