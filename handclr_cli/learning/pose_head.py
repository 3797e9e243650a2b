"""What heads of the pose model have in common: what goes in, what comes out, and their layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..contract.fields import JOINT_COUNT
from .ground_truth import PoseTruth

ENCODER_STRIDE = 32
HEAT_STD = 0.02
# Weighs the error of 2D points, in sides of the input, against that of 3D points, which is in
# reference bones, about four to a hand.
UV_WEIGHT = 4.0
WIDTH = 256
LITTLE = 1e-6
Mean = Callable[[Tensor], Tensor]


class PoseHead(nn.Module, ABC):
    """From features (N, channels, H/32, W/32) to outputs of the head's own kind.

    Lengths are in units of the reference bone, wrist to middle knuckle. `mean` of a loss averages
    the counts that it divides by over the processes of a training, so that their mean loss is that
    of the whole batch. `takes_guide`: it is also called with a Guide, which may be None.
    """

    takes_guide = False

    @abstractmethod
    def read(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """The pose, float32: xyz (N, 21, 3) in reference bones, uv (N, 21, 2) input px (x, y).

        xyz is counted from the wrist, along the axes of the crop's own camera.
        """

    @abstractmethod
    def loss(
        self, outputs: Any, truth: PoseTruth, mean: Mean = lambda counts: counts
    ) -> dict[str, Tensor]:
        """The weighted "total" and its unweighted parts; float32 scalars."""


class Points(NamedTuple):
    """Joints, float32: location (N, 21, 3) in reference bones, uv (N, 21, 2) in input px."""

    location: Tensor
    uv: Tensor


def read_points(points: Points) -> tuple[Tensor, Tensor]:
    """The pose that joints make, as `PoseHead.read` gives it."""
    return points.location - points.location[:, :1], points.uv


def point_loss(
    points: Points, truth: PoseTruth, mean: Mean = lambda counts: counts
) -> dict[str, Tensor]:
    """The total, "location" and "uv": absolute errors, averaged over the batch's joints.

    They are summed over the axes. location: in reference bones, of the joints with labels; uv: in
    sides of the input, of the visible ones. `mean` as of `PoseHead`.
    """
    sums = torch.stack([count.float().sum() for count in (truth.valid, truth.visible)])
    counts = mean(sums).clamp(min=LITTLE)
    off3d = (points.location.float() - truth.location).abs().sum(dim=2) * truth.valid
    off2d = (points.uv.float() - truth.uv).abs().sum(dim=2) * truth.visible
    location, uv = off3d.sum() / counts[0], off2d.sum() / counts[1] / truth.size
    return {"total": location + UV_WEIGHT * uv, "location": location, "uv": uv}


class PointHead(PoseHead):
    """A head whose outputs are the joints themselves; its loss is `point_loss`."""

    def read(self, outputs: Points) -> tuple[Tensor, Tensor]:
        return read_points(outputs)

    def loss(
        self, outputs: Points, truth: PoseTruth, mean: Mean = lambda counts: counts
    ) -> dict[str, Tensor]:
        return point_loss(outputs, truth, mean)


class Regress(PointHead):
    """Two layers on the mean feature: the smallest head, without maps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, 2 * WIDTH, bias=False),
            nn.BatchNorm1d(2 * WIDTH),
            nn.ReLU(inplace=True),
            nn.Linear(2 * WIDTH, 5 * JOINT_COUNT),
        )
        self.apply(kaiming)
        start_flat(self.layers, 0.0)

    def forward(self, features: Tensor) -> Points:
        """Predict the joints."""
        h, w = features.shape[2:]
        found = self.layers(features.mean(dim=(2, 3))).float().unflatten(1, (JOINT_COUNT, 5))
        u, v = found[..., 3] + 0.5, found[..., 4] + 0.5
        return Points(found[..., :3], torch.stack([u * w, v * h], dim=2) * ENCODER_STRIDE)


def with_places(x: Tensor) -> Tensor:
    """Add two channels that tell each cell where it is, from -1 to 1."""
    n, _, h, w = x.shape
    across = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype).expand(n, 1, h, w)
    down = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype)[:, None].expand(n, 1, h, w)
    return torch.cat([x, across, down], dim=1)


def up(channels: int) -> tuple[nn.Module, ...]:
    """One up-convolution by two."""
    deconv = nn.ConvTranspose2d(channels, WIDTH, kernel_size=4, stride=2, padding=1, bias=False)
    return deconv, nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)


def branch(channels: int, out: int) -> nn.Sequential:
    """A 3x3 convolution with batch norm and ReLU, then 1x1 to `out` channels."""
    return nn.Sequential(
        nn.Conv2d(channels, WIDTH, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(WIDTH),
        nn.ReLU(inplace=True),
        nn.Conv2d(WIDTH, out, kernel_size=1),
    )


def kaiming(module: nn.Module) -> None:
    """Kaiming-normal weights and zero biases."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def start_flat(layers: nn.Sequential, bias: float) -> None:
    """Let the last layer begin with nearly the same output everywhere."""
    last = layers[-1]
    assert isinstance(last, (nn.Conv2d, nn.Linear)) and last.bias is not None
    nn.init.normal_(last.weight, std=HEAT_STD)
    nn.init.constant_(last.bias, bias)
