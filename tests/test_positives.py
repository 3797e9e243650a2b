"""Which crops are taken for positives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from shard_helpers import jpeg, write_shard

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.fields import encode_object
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import as_keys
from handclr_cli.contract.sample import Sample
from handclr_cli.learning.positives import Positives, mined, neighbours, own


def index_of(folder: Path, keys: Sequence[str]) -> ShardIndex:
    return ShardIndex(
        [str(write_shard(folder / "hands.tar", [Sample(key, {"jpg": jpeg()}) for key in keys]))]
    )


def pairs(
    keys: Sequence[str], positive: Sequence[Sequence[int]], target: Sequence[str] | None = None
) -> dict:
    arrays = {
        "key": as_keys(list(keys)),
        "positive": np.array(positive, np.int32).reshape(len(keys), -1),
    }
    return arrays if target is None else {**arrays, "target": as_keys(list(target))}


def candidates(positives: Positives) -> dict[int, set[int]]:
    rows = [{int(row) for row in found if row >= 0} for found in positives.candidates]
    return dict(zip(positives.query.tolist(), rows, strict=True))


def test_every_crop_is_its_own(tmp_path: Path) -> None:
    found = own(index_of(tmp_path, ["a", "b", "c"]))
    rng = np.random.default_rng(0)
    assert [found.draw(row, rng) for row in range(len(found))] == [(0, 0), (1, 1), (2, 2)]
    np.testing.assert_array_equal(found.table(), [[0, 0], [1, 1], [2, 2]])


def test_neighbours_are_the_crops_before_and_after_of_one_hand(tmp_path: Path) -> None:
    """Two videos, both hands and a second right hand, in no order; one hand is seen once."""
    keys = [
        "a_00000030_r",
        "b_00000010_r",
        "a_00000010_r",
        "a_00000010_l",
        "a_00000020_r",
        "b_00000020_r",
        "a_00000040_l",
        "a_00000010_r1",
        "a_00000100_r",
        "a_00000030_r1",
        "b_00000010_l",
        "a_b_00000010_r",
    ]
    row = {key: number for number, key in enumerate(keys)}
    expected = {
        "a_00000010_r": {"a_00000020_r"},
        "a_00000020_r": {"a_00000010_r", "a_00000030_r"},
        "a_00000030_r": {"a_00000020_r", "a_00000100_r"},
        "a_00000100_r": {"a_00000030_r"},
        "a_00000010_l": {"a_00000040_l"},
        "a_00000040_l": {"a_00000010_l"},
        "a_00000010_r1": {"a_00000030_r1"},
        "a_00000030_r1": {"a_00000010_r1"},
        "b_00000010_r": {"b_00000020_r"},
        "b_00000020_r": {"b_00000010_r"},
        "b_00000010_l": {"b_00000010_l"},
        "a_b_00000010_r": {"a_b_00000010_r"},
    }
    found = neighbours(index_of(tmp_path, keys))
    assert candidates(found) == {
        row[key]: {row[other] for other in others} for key, others in expected.items()
    }


def told(key: str, **info: object) -> Sample:
    return Sample(key, {"jpg": jpeg(), "json": encode_object(info)})


def test_time_is_read_in_the_json_where_keys_say_nothing(tmp_path: Path) -> None:
    """Not by the order of foreign keys, nor each crop a track of its own."""
    samples = [
        told("x/3", video="clip", frame=30, hand="left"),
        told("x/1", video="clip", frame=10, hand="left"),
        told("x/2", video="clip", frame=20, hand="right"),
        told("x/4", video="other", frame=20, hand="left"),
    ]
    path = tmp_path / "hands.tar"
    found = neighbours(ShardIndex([str(write_shard(path, samples))]))
    assert candidates(found) == {0: {1}, 1: {0}, 2: {2}, 3: {3}}
    for lacking in ({"frame": 1, "hand": "left"}, {"video": "clip", "hand": "left"}, {}):
        one = [*samples, told("x/5", **lacking)]
        with pytest.raises(HandclrError, match=r"^positives: .*hands\.tar: sample x/5: neither"):
            neighbours(ShardIndex([str(write_shard(path, one))]))
    two = [*samples, told("x/6", video="clip", frame=30, hand="left")]
    with pytest.raises(HandclrError, match="x/3 and x/6 show the same hand of the same frame"):
        neighbours(ShardIndex([str(write_shard(path, two))]))


def test_there_are_no_positives_without_crops(tmp_path: Path) -> None:
    index = index_of(tmp_path, [])
    assert len(own(index)) == len(neighbours(index)) == 0


def test_candidates_are_drawn_equally_and_one_takes_no_chance() -> None:
    several = Positives(np.array([7]), np.array([[-1, 3, -1, 4, 5]]))
    rng = np.random.default_rng(0)
    drawn = [several.draw(0, rng) for _ in range(3000)]
    assert {query for query, _ in drawn} == {7}
    counts = np.bincount([positive for _, positive in drawn], minlength=6)
    assert counts[:3].sum() == 0 and np.abs(counts[3:] - 1000).max() < 120
    rng = np.random.default_rng(0)
    assert Positives(np.array([7]), np.array([[-1, 3]])).draw(0, rng) == (7, 3)
    assert rng.random() == np.random.default_rng(0).random()


def test_the_nearest_mined_positives_that_are_there_are_taken(tmp_path: Path) -> None:
    """Keys in another order than the crops; one crop that is not in the pairs, two pairs' crops
    that are not here.
    """
    index = index_of(tmp_path, ["e", "d", "c", "b", "a"])
    rows = {key: number for number, key in enumerate(index.keys)}
    arrays = pairs(
        ["a", "b", "gone", "c", "e"],
        [[1, 3, 4], [2, 0, 1], [0, 1, 3], [-1, -1, -1], [2, 2, 0]],
    )
    nearest = candidates(mined(index, [arrays]))
    assert nearest == {rows["a"]: {rows["b"]}}
    two = candidates(mined(index, [arrays], 2))
    assert two == {rows["a"]: {rows["b"], rows["c"]}, rows["b"]: {rows["a"]}}
    three = candidates(mined(index, [arrays], 3))
    assert three == {
        rows["a"]: {rows["b"], rows["c"], rows["e"]},
        rows["b"]: {rows["a"], rows["b"]},
        rows["e"]: {rows["a"]},
    }


def test_positives_may_be_rows_of_other_targets(tmp_path: Path) -> None:
    index = index_of(tmp_path, ["a", "b", "c", "d"])
    arrays = pairs(["a", "b"], [[1], [2]], target=["elsewhere", "d", "c"])
    assert candidates(mined(index, [arrays])) == {0: {3}, 1: {2}}


def test_parts_of_a_mining_are_one(tmp_path: Path) -> None:
    index = index_of(tmp_path, ["a", "b", "c", "d"])
    target = ["a", "b", "c", "d"]
    parts = [
        pairs(["a", "b"], [[1], [0]], target),
        pairs(["c"], [[-1]], target),
        pairs(["d"], [[2]], target),
    ]
    assert candidates(mined(index, parts)) == {0: {1}, 1: {0}, 3: {2}}


def test_what_pairs_cannot_be_is_said(tmp_path: Path) -> None:
    index = index_of(tmp_path, ["a", "b", "c"])
    one = pairs(["a", "b"], [[1], [0]])
    with pytest.raises(HandclrError, match="mined in two of the files"):
        mined(index, [one, pairs(["c", "b"], [[1], [0]])])
    with pytest.raises(
        HandclrError, match="top_k: the pairs have 1 for each crop; mine 3 for each"
    ):
        mined(index, [one], 3)
    foreign = "none of the pairs is in the shards; were they mined from these crops? "
    foreign += "If not, mine them from these by handclr pca and handclr mine"
    for none, why in (
        (
            pairs(["x", "y"], [[1], [0]]),
            foreign,
        ),
        (
            pairs(["a", "y"], [[1], [0]]),
            "the shards lack the positives of all their crops; name the shards of all videos",
        ),
        (
            pairs(["a", "b"], [[-1], [-1]]),
            "handclr mine found no positive for any crop; mine more videos, or train without pairs "
            "(method=simclr)",
        ),
    ):
        with pytest.raises(HandclrError) as caught:
            mined(index, [none])
        assert str(caught.value) == f"pairs: {why}"
    with pytest.raises(HandclrError, match="the input holds no crops; did handclr extract find"):
        mined(index_of(tmp_path, []), [one])
