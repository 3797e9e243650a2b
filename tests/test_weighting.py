"""SiMHand's adaptive weights against a transcription of their formulas in double loops."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import torch

from handclr_cli.learning import weighting
from handclr_cli.learning.weighting import PoseWeights

Form = Literal["linear", "sigmoid"]


def random_joints(n: int) -> np.ndarray:
    rng = np.random.default_rng(n)
    anchor = rng.uniform(size=(n, 21, 2))
    return np.stack([anchor, anchor + rng.normal(scale=0.01, size=anchor.shape)])


def slow_distances(joints: np.ndarray) -> np.ndarray:
    """(2N, 2N), in pixels of a view of 128."""
    poses = 128 * joints.reshape(-1, 21, 2)
    return np.array(
        [
            [np.mean([math.dist(p, q) for p, q in zip(a, b, strict=True)]) for b in poses]
            for a in poses
        ]
    )


def slow_weights(d: np.ndarray, form: Form, steepness: float) -> np.ndarray:
    if form == "sigmoid":
        return 1 / (1 + np.exp(steepness * (d - d.mean())))
    return (d.max() - d) / (d.max() - d.min()) if d.max() > d.min() else np.ones_like(d)


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("form", ["linear", "sigmoid"])
@pytest.mark.parametrize("lambdas", [None, (5.0, 0.05), (1.0, 0.005)])
def test_weights_are_the_published_formulas(
    n: int, form: Form, lambdas: tuple[float, float] | None
) -> None:
    joints = random_joints(n)
    weights = PoseWeights(*torch.tensor(joints), form, *(lambdas or ()))
    distances = slow_distances(joints)
    of_positives, of_all = lambdas or (5.0, 0.05)
    positive = slow_weights(np.diagonal(distances, offset=n), form, of_positives)
    np.testing.assert_allclose(weights.positive.numpy(), positive, atol=1e-4)
    rows = torch.tensor([2 * n - 1, 0, *range(n)])
    against_all = slow_weights(distances, form, of_all)[rows]
    np.testing.assert_allclose(weights.against_all(rows).numpy(), against_all, atol=1e-4)
    assert weights.positive.dtype == weights.against_all(rows).dtype == torch.float32


def test_tiles_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    joints, rows = torch.tensor(random_joints(9)), torch.arange(18)
    whole = PoseWeights(*joints).against_all(rows)
    monkeypatch.setattr(weighting, "_TILE", 4)
    tiled = PoseWeights(*joints)
    torch.testing.assert_close(tiled.against_all(rows), whole)
    torch.testing.assert_close(
        torch.cat([tiled.against_all(part) for part in rows.split(7)]), whole
    )


def test_linear_weights_run_from_one_to_zero() -> None:
    weights = PoseWeights(*torch.tensor(random_joints(9)))
    against_all = weights.against_all(torch.arange(18))
    for values in (weights.positive, against_all):
        assert values.amin() == 0 and values.amax() == 1
    assert (against_all.diagonal() == 1).all()


@pytest.mark.parametrize("form", ["linear", "sigmoid"])
def test_equal_distances_give_equal_weights(form: Form) -> None:
    still = torch.zeros(3, 21, 2)
    weights = PoseWeights(still, still, form)
    expected = 1.0 if form == "linear" else 0.5
    assert (weights.positive == expected).all()
    assert (weights.against_all(torch.arange(6)) == expected).all()


def test_weights_have_no_gradient_and_stay_float32_under_autocast() -> None:
    joints = torch.tensor(random_joints(4), dtype=torch.float32, requires_grad=True)
    rows = torch.arange(8)
    plain = PoseWeights(*joints)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = PoseWeights(*joints)
        against_all = weights.against_all(rows)
    assert not weights.positive.requires_grad and not against_all.requires_grad
    torch.testing.assert_close(
        (weights.positive, against_all), (plain.positive, plain.against_all(rows))
    )
