"""One person's hand as a mesh that follows its bones, by dual quaternions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from .raster import floats
from .skeleton import (
    BONES,
    FIRST_PHALANX,
    FOREARM,
    PALM,
    THUMB,
    Build,
    phalanx,
    pose_bones,
    rest_pose,
)
from .template import RADII, Template

# Ambient occlusion is felt at these heights above the skin, metres.
_OCCLUSION_HEIGHTS = (0.007, 0.016, 0.032)


@dataclass(frozen=True)
class SkinnedMesh:
    """A mesh bound to the bones of one person.

    `vertices` (V, 3) and `normals` (V, 3) float32 at rest in the hand frame, `faces` (F, 3) int64,
    `weights` (V, 17) float32, `build` the person's.
    """

    vertices: torch.Tensor
    normals: torch.Tensor
    faces: torch.Tensor
    weights: torch.Tensor
    build: Build

    @cached_property
    def _rest(self) -> np.ndarray:
        return pose_bones(self.build, rest_pose())[0][0]

    def posed(self, frames: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Vertices and normals (T, V, 3) for bones (T, 17, 4, 4), by dual quaternions.

        The method is that of Kavan et al. 2007.
        """
        real, dual = _dual_quaternions(frames @ np.linalg.inv(self._rest))
        blended = self.weights @ floats(np.concatenate([real, dual], axis=-1), self.vertices.device)
        blended = blended / blended[..., :4].norm(dim=-1, keepdim=True)
        turn, shift = blended[..., :4], blended[..., 4:]
        w, v = turn[..., :1], turn[..., 1:]
        across = torch.linalg.cross(v, shift[..., 1:])
        moved = 2 * (w * shift[..., 1:] - shift[..., :1] * v + across)
        return _rotate(w, v, self.vertices) + moved, _rotate(w, v, self.normals)


def skinned(template: Template, build: Build, device: torch.device | str = "cpu") -> SkinnedMesh:
    """Give the template a person's build: stretch each bone's flesh to its length and girth."""
    frames, _ = pose_bones(build, rest_pose())
    stretch = np.tile(np.eye(4), (len(BONES), 1, 1))
    for axis in range(3):
        stretch[:, axis, axis] = build.girth[:, axis]
    matrices = frames[0] @ stretch @ np.linalg.inv(template.frames)
    blend = np.einsum("vb,bij->vij", template.weights, matrices)
    vertices = np.einsum("vij,vj->vi", blend[:, :3, :3], template.vertices) + blend[:, :3, 3]
    return SkinnedMesh(
        floats(vertices, device),
        floats(template.normals, device),
        torch.tensor(template.faces, device=device),
        floats(template.weights, device),
        build,
    )


def occlusion(
    vertices: torch.Tensor, normals: torch.Tensor, frames: np.ndarray, build: Build
) -> torch.Tensor:
    """Ambient light that reaches the skin, (T, V) in 0..1, by its distance to the bones."""
    starts, axes, radii = (floats(part, vertices.device) for part in _capsules(frames, build))
    lengths, bases = (axes * axes).sum(dim=-1)[:, None], (starts * starts).sum(dim=-1)[:, None]
    offsets = (starts * axes).sum(dim=-1)[:, None]
    open_sky = torch.ones_like(vertices[..., 0])
    for height in _OCCLUSION_HEIGHTS:
        points = vertices + normals * height
        # Squared distances to segments, (T, V, C), expanded so that the products are matrix
        # products.
        along = points @ axes.transpose(1, 2) - offsets
        share = (along / lengths).clamp(0, 1)
        apart = (points * points).sum(dim=-1, keepdim=True)
        apart = apart - 2 * points @ starts.transpose(1, 2) + bases
        squared = apart + share * (share * lengths - 2 * along)
        nearest = (squared.clamp(min=0).sqrt() - radii).amin(dim=-1)
        open_sky = open_sky - (1 - nearest.clamp(0, height) / height) / len(_OCCLUSION_HEIGHTS)
    return open_sky


def _capsules(frames: np.ndarray, build: Build) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First ends (T, C, 3), axes (T, C, 3) and radii (C) of capsules a little inside the skin."""
    starts, axes, radii = [], [], []
    for finger in range(5):
        for number in range(3):
            row = phalanx(finger, number)
            starts.append(frames[:, row, :3, 3])
            axes.append(frames[:, row, :3, 1] * build.lengths[finger, number])
            radii.append(0.9 * build.girth[row, 0] * RADII[finger, number : number + 2].mean())
        if finger != THUMB:
            base = build.bases[finger]
            starts.append(np.broadcast_to([0.6 * base[0], 0.012, -0.002], (len(frames), 3)))
            axes.append(np.broadcast_to([0.4 * base[0], base[1] - 0.012, 0], (len(frames), 3)))
            radii.append(0.011 * build.girth[PALM, 2])
    starts.append(frames[:, FOREARM, :3, 3])
    axes.append(-0.2 * frames[:, FOREARM, :3, 1])
    radii.append(0.021 * build.girth[FOREARM, 0])
    return np.stack(starts, axis=1), np.stack(axes, axis=1), np.array(radii)


def _dual_quaternions(transforms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rigid transforms (T, 17, 4, 4) as real and dual parts (T, 17, 4), w first.

    All have one sign along each chain of bones.
    """
    from scipy.spatial.transform import Rotation

    shape = transforms.shape[:2]
    rotations = Rotation.from_matrix(transforms[..., :3, :3].reshape(-1, 3, 3))
    quaternion = rotations.as_quat().reshape(*shape, 4)
    real = np.concatenate([quaternion[..., 3:], quaternion[..., :3]], axis=-1)
    for bone in range(FIRST_PHALANX, len(BONES)):
        parent = PALM if (bone - FIRST_PHALANX) % 3 == 0 else bone - 1
        opposite = (real[:, bone] * real[:, parent]).sum(axis=-1) < 0
        real[opposite, bone] *= -1
    opposite = (real[:, FOREARM] * real[:, PALM]).sum(axis=-1) < 0
    real[opposite, FOREARM] *= -1
    shift = transforms[..., :3, 3]
    w, v = real[..., :1], real[..., 1:]
    dual_w = -0.5 * (shift * v).sum(axis=-1, keepdims=True)
    dual_v = 0.5 * (w * shift + np.cross(shift, v))
    return real, np.concatenate([dual_w, dual_v], axis=-1)


def _rotate(w: torch.Tensor, v: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Rotate points (V, 3) by unit quaternions: scalar parts (T, V, 1), vector parts (T, V, 3)."""
    points = points.expand_as(v)
    return points + 2 * torch.linalg.cross(v, torch.linalg.cross(v, points) + w * points)
