"""From posed meshes to a batch of pictures: projection, visibility, shadow, light and colour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from .raster import Fragments, rasterize

Paint = Callable[[Fragments, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
_SHADOW_SIZE = 160
# Depth in metres that a surface may lie behind the shadow map before it is dark, and over which it
# darkens.
_SHADOW_BIAS, _SHADOW_SOFTNESS = 0.004, 0.006
# Light passes the edge of a shadow in skin, red the furthest.
_SCATTER = (0.30, 0.14, 0.10)


@dataclass(frozen=True)
class PaintedMesh:
    """One mesh in the camera frame (x right, y down, z forward, metres).

    `vertices` and `normals` (B, V, 3) float32, `faces` (F, 3) int64 whose corners run
    counter-clockwise seen from outside, `open_sky` (B, V) ambient light in 0..1, `paint` gives
    linear albedo (P, 3) and gloss (P) of fragments of the faces, `label` is its value in the
    segmentation.
    """

    vertices: torch.Tensor
    normals: torch.Tensor
    faces: torch.Tensor
    open_sky: torch.Tensor
    paint: Paint
    label: int


@dataclass(frozen=True)
class Lights:
    """A key light and ambient light.

    `key` (B, 3) directions towards the light; `key_colour`, `sky` (ambient light from above) and
    `ground` (from below) linear colours (3).
    """

    key: torch.Tensor
    key_colour: torch.Tensor
    sky: torch.Tensor
    ground: torch.Tensor


@dataclass(frozen=True)
class Rendered:
    """A batch of pictures.

    `colour` (B, H, W, 3) display-referred 0..1, premultiplied; `alpha` (B, H, W); `labels` (B, H,
    W) uint8.
    """

    colour: torch.Tensor
    alpha: torch.Tensor
    labels: torch.Tensor


def render(
    parts: list[PaintedMesh],
    intrinsics: torch.Tensor,
    lights: Lights,
    height: int,
    width: int,
    samples: int = 2,
) -> Rendered:
    """Draw parts through a pinhole camera with samples x samples per pixel.

    `intrinsics` (B, 3, 3), pixel centres at .5.
    """
    joined = _join(parts)
    points = _project(joined.vertices, intrinsics, samples)
    window = _window(points, height * samples, width * samples, samples)
    picture = _empty(len(intrinsics), height, width, intrinsics.device)
    if window.right > window.left and window.bottom > window.top:
        corner = [window.left, window.top, 0]
        points = points - torch.tensor(corner, dtype=points.dtype, device=points.device)
        tall, wide = window.bottom - window.top, window.right - window.left
        seen = rasterize(points, joined.faces, tall, wide)
        shades, labels = _shade(parts, joined, seen, lights)
        marks = torch.cat([shades, torch.ones_like(shades[:, :1]), labels[:, None]], dim=1)
        _fill(picture, window, samples, seen.pixel, marks)
    return picture


class _Window(NamedTuple):
    """A part of the fine picture, in pixels; its sides are multiples of the samples."""

    left: int
    top: int
    right: int
    bottom: int


def _empty(batch: int, height: int, width: int, device: torch.device) -> Rendered:
    return Rendered(
        torch.zeros(batch, height, width, 3, device=device),
        torch.zeros(batch, height, width, device=device),
        torch.zeros(batch, height, width, dtype=torch.uint8, device=device),
    )


def _fill(
    picture: Rendered, window: _Window, samples: int, pixel: torch.Tensor, marks: torch.Tensor
) -> None:
    """Average a fine window into a picture, in place.

    `marks` (P, 5) are colour, coverage and label of the fine pixels `pixel` (P), counted in the
    window; a label needs half of a pixel.
    """
    tall, wide = (window.bottom - window.top) // samples, (window.right - window.left) // samples
    fine = torch.zeros(len(picture.alpha) * tall * wide * samples * samples, 5, device=marks.device)
    fine[pixel] = marks
    blocks = fine.reshape(-1, tall, samples, wide, samples, 5)
    coarse = blocks[..., :4].mean(dim=(2, 4))
    top, left = window.top // samples, window.left // samples
    rows, columns = slice(top, top + tall), slice(left, left + wide)
    picture.colour[:, rows, columns] = coarse[..., :3]
    picture.alpha[:, rows, columns] = coarse[..., 3]
    most = blocks[..., 4].amax(dim=(2, 4)).to(torch.uint8)
    half = coarse[..., 3] >= 0.5
    picture.labels[:, rows, columns] = torch.where(half, most, torch.zeros_like(most))


class _Joined(NamedTuple):
    """Parts as one mesh: its vertices and faces, and the first and last face of each part."""

    vertices: torch.Tensor
    faces: torch.Tensor
    starts: list[tuple[int, int]]


def _join(parts: list[PaintedMesh]) -> _Joined:
    faces, starts, vertex, face = [], [], 0, 0
    for part in parts:
        faces.append(part.faces + vertex)
        starts.append((face, face + len(part.faces)))
        vertex += part.vertices.shape[1]
        face += len(part.faces)
    vertices = torch.cat([part.vertices for part in parts], dim=1)
    return _Joined(vertices, torch.cat(faces), starts)


def _project(vertices: torch.Tensor, intrinsics: torch.Tensor, samples: int) -> torch.Tensor:
    """Pixels of the fine grid and depth, (B, V, 3)."""
    depth = vertices[..., 2:]
    pixels = (vertices @ intrinsics.transpose(1, 2))[..., :2] / depth.clamp(min=1e-4)
    return torch.cat([pixels * samples, depth], dim=-1)


def _window(points: torch.Tensor, height: int, width: int, samples: int) -> _Window:
    """The part of the picture that the meshes can touch, in whole pixels of the coarse grid."""
    low = points[..., :2].amin(dim=(0, 1)).tolist()
    high = points[..., :2].amax(dim=(0, 1)).tolist()
    left, top = (max(0, int(value // samples) * samples) for value in low)
    right = min(width, (int(high[0] // samples) + 1) * samples)
    bottom = min(height, (int(high[1] // samples) + 1) * samples)
    return _Window(left, top, right, bottom)


def _sunlit(vertices: torch.Tensor, faces: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """The share of the key light that reaches each vertex, (B, V) in 0..1, by a shadow map."""
    seen = vertices @ _bases(key).transpose(1, 2)
    low, high = seen.amin(dim=1, keepdim=True), seen.amax(dim=1, keepdim=True)
    scale = (_SHADOW_SIZE - 4) / (high - low)[..., :2].amax(dim=-1, keepdim=True)
    depth = 1 + seen[..., 2:] - low[..., 2:]
    # About the middle, so that the mirror image of a scene has the mirror image of the map.
    on_map = (seen - (low + high) / 2)[..., :2] * scale + _SHADOW_SIZE / 2
    points = torch.cat([on_map, depth], dim=-1)
    fragments = rasterize(points, faces, _SHADOW_SIZE, _SHADOW_SIZE)
    nearest = torch.full((len(vertices), _SHADOW_SIZE, _SHADOW_SIZE), 9.0, device=vertices.device)
    nearest.view(-1)[fragments.pixel] = fragments.depth
    light = torch.zeros_like(points[..., 0])
    rows = torch.arange(len(vertices), device=vertices.device)[:, None]
    place = points[..., :2].long()
    for shift in ((-2, 0), (2, 0), (0, -2), (0, 2), (-1, -1), (1, 1), (1, -1), (-1, 1), (0, 0)):
        x = (place[..., 0] + shift[0]).clamp(0, _SHADOW_SIZE - 1)
        y = (place[..., 1] + shift[1]).clamp(0, _SHADOW_SIZE - 1)
        behind = points[..., 2] - nearest[rows, y, x] - _SHADOW_BIAS
        light = light + (1 - behind / _SHADOW_SOFTNESS).clamp(0, 1) / 9
    return light


def _bases(key: torch.Tensor) -> torch.Tensor:
    """Axes (B, 3, 3) of cameras that look along the lights (B, 3): right, down, forward."""
    forward = -key / key.norm(dim=1, keepdim=True)
    steep = forward[:, 1:2].abs() > 0.9
    helper = torch.where(steep, key.new_tensor([1.0, 0.0, 0.0]), key.new_tensor([0.0, 1.0, 0.0]))
    right = torch.linalg.cross(helper, forward)
    right = right / right.norm(dim=1, keepdim=True)
    return torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)


def _shade(
    parts: list[PaintedMesh], joined: _Joined, seen: Fragments, lights: Lights
) -> tuple[torch.Tensor, torch.Tensor]:
    """Display colours (P, 3) and labels (P) of the fragments."""
    normals = torch.cat([part.normals for part in parts], dim=1)
    sky = torch.cat([part.open_sky for part in parts], dim=1)
    sunlit = _sunlit(joined.vertices, joined.faces, lights.key)
    bundle = torch.cat([joined.vertices, normals, sky[..., None], sunlit[..., None]], dim=-1)
    values = seen.blend(bundle, joined.faces)
    albedo, gloss = torch.zeros_like(values[:, :3]), torch.zeros_like(values[:, 0])
    labels = torch.zeros_like(gloss)
    for part, (first, last) in zip(parts, joined.starts, strict=True):
        own = torch.nonzero((seen.face >= first) & (seen.face < last))[:, 0]
        mine = replace(
            seen,
            pixel=seen.pixel[own],
            image=seen.image[own],
            face=seen.face[own] - first,
            weights=seen.weights[own],
            depth=seen.depth[own],
        )
        albedo[own], gloss[own] = part.paint(mine, part.faces)
        labels[own] = float(part.label)
    radiance = _light(values, albedo, gloss, lights, lights.key[seen.image])
    return (radiance / (1 + 0.18 * radiance) * 1.12).clamp(0, 1) ** (1 / 2.2), labels


def _light(
    values: torch.Tensor,
    albedo: torch.Tensor,
    gloss: torch.Tensor,
    lights: Lights,
    key: torch.Tensor,
) -> torch.Tensor:
    """Linear radiance (P, 3): scattered key light, ambient light, and a soft highlight."""
    toward = -values[:, :3] / values[:, :3].norm(dim=1, keepdim=True)
    normal = values[:, 3:6] / values[:, 3:6].norm(dim=1, keepdim=True)
    open_sky, sun = values[:, 6:7].clamp(0.05, 1), values[:, 7:8]
    key = key / key.norm(dim=1, keepdim=True)
    facing = (normal * key).sum(dim=1, keepdim=True)
    wrap = torch.tensor(_SCATTER, device=albedo.device)
    diffuse = ((facing + wrap) / (1 + wrap)).clamp(min=0) * sun
    # Half of the ambient light comes along the normal's height; y points down.
    up = 0.5 - 0.5 * normal[:, 1:2]
    ambient = (lights.ground * (1 - up) + lights.sky * up) * open_sky
    half = key + toward
    half = half / half.norm(dim=1, keepdim=True)
    shine = ((normal * half).sum(1, keepdim=True).clamp(min=0) ** 28) * sun * (facing > 0)
    rim = (1 - (normal * toward).sum(1, keepdim=True).clamp(0, 1)) ** 4
    glossy = gloss[:, None] * (1.6 * shine * lights.key_colour + 0.6 * rim * ambient)
    return albedo * (diffuse * lights.key_colour + ambient) + glossy
