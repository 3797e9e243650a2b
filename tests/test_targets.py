"""Soft targets by pose against a transcription of their formula in loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from handclr_cli.learning import targets
from handclr_cli.learning.targets import PoseTargets


def random_poses(n: int) -> np.ndarray:
    """(2, N, 21, 2) in crop sides; the second views are near the first."""
    rng = np.random.default_rng(n)
    anchor = rng.uniform(size=(n, 21, 2))
    return np.stack([anchor, anchor + rng.normal(scale=0.05, size=anchor.shape)])


def slow_sigma(poses: np.ndarray, spread: float, sample: int = 512) -> float:
    flat = poses.reshape(-1, 42)[:sample]
    apart = sorted(
        d for i in range(len(flat)) for j in range(i) if (d := math.dist(flat[i], flat[j])) > 0
    )
    return spread * apart[(len(apart) - 1) // 2]


def slow_targets(poses: np.ndarray, sigma: float) -> np.ndarray:
    flat = poses.reshape(-1, 42)
    out = np.zeros((len(flat), len(flat)))
    for i in range(len(flat)):
        exponents = {
            j: -(math.dist(flat[i], flat[j]) ** 2) / (2 * sigma**2)
            for j in range(len(flat))
            if j != i
        }
        nearest = max(exponents.values())
        total = sum(math.exp(exponent - nearest) for exponent in exponents.values())
        for j, exponent in exponents.items():
            out[i, j] = math.exp(exponent - nearest) / total
    return out


def all_rows(found: PoseTargets, n: int) -> np.ndarray:
    return found.against_all(torch.arange(2 * n)).numpy()


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("spread", [None, 0.002, 0.5, 3.0])
def test_targets_are_the_formula(n: int, spread: float | None) -> None:
    poses = random_poses(n)
    found = PoseTargets(*torch.tensor(poses), **({} if spread is None else {"spread": spread}))
    expected = slow_targets(poses, slow_sigma(poses, spread or 0.15))
    np.testing.assert_allclose(all_rows(found, n), expected, atol=1e-5)
    rows = torch.tensor([2 * n - 1, 0, *range(n)])
    np.testing.assert_array_equal(found.against_all(rows), all_rows(found, n)[rows])
    assert found.against_all(rows).dtype == torch.float32


def test_an_image_that_comes_twice_is_a_target_and_no_measure_of_distance() -> None:
    poses = random_poses(5)
    poses[:, 1] = poses[0, 0]
    poses[1, 2] = poses[0, 0]
    found = all_rows(PoseTargets(*torch.tensor(poses)), 5)
    np.testing.assert_allclose(found, slow_targets(poses, slow_sigma(poses, 0.15)), atol=1e-5)
    copies = [0, 1, 6, 7]
    assert all(
        found[i, j] == pytest.approx(found[0, 1], rel=1e-5)
        for i in copies
        for j in copies
        if i != j
    )


def test_the_width_is_told_by_the_first_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_SAMPLE", 4)
    poses = random_poses(9)
    poses[:, 4:] *= 3
    expected = slow_targets(poses, slow_sigma(poses, 0.15, 4))
    np.testing.assert_allclose(all_rows(PoseTargets(*torch.tensor(poses)), 9), expected, atol=1e-5)
    assert np.abs(expected - slow_targets(poses, slow_sigma(poses, 0.15))).max() > 0.01


def test_where_all_poses_are_one_all_views_are_alike() -> None:
    still = torch.full((3, 21, 2), 0.4)
    np.testing.assert_allclose(
        all_rows(PoseTargets(still, still), 3), (1 - np.eye(6)) / 5, rtol=1e-6
    )


def test_close_poses_far_from_the_origin_are_told_apart() -> None:
    poses = 1000 + np.round(random_poses(4) * 64) / 64
    expected = slow_targets(poses, slow_sigma(poses, 0.15))
    np.testing.assert_allclose(all_rows(PoseTargets(*torch.tensor(poses)), 4), expected, atol=1e-5)


def test_targets_have_no_gradient_and_stay_float32_under_autocast() -> None:
    poses = torch.tensor(random_poses(4), dtype=torch.float32, requires_grad=True)
    rows = torch.arange(8)
    plain = PoseTargets(*poses).against_all(rows)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = PoseTargets(*poses).against_all(rows)
    assert not found.requires_grad
    torch.testing.assert_close(found, plain)
