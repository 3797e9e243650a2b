"""The probe: what features know of the pose, measured without touching the encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_helpers import labelled_sample, write_labelled
from shard_helpers import crops, write_shard
from torch import Tensor, nn

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.learning import probe as probe_module
from handclr_cli.learning.augmentation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    View,
    apply_view,
    to_tensor,
)
from handclr_cli.learning.encoder import Encoder, build_encoder
from handclr_cli.learning.probe import NEIGHBOURS, PoseViews, Probe, build_probe

CPU = torch.device("cpu")
BANK, ASKED = 600, 80


class Lookup(nn.Module):
    """An encoder that knows its pictures by the number in their first pixel, and has a feature for
    each.
    """

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        low, high = (
            (images[:, channel, 0, 0] * IMAGENET_STD[channel] + IMAGENET_MEAN[channel]) * 255
            for channel in (0, 1)
        )
        return self.features[(low + 256 * high.round()).round().long()]


def numbered(first: int, count: int) -> Tensor:
    images = torch.zeros(count, 2, 2, 3, dtype=torch.uint8)
    number = torch.arange(first, first + count)
    images[..., 0], images[..., 1] = (number % 256)[:, None, None], (number // 256)[:, None, None]
    return images


@pytest.fixture
def poses() -> Tensor:
    """Centred poses that differ in four ways."""
    rng = np.random.default_rng(0)
    ways = rng.normal(size=(4, 42)) / 10
    found = rng.normal(size=42) / 4 + rng.normal(size=(BANK + ASKED, 4)) @ ways
    return torch.tensor(found, dtype=torch.float32).unflatten(1, (21, 2))


@pytest.fixture
def probe(poses: Tensor) -> Probe:
    bank = PoseViews(numbered(0, BANK), poses[:BANK])
    return Probe(bank, PoseViews(numbered(BANK, ASKED), poses[BANK:]), CPU)


def slow_error(features: np.ndarray, poses: np.ndarray) -> float:
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    errors = []
    for one in range(BANK, BANK + ASKED):
        near = np.argsort(-(features[:BANK] @ features[one]))[:NEIGHBOURS]
        predicted = poses[near].mean(axis=0)
        errors.append(np.linalg.norm(predicted - poses[one], axis=1).mean())
    return float(np.mean(errors))


def test_features_that_are_the_pose_find_it_and_random_ones_do_not(
    probe: Probe, poses: Tensor
) -> None:
    chance = probe.chance()
    truth = poses.double().numpy()
    mean = truth[:BANK].mean(axis=0)
    assert chance == pytest.approx(np.linalg.norm(truth[BANK:] - mean, axis=2).mean(), rel=1e-5)
    known = probe(Lookup(poses.flatten(1)))["probe"].item()  # type: ignore[arg-type]
    assert known == pytest.approx(slow_error(truth.reshape(-1, 42), truth), rel=1e-4)
    assert known < 0.5 * chance
    random = torch.randn(BANK + ASKED, 16, generator=torch.Generator().manual_seed(0))
    found = probe(Lookup(random))["probe"].item()  # type: ignore[arg-type]
    assert found == pytest.approx(slow_error(random.double().numpy(), truth), rel=1e-4)
    assert 0.95 * chance < found < 1.25 * chance


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.slow
def test_the_encoder_stays_as_it_was(training: bool, tmp_path: Path) -> None:
    train, held_out = (
        ShardIndex([str(write_labelled(tmp_path / name, 3, first=first))])
        for name, first in (("a", 0), ("b", 8))
    )
    encoder = build_encoder("resnet18").train(training)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    probe = build_probe(train, held_out, 32, 32, 0, CPU)
    first = probe(encoder)
    assert first["probe"].isfinite() and first == probe(encoder)
    assert all(module.training == training for module in encoder.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert all(
        parameter.grad is None and parameter.requires_grad for parameter in encoder.parameters()
    )


def test_the_bank_is_a_seeded_sample_of_crops_with_keypoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_module, "BANK", 5)
    bare = crops(("bare",), 20, keypoints=False)
    train = ShardIndex(
        [str(write_shard(tmp_path / "train.tar", [*bare, *map(labelled_sample, range(12))]))]
    )
    held_out = ShardIndex([str(write_labelled(tmp_path / "probe.tar", 3, first=100))])
    banks = [build_probe(train, held_out, 64, 64, seed, CPU) for seed in (0, 0, 1)]
    assert all(len(probe.bank.images) == 5 and len(probe.held_out.images) == 3 for probe in banks)
    assert torch.equal(banks[0].bank.images, banks[1].bank.images)
    assert not torch.equal(banks[0].bank.images, banks[2].bank.images)


def test_poses_are_centred_in_their_box_and_pictures_are_whole(tmp_path: Path) -> None:
    train, held_out = (
        ShardIndex([str(write_labelled(tmp_path / name, 2, first=first))])
        for name, first in (("a", 0), ("b", 8))
    )
    probe = build_probe(train, held_out, 64, 32, 0, CPU)
    for row in range(2):
        points = held_out[row].keypoints2d
        low, high = points.min(axis=0), points.max(axis=0)
        expected = (points - (low + high) / 2) / (high - low).max()
        np.testing.assert_allclose(probe.held_out.poses[row], expected, atol=1e-5)
        np.testing.assert_array_equal(
            probe.held_out.images[row], apply_view(View(32), held_out[row].image)
        )


def test_what_cannot_be_probed_is_said(tmp_path: Path) -> None:
    train, same, other = (
        ShardIndex([str(write_labelled(tmp_path / name, 2, first=first))])
        for name, first in (("a", 0), ("b", 1), ("c", 8))
    )
    bare, none = (
        ShardIndex([str(write_shard(tmp_path / name, samples))])
        for name, samples in (("d", crops(keypoints=False)), ("e", []))
    )
    with pytest.raises(HandclrError, match="probe: crop video0-v0_00000001_r is also trained on"):
        build_probe(train, same, 32, 32, 0, CPU)
    for held_out in (bare, none):
        with pytest.raises(HandclrError, match=r"no crop of the probe has keypoints2d\.npy"):
            build_probe(train, held_out, 32, 32, 0, CPU)
    with pytest.raises(HandclrError, match=r"no crop of the shards has keypoints2d\.npy"):
        build_probe(bare, other, 32, 32, 0, CPU)


@pytest.mark.slow
def test_the_features_are_those_of_the_normalised_pictures(tmp_path: Path) -> None:
    """Two held-out crops that are copies of crops of the bank are nearest to them."""
    encoder = build_encoder("resnet18").eval()
    train = ShardIndex([str(write_labelled(tmp_path / "a", 12))])
    probe = build_probe(
        train, ShardIndex([str(write_labelled(tmp_path / "b", 2, first=20))]), 32, 32, 0, CPU
    )
    with torch.inference_mode():
        expected = encoder(to_tensor(probe.bank.images))
    assert isinstance(encoder, Encoder)
    torch.testing.assert_close(probe._features(encoder, probe.bank.images), expected)
