"""Sets of poses that are hard to mine: ties, duplicates, one giant video, numbers far from one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Random = np.random.Generator
# Embeddings (N, D) and video numbers (N,).
Poses = tuple[np.ndarray, np.ndarray]


def clouds(name: str, rng: Random) -> Poses:
    return CLOUDS[name](rng)


def _duplicates(rng: Random) -> Poses:
    points = rng.normal(size=(12, 14))
    return points[rng.integers(0, 12, 120)], rng.integers(0, 6, 120)


def _clusters(rng: Random) -> Poses:
    points = rng.normal(size=(120, 14)) * 1e-3 + 1e3 * rng.integers(0, 2, (120, 1))
    return points, rng.integers(0, 7, 120)


def _of_equal_length(rng: Random) -> Poses:
    points = rng.normal(size=(120, 42))
    return points / np.linalg.norm(points, axis=1, keepdims=True), rng.integers(0, 4, 120)


CLOUDS: dict[str, Callable[[Random], Poses]] = {
    "random": lambda rng: (rng.normal(size=(120, 14)), rng.integers(0, 9, 120)),
    "duplicates across videos": _duplicates,
    "all equal": lambda rng: (np.full((60, 14), 0.3), rng.integers(0, 3, 60)),
    "a grid, full of ties": lambda rng: (rng.integers(0, 3, (120, 3)), rng.integers(0, 5, 120)),
    "a grid off its place": lambda rng: (
        rng.integers(0, 3, (120, 3)) + [1000.1, -7.7, 0.3],
        rng.integers(0, 5, 120),
    ),
    "one giant video": lambda rng: (
        rng.normal(size=(120, 14)),
        np.where(np.arange(120) == 77, 1, 0),
    ),
    "videos of one frame": lambda rng: (rng.normal(size=(100, 14)), rng.permutation(100)),
    "far from the origin": lambda rng: (
        rng.normal(size=(120, 14)) * 0.1 + 1e4,
        rng.integers(0, 7, 120),
    ),
    "two clusters far apart": _clusters,
    "tiny": lambda rng: (rng.normal(size=(80, 14)) * 1e-18, rng.integers(0, 7, 80)),
    "one dimension": lambda rng: (rng.normal(size=(120, 1)), rng.integers(0, 4, 120)),
    "42 dimensions, equal lengths": _of_equal_length,
}
