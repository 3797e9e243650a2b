"""$ handclr mine: which positives are kept, by distance and by all options together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mining_helpers import VIDEOS, coarse, mined_by, mined_here, named, write_coarse
from pose_engines import by_hand, poses
from shard_helpers import load_npz, pose_arrays, run_cli, write_pose


@pytest.mark.parametrize("greatest", [1e154, 1e155, 1e200, 1e308, float("inf")])
def test_distances_that_allow_everything(greatest: float, tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    everything = mined_here(tmp_path / "all.npz", pose, top_k=3)
    assert named(mined_here(tmp_path / "pairs.npz", pose, top_k=3, max_distance=greatest)) == named(
        everything
    )


@pytest.mark.slow
def test_the_greatest_distance_is_allowed(tmp_path: Path) -> None:
    embedding = np.zeros((6, 14), np.float32)
    embedding[:, :2] = [[0, 0], [3, 4], [0, 5.001], [0, 0], [100, 0], [100, 0]]
    pose = write_pose(tmp_path / "pose.npz", [0, 1, 2, 3, 4, 5], embedding=embedding)
    found = mined_by(pose, "--max-distance", "5", "--top-k", "5")
    keys = pose_arrays(range(6))["key"].tolist()
    assert named(found)[0] == (keys[0], [(keys[3], 0.0), (keys[1], 5.0)])
    found = mined_here(tmp_path / "pairs.npz", pose, max_distance=0.0, top_k=2)
    assert found["positive"][:, 0].tolist() == [3, -1, -1, 0, 5, 4]
    assert (found["positive"][:, 1] == -1).all()


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_k": 5, "symmetric": True}])
def test_the_share_of_the_crops_that_has_the_nearest(
    options: dict[str, Any], tmp_path: Path
) -> None:
    pose = write_coarse(tmp_path / "pose.npz", [row % 9 for row in range(200)], 0)
    everything = mined_here(tmp_path / "all.npz", pose, **options)
    nearest = np.sort(everything["distance"][everything["positive"][:, 0] >= 0, 0])
    assert named(mined_here(tmp_path / "pairs.npz", pose, max_distance="100%", **options)) == named(
        everything
    )
    for percent in (1e-7, 0.1, 10, 33.3, 50):
        found = mined_here(tmp_path / "pairs.npz", pose, max_distance=f"{percent}%", **options)
        cut = nearest[max(1, int(np.ceil(len(nearest) * percent / 100))) - 1]
        kept = everything["distance"] <= cut
        np.testing.assert_array_equal(found["positive"], np.where(kept, everything["positive"], -1))
        np.testing.assert_array_equal(
            found["distance"], np.where(kept, everything["distance"], np.inf)
        )
        assert found["positive"].dtype == np.int32 and found["distance"].dtype == np.float32
    alone = write_pose(tmp_path / "alone.npz", [0] * 4)
    assert (mined_here(tmp_path / "pairs.npz", alone, max_distance="50%")["positive"] == -1).all()


@pytest.mark.slow
def test_no_positive_within_the_distance_is_no_failure(tmp_path: Path) -> None:
    done = run_cli("mine", write_pose(tmp_path / "pose.npz", VIDEOS), "--max-distance", "0.001")
    assert done.returncode == 0, done.stderr
    assert (load_npz(done.stdout)["positive"] == -1).all()
    assert done.stderr.decode().startswith("mine: 7 crops of 3 videos, 7 without a positive; ")


OPTIONS: list[dict[str, Any]] = [
    {"top_k": 3},
    {"top_k": 3, "distinct_videos": True},
    {"max_distance": 1.0},
    {"symmetric": True},
    {"top_k": 20, "max_distance": 1.5, "symmetric": True},
    {"top_k": 4, "distinct_videos": True, "max_distance": 2.0, "symmetric": True},
    {"top_k": 2, "exclude_by": "v[012]_"},
    {"top_k": 5, "exclude_by": "^v([0-3]|4.*)", "symmetric": True},
    {"top_k": 100, "distinct_videos": True, "exclude_by": "v(.)"},
]


@pytest.mark.parametrize("engine", ["exact-cpu", "hnsw"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.slow
def test_options_together_are_what_the_loop_finds(
    options: dict[str, Any], engine: str, tmp_path: Path
) -> None:
    ids = np.random.default_rng(3).integers(0, 12, 150)
    pose = write_coarse(tmp_path / "pose.npz", [*ids], 3)
    found = mined_here(tmp_path / "pairs.npz", pose, engine=engine, **options)
    groups = {
        "v[012]_": ids,
        "v(.)": np.where(ids >= 10, 1, ids),
        "^v([0-3]|4.*)": np.where(ids >= 10, 1, ids),
    }
    own = poses(coarse(150, 3), groups.get(options.get("exclude_by", ""), ids))
    top_k, distinct = options.get("top_k", 1), options.get("distinct_videos", False)
    positive, distance = by_hand(own, own, top_k, distinct, options.get("max_distance", np.inf))
    lists = [row[row >= 0].tolist() for row in positive]
    for row, others in enumerate(lists):
        kept = [
            k
            for k, other in enumerate(others)
            if not options.get("symmetric") or row in lists[other]
        ]
        assert found["positive"][row].tolist() == [others[k] for k in kept] + [-1] * (
            top_k - len(kept)
        )
        np.testing.assert_array_equal(found["distance"][row, : len(kept)], distance[row, kept])
    if options.get("symmetric"):
        relation = {
            (row, other)
            for row, others in enumerate(found["positive"].tolist())
            for other in others
        }
        relation = {pair for pair in relation if pair[1] >= 0}
        assert relation and relation == {(other, row) for row, other in relation}


@pytest.mark.slow
def test_options_as_they_are_run(tmp_path: Path) -> None:
    ids = [row % 12 for row in range(150)]
    pose = write_coarse(tmp_path / "pose.npz", ids, 3)
    options = [
        "--top-k",
        "4",
        "--distinct-videos",
        "--max-distance",
        "2",
        "--symmetric",
        "--exclude-by",
        "v(.)",
    ]
    found = mined_by(pose, *options, "--threads", "2")
    expected = mined_here(
        tmp_path / "p.npz",
        pose,
        top_k=4,
        distinct_videos=True,
        max_distance=2.0,
        symmetric=True,
        exclude_by="v(.)",
    )
    assert named(found) == named(expected)
    assert json.loads(str(found["meta"])) == json.loads(str(expected["meta"]))
    arguments = json.loads(str(found["meta"]))["arguments"]
    assert (arguments["max_distance"], arguments["exclude_by"], arguments["symmetric"]) == (
        2.0,
        "v(.)",
        True,
    )
