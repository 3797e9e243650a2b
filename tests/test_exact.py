"""Exact engines on the CPU against a plain loop, on every row."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pose_clouds import CLOUDS, clouds
from pose_engines import Engine, check, poses, search

from handclr_cli.similarity import exact, tree
from handclr_cli.similarity.exact import Tiles
from handclr_cli.similarity.neighbours import EmbeddedPoses
from handclr_cli.similarity.tree import Tree


def two_threads(pool: EmbeddedPoses, first_row: int) -> Tree:
    return Tree(pool, first_row, threads=2)


ENGINES = pytest.mark.parametrize("engine", [Tiles, two_threads], ids=["tiles", "tree"])


@ENGINES
@pytest.mark.parametrize("top_k", [1, 3, 200])
@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.slow
def test_every_row_is_what_the_loop_finds(engine: Engine, name: str, top_k: int) -> None:
    pool = poses(*clouds(name, np.random.default_rng(top_k)))
    middle = float(np.median(search(engine, pool, pool)[1], axis=0)[0])
    check(engine, pool, top_k)
    check(engine, pool, top_k, cut=37)
    check(engine, pool, top_k, distinct=True, cut=37)
    check(engine, pool, top_k, max_distance=middle if np.isfinite(middle) else 1.0)


@pytest.mark.parametrize("tile", [1, 130, 1000])
def test_tiles_of_any_size(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "TILE", tile)
    monkeypatch.setattr(exact, "CHUNK", 7)
    for name in ("random", "all equal", "a grid, full of ties"):
        check(Tiles, poses(*clouds(name, np.random.default_rng(5))), 3)


@pytest.mark.parametrize("rows", [15, 16, 17, 255, 256, 257, 700])
@pytest.mark.slow
def test_trees_of_any_height(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "QUERIES_PER_TASK", 50)
    rng = np.random.default_rng(rows)
    check(two_threads, poses(rng.normal(size=(rows, 5)), rng.integers(0, 6, rows)), 2)


@ENGINES
def test_ties_go_to_the_lower_row(engine: Engine) -> None:
    positive, distance = check(engine, poses(np.zeros((6, 2)), [0, 0, 1, 1, 2, 2]), 3)
    assert positive.tolist() == [[2, 3, 4], [2, 3, 4], [0, 1, 4], [0, 1, 4], [0, 1, 2], [0, 1, 2]]
    assert (distance == 0).all()


@ENGINES
def test_ties_survive_the_centring(engine: Engine) -> None:
    """The mean is no short number, but the two neighbours of each point are still equally near."""
    line = np.stack([np.arange(-50, 51), np.zeros(101)], axis=1)
    positive, _ = check(engine, poses(np.concatenate([line, [[12.3456, 1e4]]]), np.arange(102)), 2)
    assert positive[1:100].tolist() == [[row - 1, row + 1] for row in range(1, 100)]


@ENGINES
def test_too_few(engine: Engine) -> None:
    for rows in (1, 2, 5):
        positive, distance = check(
            engine, poses(np.random.default_rng(0).normal(size=(rows, 3)), np.zeros(rows)), 2
        )
        assert (positive == -1).all() and np.isinf(distance).all()
    positive, distance = check(engine, poses([[0.0, 0], [3, 4]], [4, 2]), 3)
    assert positive.tolist() == [[1, -1, -1], [0, -1, -1]]
    assert distance[:, 0].tolist() == [5, 5]


@ENGINES
def test_no_query_is_no_work(engine: Engine) -> None:
    pool = poses(np.ones((20, 14)), np.arange(20))
    positive, distance = search(engine, pool.take(slice(0, 0)), pool, 2)
    assert positive.shape == distance.shape == (0, 2)


@ENGINES
def test_the_order_of_the_rows_does_not_matter(engine: Engine) -> None:
    rng = np.random.default_rng(0)
    pool, order = poses(rng.normal(size=(90, 5)), rng.integers(0, 4, 90)), rng.permutation(90)
    there, _ = check(engine, pool)
    shuffled, _ = check(engine, pool.take(order))
    np.testing.assert_array_equal(order[shuffled[:, 0]], there[order, 0])


@ENGINES
def test_queries_that_are_not_in_the_pool(engine: Engine) -> None:
    rng = np.random.default_rng(3)
    new, pool = (
        poses(rng.normal(size=(60, 14)), rng.integers(0, 5, 60) + 3 * part) for part in range(2)
    )
    both = EmbeddedPoses(
        np.concatenate([pool.embedding, new.embedding]),
        np.concatenate([pool.group, new.group + 100]),
    )
    found, _ = search(engine, both.take(slice(60, None)), both.take(slice(0, 60)), 4)
    everywhere, _ = search(engine, both, both.take(slice(0, 60)), 4)
    np.testing.assert_array_equal(found, everywhere[60:])


def walks(rows: int, seed: int) -> EmbeddedPoses:
    """Slow walks, a hundred frames a video: the nearest are nearly all of the own video."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(rows, 14)) * 0.02
    steps[::100] = rng.normal(size=(len(steps[::100]), 14))
    group = np.arange(rows) // 100
    walked = np.cumsum(steps, axis=0)
    return poses(walked - walked[group * 100] + steps[group * 100], group)


@pytest.mark.slow
def test_the_engines_agree_to_the_last_bit_on_thousands_of_rows() -> None:
    for pool in (
        walks(6000, 0),
        poses(np.random.default_rng(1).integers(0, 4, (4000, 6)), np.arange(4000) % 31),
    ):
        for asked in ({}, {"top_k": 8}, {"top_k": 8, "distinct": True}, {"top_k": 3, "cut": 1111}):
            both = [search(engine, pool, pool, **asked) for engine in (Tiles, two_threads)]
            for one, other in zip(*both, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_hundred_thousand_equal_poses_are_not_compared_one_by_one() -> None:
    group = np.repeat([0, 1, 2], [60_000, 30_000, 10_000])
    positive, distance = search(
        two_threads, *[poses(np.full((100_000, 14), 0.3), group)] * 2, top_k=2
    )
    np.testing.assert_array_equal(positive, np.where(group[:, None] == 0, [60_000, 60_001], [0, 1]))
    assert (distance == 0).all()
    still = np.where(group[:, None] == 0, 0.3, np.where(group[:, None] == 1, 0.7, 9.0)) * np.ones(
        14
    )
    positive, _ = search(two_threads, *[poses(still, group)] * 2)
    np.testing.assert_array_equal(positive[:, 0], np.array([60_000, 0, 60_000])[group])


@pytest.mark.slow
def test_compiled_code_is_kept(tmp_path: Path) -> None:
    """A second process loads what the first one compiled."""
    script = (
        "import numpy as np; from handclr_cli.similarity.kernels import search_tree;from"
        " handclr_cli.similarity.tree import Tree; from handclr_cli.similarity.neighbours import"
        " *;p = EmbeddedPoses(np.zeros((20, 14), np.float32), np.arange(20,"
        " dtype=np.int32));Tree(p).search(p, Neighbours.nobody(20, 1), lambda rows: None);"
        " print(sum(search_tree.stats.cache_hits.values()))"
    )
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, env=env, text=True)
        for _ in range(2)
    ]
    assert [run.stdout.strip() for run in runs] == ["0", "1"], runs[1].stderr
