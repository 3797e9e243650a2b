"""The 3D hand pose model: heat, delta and location maps on top of the encoder (Zhou et al. 2020, DetNet)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..contract.errors import HandclrError
from .encoder import Encoder, seeded

JOINTS = 21
PARENTS = tuple(0 if joint % 4 == 1 else max(0, joint - 1) for joint in range(JOINTS))
STRIDE = 4
REFERENCE_BONE = (0, 9)
HEAT_WEIGHT, DELTA_WEIGHT, LOCATION_WEIGHT = 100.0, 1.0, 10.0
HEAT_BIAS, HEAT_STD = -2.5, 0.02
_WIDTH = 256


class PoseMaps(NamedTuple):
    """Maps at a quarter of the input: heat (N, 21, h, w) in [0, 1], delta and location (N, 21, 3, h, w)."""

    heat: Tensor
    delta: Tensor
    location: Tensor


class PoseTargets(NamedTuple):
    """Truth: heat (N, 21, h, w); delta, location (N, 21, 3) in reference bones; visible (N, 21) bool."""

    heat: Tensor
    delta: Tensor
    location: Tensor
    visible: Tensor


class PoseNet(nn.Module):
    """Encoder, three up-convolutions to a quarter of the input, and the heat, delta and location heads.

    Input (N, 3, H, W) ImageNet-normalised RGB as in pre-training, H and W multiples of 32. Lengths are in
    units of the reference bone, wrist to middle knuckle. The weights above the encoder are drawn from `seed`.
    """

    def __init__(self, encoder: Encoder, seed: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        with seeded(seed):
            self.deconv = nn.Sequential(*_up(encoder.channels), *_up(_WIDTH), *_up(_WIDTH))
            self.heat = _head(_WIDTH + 2, JOINTS)
            self.delta = _head(_WIDTH + 2 + JOINTS, 3 * JOINTS)
            self.location = _head(_WIDTH + 2 + 4 * JOINTS, 3 * JOINTS)
            for part in (self.deconv, self.heat, self.delta, self.location):
                part.apply(_kaiming)
        # Nearly all of a heatmap is zero: started at a half, the first hundreds of steps would only clear it.
        last = self.heat[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        with seeded(seed):
            nn.init.normal_(last.weight, std=HEAT_STD)
        nn.init.constant_(last.bias, HEAT_BIAS)

    def forward(self, images: Tensor) -> PoseMaps:
        """Predict the maps: (N, 3, H, W) -> PoseMaps with h = H/4, w = W/4."""
        if images.shape[-2] % 32 or images.shape[-1] % 32:
            height, width = images.shape[-2:]
            raise HandclrError(f"the pose model takes sides that are multiples of 32, not {width}x{height}: set --size")
        x = self.deconv(self.encoder.features(images))
        n, _, h, w = x.shape
        across = torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype).expand(n, 1, h, w)
        down = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype)[:, None].expand(n, 1, h, w)
        x = torch.cat([x, across, down], dim=1)
        heat = self.heat(x).sigmoid()
        x = torch.cat([x, heat], dim=1)
        delta = self.delta(x)
        location = self.location(torch.cat([x, delta], dim=1))
        return PoseMaps(heat, delta.unflatten(1, (JOINTS, 3)), location.unflatten(1, (JOINTS, 3)))


def read_pose(maps: PoseMaps) -> tuple[Tensor, Tensor]:
    """Read the pose at each joint's hottest cell; float32.

    Returns xyz (N, 21, 3), relative to the wrist, in units of the reference bone, and uv (N, 21, 2) in input
    pixels (x, y) with pixel centres at .5, refined within the cell by a parabola through the log heat (exact
    for a Gaussian; in a border cell there is no refinement along that axis).
    """
    heat = maps.heat.float()
    n, joints, h, w = heat.shape
    cell = heat.flatten(2).argmax(dim=2)
    at = cell[:, :, None, None].expand(n, joints, 3, 1)
    location = maps.location.float().flatten(3).gather(3, at)[..., 0]
    row, column = cell // w, cell % w
    logs = heat.clamp(min=1e-6).log().flatten(2)
    u = column + _refine(logs, cell, 1, (column > 0) & (column < w - 1))
    v = row + _refine(logs, cell, w, (row > 0) & (row < h - 1))
    return location - location[:, :1], (torch.stack([u, v], dim=2) + 0.5) * STRIDE


def targets(keypoints2d: Tensor, keypoints3d: Tensor, size: int) -> PoseTargets:
    """Make the truth for square inputs of side `size` px.

    keypoints2d (N, 21, 2) input px with pixel centres at .5, keypoints3d (N, 21, 3) metres. The heat of a
    joint is a Gaussian of sigma one cell around its exact, sub-cell position (the published code truncates it
    to a cell).
    """
    side = size // STRIDE
    points = keypoints2d.float()
    visible = ((points >= 0) & (points < size)).all(dim=2)
    # A joint outside keeps its 3D truth at the nearest border, where its readout tends to land.
    centre = (points.clamp(0, size) / STRIDE - 0.5)[..., None]
    cells = torch.arange(side, device=points.device, dtype=torch.float32)
    falloff = torch.exp(-0.5 * (cells - centre) ** 2)
    heat = falloff[:, :, 1, :, None] * falloff[:, :, 0, None, :]

    joints = keypoints3d.float()
    root, tip = joints[:, REFERENCE_BONE[0]], joints[:, REFERENCE_BONE[1]]
    bone = (tip - root).norm(dim=1).clamp(min=1e-6)[:, None, None]
    location = (joints - root[:, None]) / bone
    delta = location - location[:, list(PARENTS)]
    delta = delta / delta.norm(dim=2, keepdim=True).clamp(min=1e-6)
    return PoseTargets(heat, delta, location, visible)


def pose_loss(maps: PoseMaps, truth: PoseTargets) -> dict[str, Tensor]:
    """The weighted "total" and its unweighted parts "heat", "delta", "location"; float32 scalars.

    heat: half the squared error per cell, summed over the 21 joints, averaged over the batch's visible ones.
    delta, location: squared error summed over x, y, z, averaged with the true heat as weight. The published
    code takes an un-squared norm over the whole batch for these two, so that their weight shrinks as the
    batch grows.
    """
    error = (maps.heat.float() - truth.heat).square().mean(dim=(2, 3)) * truth.visible
    heat = 0.5 * JOINTS * error.sum() / truth.visible.sum().clamp(min=1)
    mass = truth.heat.sum().clamp(min=1e-6)

    def weighted(predicted: Tensor, true: Tensor) -> Tensor:
        return ((predicted.float() - true[..., None, None]).square().sum(dim=2) * truth.heat).sum() / mass

    delta, location = weighted(maps.delta, truth.delta), weighted(maps.location, truth.location)
    total = HEAT_WEIGHT * heat + DELTA_WEIGHT * delta + LOCATION_WEIGHT * location
    return {"total": total, "heat": heat, "delta": delta, "location": location}


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


def _head(channels: int, out: int) -> nn.Sequential:
    """A 3x3 convolution with batch norm and ReLU, then 1x1 to `out` channels."""
    return nn.Sequential(
        nn.Conv2d(channels, _WIDTH, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(_WIDTH),
        nn.ReLU(inplace=True),
        nn.Conv2d(_WIDTH, out, kernel_size=1),
    )


def _kaiming(module: nn.Module) -> None:
    """Kaiming-normal weights and zero biases for the convolutions."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
