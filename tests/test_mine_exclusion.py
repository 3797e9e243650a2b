"""$ handclr mine: videos that make no pairs with each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from mining_helpers import VIDEOS, coarse, mined_by, named, of_queries
from pose_engines import by_hand, poses
from shard_helpers import crop, crops, error_line, load_npz, run_cli, write_pose, write_shard

from handclr_cli.contract.fields import INFO, encode_object
from handclr_cli.contract.npz import as_keys
from handclr_cli.contract.sample import Sample


def subjects(
    ids: Sequence[int], per_subject: int, embedding: np.ndarray
) -> tuple[list[Sample], dict[str, np.ndarray]]:
    """Crops with a subject in their JSON, several videos each, and changes for a pose
    file of them.
    """
    samples = []
    for row, video in enumerate(ids):
        info = {"video": f"v{video}", "frame": row, "subject": video // per_subject}
        samples.append(crop(f"v{video}", row, members={INFO.suffix: encode_object(info)}))
    return samples, {"key": as_keys([sample.key for sample in samples]), "embedding": embedding}


@pytest.mark.slow
def test_no_pairs_within_a_subject(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 12, 80)
    samples, changes = subjects(ids.tolist(), 3, coarse(80, 0))
    pose, shard = (
        write_pose(tmp_path / "p.npz", ids.tolist(), **changes),
        write_shard(tmp_path / "h.tar", samples),
    )
    found = mined_by(pose, "--exclude-by", "subject", "--shards", shard, "--top-k", "4")
    own = poses(coarse(80, 0), ids // 3)
    positive, distance = by_hand(own, own, 4)
    np.testing.assert_array_equal(found["positive"], positive)
    np.testing.assert_array_equal(found["distance"], distance)
    other = run_cli("mine", pose, "--exclude-by", "person", "--shards", shard)
    assert (
        error_line(other, 1)
        == "--exclude-by person: no crop of these videos has this field; they have frame, subject,"
        " video"
    )
    elsewhere = write_shard(tmp_path / "e.tar", crops(["attic"]))
    message = error_line(run_cli("mine", pose, "--exclude-by", "subject", "--shards", elsewhere), 1)
    assert message.endswith("are these their shards?")


@pytest.mark.slow
def test_patterns_on_keys(tmp_path: Path) -> None:
    pose, out = write_pose(tmp_path / "pose.npz", VIDEOS), tmp_path / "pairs.npz"
    everything = run_cli("mine", "-q", pose, "--exclude-by", "^v", "-o", out)
    assert everything.returncode == 3
    assert everything.stderr.decode() == (
        "handclr: warning: 7 crops have no positive: --exclude-by joins all 3 videos; add other "
        "people or recordings, or leave it out\n"
    )
    assert (load_npz(out)["positive"] == -1).all()
    out.unlink()
    message = error_line(run_cli("mine", pose, "--exclude-by", "zzz+", "-o", out), 1)
    assert message == "--exclude-by zzz+: found in no key, such as v0_00000000_r"
    partly = run_cli("mine", pose, "--exclude-by", "v([01])|v2")
    assert partly.returncode == 0, partly.stderr
    assert named(load_npz(partly.stdout)) == named(mined_by(pose))
    assert not out.exists()


def walks(videos: int, frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    steps = 0.3 * rng.normal(size=(videos, frames, 14))
    return (rng.normal(size=(videos, 1, 14)) + np.cumsum(steps, axis=1)).astype(np.float32)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """30 videos of 20 frames, and the 8th again as v30."""
    made = walks(30, 20)
    made = np.concatenate([made, made[8:9] + np.float32(0.002)])
    return write_pose(
        tmp_path / "copied.npz",
        np.repeat(np.arange(31), 20).tolist(),
        embedding=made.reshape(-1, 14),
    )


@pytest.mark.slow
def test_the_same_footage_twice(copied: Path, tmp_path: Path) -> None:
    plain = run_cli("mine", copied)
    report = tmp_path / "report.json"
    told = run_cli("mine", copied, "--near-duplicates", "report", "--report", report)
    assert told.returncode == 0, told.stderr
    assert told.stdout == plain.stdout
    first, second, third = told.stderr.decode().splitlines()
    assert first == plain.stderr.decode().strip()
    assert (
        second
        == "mine: 1 pair of videos show the same footage; --near-duplicates exclude keeps them from"
        " pairing"
    )
    (twin,) = json.loads(report.read_text())["near_duplicates"]
    assert (twin["first"], twin["second"]) == ("v8", "v30")
    poses_of = f"{twin['coincident']} of {twin['crops']} different poses"
    assert third == f"mine: same footage: v8 and v30, {poses_of}"
    excluded = run_cli("mine", copied, "--near-duplicates", "exclude", "--report", report)
    assert excluded.returncode == 0, excluded.stderr
    assert (
        excluded.stderr.decode().splitlines()[1]
        == "mine: 1 pair of videos show the same footage; make no pairs"
    )
    assert json.loads(report.read_text())["near_duplicates"] == [twin]

    def pairs_of_videos(data: bytes) -> set[tuple[int, int]]:
        found = load_npz(data)["positive"][:, 0]
        return {(row // 20, int(other) // 20) for row, other in enumerate(found)}

    assert {(8, 30), (30, 8)} <= pairs_of_videos(plain.stdout)
    assert not {(8, 30), (30, 8)} & pairs_of_videos(excluded.stdout)
    groups = np.repeat(np.arange(31), 20)
    groups[groups == 30] = 8
    own = poses(load_npz(copied)["embedding"], groups)
    np.testing.assert_array_equal(load_npz(excluded.stdout)["positive"], by_hand(own, own, 1)[0])
    record = json.loads(str(load_npz(excluded.stdout)["meta"]))
    assert record["arguments"]["exclude_near_duplicates"] is True


@pytest.mark.slow
def test_no_footage_twice(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    done = run_cli("mine", pose, "--near-duplicates", "report", "--report", tmp_path / "r.json")
    assert done.stderr.decode().splitlines()[1:] == [
        "mine: 0 pairs of videos show the same footage"
    ]
    assert json.loads((tmp_path / "r.json").read_text())["near_duplicates"] == []


@pytest.mark.slow
def test_new_footage_that_is_old(copied: Path, tmp_path: Path) -> None:
    arrays = load_npz(copied)
    changes = {"key": arrays["key"][600:], "embedding": arrays["embedding"][600:]}
    new = write_pose(tmp_path / "new.npz", [30] * 20, **changes)
    old = write_pose(
        tmp_path / "old.npz",
        arrays["video_id"][:600].tolist(),
        key=arrays["key"][:600],
        embedding=arrays["embedding"][:600],
    )
    report = tmp_path / "r.json"
    options = ["--against", old, "--near-duplicates", "exclude", "--report", report]
    found = mined_by(new, *options)
    (twin,) = json.loads(report.read_text())["near_duplicates"]
    assert {twin["first"], twin["second"]} == {"v8", "v30"}
    assert not any(key.startswith(b"v8_") for _, positives in named(found) for key, _ in positives)
    union = mined_by(old, new, "--near-duplicates", "exclude")
    assert named(found) == of_queries(union, new)
