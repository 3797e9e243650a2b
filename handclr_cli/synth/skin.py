"""What skin looks like: tone, mottling, the creases of palm and fingers, knuckle folds and nails.

All of it is painted in the template's rest frame, so it stays with the skin when the hand moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from .raster import Fragments, floats
from .skeleton import FIRST_PHALANX, FOREARM, PALM, average_build
from .template import RADII, Template

# Skin of light to dark people, sRGB in 0..1, equally spaced in depth of tone.
_TONES = np.array(
    [
        [0.93, 0.78, 0.70],
        [0.88, 0.69, 0.58],
        [0.80, 0.60, 0.47],
        [0.68, 0.48, 0.35],
        [0.52, 0.35, 0.25],
        [0.36, 0.24, 0.18],
        [0.24, 0.16, 0.13],
    ]
)
_PALM_PINK = np.array([0.90, 0.66, 0.58])
# The creases of the palm in the rest frame's x and y, metres: heart, head and life line, two of the
# wrist.
_PALM_LINES = (
    [(0.044, 0.060), (0.026, 0.064), (0.006, 0.072), (-0.009, 0.084)],
    [(-0.033, 0.068), (-0.014, 0.062), (0.010, 0.051), (0.030, 0.037)],
    [(-0.033, 0.067), (-0.018, 0.056), (-0.009, 0.040), (-0.007, 0.022), (-0.012, 0.006)],
    [(-0.026, 0.001), (0.000, -0.003), (0.026, 0.001)],
    [(-0.026, -0.007), (0.000, -0.010), (0.026, -0.007)],
)
# How much less red, green and blue flushed skin reflects.
_FLUSH = (0.02, 0.14, 0.13)
# Octaves of mottling: period in metres, and amount.
_MOTTLING = ((0.045, 0.05), (0.017, 0.04), (0.006, 0.03), (0.0019, 0.045))


@dataclass(frozen=True)
class Complexion:
    """How one person's skin looks; colours are sRGB in 0..1, amounts about 1."""

    back: np.ndarray
    palm: np.ndarray
    nail: np.ndarray
    creases: float
    mottling: float
    gloss: float
    phase: np.ndarray


def draw_complexion(rng: np.random.Generator, depth: float | None = None) -> Complexion:
    """Draw a complexion; `depth` in 0..1 is how dark it is, drawn evenly where it is None."""
    depth = rng.uniform(0, 1) if depth is None else depth
    place = depth * (len(_TONES) - 1)
    steps = range(len(_TONES))
    tone = np.array([np.interp(place, steps, channel) for channel in _TONES.T])
    back = np.clip(tone * rng.normal(1, [0.03, 0.03, 0.045]), 0.05, 0.98)
    pink = rng.uniform(0.25, 0.5) if depth < 0.6 else rng.uniform(0.35, 0.6)
    palm = (1 - pink) * back + pink * _PALM_PINK * (1 - 0.35 * depth)
    nail = 0.45 * back + 0.55 * np.array([0.93, 0.74, 0.70]) * (1 - 0.25 * depth)
    if rng.uniform() < 0.08:
        nail = rng.uniform(0.05, 0.9, 3)
    return Complexion(
        back,
        palm,
        nail,
        rng.uniform(0.7, 1.3),
        rng.uniform(0.5, 1.4),
        rng.uniform(0.5, 1.5),
        rng.uniform(0, 6.28, (4, 3)),
    )


class SkinPaint:
    """Paints fragments of the template's faces; holds what that takes as tensors of one device."""

    def __init__(
        self, template: Template, complexion: Complexion, device: torch.device | str = "cpu"
    ) -> None:
        self.complexion = complexion
        self._bone = torch.tensor(template.bone, device=device)
        points = np.concatenate([template.vertices, template.dorsal[:, None]], axis=1)
        self._points = floats(points, device)
        self._turns = floats(template.frames[:, :3, :3], device)
        self._origins = floats(template.frames[:, :3, 3], device)
        lengths, radii = np.ones(len(template.frames)), np.ones(len(template.frames))
        lengths[FIRST_PHALANX:] = average_build().lengths.ravel()
        radii[FIRST_PHALANX:] = RADII[:, 1:].ravel()
        self._lengths, self._radii = floats(lengths, device), floats(radii, device)
        segments = []
        for line in _PALM_LINES:
            segments += [(*start, *end) for start, end in pairwise(line)]
        self._segments = floats(np.array(segments), device)
        self._colours = {
            name: floats(getattr(complexion, name), device) ** 2.2
            for name in ("back", "palm", "nail")
        }
        self._phase = floats(complexion.phase, device)

    def __call__(self, seen: Fragments, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Linear albedo (P, 3) and gloss (P) of the fragments."""
        blended = seen.blend(self._points, faces)
        point, dorsal = blended[:, :3], blended[:, 3]
        corner = seen.weights.argmax(dim=1, keepdim=True)
        bone = self._bone[faces[seen.face].gather(1, corner)[:, 0]]
        local = torch.einsum("pji,pj->pi", self._turns[bone], point - self._origins[bone])
        back = _ramp(dorsal, -0.35, 0.25)[:, None]
        colour = self._colours["palm"] * (1 - back) + self._colours["back"] * back
        colour = colour * self._mottling(point, back)
        crease, flush = self._marks(point, local, bone, dorsal)
        # Folds are darker and redder, knuckles and fingertips redder.
        stain = torch.tensor([0.62, 0.80, 0.86], device=crease.device)
        colour = colour * (1 - self.complexion.creases * crease[:, None].clamp(0, 1) * stain)
        colour = colour * (1 - flush[:, None] * torch.tensor(_FLUSH, device=flush.device))
        nail, light = self._nails(local, bone)
        nails = self._colours["nail"] * (1 - light[:, None]) + light[:, None] * 0.6
        colour = colour * (1 - nail[:, None]) + nails * nail[:, None]
        gloss = 0.09 * self.complexion.gloss * (1 - crease.clamp(0, 1)) * (1 - nail) + 0.32 * nail
        return colour.clamp(0.005, 0.95), gloss

    def _mottling(self, point: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        """Soft patches and fine grain, (P, 3) around one."""
        waves = torch.zeros_like(point[:, :1])
        for phase, (period, share) in zip(self._phase, _MOTTLING, strict=True):
            x, y, z = (point * (6.2832 / period)).unbind(dim=1)
            wave = torch.sin(x + 1.7 * torch.sin(y * 0.7 + phase[0]))
            wave = wave + torch.sin(y + 1.3 * torch.sin(z + phase[1]))
            waves = waves + (share * 0.5 * (wave + torch.sin(z + 1.1 * x + phase[2])))[:, None]
        tint = torch.tensor([0.75, 1.0, 1.0], device=point.device)
        return 1 + self.complexion.mottling * waves * tint * (0.7 + 0.3 * back)

    def _marks(
        self, point: torch.Tensor, local: torch.Tensor, bone: torch.Tensor, dorsal: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """How much each fragment lies in a crease, and how flushed it is: two (P) in about 0..1."""
        palmar, backward = _ramp(-dorsal, -0.25, 0.2), _ramp(dorsal, 0.05, 0.5)
        crease, flush = self._finger_marks(local, bone, palmar, backward)
        of_palm = (bone == PALM) | (bone == FOREARM) | (bone == FIRST_PHALANX)
        palm = torch.nonzero(of_palm & (palmar > 0))[:, 0]
        drawn = _line(self._palm_distance(point[palm, :2]), 0.0009) * palmar[palm]
        return crease.index_add(0, palm, 0.5 * drawn), flush

    def _finger_marks(
        self, local: torch.Tensor, bone: torch.Tensor, palmar: torch.Tensor, backward: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Creases and flush of the fingers alone.

        `palmar` and `backward` (P) say how much fragments face the palm and the back.
        """
        finger = bone >= FIRST_PHALANX
        number = torch.where(finger, (bone - FIRST_PHALANX) % 3, -1)
        length = self._lengths[bone]
        wobble = 0.0004 * torch.sin(local[:, 0] * 900 + bone)
        near, far = local[:, 1] + wobble, local[:, 1] - length + wobble
        nearer = torch.where(near < -far, near, far)
        gap = torch.where(number == 2, near, torch.where(number == 0, far, nearer))
        thumb = finger & (bone < FIRST_PHALANX + 3)
        lines = _line(gap, 0.0008) + 0.6 * _line(gap.abs() - 0.0021, 0.0006)
        lines = lines + torch.where((number == 0) & ~thumb, _line(local[:, 1] - 0.0195, 0.0008), 0)
        waves = torch.cos(gap * (6.2832 / 0.0019) + 40 * wobble / 0.0004)
        folds = torch.exp(-((gap / 0.0052) ** 2)) * (0.45 + 0.55 * waves)
        crease = torch.where(finger, 0.75 * palmar * lines + 0.42 * backward * folds, 0)
        flush = torch.where(finger, torch.exp(-((gap / 0.008) ** 2)) * backward, 0)
        flush = flush + torch.where(number == 2, _ramp(local[:, 1] / length, 0.5, 1.1), 0)
        return crease, flush

    def _palm_distance(self, place: torch.Tensor) -> torch.Tensor:
        """Distance (P) in metres from points (P, 2) of the palm's plane to the nearest crease."""
        start, axis = self._segments[:, :2], self._segments[:, 2:] - self._segments[:, :2]
        wavy = place + 0.0006 * torch.sin(place.flip(1) * 400)
        offset = wavy[:, None] - start
        along = ((offset * axis).sum(-1) / (axis * axis).sum(-1)).clamp(0, 1)
        return (offset - along[..., None] * axis).norm(dim=-1).amin(dim=1)

    def _nails(self, local: torch.Tensor, bone: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Coverage (P) by a nail, and (P) how much of it is the white of lunula or free edge."""
        last = (bone >= FIRST_PHALANX) & ((bone - FIRST_PHALANX) % 3 == 2)
        radius, length = self._radii[bone], self._lengths[bone]
        across = local[:, 0] / (0.80 * radius)
        along = (local[:, 1] - 0.83 * length) / (0.30 * length + 0.0012)
        shape = (across**4 + along.abs() ** 3.2).clamp(min=1e-6) ** 0.28
        nail = torch.where(last & (local[:, 2] > 0.1 * radius), _ramp(-shape, -1.06, -0.94), 0)
        moon = _ramp(-((along + 1.05) ** 2 + across**2), -0.32, -0.16) * 0.5
        edge = _ramp(along, 0.72, 0.84)
        return nail, torch.maximum(moon, edge)


def _ramp(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Smoothly 0 below `low` and 1 above `high`."""
    share = ((values - low) / (high - low)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def _line(distance: torch.Tensor, width: float) -> torch.Tensor:
    return torch.exp(-((distance / width) ** 2))
