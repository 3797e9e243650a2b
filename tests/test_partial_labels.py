"""Crops of which some joints have no label: their places mean nothing, and nobody takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_helpers import handclr, labelled_sample
from shard_helpers import load_npz, write_shard

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.fields import (
    INTRINSICS,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    VALID,
    WORLD_3D,
    encode_array,
)
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import as_keys
from handclr_cli.contract.sample import Sample
from handclr_cli.evaluation.labels import read_labels
from handclr_cli.learning.probe import build_probe
from handclr_cli.learning.training_labels import read_training_labels
from handclr_cli.similarity.truth import Truth
from handclr_cli.work.skips import Skips

VALID_OF = np.ones(21, np.uint8)
VALID_OF[-8:] = 0


def partial(number: int, *, landmarks: bool = False) -> Sample:
    """A sample without labels for eight joints, which lie at the wrist; or one that the landmarker
    has seen since.
    """
    sample = labelled_sample(number)
    points, hand = sample.keypoints2d.copy(), sample.keypoints3d.copy()
    if not landmarks:
        points[-8:], hand[-8:] = points[0], hand[0]
        sample.members[KEYPOINTS_2D.suffix] = encode_array(KEYPOINTS_2D, points)
        sample.members[KEYPOINTS_3D.suffix] = encode_array(KEYPOINTS_3D, hand)
    sample.members[VALID.suffix] = encode_array(VALID, VALID_OF)
    if landmarks:
        sample.members[WORLD_3D.suffix] = encode_array(WORLD_3D, hand - hand[0])
    return Sample(sample.key, sample.members)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    samples = [labelled_sample(number) for number in range(16)]
    samples += [partial(number) for number in range(16, 20)]
    samples += [partial(number, landmarks=True) for number in range(20, 24)]
    return write_shard(tmp_path / "hands.tar", samples)


@pytest.mark.slow
def test_they_are_no_poses_to_pair(shard: Path, tmp_path: Path) -> None:
    done = handclr("pca", shard, "-o", tmp_path / "pose.npz")
    assert "4 samples without keypoints dropped" in done.stderr.decode()
    keys = load_npz(tmp_path / "pose.npz")["key"].tolist()
    index = ShardIndex([str(shard)])
    assert len(keys) == 20 and index.keys[16].encode() not in keys
    assert index.keys[20].encode() in keys


def test_they_are_no_truth_of_pairs(shard: Path) -> None:
    index = ShardIndex([str(shard)])
    hands = Truth(index, "hands.tar").by_key(as_keys(index.keys)).keypoints3d
    assert np.flatnonzero(np.isnan(hands).any(axis=(1, 2))).tolist() == list(range(16, 24))


def test_they_are_no_truth_of_a_probe(shard: Path, tmp_path: Path) -> None:
    both = write_shard(tmp_path / "x.tar", [labelled_sample(40), partial(41)])
    held_out = ShardIndex([str(both)])
    probe = build_probe(ShardIndex([str(shard)]), held_out, 64, 32, 0, torch.device("cpu"))
    assert (len(probe.bank.poses), len(probe.held_out.poses)) == (20, 1)


@pytest.mark.slow
def test_they_are_named_where_a_training_needs_poses(shard: Path, tmp_path: Path) -> None:
    words = ("--method", "simclr", "--targets", "pose", "--run", tmp_path / "run", "--epochs", 1)
    small = ("--arch", "resnet18", "--size", "32", "--batch", 4, "--workers", 0, "--device", "cpu")
    done = handclr("pretrain", shard, *words, *small, code=3)
    said = done.stderr.decode()
    assert said.count("some joints have no label; find its keypoints by handclr keypoints") == 4
    only = write_shard(tmp_path / "only.tar", [partial(number) for number in range(4)])
    handclr("pretrain", only, *words, *small, "--fresh", code=1)


@pytest.mark.parametrize(("joint", "name"), [(0, "wrist"), (9, "middle knuckle")])
def test_a_label_that_hands_are_measured_by_is_there(
    joint: int, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = [labelled_sample(number) for number in range(3)]
    valid = np.arange(21) != joint
    samples[1].members[VALID.suffix] = encode_array(VALID, valid)
    assert not samples[1].has_pose
    with pytest.raises(HandclrError, match=f"bad valid.npy: the {name} has no label"):
        _ = samples[1].valid
    index, skips = ShardIndex([str(write_shard(tmp_path / "x.tar", samples))]), Skips()
    assert read_training_labels(index, skips).rows.tolist() == [0, 2] and skips.count == 1
    assert read_labels(index).rows.tolist() == [0, 2]
    assert f"the {name} has no label, and always needs one; skipped" in capsys.readouterr().err


def looked_at(number: int) -> Sample:
    """A sample of which some joints have no labels, their places where all cameras are."""
    sample = labelled_sample(number)
    hand = sample.keypoints3d.copy()
    points = sample.keypoints2d + 3
    hand[-8:] = 0
    sample.members[KEYPOINTS_3D.suffix] = encode_array(KEYPOINTS_3D, hand)
    sample.members[WORLD_3D.suffix] = encode_array(WORLD_3D, hand - hand[0])
    sample.members[KEYPOINTS_2D.suffix] = encode_array(KEYPOINTS_2D, points)
    sample.members[VALID.suffix] = encode_array(VALID, VALID_OF)
    return Sample(sample.key, sample.members)


@pytest.mark.filterwarnings("error")
def test_where_they_are_seen_is_not_asked(tmp_path: Path) -> None:
    index = ShardIndex([str(write_shard(tmp_path / "x.tar", [looked_at(0)]))])
    found = read_training_labels(index)
    expected = labelled_sample(0).keypoints2d / 64
    np.testing.assert_allclose(found.keypoints2d[0, :-8], expected[:-8], rtol=1e-5)
    assert np.isfinite(found.keypoints2d).all()


def test_what_the_landmarker_found_is_no_label_in_two_dimensions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a camera nothing tells where the labels are seen."""
    samples = [labelled_sample(0), looked_at(1), looked_at(2)]
    del samples[1].members[INTRINSICS.suffix]
    index, skips = ShardIndex([str(write_shard(tmp_path / "x.tar", samples))]), Skips()
    assert read_training_labels(index, skips).rows.tolist() == [0, 2] and skips.count == 1
    told = "its keypoints2d.npy is the landmarker's, and without intrinsics.npy nothing tells"
    assert told in capsys.readouterr().err
