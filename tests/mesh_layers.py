"""How often the surface of a mesh winds around points: not at all around those outside."""

from __future__ import annotations

import numpy as np


def layers_above(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Count the outer minus the inner sides that a ray along y from each point (P, 3) passes.

    For a closed surface that is how many times it winds around the point; the arm's open end lies
    in the other direction.
    """
    corners = vertices[faces]
    flat = corners[None, :, :, [2, 0]] - points[:, None, None, [2, 0]]
    ahead = flat[:, :, [1, 2, 0]]
    turns = flat[..., 0] * ahead[..., 1] - flat[..., 1] * ahead[..., 0]
    inward, outward = (turns < 0).all(axis=-1), (turns > 0).all(axis=-1)
    point, face = np.nonzero(inward | outward)
    share = turns[point, face][:, [1, 2, 0]]
    height = (share * corners[face][..., 1]).sum(axis=1) / share.sum(axis=1)
    beyond = height > points[point, 1]
    signs = np.where(outward[point, face], 1, -1)[beyond]
    return np.bincount(point[beyond], weights=signs, minlength=len(points)).round().astype(int)
