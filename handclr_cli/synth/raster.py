"""A small rasteriser in torch: which triangle is seen through each pixel, for a batch of pictures
at once.

No gradients, no external kernels; nearest-surface ties go to the lower face number, so CPU and GPU
agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

_NOTHING = torch.iinfo(torch.int64).max
_NEAR = 0.02
# Tests of one scatter: bounds the memory of large triangles.
_CHUNK = 4_000_000


def floats(values: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """A float32 tensor on a device."""
    return torch.tensor(values, dtype=torch.float32, device=device)


@dataclass(frozen=True)
class Fragments:
    """What is seen: for each of P covered pixels its place and the point of the surface.

    `pixel` (P) int64 flat index into (B, H, W), ascending; `image` (P) int64 in 0..B-1; `face` (P)
    int64; `weights` (P, 3) float32 barycentric coordinates, perspective-correct; `depth` (P)
    float32.
    """

    pixel: torch.Tensor
    image: torch.Tensor
    face: torch.Tensor
    weights: torch.Tensor
    depth: torch.Tensor

    def blend(self, values: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
        """Interpolate per-vertex values, (V, C) or (B, V, C), at the fragments: (P, C)."""
        corners = faces[self.face]
        if values.dim() == 3:
            picked = values.reshape(-1, values.shape[-1])[
                corners + (self.image * values.shape[1])[:, None]
            ]
        else:
            picked = values[corners]
        return (picked * self.weights[..., None]).sum(dim=1)


def rasterize(points: torch.Tensor, faces: torch.Tensor, height: int, width: int) -> Fragments:
    """Find the nearest triangle at every pixel centre.

    `points` (B, V, 3) float32: pixel x, pixel y (centres at .5) and positive depth; `faces` (F, 3)
    int64, counter-clockwise seen from outside. The backs of faces are not seen, nor triangles
    nearer than 2 cm.
    """
    batch = len(points)
    keys = torch.full((batch * height * width,), _NOTHING, dtype=torch.int64, device=points.device)
    corners = points[:, faces]
    low = (corners[..., :2].amin(dim=2) - 0.5).ceil()
    high = (corners[..., :2].amax(dim=2) - 0.5).floor()
    limit = torch.tensor([width - 1, height - 1], dtype=points.dtype, device=points.device)
    low, high = low.clamp(min=0), torch.minimum(high, limit)
    # On the screen y points down, which turns counter-clockwise around.
    seen = (
        (high >= low).all(dim=-1)
        & (corners[..., 2].amin(dim=2) > _NEAR)
        & (_doubled_area(corners) < 0)
    )
    image, face = torch.nonzero(seen, as_tuple=True)
    corners, low = corners[image, face], low[image, face].long()
    size = (high[image, face].long() - low + 1).amax(dim=1)
    side = 2
    while len(size) and side // 2 < int(size.max()):
        chosen = torch.nonzero((size <= side) & (size > (0 if side == 2 else side // 2)))[:, 0]
        for part in chosen.split(max(1, _CHUNK // (side * side))):
            _scatter(keys, corners[part], low[part], image[part], face[part], side, height, width)
        side *= 2
    pixel = torch.nonzero(keys != _NOTHING)[:, 0]
    where = pixel // (height * width)
    winner = keys[pixel] & 0xFFFFFFFF
    inside = pixel % (height * width)
    centre = torch.stack([inside % width, inside // width], dim=1).to(points.dtype) + 0.5
    corners = points[where[:, None], faces[winner]]
    shares = _planes(corners[..., :2] - centre[:, None])[2]
    inverse = shares / corners[..., 2]
    depth = 1 / inverse.sum(dim=1)
    return Fragments(pixel, where, winner, inverse * depth[:, None], depth)


def _scatter(
    keys: torch.Tensor,
    corners: torch.Tensor,
    low: torch.Tensor,
    image: torch.Tensor,
    face: torch.Tensor,
    side: int,
    height: int,
    width: int,
) -> None:
    """Enter triangles that fit into windows of `side` pixels; nearer ones win."""
    step = torch.arange(side, device=keys.device)
    # Relative to the window's first pixel centre, where coordinates are small and exact.
    origin = low[:, None].to(corners.dtype) + 0.5
    slope_x, slope_y, constant = _planes(corners[..., :2] - origin)
    rows = slope_y[:, :, None] * step + constant[:, :, None]
    shares = slope_x[:, :, None, None] * step + rows[..., None]
    inside = shares.amin(dim=1) >= 0
    x, y = low[:, 0, None] + step, low[:, 1, None] + step
    inside &= (x < width)[:, None] & (y < height)[:, :, None]
    triangle, row, column = torch.nonzero(inside, as_tuple=True)
    depth = 1 / (shares[triangle, :, row, column] / corners[triangle, :, 2]).sum(dim=1)
    # Positive floats sort like their bits.
    key = (depth.view(torch.int32).long() << 32) | face[triangle]
    place = (image[triangle] * height + low[triangle, 1] + row) * width + low[triangle, 0] + column
    keys.scatter_reduce_(0, place, key, "amin")


def _doubled_area(corners: torch.Tensor) -> torch.Tensor:
    first = corners[..., 1, :2] - corners[..., 0, :2]
    second = corners[..., 2, :2] - corners[..., 0, :2]
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]


def _planes(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Barycentric coordinates in triangles (N, 3, 2) as planes: slopes in x and y, constant; (N, 3)
    each.
    """
    ahead, beyond = points[:, [1, 2, 0]], points[:, [2, 0, 1]]
    slope_x = ahead[..., 1] - beyond[..., 1]
    slope_y = beyond[..., 0] - ahead[..., 0]
    constant = ahead[..., 0] * beyond[..., 1] - ahead[..., 1] * beyond[..., 0]
    area = constant.sum(dim=1, keepdim=True)
    return slope_x / area, slope_y / area, constant / area
