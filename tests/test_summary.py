"""Mined pairs in numbers, against plain loops and scipy."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from handclr_cli.similarity import summary
from handclr_cli.similarity.summary import DEFINITIONS, QUANTILES, PairSummary, summarise


def pairs(
    seed: int, queries: int, pool: int, top_k: int, alone: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Different rows of the pool for each query, some at the end of a query's list missing, a few
    hubs.
    """
    rng = np.random.default_rng(seed)
    liked = rng.random((queries, pool)) * np.linspace(1, 3, pool) ** 2
    positive = np.argsort(-liked, axis=1)[:, :top_k].astype(np.int32)
    distance = np.sort(rng.gamma(4, 0.1, (queries, top_k)), axis=1).astype(np.float32)
    missing = np.arange(top_k) >= rng.binomial(top_k, 1 - alone, queries)[:, None]
    return np.where(missing, -1, positive), np.where(missing, np.inf, distance).astype(np.float32)


def check(
    positive: np.ndarray,
    distance: np.ndarray,
    rows: np.ndarray | None,
    pool: int,
    found: PairSummary,
) -> None:
    nearest = [row for row in positive[:, 0].tolist() if row >= 0]
    assert (found.queries, found.top_k, found.pool) == (*positive.shape, pool)
    assert found.without_positive == len(positive) - len(nearest)
    times = Counter(nearest)
    assert found.most_chosen_times == max(times.values())
    assert found.most_chosen_row == min(
        row for row, count in times.items() if count == found.most_chosen_times
    )
    assert found.never_chosen == pytest.approx(1 - len(times) / pool)
    occurrences = Counter(positive[positive >= 0].tolist())
    assert found.skewness == pytest.approx(stats.skew([occurrences[row] for row in range(pool)]))
    apart = distance[np.isfinite(distance[:, 0]), 0].astype(np.float64)
    for name, percent in QUANTILES.items():
        assert found.distance[name] == pytest.approx(np.quantile(apart, percent / 100))
    if rows is None:
        assert found.mutual is found.mutual_pairs is None
        return
    first = dict(zip(rows.tolist(), positive[:, 0].tolist(), strict=True))
    over = [row for row, other in first.items() if other in first]
    assert found.mutual_pairs == len(over)
    assert found.mutual == pytest.approx(sum(first[first[row]] == row for row in over) / len(over))


@pytest.mark.parametrize("top_k", [1, 3])
def test_every_number_is_what_the_loop_finds(top_k: int) -> None:
    positive, distance = pairs(0, 60, 60, top_k)
    rows, video = np.arange(60), np.repeat(np.arange(12), 5).astype(np.int32)
    found = summarise(positive, distance, rows, video, 60)
    check(positive, distance, rows, 60, found)
    assert found.videos == 12


def test_some_rows_of_the_pool_as_queries() -> None:
    positive, distance = pairs(1, 25, 40, 2)
    rows = np.random.default_rng(1).permutation(40)[:25]
    found = summarise(positive, distance, rows, np.zeros(25, np.int32), 40)
    check(positive, distance, rows, 40, found)
    assert found.mutual_pairs < 25 - found.without_positive


def test_queries_outside_the_pool() -> None:
    positive, distance = pairs(2, 30, 10, 2)
    check(positive, distance, None, 10, summarise(positive, distance, None, np.arange(30), 10))


def test_mutual_pairs_by_hand() -> None:
    # 0 and 1 chose each other, 2 chose 0, 3 nobody, 4 chose 3.
    positive = np.array([[1], [0], [0], [-1], [3]], np.int32)
    distance = np.where(positive < 0, np.inf, 0.5).astype(np.float32)
    whole = summarise(positive, distance, np.arange(5), np.arange(5), 5)
    assert (whole.mutual, whole.mutual_pairs, whole.most_chosen_row, whole.most_chosen_times) == (
        0.5,
        4,
        0,
        2,
    )
    assert whole.never_chosen == pytest.approx(2 / 5)
    part = summarise(positive[2:], distance[2:], np.arange(2, 5), np.arange(3), 5)
    assert (part.mutual, part.mutual_pairs) == (0.0, 1)
    assert summarise(positive[:1], distance[:1], np.array([0]), np.array([0]), 5).mutual is None


@pytest.mark.parametrize("queries", [0, 1, 7])
def test_no_query_has_a_positive(queries: int) -> None:
    positive, distance = (
        np.full((queries, 2), -1, np.int32),
        np.full((queries, 2), np.inf, np.float32),
    )
    found = summarise(positive, distance, np.arange(queries), np.zeros(queries, np.int32), queries)
    assert found.without_positive == queries
    assert set(found.distance.values()) == {None}
    assert found.mutual is found.most_chosen_row is found.skewness is None
    assert (found.mutual_pairs, found.most_chosen_times) == (0, 0)
    assert found.never_chosen == (1.0 if queries else None)


def test_all_are_chosen_alike() -> None:
    ring = np.roll(np.arange(6), 1)[:, None].astype(np.int32)
    found = summarise(ring, np.zeros((6, 1), np.float32), np.arange(6), np.arange(6), 6)
    assert (found.never_chosen, found.skewness, found.most_chosen_times, found.mutual) == (
        0.0,
        None,
        1,
        0.0,
    )


def test_occurrences_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    positive, distance = pairs(3, 50, 50, 4)
    whole = summarise(positive, distance, None, np.zeros(50), 50)
    monkeypatch.setattr(summary, "TILE", 7)
    assert summarise(positive, distance, None, np.zeros(50), 50) == whole


def test_the_report_is_json_and_defines_what_it_says() -> None:
    positive, distance = pairs(4, 20, 20, 1)
    for rows in (np.arange(20), None):
        report: dict[str, Any] = summarise(positive, distance, rows, np.arange(20), 20).report()
        assert json.loads(json.dumps(report, allow_nan=False)) == report
        assert report.keys() - {"definitions"} == DEFINITIONS.keys()


@pytest.mark.slow
def test_two_million_crops_take_seconds() -> None:
    rng = np.random.default_rng(0)
    count = 2_000_000
    positive = rng.integers(0, count, (count, 4), dtype=np.int32)
    distance = np.sort(rng.random((count, 4), np.float32), axis=1)
    video = np.repeat(np.arange(count // 100, dtype=np.int32), 100)
    start = time.perf_counter()
    found = summarise(positive, distance, np.arange(count), video, count)
    assert time.perf_counter() - start < 20
    # What is chosen at random follows Poisson's law.
    assert found.never_chosen == pytest.approx(np.exp(-1), abs=0.002)
    assert found.skewness == pytest.approx(0.5, abs=0.01)
