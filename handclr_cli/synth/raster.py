"""A small rasteriser in torch: the triangle seen at each pixel of a batch of pictures.

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
            first = (self.image * values.shape[1])[:, None]
            picked = values.reshape(-1, values.shape[-1])[corners + first]
        else:
            picked = values[corners]
        return (picked * self.weights[..., None]).sum(dim=1)


def rasterize(points: torch.Tensor, faces: torch.Tensor, height: int, width: int) -> Fragments:
    """Find the nearest triangle at every pixel centre.

    `points` (B, V, 3) float32: pixel x, pixel y (centres at .5) and positive depth; `faces` (F, 3)
    int64, counter-clockwise seen from outside. The backs of faces are not seen, nor triangles
    nearer than 2 cm.
    """
    keys = torch.full(
        (len(points) * height * width,), _NOTHING, dtype=torch.int64, device=points.device
    )
    triangles = _facing(points, faces, height, width)
    side, size = 2, triangles.size
    while len(size) and side // 2 < int(size.max()):
        chosen = torch.nonzero((size <= side) & (size > (0 if side == 2 else side // 2)))[:, 0]
        for part in chosen.split(max(1, _CHUNK // (side * side))):
            _scatter(keys, triangles.some(part), side, height, width)
        side *= 2
    return _fragments(keys, points, faces, height, width)


@dataclass(frozen=True)
class _Triangles:
    """N triangles that face the camera.

    `corners` (N, 3, 3) pixels and depth; `low` (N, 2) int64 the first pixel that each may cover,
    `size` (N) int64 how many pixels from there on in x or y; `image` (N) and `face` (N) int64 which
    picture and which of its faces each is.
    """

    corners: torch.Tensor
    low: torch.Tensor
    size: torch.Tensor
    image: torch.Tensor
    face: torch.Tensor

    def some(self, rows: torch.Tensor) -> _Triangles:
        """The triangles of these rows."""
        return _Triangles(
            self.corners[rows], self.low[rows], self.size[rows], self.image[rows], self.face[rows]
        )


def _facing(points: torch.Tensor, faces: torch.Tensor, height: int, width: int) -> _Triangles:
    """The triangles of all pictures that face the camera and may cover the centre of a pixel."""
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
    low = low[image, face].long()
    size = (high[image, face].long() - low + 1).amax(dim=1)
    return _Triangles(corners[image, face], low, size, image, face)


def _scatter(keys: torch.Tensor, triangles: _Triangles, side: int, height: int, width: int) -> None:
    """Enter triangles of at most `side` pixels into `keys`, depth and face; nearer ones win."""
    corners, low = triangles.corners, triangles.low
    step = torch.arange(side, device=keys.device)
    shares = _shares_in_window(corners, low, step)
    x, y = low[:, 0, None] + step, low[:, 1, None] + step
    inside = shares.amin(dim=1) >= 0
    inside &= (x < width)[:, None] & (y < height)[:, :, None]
    triangle, row, column = torch.nonzero(inside, as_tuple=True)
    depth = 1 / (shares[triangle, :, row, column] / corners[triangle, :, 2]).sum(dim=1)
    # Positive floats sort like their bits.
    key = (depth.view(torch.int32).long() << 32) | triangles.face[triangle]
    line = triangles.image[triangle] * height + low[triangle, 1] + row
    keys.scatter_reduce_(0, line * width + low[triangle, 0] + column, key, "amin")


def _shares_in_window(corners: torch.Tensor, low: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Barycentric coordinates (N, 3, S, S) at the pixels from `low` on, by row and column."""
    # Relative to the window's first pixel centre, where coordinates are small and exact.
    origin = low[:, None].to(corners.dtype) + 0.5
    slope_x, slope_y, constant = _planes(corners[..., :2] - origin)
    rows = slope_y[:, :, None] * step + constant[:, :, None]
    return slope_x[:, :, None, None] * step + rows[..., None]


def _fragments(
    keys: torch.Tensor, points: torch.Tensor, faces: torch.Tensor, height: int, width: int
) -> Fragments:
    """The covered pixels, with the point of the nearest triangle at each."""
    pixel = torch.nonzero(keys != _NOTHING)[:, 0]
    image, inside = pixel // (height * width), pixel % (height * width)
    face = keys[pixel] & 0xFFFFFFFF
    centre = torch.stack([inside % width, inside // width], dim=1).to(points.dtype) + 0.5
    corners = points[image[:, None], faces[face]]
    shares = _planes(corners[..., :2] - centre[:, None])[2]
    inverse = shares / corners[..., 2]
    depth = 1 / inverse.sum(dim=1)
    return Fragments(pixel, image, face, inverse * depth[:, None], depth)


def _doubled_area(corners: torch.Tensor) -> torch.Tensor:
    first = corners[..., 1, :2] - corners[..., 0, :2]
    second = corners[..., 2, :2] - corners[..., 0, :2]
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]


def _planes(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Barycentric coordinates in triangles (N, 3, 2) as planes: slopes in x and y, and constant.

    Each is (N, 3).
    """
    # Not an index of corners, which would be copied to the device, and waited for.
    ahead, beyond = points.roll(-1, dims=1), points.roll(1, dims=1)
    slope_x = ahead[..., 1] - beyond[..., 1]
    slope_y = beyond[..., 0] - ahead[..., 0]
    constant = ahead[..., 0] * beyond[..., 1] - ahead[..., 1] * beyond[..., 0]
    area = constant.sum(dim=1, keepdim=True)
    return slope_x / area, slope_y / area, constant / area
