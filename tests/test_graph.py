"""The HNSW graph: recall where it is hard, exact answers to the rest, and files that
cannot hurt.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pose_clouds import CLOUDS, clouds
from pose_engines import check, poses, search

from handclr_cli.contract.errors import HandclrError
from handclr_cli.similarity.exact import Tiles
from handclr_cli.similarity.graph import Graph
from handclr_cli.similarity.neighbours import EmbeddedPoses, Neighbours, Searcher

Arrays = dict[str, np.ndarray]


def graph(pool: EmbeddedPoses, first_row: int = 0) -> Graph:
    return Graph(pool, first_row, 1, lambda: Tiles(pool, first_row))


def never() -> Searcher:
    raise AssertionError("nothing should be left")


def walks(rows: int, frames: int = 100) -> EmbeddedPoses:
    """Slow walks: the nearest are nearly all of the own video."""
    rng = np.random.default_rng(0)
    group = np.arange(rows) // frames
    walked = np.cumsum(rng.normal(size=(rows, 14)) * 0.01, axis=0)
    return poses(
        walked - walked[group * frames] + rng.normal(size=(group[-1] + 1, 14))[group] * 0.3, group
    )


@pytest.fixture(scope="module")
def pool() -> EmbeddedPoses:
    return walks(4000)


@pytest.fixture(scope="module")
def saved(pool: EmbeddedPoses) -> Arrays:
    return graph(pool).arrays()


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.slow
def test_small_pools_are_searched_whole(name: str) -> None:
    few = poses(*clouds(name, np.random.default_rng(0)))
    check(graph, few, 3)
    check(graph, few, 1, cut=37)
    check(graph, few, 3, distinct=True, cut=37)
    check(graph, few, 200, max_distance=1.0)


def test_nobody_and_too_few() -> None:
    some, nobody = poses(np.ones((20, 14)), np.arange(20)), poses(np.ones((0, 14)), [])
    assert search(graph, nobody, some, 2)[0].shape == (0, 2)
    assert (search(graph, some, nobody, 2)[0] == -1).all()
    assert (search(graph, *[poses(np.ones((3, 2)), [7, 7, 7])] * 2)[0] == -1).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked", [{}, {"top_k": 5}, {"top_k": 3, "distinct": True}, {"max_distance": 0.3}]
)
def test_finds_what_is_beyond_the_own_video(pool: EmbeddedPoses, asked: dict[str, object]) -> None:
    some = pool.take(slice(0, None, 5))
    found, _ = search(graph, some, pool, **asked)  # type: ignore[arg-type]
    expected, _ = search(Tiles, some, pool, **asked)  # type: ignore[arg-type]
    assert (found == expected).mean() > 0.99


@pytest.mark.slow
def test_what_it_leaves_open_is_answered_exactly() -> None:
    """In one giant video, 512 rows are all its own, but for those who look at it from outside."""
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], [1950, 50])
    giant = poses(rng.normal(size=(2000, 5)) + 20 * group[:, None], group)
    engine, found = graph(giant), Neighbours.nobody(2000, 1)
    reported: list[int] = []
    engine.search(giant, found, reported.append)
    assert sum(reported) == 2000
    assert engine.fallback.answered == 1950
    np.testing.assert_array_equal(found.positives()[0], search(Tiles, giant, giant)[0])


def test_nothing_is_made_for_nothing_left() -> None:
    rng = np.random.default_rng(0)
    mixed = poses(rng.normal(size=(1000, 5)), rng.integers(0, 90, 1000))
    engine = Graph(mixed, 0, 1, never)
    engine.search(mixed, Neighbours.nobody(1000, 2), lambda rows: None)
    engine.search(mixed, Neighbours.nobody(1000, 2, max_distance=1e-4), lambda rows: None)
    assert engine.fallback.answered == 0


def test_a_walk_that_finds_too_few_leaves_its_query_open(
    pool: EmbeddedPoses, saved: Arrays
) -> None:
    """Without links there is only the entry; hnswlib refuses all queries of a call where one is
    short.
    """
    alone = {
        **saved,
        "hnsw_base": saved["hnsw_base"].copy(),
        "hnsw_links": saved["hnsw_links"].copy(),
    }
    alone["hnsw_base"][:, :4] = 0
    alone["hnsw_links"][:, :4] = 0
    engine = Graph.from_arrays(pool, alone, 0, 1, lambda: Tiles(pool), "x.npz")
    few = pool.take(slice(0, 4000, 40))
    found = Neighbours.nobody(100, 2)
    engine.search(few, found, lambda rows: None)
    assert engine.fallback.answered == 100
    np.testing.assert_array_equal(found.positives()[0], search(Tiles, few, pool, 2)[0])


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(pool: EmbeddedPoses, saved: Arrays) -> None:
    again, other = graph(pool).arrays(), Graph(pool, 0, 1, never, seed=1).arrays()
    assert all(again[name].tobytes() == array.tobytes() for name, array in saved.items())
    assert other["hnsw_base"].tobytes() != saved["hnsw_base"].tobytes()


@pytest.mark.parametrize("rows", [1, 2, 4000])
@pytest.mark.slow
def test_a_saved_graph_is_the_same_graph(rows: int, pool: EmbeddedPoses) -> None:
    some = pool.take(slice(0, rows))
    made = graph(some)
    arrays = made.arrays()
    assert {name: (array.dtype, array.ndim) for name, array in arrays.items()} == {
        "hnsw_base": (np.uint8, 2),
        "hnsw_links": (np.uint8, 2),
        "hnsw_levels": (np.int32, 1),
    }
    read = Graph.from_arrays(some, arrays, 0, 1, lambda: Tiles(some), "x.npz")
    assert all(read.arrays()[name].tobytes() == array.tobytes() for name, array in arrays.items())
    one, other = (Neighbours.nobody(rows, 3) for _ in range(2))
    made.search(some, one, lambda rows: None)
    read.search(some, other, lambda rows: None)
    np.testing.assert_array_equal(one.row, other.row)


def put(records: np.ndarray, row: int, byte: int, value: int, size: int = 4) -> None:
    records[row, byte : byte + size] = np.frombuffer(value.to_bytes(size, "little"), np.uint8)


def low_target(arrays: Arrays) -> None:
    """A link on the first level to an element that is only on the lowest."""
    put(arrays["hnsw_links"], 0, 0, 1)
    put(arrays["hnsw_links"], 0, 4, int(np.flatnonzero(arrays["hnsw_levels"] == 0)[0]))


def moved_levels(arrays: Arrays) -> None:
    levels = arrays["hnsw_levels"]
    highest, lowest = int(levels.argmax()), int(levels.argmin())
    levels[highest], levels[lowest] = levels[lowest], levels[highest]


def renamed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.update({name: change(arrays[name])})


DAMAGE: list[tuple[Callable[[Arrays], None], str]] = [
    (renamed("hnsw_base", lambda base: base[:-1]), "3,999 elements for 4,000 poses"),
    (renamed("hnsw_levels", lambda levels: levels[:-1]), "elements for 4,000 poses"),
    (renamed("hnsw_base", lambda base: base[:, :-1]), "elements of 195 bytes"),
    (renamed("hnsw_links", lambda links: links[:, :-1]), "records of 67 bytes"),
    (renamed("hnsw_links", lambda links: links[:, :0]), "records of 0 bytes"),
    (renamed("hnsw_links", lambda links: links[:, :8]), "records of 8 bytes"),
    (renamed("hnsw_links", lambda links: links[:-1]), "levels and links do not agree"),
    (renamed("hnsw_links", lambda links: links.astype(np.int64)), "arrays of other kinds"),
    (renamed("hnsw_levels", lambda levels: levels[:, None]), "arrays of other kinds"),
    (renamed("hnsw_levels", lambda levels: levels - 1), "levels and links do not agree"),
    (lambda arrays: put(arrays["hnsw_base"], 7, 0, 33), "links that lead nowhere"),
    (lambda arrays: put(arrays["hnsw_base"], 7, 2, 1, 1), "links that lead nowhere"),
    (lambda arrays: put(arrays["hnsw_base"], 7, 4, 4000), "links that lead nowhere"),
    (lambda arrays: put(arrays["hnsw_links"], 0, 0, 17), "links that lead nowhere"),
    (low_target, "links that lead nowhere"),
    (moved_levels, "links that lead nowhere"),
    (lambda arrays: put(arrays["hnsw_base"], 7, 188, 4000, 8), "rows that are not in the file"),
    (lambda arrays: put(arrays["hnsw_base"], 7, 188, 2**63, 8), "rows that are not in the file"),
    (lambda arrays: put(arrays["hnsw_base"], 7, 132, 0), "other vectors"),
]


@pytest.mark.parametrize("number", range(len(DAMAGE)))
def test_a_damaged_graph_is_refused_in_one_line(
    number: int, pool: EmbeddedPoses, saved: Arrays
) -> None:
    damage, message = DAMAGE[number]
    arrays = {name: array.copy() for name, array in saved.items()}
    damage(arrays)
    with pytest.raises(HandclrError, match=message) as caught:
        Graph.from_arrays(pool, arrays, 0, 1, never, "poses.npz")
    assert str(caught.value).startswith("poses.npz: ") and "\n" not in str(caught.value)


def test_a_row_that_comes_twice_is_refused() -> None:
    twins = poses(np.ones((50, 3)), np.arange(50))
    arrays = graph(twins).arrays()
    arrays["hnsw_base"][0, -8:] = arrays["hnsw_base"][1, -8:]
    with pytest.raises(HandclrError, match="rows that come twice"):
        Graph.from_arrays(twins, arrays, 0, 1, never, "poses.npz")


def test_a_graph_of_other_poses_is_refused(pool: EmbeddedPoses, saved: Arrays) -> None:
    moved = EmbeddedPoses(pool.embedding + np.float32(1e-3), pool.group)
    with pytest.raises(HandclrError, match="other vectors"):
        Graph.from_arrays(moved, saved, 0, 1, never, "poses.npz")


FUZZ = """
import sys
import numpy as np
from handclr_cli.contract.errors import HandclrError
from handclr_cli.similarity.exact import Tiles
from handclr_cli.similarity.graph import Graph
from handclr_cli.similarity.neighbours import Neighbours, EmbeddedPoses
rng = np.random.default_rng(0)
points = rng.normal(size=(600, 2)).astype(np.float32)
pool = EmbeddedPoses(points, rng.integers(0, 50, 600).astype(np.int32))
made = Graph(pool, 0, 1, None).arrays()
walked = refused = 0
for round in range(int(sys.argv[1])):
    arrays = {name: array.copy() for name, array in made.items()}
    for name in rng.choice(list(arrays), rng.integers(1, 4)):
        whole = arrays[name].view(np.uint8)
        near = 140 if name == "hnsw_base" and rng.random() < 0.7 else whole.shape[-1]
        for _ in range(rng.integers(1, 6)):
            at = rng.integers(0, whole.shape[0]), rng.integers(0, near)
            at = at if whole.ndim == 2 else (rng.integers(0, whole.size),)
            whole[at] = rng.integers(0, 256) if rng.random() < 0.5 else rng.integers(0, 3)
    try:
        read = Graph.from_arrays(pool, arrays, 0, 1, lambda: Tiles(pool), "x")
    except HandclrError:
        refused += 1
        continue
    read.search(pool, Neighbours.nobody(600, 2), lambda rows: None)
    walked += 1
print(walked, refused)
"""


@pytest.mark.slow
def test_no_bytes_end_the_process(tmp_path: Path) -> None:
    run = subprocess.run([sys.executable, "-c", FUZZ, "300"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    walked, refused = map(int, run.stdout.split())
    assert walked > 20 and refused > 20
