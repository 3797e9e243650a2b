"""Exact mining against a plain loop, on every row."""

from __future__ import annotations

import numpy as np
import pytest

from handclr_cli.similarity import exact
from handclr_cli.similarity.exact import mine_exact


def by_hand(embedding: np.ndarray, group: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 1 as it is written: for every row, sort the rows of other videos by distance, then by number."""
    points = embedding.astype(np.float64)
    positive = np.full((len(points), top_k), -1, np.int32)
    distance = np.full((len(points), top_k), np.inf, np.float32)
    for row in range(len(points)):
        found = []
        for other in range(len(points)):
            if group[other] != group[row]:
                found.append((((points[row] - points[other]) ** 2).sum(), other))
        for rank, (squared, other) in enumerate(sorted(found)[:top_k]):
            positive[row, rank], distance[row, rank] = other, np.sqrt(squared)
    return positive, distance


def check(embedding: np.ndarray, group: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    embedding = np.asarray(embedding, np.float32)
    positive, distance = mine_exact(embedding, group, top_k)
    expected, apart = by_hand(embedding, group, top_k)
    np.testing.assert_array_equal(positive, expected)
    np.testing.assert_allclose(distance, apart, rtol=1e-6)
    assert (positive.dtype, distance.dtype) == (np.int32, np.float32)
    for row, others in enumerate(positive):
        assert all(group[other] != group[row] for other in others if other >= 0)
    assert ((positive < 0) == np.isinf(distance)).all()
    return positive, distance


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
        return rng.normal(size=(120, 14)) * 1e-3 + 1e3 * rng.integers(0, 2, (120, 1)), rng.integers(0, 7, 120)
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


@pytest.mark.parametrize("top_k", [1, 3, 500])
@pytest.mark.parametrize("name", CLOUDS)
def test_every_row_is_what_the_loop_finds(name: str, top_k: int) -> None:
    for seed in range(2):
        check(*clouds(name, np.random.default_rng(seed)), top_k)


@pytest.mark.parametrize("tile", [1, 130, 1000])
def test_tiles_of_any_size(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "TILE", tile)
    monkeypatch.setattr(exact, "CHUNK", 7)
    for name in ("random", "all equal", "a grid, full of ties"):
        check(*clouds(name, np.random.default_rng(5)), 3)


def test_ties_go_to_the_lower_row() -> None:
    positive, distance = check(np.zeros((6, 2)), np.array([0, 0, 1, 1, 2, 2]), 3)
    assert positive.tolist() == [[2, 3, 4], [2, 3, 4], [0, 1, 4], [0, 1, 4], [0, 1, 2], [0, 1, 2]]
    assert (distance == 0).all()


def test_ties_survive_the_centring() -> None:
    """The mean is no short number, but the two neighbours of each point are still equally near."""
    line = np.stack([np.arange(-50, 51), np.zeros(101)], axis=1)
    positive, _ = check(np.concatenate([line, [[12.3456, 1e4]]]), np.arange(102), 2)
    assert positive[1:100].tolist() == [[row - 1, row + 1] for row in range(1, 100)]


def test_too_few() -> None:
    for rows in (1, 2, 5):
        positive, distance = check(np.random.default_rng(0).normal(size=(rows, 3)), np.zeros(rows, int), 2)
        assert (positive == -1).all() and np.isinf(distance).all()
    positive, distance = check([[0.0, 0], [3, 4]], np.array([4, 2]), 3)
    assert positive.tolist() == [[1, -1, -1], [0, -1, -1]]
    assert distance[:, 0].tolist() == [5, 5]
    positive, distance = mine_exact(np.zeros((0, 14), np.float32), np.zeros(0, np.int32), 2)
    assert positive.shape == distance.shape == (0, 2)


def test_groups_may_be_any_integers() -> None:
    rng = np.random.default_rng(0)
    points, group = rng.normal(size=(50, 4)), rng.integers(0, 4, 50)
    expected, _ = check(points, group, 2)
    strange, _ = check(points, np.array([-7, 2**30, 0, 55], np.int32)[group], 2)
    np.testing.assert_array_equal(strange, expected)


def test_the_order_of_the_rows_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    points, group, order = rng.normal(size=(90, 5)), rng.integers(0, 4, 90), rng.permutation(90)
    there, _ = check(points, group, 1)
    shuffled, _ = check(points[order], group[order], 1)
    np.testing.assert_array_equal(order[shuffled[:, 0]], there[order, 0])


def test_rows_are_reported() -> None:
    rows: list[int] = []
    mine_exact(np.zeros((10, 2), np.float32), np.arange(10), 1, rows.append)
    assert sum(rows) == 10


def test_thousands_of_rows() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3000, 14)).astype(np.float32)
    points[2000:] = points[:1000]
    group = rng.integers(0, 5, 3000)
    positive, distance = mine_exact(points, group)
    for row in rng.integers(0, 3000, 200):
        squared = ((points[row].astype(np.float64) - points) ** 2).sum(axis=1)
        squared[group == group[row]] = np.inf
        assert positive[row, 0] == squared.argmin()
        assert distance[row, 0] == np.float32(np.sqrt(squared.min()))
