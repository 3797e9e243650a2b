"""Crops of which some joints have no label: their places mean nothing, and nobody takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_helpers import handclr, labelled_sample
from shard_helpers import load_npz, write_shard

from handclr_cli.contract.fields import (
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    VALID,
    WORLD_3D,
    encode_array,
)
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import as_keys
from handclr_cli.contract.sample import Sample
from handclr_cli.learning.probe import build_probe
from handclr_cli.similarity.truth import Truth

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
