"""Planted copies are found, similar footage is not."""

from __future__ import annotations

import numpy as np
import pytest

from handclr_cli.similarity.duplicates import NEAREST, find_duplicates, intrinsic_dimension
from handclr_cli.similarity.exact import Tiles
from handclr_cli.similarity.neighbours import EmbeddedPoses, Neighbours

D = 6


def walks(
    videos: int, frames: int, seed: int = 0, keep: float = 0.8, spread: float = 0.7
) -> list[np.ndarray]:
    """Videos of poses that wander about a centre of their own."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(videos):
        centre, step = rng.normal(size=D), rng.normal(size=(frames, D))
        for frame in range(1, frames):
            step[frame] = keep * step[frame - 1] + np.sqrt(1 - keep**2) * step[frame]
        made.append(centre * np.sqrt(1 - spread**2) + spread * step)
    return made


def poses(videos: list[np.ndarray]) -> EmbeddedPoses:
    group = np.repeat(np.arange(len(videos), dtype=np.int32), [len(video) for video in videos])
    return EmbeddedPoses(np.concatenate(videos).astype(np.float32), group)


def mined(
    queries: EmbeddedPoses, pool: EmbeddedPoses, top_k: int = NEAREST, max_distance: float = np.inf
) -> Neighbours:
    found = Neighbours.nobody(len(queries.group), top_k, distinct=True, max_distance=max_distance)
    Tiles(pool).search(queries, found, lambda rows: None)
    return found


def pairs_of(
    videos: list[np.ndarray], top_k: int = NEAREST, max_distance: float = np.inf
) -> list[tuple[int, int]]:
    crops = poses(videos)
    return [
        (pair.first, pair.second)
        for pair in find_duplicates(crops, mined(crops, crops, top_k, max_distance))
    ]


def copy(video: np.ndarray, noise: float = 0.02, seed: int = 9) -> np.ndarray:
    return video + noise * np.random.default_rng(seed).normal(size=video.shape)


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.99])
@pytest.mark.slow
def test_nobody_is_a_copy(keep: float) -> None:
    for seed in range(3):
        assert pairs_of(walks(40, 30, seed, keep)) == []


@pytest.mark.parametrize("noise", [0.0, 0.001, 0.03])
def test_copies_are_found_and_nothing_else(noise: float) -> None:
    videos = walks(40, 25)
    assert pairs_of([*videos, copy(videos[3], noise), copy(videos[20], noise)]) == [
        (3, 40),
        (20, 41),
    ]


@pytest.mark.slow
def test_a_shifted_part_of_a_longer_video() -> None:
    videos = walks(40, 60)
    assert pairs_of([*videos, copy(videos[7][20:35])]) == [(7, 40)]


def test_triplicates() -> None:
    videos = walks(30, 25)
    assert pairs_of([*videos, copy(videos[5], seed=1), copy(videos[5], seed=2)]) == [
        (5, 30),
        (5, 31),
        (30, 31),
    ]


def test_every_video_is_there_twice() -> None:
    videos = walks(40, 20)
    assert pairs_of([*videos, *map(copy, videos)]) == [(video, 40 + video) for video in range(40)]


def test_one_place_more_than_copies_is_enough() -> None:
    videos = walks(30, 25)
    assert pairs_of([*videos, copy(videos[5])], top_k=2) == [(5, 30)]


def test_without_a_next_group_only_equal_poses_count() -> None:
    first, second = walks(2, 12)
    assert pairs_of([first, first[2:8]]) == [(0, 1)]
    assert pairs_of([first, copy(first, 0.01)]) == []
    assert pairs_of([first, second]) == []
    assert pairs_of([first, first[3:5]]) == []
    videos = walks(30, 25)
    assert pairs_of([*videos, copy(videos[5])], top_k=1) == []
    assert pairs_of([*videos, videos[5]], top_k=1) == [(5, 30)]


def test_a_third_video_to_compare_with() -> None:
    first, second = walks(2, 40, seed=4, keep=0.5)
    assert pairs_of([first, copy(first, 0.01), second]) == [(0, 1)]


def test_a_greatest_distance_stands_for_the_next_group() -> None:
    first, second = walks(2, 40, seed=4, keep=0.5)
    assert pairs_of([first, copy(first, 0.01)], max_distance=0.5) == [(0, 1)]
    assert pairs_of([first, second], max_distance=0.5) == []


def test_hands_that_rest_alike_count_once() -> None:
    videos = walks(30, 25)
    rest = np.full((25, D), 0.4)
    assert pairs_of([*videos, copy(rest, 0.01, 1), copy(rest, 0.01, 2)]) == []
    assert pairs_of([*videos, rest, rest]) == []
    videos[3][:15] = videos[4][:15] = rest[:15] + 1e-7 * np.random.default_rng(0).normal(
        size=(15, D)
    )
    assert pairs_of(videos) == []


def test_a_copied_file_of_a_hand_at_rest_is_a_copy() -> None:
    rest = copy(np.full((25, D), 0.4), 0.01)
    assert pairs_of([*walks(30, 25), rest, rest]) == [(30, 31)]


def test_new_footage_against_a_pool() -> None:
    videos = walks(40, 25)
    pool = poses(videos)
    new = EmbeddedPoses(copy(videos[8]).astype(np.float32), np.full(25, 40, np.int32))
    (pair,) = find_duplicates(new, mined(new, pool))
    assert (pair.first, pair.second) == (8, 40)
    assert pair.coincident <= pair.crops <= 25
    assert pair.log10_chance < -3
    other = EmbeddedPoses(walks(1, 25, seed=77)[0].astype(np.float32), np.full(25, 40, np.int32))
    assert find_duplicates(other, mined(other, pool)) == []


def test_degenerate_pools() -> None:
    for videos in ([np.zeros((5, D))], [np.zeros((5, D))] * 12, [np.zeros((1, D))] * 3):
        assert pairs_of(videos) == []
    nobody = EmbeddedPoses(np.zeros((0, D), np.float32), np.zeros(0, np.int32))
    assert find_duplicates(nobody, Neighbours.nobody(0, NEAREST, distinct=True)) == []
    with pytest.raises(ValueError, match="distinct"):
        find_duplicates(nobody, Neighbours.nobody(0, NEAREST))


@pytest.mark.slow
def test_the_dimension_is_that_of_the_data_and_withstands_copies() -> None:
    flat = [
        np.pad(points, [(0, 0), (0, 8)])
        for points in np.random.default_rng(0).uniform(size=(60, 40, 4))
    ]
    for videos in (flat, [*flat, *map(copy, flat)]):
        crops = poses(videos)
        assert 3 < intrinsic_dimension(crops, mined(crops, crops)) < 5
