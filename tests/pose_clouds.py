"""Sets of poses that are hard to mine: ties, duplicates, one giant video, numbers far from one."""

from __future__ import annotations

import numpy as np


def clouds(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    if name == "random":
        return rng.normal(size=(120, 14)), rng.integers(0, 9, 120)
    if name == "duplicates across videos":
        points = rng.normal(size=(12, 14))
        return points[rng.integers(0, 12, 120)], rng.integers(0, 6, 120)
    if name == "all equal":
        return np.full((60, 14), 0.3), rng.integers(0, 3, 60)
    if name == "a grid, full of ties":
        return rng.integers(0, 3, (120, 3)), rng.integers(0, 5, 120)
    if name == "a grid off its place":
        return rng.integers(0, 3, (120, 3)) + [1000.1, -7.7, 0.3], rng.integers(0, 5, 120)
    if name == "one giant video":
        return rng.normal(size=(120, 14)), np.where(np.arange(120) == 77, 1, 0)
    if name == "videos of one frame":
        return rng.normal(size=(100, 14)), rng.permutation(100)
    if name == "far from the origin":
        return rng.normal(size=(120, 14)) * 0.1 + 1e4, rng.integers(0, 7, 120)
    if name == "two clusters far apart":
        return rng.normal(size=(120, 14)) * 1e-3 + 1e3 * rng.integers(0, 2, (120, 1)), rng.integers(
            0, 7, 120
        )
    if name == "tiny":
        return rng.normal(size=(80, 14)) * 1e-18, rng.integers(0, 7, 80)
    if name == "one dimension":
        return rng.normal(size=(120, 1)), rng.integers(0, 4, 120)
    assert name == "42 dimensions, equal lengths"
    points = rng.normal(size=(120, 42))
    return points / np.linalg.norm(points, axis=1, keepdims=True), rng.integers(0, 4, 120)


CLOUDS = (
    "random",
    "duplicates across videos",
    "all equal",
    "a grid, full of ties",
    "a grid off its place",
    "one giant video",
    "videos of one frame",
    "far from the origin",
    "two clusters far apart",
    "tiny",
    "one dimension",
    "42 dimensions, equal lengths",
)
