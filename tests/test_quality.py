"""The quality of mined pairs against a plain loop over all hands."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest

from handclr_cli.similarity import quality
from handclr_cli.similarity.quality import PairQuality, pair_distance_mm, pair_quality


def by_hand(first: np.ndarray, second: np.ndarray) -> float:
    """The distance as it is defined: wrists together, then the mean over the joints, in mm."""
    total = 0.0
    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        apart = [
            (a - wrist_a) - (b - wrist_b)
            for a, wrist_a, b, wrist_b in zip(
                one, first[0].tolist(), other, second[0].tolist(), strict=True
            )
        ]
        total += math.sqrt(sum(value**2 for value in apart))
    return 1000 * total / 21


def measure(
    hands: np.ndarray, video_id: np.ndarray, positive: np.ndarray, **options: int
) -> PairQuality:
    """The quality of pairs in which every crop was a query."""
    return pair_quality(hands, video_id, np.arange(len(hands)), positive, **options)


def scene(
    seed: int, rows: int = 60, videos: int = 5, without: int = 9
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hands somewhere before a camera, some without truth, with any crop of another video as
    positive.
    """
    rng = np.random.default_rng(seed)
    hands = (
        rng.normal(size=(rows, 21, 3)) * 0.04 + rng.normal(size=(rows, 1, 3)) + [0, 0, 2]
    ).astype(np.float32)
    hands[rng.permutation(rows)[:without]] = np.nan
    video_id = rng.integers(0, videos, rows).astype(np.int32)
    others = [np.flatnonzero(video_id != video) for video in video_id]
    return hands, video_id, np.array([rng.choice(rest) for rest in others], np.int32)


def check(
    hands: np.ndarray, video_id: np.ndarray, positive: np.ndarray, found: PairQuality
) -> None:
    known = [row for row in range(len(hands)) if not np.isnan(hands[row]).any()]
    paired = [row for row in known if positive[row] in known]
    assert (found.pool, found.without_truth) == (len(known), len(hands) - len(known))
    assert found.unpaired == len(known) - len(paired)
    assert found.rows.tolist() == sorted(set(found.rows.tolist()) & set(paired))
    for at, row in enumerate(found.rows):
        assert found.mined_mm[at] == pytest.approx(
            by_hand(hands[row], hands[positive[row]]), rel=1e-9
        )
        others = [
            by_hand(hands[row], hands[other]) for other in known if video_id[other] != video_id[row]
        ]
        assert found.best_mm[at] == pytest.approx(min(others), rel=1e-6)
        assert found.random_mm[at] == pytest.approx(
            min(others, key=lambda d: abs(d - found.random_mm[at])), rel=1e-9
        )


@pytest.mark.parametrize("seed", range(4))
def test_every_number_is_what_the_loop_finds(seed: int) -> None:
    hands, video_id, positive = scene(seed)
    found = measure(hands, video_id, positive, seed=seed)
    assert found.pairs == len(found.rows)
    check(hands, video_id, positive, found)


@pytest.mark.slow
@pytest.mark.parametrize(("queries", "others"), [(1, 1), (7, 5), (1000, 13)])
def test_tiles_of_any_size(queries: int, others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(*scene(4))
    monkeypatch.setattr(quality, "QUERY_TILE", queries)
    monkeypatch.setattr(quality, "POOL_TILE", others)
    np.testing.assert_array_equal(measure(*scene(4)).best_mm, whole.best_mm)


def test_a_sample_of_the_queries() -> None:
    given = scene(1)
    whole, some = measure(*given), measure(*given, queries=20)
    assert some.pairs == len(whole.rows) and len(some.rows) == 20
    check(*given, some)
    assert (some.pool, some.unpaired) == (whole.pool, whole.unpaired)
    again, other = measure(*given, queries=20), measure(*given, queries=20, seed=1)
    assert again.report() == some.report()
    np.testing.assert_array_equal(again.random_mm, some.random_mm)
    assert other.rows.tolist() != some.rows.tolist()
    assert measure(*given, queries=len(whole.rows)).pairs == len(whole.rows)


def test_the_distance_knows_neither_place_nor_alignment() -> None:
    hand = np.random.default_rng(0).normal(size=(1, 21, 3))
    assert pair_distance_mm(hand, hand + [3.0, -2, 7]) == pytest.approx(0, abs=1e-9)
    longer = hand.copy()
    longer[0, 20] += [0.003, 0, 0.004]
    assert pair_distance_mm(hand, longer) == pytest.approx(5 / 21)
    turned = (hand - hand[:, :1]) * [-1, -1, 1]
    assert pair_distance_mm(hand, turned) == pytest.approx(by_hand(hand[0], turned[0]))
    assert pair_distance_mm(hand, turned) > 1000


def test_the_own_video_never_counts() -> None:
    """Each hand has its double in its own video, and only one hand is in any other."""
    hands = np.random.default_rng(2).normal(size=(3, 21, 3)).astype(np.float32)[[0, 0, 0, 1]]
    found = measure(hands, np.array([7, 7, 7, 3]), np.array([3, 3, 3, 0]))
    apart = by_hand(hands[0], hands[3])
    for distances in (found.mined_mm, found.random_mm, found.best_mm):
        np.testing.assert_allclose(distances, [apart] * 4)
    own = measure(hands, np.array([7, 7, 7, 3]), np.array([1, 3, 3, 0]))
    assert (own.rows.tolist(), own.unpaired) == ([1, 2, 3], 1)


@pytest.mark.slow
def test_random_crops_are_drawn_evenly() -> None:
    video_id = np.array([0, 1, 1, 2, 0, 2, 2, 0])
    hands = np.zeros((8, 21, 3), np.float32)
    hands[:, 1:, 0] = np.arange(8)[:, None] ** 2
    hands[6] = np.nan
    positive = np.array([1, 0, 0, 0, 1, 0, 0, 1])
    drawn: dict[int, int] = {}
    for seed in range(1200):
        found = measure(hands, video_id, positive, seed=seed)
        other = round(math.sqrt(found.random_mm[found.rows.tolist().index(0)] * 21 / 20 / 1000))
        drawn[other] = drawn.get(other, 0) + 1
    assert sorted(drawn) == [1, 2, 3, 5]
    assert all(abs(count - 300) < 60 for count in drawn.values())


def test_the_best_is_never_beaten_in_ties_or_far_from_the_camera() -> None:
    hands, video_id, positive = scene(5, without=0)
    hands = np.tile(hands[:6], (10, 1, 1)) + np.float32(64)
    found = measure(hands, video_id, positive)
    assert (found.best_mm <= found.mined_mm + 1e-3).all() and (
        found.best_mm <= found.random_mm + 1e-3
    ).all()


def test_hands_without_truth_are_neither_query_nor_target() -> None:
    hands = scene(6, rows=4, without=0)[0]
    hands[2, 5, 1] = np.nan
    found = measure(hands, np.arange(4), np.array([1, 2, 0, -1]))
    assert found.rows.tolist() == [0]
    assert (found.pool, found.without_truth, found.unpaired) == (3, 1, 2)
    assert found.best_mm[0] == pytest.approx(
        min(by_hand(hands[0], hands[row]) for row in (1, 3)), rel=1e-6
    )


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("known", [True, False])
def test_nothing_to_measure(rows: int, known: bool) -> None:
    hands = np.full((rows, 21, 3), 0.1 if known else np.nan, np.float32)
    found = measure(hands, np.zeros(rows, np.int32), np.full(rows, -1, np.int32))
    report = found.report()
    assert (report["queries"], report["pool"], report["without_truth"]) == (
        0,
        rows * known,
        rows * (not known),
    )
    assert (
        report["mined_mm"]
        == report["random_mm"]
        == report["best_mm"]
        == {
            "mean": None,
            "median": None,
        }
    )
    assert found.pairs == len(found.rows)


def test_the_report_is_json() -> None:
    found = measure(*scene(3))
    report = json.loads(json.dumps(found.report(), allow_nan=False))
    counts, distances = (
        ["queries", "pairs", "without_truth", "unpaired", "pool"],
        [
            "mined_mm",
            "random_mm",
            "best_mm",
        ],
    )
    assert list(report) == [*counts, *distances, "definition"]
    for name in ("mined", "random", "best"):
        distances = getattr(found, f"{name}_mm")
        assert report[f"{name}_mm"] == {"mean": np.mean(distances), "median": np.median(distances)}


@pytest.mark.slow
def test_memory_is_bounded_by_the_tiles() -> None:
    hands = np.zeros((20_000, 21, 3), np.float32)
    video_id = np.arange(20_000) % 2
    tracemalloc.start()
    measure(hands, video_id, 1 - video_id, queries=300)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
