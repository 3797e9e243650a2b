"""Sleeves: cloth around the forearm, cut from the template's own arm and pushed outwards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .raster import Fragments
from .renderer import PaintedMesh
from .skinning import SkinnedMesh
from .template import Template


@dataclass(frozen=True)
class Sleeve:
    """A sleeve of one person: its mesh follows the arm's bones."""

    mesh: SkinnedMesh
    paint: Cloth

    def part(self, frames: np.ndarray) -> PaintedMesh:
        """The sleeve in the hand frame for bones (T, 17, 4, 4)."""
        vertices, normals = self.mesh.posed(frames)
        return PaintedMesh(
            vertices,
            normals,
            self.mesh.faces,
            torch.full_like(vertices[..., 0], 0.85),
            self.paint,
            0,
        )


class Cloth:
    """Paints woven or striped cloth by the place on the sleeve at rest."""

    def __init__(self, points: torch.Tensor, rng: np.random.Generator) -> None:
        self._points = points
        value = rng.uniform(0.03, 0.85)
        tint = rng.uniform(0.55, 1.0, 3) ** rng.uniform(0.2, 2.0)
        self._colour = torch.tensor(value * tint / tint.max()).to(points)
        self._stripe = torch.tensor(np.clip(rng.uniform(0.02, 0.9, 3), 0, 1)).to(points)
        self._period, self._striped = rng.uniform(0.006, 0.03), rng.uniform() < 0.3
        self._weave = rng.uniform(0.02, 0.12)

    def __call__(self, seen: Fragments, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Linear albedo (P, 3) and gloss (P)."""
        point = seen.blend(self._points, faces)
        wave = torch.sin(point[:, 1] * 3900) * torch.sin((point[:, 0] + point[:, 2]) * 3700)
        colour = self._colour.expand(len(point), 3)
        if self._striped:
            stripe = (torch.sin(point[:, 1] * (6.2832 / self._period)) * 6).clamp(-1, 1)[
                :, None
            ] * 0.5 + 0.5
            colour = colour * (1 - stripe) + self._stripe * stripe
        return (colour * (1 + self._weave * wave[:, None])).clamp(0.01, 0.95), torch.full_like(
            wave, 0.02
        )


def draw_sleeve(rng: np.random.Generator, template: Template, hand: SkinnedMesh) -> Sleeve:
    """Draw a sleeve that ends at the wrist or up to a hand's length above it."""
    cuff = -rng.uniform(0.012, 0.14)
    thickness = rng.uniform(0.002, 0.007)
    below = (template.vertices[:, 1] < cuff)[template.faces].all(axis=1)
    used, faces = np.unique(template.faces[below], return_inverse=True)
    rest = template.vertices[used]
    fold = rng.uniform(0.0, 0.0035) * np.sin(
        rest[:, 1] * rng.uniform(150, 420) + 30 * rest[:, 0] + rng.uniform(0, 6)
    )
    widening = 0.06 * np.clip(cuff - rest[:, 1], 0, 0.1)
    push = torch.tensor(thickness + fold + widening).to(hand.vertices)[:, None]
    index = torch.tensor(used, device=hand.vertices.device)
    mesh = SkinnedMesh(
        hand.vertices[index] + push * hand.normals[index],
        hand.normals[index],
        torch.tensor(faces.reshape(-1, 3), device=hand.faces.device),
        hand.weights[index],
        hand.build,
    )
    return Sleeve(mesh, Cloth(torch.tensor(rest).to(hand.vertices), rng))
