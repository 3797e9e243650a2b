"""Pools of many files searched batch by batch, mutual positives, recall, and engines that agree on
real hands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pose_engines import by_hand, poses
from shard_helpers import pose_arrays, write_pose

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.poses import PoseTable
from handclr_cli.hand.normalise import pose_vectors
from handclr_cli.similarity import mining, pool
from handclr_cli.similarity.device import DeviceTiles
from handclr_cli.similarity.embedding import fit
from handclr_cli.similarity.exact import Tiles
from handclr_cli.similarity.exclusion import joined
from handclr_cli.similarity.graph import Graph
from handclr_cli.similarity.mining import only_mutual
from handclr_cli.similarity.neighbours import EmbeddedPoses, Neighbours
from handclr_cli.similarity.pool import Engine, Pool, Request, choose_engine
from handclr_cli.similarity.tree import Tree

Shown = list[tuple[str, int, int]]


def recorder(shown: Shown) -> pool.Progress:
    """A progress bar that keeps its label, what it was to reach and what it reached."""

    @contextlib.contextmanager
    def progress(label: str, total: int) -> Iterator[Callable[..., None]]:
        done: list[int] = []
        yield lambda rows=1: done.append(rows)
        shown.append((label, total, sum(done)))

    return progress


def coarse(rng: np.random.Generator, rows: int) -> np.ndarray:
    """EmbeddedPoses on a grid, full of ties and of equal ones."""
    return rng.integers(0, 3, (rows, 14)).astype(np.float32) * (np.arange(14) < 4)


def tables(folder: Path, sizes: tuple[int, ...], seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    paths = []
    for number, rows in enumerate(sizes):
        ids, embedding = rng.integers(0, 7, rows), coarse(rng, rows)
        paths.append(str(write_pose(folder / f"{number}.npz", [*ids], embedding=embedding)))
    return paths


def a_pool(
    table: PoseTable, engine: str = "exact-cpu", shown: Shown | None = None, threads: int = 1
) -> Pool:
    groups = np.arange(len(table.names), dtype=np.int32)
    return Pool(
        table, groups, Engine(engine, threads, "cpu"), recorder(shown if shown is not None else [])
    )


def check(found: Neighbours, queries: EmbeddedPoses, table: PoseTable, request: Request) -> None:
    expected = by_hand(queries, poses(table.embedding(), table.video), *vars(request).values())
    positive, distance = found.positives()
    np.testing.assert_array_equal(positive, expected[0])
    np.testing.assert_array_equal(distance, expected[1])


REQUESTS = [Request(), Request(3), Request(4, distinct=True), Request(50, max_distance=1.0)]


@pytest.mark.parametrize("few", [0, 1 << 20], ids=["tree", "tiles"])
@pytest.mark.parametrize("engine", ["exact-cpu", "exact-gpu"])
@pytest.mark.parametrize("batch", [1, 60, 90, 1000])
@pytest.mark.slow
def test_batches_give_what_the_loop_finds(
    batch: int, engine: str, few: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "BATCH_ROWS", batch)
    monkeypatch.setattr(pool, "FEW_ROWS", few)
    table = PoseTable(tables(tmp_path, (40, 50, 1, 30, 25)))
    shown: Shown = []
    searched = a_pool(table, engine, shown)
    queries = EmbeddedPoses(table.embedding(), table.video)
    for request in REQUESTS:
        check(searched.search(*queries, request, "x"), queries, table, request)
    runs = len(table.batches(batch))
    assert runs == {1: 5, 60: 3, 90: 2, 1000: 1}[batch]
    assert shown == [("x", 146 * runs, 146 * runs)] * len(REQUESTS)


def test_a_batch_without_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "BATCH_ROWS", 1)
    empty = {name: pose_arrays([])[name] for name in ("key", "video", "video_id", "embedding")}
    none = str(write_pose(tmp_path / "empty.npz", [0], **empty))
    table = PoseTable([none, *tables(tmp_path, (30, 20)), none])
    for few in (0, 100):
        monkeypatch.setattr(pool, "FEW_ROWS", few)
        for engine in ("exact-cpu", "exact-gpu"):
            found = a_pool(table, engine).search(table.embedding(), table.video, Request(2), "x")
            check(found, EmbeddedPoses(table.embedding(), table.video), table, Request(2))


def test_no_queries(tmp_path: Path) -> None:
    table = PoseTable(tables(tmp_path, (30,)))
    for engine in ("exact-cpu", "hnsw"):
        mined = mining.mine(table, slice(4, 4), a_pool(table, engine), Request(3), symmetric=True)
        assert (mined.positive.shape, mined.distance.shape) == ((0, 3), (0, 3))
        assert mined.recall is None or mined.recall_queries == 0


def test_no_queries_have_no_recall(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    table = PoseTable(tables(tmp_path, (30,)))
    mined = mining.mine(table, slice(4, 4), a_pool(table, "hnsw"), Request())
    assert mined.recall is None or 0 <= mined.recall <= 1
    assert not recwarn.list


def test_other_groups(tmp_path: Path) -> None:
    table = PoseTable(tables(tmp_path, (60, 60)))
    groups = joined(len(table.names), [(0, 3), (3, 5), (1, 2)])
    for engine in ("exact-cpu", "hnsw"):
        searched = a_pool(table, engine)
        searched.search(table.embedding(), table.video, Request(), "x")
        found = searched.regrouped(groups).search(
            table.embedding(), table.video, Request(3, distinct=True), "x"
        )
        grouped = poses(table.embedding(), groups[table.video])
        np.testing.assert_array_equal(found.positives()[0], by_hand(grouped, grouped, 3, True)[0])


def test_the_graph_of_a_pool_is_that_of_the_regrouped_one(tmp_path: Path) -> None:
    table = PoseTable(tables(tmp_path, (60, 60)))
    searched = a_pool(table, "hnsw")
    shown: Shown = []
    searched.progress = recorder(shown)
    again = searched.regrouped(np.zeros(len(table.names), np.int32))
    assert not shown
    first, second = searched.graph(), again.graph()
    assert first and second and all(np.array_equal(first[name], second[name]) for name in first)
    assert a_pool(table).graph() is None


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.slow
def test_tiles_and_tree_give_the_same_bytes(
    threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = PoseTable(tables(tmp_path, (700, 500)))
    answers = []
    for few in (0, 1 << 20):
        monkeypatch.setattr(pool, "FEW_ROWS", few)
        for request in REQUESTS:
            found = a_pool(table, threads=threads).search(
                table.embedding(), table.video, request, "x"
            )
            answers.append([part.tobytes() for part in found.positives()])
    assert answers[: len(REQUESTS)] == answers[len(REQUESTS) :]


def mutual_by_hand(
    positive: np.ndarray, distance: np.ndarray, rows: np.ndarray, lists: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    kept, apart = np.full_like(positive, -1), np.full_like(distance, np.inf)
    for query, row in enumerate(rows.tolist()):
        there = [
            k
            for k, other in enumerate(positive[query].tolist())
            if other >= 0 and row in lists[other].tolist()
        ]
        kept[query, : len(there)], apart[query, : len(there)] = (
            positive[query, there],
            distance[query, there],
        )
    return kept, apart


@pytest.mark.parametrize("top_k", [1, 2, 7])
def test_only_mutual_is_what_the_loop_finds(top_k: int) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        lists = np.argsort(rng.random((40, 40)), axis=1)[:, :top_k].astype(np.int32)
        lists[np.arange(top_k) >= rng.integers(0, top_k + 1, (40, 1))] = -1
        distance = np.where(lists < 0, np.inf, np.sort(rng.random(lists.shape), axis=1)).astype(
            np.float32
        )
        for rows in (np.arange(40), np.arange(11, 25), np.arange(3, 4), np.arange(0)):
            asked: list[int] = []

            def positives_of(
                others: np.ndarray, asked: list[int] = asked, lists: np.ndarray = lists
            ) -> np.ndarray:
                asked.extend(others.tolist())
                return lists[others]

            found = only_mutual(lists[rows], distance[rows], rows, positives_of)
            expected = mutual_by_hand(lists[rows], distance[rows], rows, lists)
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])
            assert (found[0].dtype, found[1].dtype) == (np.int32, np.float32)
            assert len(set(asked)) == len(asked) and not set(asked) & set(rows.tolist())


def test_symmetric_relations_are_symmetric(tmp_path: Path) -> None:
    table = PoseTable(tables(tmp_path, (90, 60)))
    for engine in ("exact-cpu", "hnsw"):
        for request in REQUESTS:
            mined = mining.mine(
                table, slice(0, 150), a_pool(table, engine), request, symmetric=True
            )
            asked, place = np.nonzero(mined.positive >= 0)
            relation = set(zip(asked.tolist(), mined.positive[asked, place].tolist(), strict=True))
            assert relation and relation == {(other, row) for row, other in relation}


def test_symmetric_parts_are_the_whole(tmp_path: Path) -> None:
    table = PoseTable(tables(tmp_path, (90, 60)))
    searched = a_pool(table)
    whole = mining.mine(table, slice(0, 150), searched, Request(4), symmetric=True)
    parts = [
        mining.mine(table, span, searched, Request(4), True)
        for span in (slice(0, 41), slice(41, 150))
    ]
    np.testing.assert_array_equal(np.concatenate([part.positive for part in parts]), whole.positive)
    np.testing.assert_array_equal(np.concatenate([part.distance for part in parts]), whole.distance)


def test_the_recall_of_exact_engines_is_none_and_that_of_a_whole_graph_all(tmp_path: Path) -> None:
    table = PoseTable(tables(tmp_path, (90,)))
    assert mining.mine(table, slice(0, 90), a_pool(table), Request()).recall is None
    for request in REQUESTS:
        mined = mining.mine(table, slice(10, 60), a_pool(table, "hnsw"), request)
        assert (mined.recall, mined.recall_queries) == (1.0, 50)


@pytest.mark.parametrize("lost", [0, 3, 17])
def test_the_recall_counts_what_was_missed(
    lost: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that forgets the nearest of some queries."""
    table = PoseTable([str(write_pose(tmp_path / "p.npz", [row % 5 for row in range(60)]))])
    searched = a_pool(table, "hnsw")
    whole = searched.search

    def forgetful(*asked: object) -> Neighbours:
        found = whole(*asked)  # type: ignore[arg-type]
        found.squared[:lost, 0] += 1e-9
        return found

    monkeypatch.setattr(searched, "search", forgetful)
    mined = mining.mine(table, slice(0, 60), searched, Request(2))
    assert mined.recall == pytest.approx(1 - lost / 60)


def test_what_is_left_to_the_exact_engine_is_of_one_search(tmp_path: Path) -> None:
    table = PoseTable(tables(tmp_path, (30,)))
    searched = a_pool(table, "hnsw")
    once = mining.mine(table, slice(None), searched, Request()).left_to_tree
    searched.search(table.embedding(), table.video, Request(8, distinct=True), "x")
    again = mining.mine(table, slice(None), searched, Request(), symmetric=True).left_to_tree
    assert 0 <= once == again <= len(table)


def test_the_recall_of_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "RECALL_QUERIES", 25)
    table = PoseTable(tables(tmp_path, (90,)))
    mined = mining.mine(table, slice(0, 90), a_pool(table, "hnsw"), Request(), seed=3)
    assert (mined.recall, mined.recall_queries) == (1.0, 25)


def test_recall_where_there_is_no_positive(tmp_path: Path) -> None:
    path = write_pose(tmp_path / "p.npz", [0] * 20)
    mined = mining.mine(
        PoseTable([str(path)]), slice(0, 20), a_pool(PoseTable([str(path)]), "hnsw"), Request()
    )
    assert mined.recall == 1.0 and (mined.positive == -1).all()


def walks(videos: int, frames: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(videos, frames, 14)) * 0.3
    return (rng.normal(size=(videos, 1, 14)) + np.cumsum(steps, axis=1)).astype(np.float32)


def test_the_same_footage_in_a_pool_and_against_one(tmp_path: Path) -> None:
    made = walks(30, 20, 0)
    videos = [*np.repeat(np.arange(30), 20)]
    old = str(write_pose(tmp_path / "old.npz", videos, embedding=made.reshape(-1, 14)))
    copied = np.concatenate([made[8] + 0.002, walks(1, 20, 5)[0]]).astype(np.float32)
    new = str(write_pose(tmp_path / "new.npz", [30] * 20 + [31] * 20, embedding=copied))
    both = PoseTable([old, new])
    (twin,) = mining.same_footage(both, a_pool(both))
    assert {list(both.names)[twin.first], list(both.names)[twin.second]} == {b"v8", b"v30"}
    queries = PoseTable([new])
    against = PoseTable([old], like=queries)
    (twin,) = mining.same_footage(queries, a_pool(against))
    assert {list(queries.names)[twin.first], list(queries.names)[twin.second]} == {b"v8", b"v30"}
    alone = PoseTable([old])
    assert mining.same_footage(alone, a_pool(alone)) == []


def test_engines_are_chosen_as_asked() -> None:
    for asked in ("exact-cpu", "exact-gpu", "hnsw"):
        assert choose_engine(asked, 10, 10, False) == asked
        assert choose_engine(asked, 10**6, 10**6, True) == asked


def test_engines_are_chosen_by_size_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_engine("auto", 10**7, 10**7, True) == "hnsw"
    monkeypatch.setattr(pool, "DEVICE_FILES", ("/dev/null",))
    for there, large in ((True, "exact-gpu"), (False, "exact-cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert choose_engine("auto", 10**6, 10**6, False) == large
        assert choose_engine("auto", 10**5, 10**5, False) == "exact-cpu"
        assert choose_engine("auto", 10**9, 1, False) == "exact-cpu"
        assert choose_engine("auto", 1, 0, False) == "exact-cpu"


def test_an_index_of_other_poses(tmp_path: Path) -> None:
    arrays = a_pool(PoseTable(tables(tmp_path, (50,), seed=0)), "hnsw").graph()
    other, groups = PoseTable(tables(tmp_path, (50,), seed=1)), np.arange(7, dtype=np.int32)
    with pytest.raises(
        HandclrError, match="p.hnsw: damaged, or the index of other poses: other vectors"
    ):
        Pool(other, groups, Engine("hnsw"), recorder([]), arrays, "p.hnsw")


@pytest.fixture(scope="module")
def real_poses(real_data: Path) -> EmbeddedPoses:
    """All 36,288 hands of 499 sequences on 14 axes; placeholders behind the camera are drawn before
    it: many ties.
    """
    with np.load(real_data / "poses" / "dexycb_joints.npz") as file:
        hands, sequence = file["keypoints3d"].astype(np.float64), file["sequence"]
    flat = hands[:, :, :2] / np.maximum(hands[:, :, 2:], 0.1)
    vectors = pose_vectors(flat, np.ones(len(hands)), "box")
    group = np.unique(sequence, return_inverse=True)[1].astype(np.int32)
    return EmbeddedPoses(fit([vectors], 14).embed(vectors), group)


def brute_force(pool: EmbeddedPoses) -> tuple[np.ndarray, np.ndarray]:
    """The nearest row of another group for every row, and the squared distance: by products, then
    by differences.
    """
    points = pool.embedding.astype(np.float64)
    norms = np.einsum("nd,nd->n", points, points)
    slack = 1e-12 * max(float(norms.max()), 1.0)
    nearest, least = np.full(len(points), -1), np.full(len(points), np.inf)
    for start in range(0, len(points), 256):
        rows = slice(start, start + 256)
        tile = norms[None, :] - 2 * (points[rows] @ points.T)
        for group in np.unique(pool.group[rows]):
            tile[np.ix_(pool.group[rows] == group, pool.group == group)] = np.inf
        near = tile <= tile.min(axis=1, keepdims=True) + slack
        for query in range(len(tile)):
            candidates = np.flatnonzero(near[query])
            squared = np.zeros(len(candidates))
            for axis in range(points.shape[1]):
                squared += (points[candidates, axis] - points[start + query, axis]) ** 2
            best = squared.argmin()
            nearest[start + query], least[start + query] = candidates[best], squared[best]
    return nearest, least


@pytest.fixture(scope="module")
def real_truth(real_poses: EmbeddedPoses) -> tuple[np.ndarray, np.ndarray]:
    return brute_force(real_poses)


def test_the_brute_force_is_one() -> None:
    rng = np.random.default_rng(0)
    for embedding in (rng.normal(size=(300, 14)), coarse(rng, 300)):
        pool = poses(embedding, rng.integers(0, 9, 300))
        positive, distance = by_hand(pool, pool, 1)
        nearest, least = brute_force(pool)
        np.testing.assert_array_equal(nearest, positive[:, 0])
        np.testing.assert_array_equal(np.sqrt(least).astype(np.float32), distance[:, 0])


def agree(found: Neighbours, rows: np.ndarray, truth: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(found.row[:, 0], truth[0][rows])
    np.testing.assert_array_equal(found.squared[:, 0], truth[1][rows])


@pytest.mark.slow
@pytest.mark.real
def test_the_tree_is_exact_on_every_real_pose(
    real_poses: EmbeddedPoses, real_truth: tuple[np.ndarray, np.ndarray]
) -> None:
    assert (len(real_poses.group), real_poses.group.max() + 1) == (36288, 499)
    found = Neighbours.nobody(len(real_poses.group), 1)
    Tree(real_poses, threads=2).search(real_poses, found, lambda rows: None)
    agree(found, np.arange(len(real_poses.group)), real_truth)


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_a_device_is_exact_on_real_poses(
    where: str, real_poses: EmbeddedPoses, real_truth: tuple[np.ndarray, np.ndarray]
) -> None:
    """On the processor for a sample, which is what it has time for."""
    if where == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    rows = np.arange(0, len(real_poses.group), 12 if where == "cpu" else 1)
    found = Neighbours.nobody(len(rows), 1)
    engine = DeviceTiles(real_poses, 0, where, lambda: Tree(real_poses, threads=2))
    engine.search(real_poses.take(rows), found, lambda rows: None)
    agree(found, rows, real_truth)
    assert engine.fallback.answered < len(rows) / 4


@pytest.mark.slow
@pytest.mark.real
def test_tiles_are_exact_on_every_fourth_real_pose(
    real_poses: EmbeddedPoses, real_truth: tuple[np.ndarray, np.ndarray]
) -> None:
    rows = np.arange(0, len(real_poses.group), 4)
    found = Neighbours.nobody(len(rows), 1)
    Tiles(real_poses).search(real_poses.take(rows), found, lambda rows: None)
    agree(found, rows, real_truth)


@pytest.mark.slow
@pytest.mark.real
def test_the_graph_finds_nearly_all_real_neighbours(
    real_poses: EmbeddedPoses, real_truth: tuple[np.ndarray, np.ndarray]
) -> None:
    rows = np.arange(0, len(real_poses.group), 12)
    found = Neighbours.nobody(len(rows), 1)
    graph = Graph(real_poses, 0, 2, lambda: Tree(real_poses, threads=2))
    graph.search(real_poses.take(rows), found, lambda rows: None)
    assert (found.squared[:, 0] >= real_truth[1][rows]).all()
    assert (found.squared[:, 0] == real_truth[1][rows]).mean() >= 0.99


@pytest.mark.slow
@pytest.mark.real
def test_exact_engines_agree_on_more_of_real_poses(real_poses: EmbeddedPoses) -> None:
    """Several positives, one a video, within a distance."""
    rows = np.arange(5, len(real_poses.group), 97)
    queries = real_poses.take(rows)
    engines = [
        Tiles(real_poses),
        Tree(real_poses, threads=2),
        DeviceTiles(real_poses, 0, "cpu", lambda: Tree(real_poses)),
    ]
    for request in (Request(5), Request(5, distinct=True), Request(20, max_distance=0.2)):
        answers = []
        for engine in engines:
            found = Neighbours.nobody(len(rows), *vars(request).values())
            engine.search(queries, found, lambda rows: None)
            answers.append((found.row, found.squared))
        for row, squared in answers[1:]:
            np.testing.assert_array_equal(row, answers[0][0])
            np.testing.assert_array_equal(squared, answers[0][1])
