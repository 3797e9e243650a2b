"""Simple things to hold: balls, cylinders, pens and boxes, plain or patterned."""

from __future__ import annotations

import numpy as np
import torch

from .raster import Fragments, floats
from .renderer import PaintedMesh
from .shot import OBJECT
from .skeleton import Build
from .vocabulary import HeldObject, held_object

_AROUND = 40
Mesh = tuple[np.ndarray, np.ndarray, np.ndarray]


class ObjectPaint:
    """A colour, perhaps with stripes or spots of another one, and a gloss."""

    def __init__(self, points: torch.Tensor, rng: np.random.Generator) -> None:
        self._points = points
        colours = rng.uniform(0.02, 0.9, (2, 3)) ** rng.uniform(0.6, 2.0)
        self._colours = floats(colours, points.device)
        self._gloss = rng.uniform(0.02, 0.5)
        waves = rng.normal(0, 1, (2, 3)) * 6.2832 / rng.uniform(0.008, 0.05)
        self._waves = floats(waves, points.device)
        self._amount = float(rng.choice([0.0, 0.25, 1.0], p=[0.45, 0.25, 0.3]))

    def __call__(self, seen: Fragments, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Linear albedo (P, 3) and gloss (P)."""
        phase = seen.blend(self._points, faces) @ self._waves.T
        pattern = (4 * torch.sin(phase[:, 0]) + 4 * torch.sin(phase[:, 1])).clamp(-1, 1) * 0.5 + 0.5
        share = (self._amount * pattern)[:, None]
        colour = self._colours[0] * (1 - share) + self._colours[1] * share
        return colour, torch.full_like(pattern, self._gloss)


def held_part(
    name: str, build: Build, moments: int, device: torch.device | str, rng: np.random.Generator
) -> PaintedMesh:
    """The object that the vocabulary's pose `name` holds, in the hand frame, for each moment.

    Raises KeyError for a pose that holds nothing.
    """
    held = held_object(name, build)
    if held is None:
        raise KeyError(f"{name} holds no object")
    points, normals, faces = object_mesh(held)
    frame = held.frame
    vertices = floats(points @ frame[:3, :3].T + frame[:3, 3], device).expand(moments, -1, -1)
    turned = floats(normals @ frame[:3, :3].T, device).expand(moments, -1, -1)
    sky = torch.full_like(vertices[..., 0], 0.8)
    paint = ObjectPaint(floats(points, device), rng)
    return PaintedMesh(vertices, turned, torch.tensor(faces, device=device), sky, paint, OBJECT)


def object_mesh(held: HeldObject) -> Mesh:
    """Vertices (V, 3) metres, unit normals (V, 3), outward faces (F, 3), in the object's frame."""
    if held.kind == "box":
        return _box(held.size / 2)
    radius, half = held.size[0] / 2, held.size[1] / 2
    if held.kind == "sphere":
        angle = np.linspace(-np.pi / 2, np.pi / 2, 21)
        profile = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return _revolved(profile, profile / radius)
    # Each straight piece of the outline has two points of its own, so that edges stay sharp.
    outline = [(0, -half), (radius, -half), (radius, half), (0, half)]
    if held.kind == "pen":
        outline = [
            (0, -half),
            (0.12 * radius, -half),
            (radius, -half + 3.2 * radius),
            (radius, half),
            (0, half),
        ]
    profile = np.repeat(np.array(outline, float), 2, axis=0)[1:-1]
    along = np.repeat(profile[1::2] - profile[::2], 2, axis=0)
    slopes = np.stack([along[:, 1], -along[:, 0]], axis=1)
    return _revolved(profile, slopes / np.linalg.norm(slopes, axis=1, keepdims=True))


def _revolved(profile: np.ndarray, slopes: np.ndarray) -> Mesh:
    """Turn an outline (N, 2) of radius and y, bottom to top, and its normals around the y axis."""
    angle = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
    around = np.stack([np.cos(angle), np.zeros_like(angle), np.sin(angle)], axis=1)
    up = np.array([0.0, 1.0, 0.0])
    points = profile[:, None, :1] * around + profile[:, None, 1:] * up
    normals = slopes[:, None, :1] * around + slopes[:, None, 1:] * up
    ring, spoke = np.meshgrid(np.arange(len(profile) - 1), np.arange(_AROUND), indexing="ij")
    here, there = ring * _AROUND + spoke, ring * _AROUND + (spoke + 1) % _AROUND
    above, beyond = here + _AROUND, there + _AROUND
    faces = np.concatenate(
        [np.stack([here, above, beyond], -1), np.stack([here, beyond, there], -1)]
    )
    return points.reshape(-1, 3), normals.reshape(-1, 3), faces.reshape(-1, 3)


def _box(half: np.ndarray) -> Mesh:
    points: list[list[np.ndarray]] = []
    normals, faces = [], []
    for axis in range(3):
        second, third = (axis + 1) % 3, (axis + 2) % 3
        for sign in (-1, 1):
            normal = np.zeros(3)
            normal[axis] = sign
            corners = []
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                corner = np.zeros(3)
                corner[[axis, second, third]] = sign, a * sign, b
                corners.append(corner * half)
            start = len(points) * 4
            points.append(corners)
            normals.append([normal] * 4)
            faces += [[start, start + 1, start + 2], [start, start + 2, start + 3]]
    return np.reshape(points, (-1, 3)), np.reshape(normals, (-1, 3)), np.array(faces)
