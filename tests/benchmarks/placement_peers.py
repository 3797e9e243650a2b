"""Other ways to place a hand of known size, to compare `hand.translation.place` with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from handclr_cli.hand.translation import NOISE_3D, place

_STEPS, _NEAREST = 15, 0.05
# A Gaussian prior on the logarithm of the depth.
_PRIOR = (0.6, 0.5)


class Seen(NamedTuple):
    """Poses (N, 21, 3), slopes of the rays (N, 21, 2), and the error (N,) to expect of a slope."""

    poses: np.ndarray
    slopes: np.ndarray
    noise: np.ndarray


Peer = Callable[[Seen], np.ndarray]


def seen(poses: np.ndarray, pixels: np.ndarray, cameras: np.ndarray, px: float) -> Seen:
    centre, focal = cameras[:, None, :2, 2], cameras[:, None, [0, 1], [0, 1]]
    return Seen(poses, (pixels - centre) / focal, px / cameras[:, 0, 0])


def ours(poses: np.ndarray, pixels: np.ndarray, cameras: np.ndarray, px: float) -> np.ndarray:
    return place(poses, pixels, cameras, px).move


def linear(given: Seen) -> np.ndarray:
    """Ordinary least squares of x + t_x = a (z + t_z): handclr's until it was measured."""
    slopes, offsets = given.slopes, given.poses[..., :2] - given.slopes * given.poses[..., 2:]
    u, v = slopes - slopes.mean(1, keepdims=True), offsets - offsets.mean(1, keepdims=True)
    return _with_depth(given, (u * v).sum((1, 2)) / np.square(u).sum((1, 2)))


def less_the_noise(given: Seen) -> np.ndarray:
    """The same, with the noise to expect in the rays taken off what they scatter."""
    slopes, offsets = given.slopes, given.poses[..., :2] - given.slopes * given.poses[..., 2:]
    u, v = slopes - slopes.mean(1, keepdims=True), offsets - offsets.mean(1, keepdims=True)
    square = 2 * np.square(given.noise)
    above = (u * v).sum((1, 2)) + square * given.poses[..., 2].sum(1)
    below = np.square(u).sum((1, 2)) - square * given.poses.shape[1]
    return _with_depth(given, above / below)


def extent(given: Seen) -> np.ndarray:
    """The depth at which the hand has the extent that is seen."""
    depth = linear(given)[:, 2]
    for _ in range(5):
        z = given.poses[..., 2] + depth[:, None]
        there = given.slopes * z[..., None]
        scale = given.poses[..., :2].std(axis=1) ** 2, there.std(axis=1) ** 2
        depth += (np.sqrt(scale[0].sum(1) / scale[1].sum(1)) - 1) * z.mean(axis=1)
    return _with_depth(given, depth)


def _with_depth(given: Seen, depth: np.ndarray) -> np.ndarray:
    there = given.slopes * (given.poses[..., 2] + depth[:, None])[..., None]
    return np.column_stack([(there - given.poses[..., :2]).mean(axis=1), depth])


def newton(both: bool, robust: bool = False, prior: bool = False) -> Peer:
    """Gauss-Newton: of the reprojection error, or of the likelihood with errors in `both` 2D and
    3D; `robust` by Huber.
    """

    def peer(given: Seen) -> np.ndarray:
        move = linear(given)
        move[:, 2] = np.maximum(move[:, 2], _NEAREST - given.poses[..., 2].min(1))
        for _ in range(_STEPS):
            residual, slope = _whitened(given, move, both)
            if robust:
                weight = _huber(residual)
                residual, slope = residual * weight, slope * weight[..., None]
            rows, right = slope.reshape(len(move), -1, 3), residual.reshape(len(move), -1, 1)
            normal = np.swapaxes(rows, 1, 2) @ rows
            gradient = (np.swapaxes(rows, 1, 2) @ right)[..., 0]
            if prior:
                middle, width = _PRIOR
                normal[:, 2, 2] += 1 / (move[:, 2] * width) ** 2
                gradient[:, 2] += np.log(move[:, 2] / middle) / (move[:, 2] * width**2)
            step = -np.linalg.solve(normal, gradient[..., None])[..., 0]
            room = 0.5 * (given.poses[..., 2].min(1) + move[:, 2])
            move += step * np.minimum(1, room / np.maximum(np.abs(step[:, 2]), 1e-12))[:, None]
        return move

    return peer


def _whitened(given: Seen, move: np.ndarray, both: bool) -> tuple[np.ndarray, np.ndarray]:
    """Residuals (N, 21, 2) in standard deviations, and their derivatives (N, 21, 2, 3)."""
    at = given.poses + move[:, None]
    residual = at[..., :2] - given.slopes * at[..., 2:]
    square = np.square(given.noise)[:, None]
    variance = square * np.square(at[..., 2])
    if both:
        variance += NOISE_3D**2 * (1 + np.square(given.slopes).mean(axis=-1))
    sigma = np.sqrt(variance)[..., None]
    slope = np.zeros((*residual.shape, 3))
    slope[..., 0, 0] = slope[..., 1, 1] = 1
    slope[..., 2] = -given.slopes
    slope /= sigma[..., None]
    slope[..., 2] -= residual * (square * at[..., 2])[..., None] / sigma**3
    return residual / sigma, slope


def _huber(residual: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(residual, axis=-1)
    bound = 1.5 * np.median(size, axis=1, keepdims=True)
    return np.sqrt(np.minimum(1, bound / np.maximum(size, 1e-12)))[..., None]


PEERS: dict[str, Peer] = {
    "linear, the rays exact": linear,
    "linear less the noise": less_the_noise,
    "reprojection, the pose exact": newton(both=False),
    "reprojection, Huber": newton(both=False, robust=True),
    "equal extents": extent,
    "likelihood of both errors": newton(both=True),
    "the same, Huber": newton(both=True, robust=True),
    "the same, with a prior": newton(both=True, prior=True),
}
