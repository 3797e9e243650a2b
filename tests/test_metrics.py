"""Pose metrics against independent formulas."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from handclr_cli.benchmarks import metrics
from handclr_cli.contract.errors import HandclrError


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def truth(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 0.05, (40, 21, 3)) + [0, 0, 0.6]


def reference_alignment(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Align one sample by FreiHAND's recipe: centre, normalise, scipy's orthogonal Procrustes."""
    true_mean, pred_mean = truth.mean(0), pred.mean(0)
    true_norm = np.linalg.norm(truth - true_mean)
    a, b = (truth - true_mean) / true_norm, (pred - pred_mean) / np.linalg.norm(pred - pred_mean)
    rotation, scale = orthogonal_procrustes(b, a)
    return (b @ rotation) * scale * true_norm + true_mean


def test_names() -> None:
    assert len(metrics.JOINTS) == 21
    assert metrics.JOINTS[0] == "wrist"
    assert metrics.JOINTS[4] == "thumb_tip"
    assert metrics.JOINTS[9] == "middle_mcp"
    assert metrics.JOINTS[20] == "pinky_tip"
    assert sorted(j for joints in metrics.FINGERS.values() for j in joints) == list(range(1, 21))


def test_procrustes_matches_the_independent_recipe(rng: np.random.Generator, truth: np.ndarray) -> None:
    pred = 3 * truth @ Rotation.random(rng=1).as_matrix() + rng.normal(0, 0.01, truth.shape)
    expected = np.stack([reference_alignment(p, t) for p, t in zip(pred, truth, strict=True)])
    np.testing.assert_allclose(metrics.procrustes(pred, truth), expected, atol=1e-10)


def test_procrustes_recovers_a_similarity(rng: np.random.Generator, truth: np.ndarray) -> None:
    rotation = Rotation.random(len(truth), rng=2).as_matrix()
    scale = rng.uniform(0.1, 10, (len(truth), 1, 1))
    pred = scale * (truth @ rotation) + rng.normal(0, 1, (len(truth), 1, 3))
    assert metrics.joint_errors_mm(pred, truth, "procrustes").max() < 1e-6


def test_procrustes_does_not_reflect(truth: np.ndarray) -> None:
    pred = truth * [-1, 1, 1]
    aligned = metrics.procrustes(pred, truth)
    # Three bones span a volume whose sign only a reflection can change.
    volumes = [np.linalg.det(hand[:, [1, 5, 17]] - hand[:, :1]) for hand in (pred, aligned)]
    np.testing.assert_array_equal(*np.sign(volumes))
    # The best proper rotation by Kabsch, then the best scale.
    for hand, target, fitted in zip(pred, truth, aligned, strict=True):
        centred = target - target.mean(0)
        rotation, _ = Rotation.align_vectors(centred, hand - hand.mean(0))
        turned = rotation.apply(hand - hand.mean(0))
        scale = (turned * centred).sum() / np.square(turned).sum()
        np.testing.assert_allclose(fitted, scale * turned + target.mean(0), atol=1e-7)


def test_invariances(rng: np.random.Generator, truth: np.ndarray) -> None:
    pred = truth + rng.normal(0, 0.01, truth.shape)
    moved, scaled = pred + [0.3, -0.2, 1.0], pred * 7.5

    def errors(value: np.ndarray, alignment: metrics.Alignment) -> np.ndarray:
        return metrics.joint_errors_mm(value, truth, alignment)

    unmoved: tuple[metrics.Alignment, ...] = ("root", "root+bone", "procrustes")
    for alignment in unmoved:
        np.testing.assert_allclose(errors(moved, alignment), errors(pred, alignment), atol=1e-9)
    for alignment in unmoved[1:]:
        np.testing.assert_allclose(errors(scaled, alignment), errors(pred, alignment), atol=1e-9)
    assert errors(moved, "none").mean() > 1000
    assert errors(scaled, "root").mean() > 100


def test_errors_are_millimetres(truth: np.ndarray) -> None:
    np.testing.assert_allclose(metrics.joint_errors_mm(truth + [0.003, 0.004, 0], truth, "none"), 5.0)


def test_bone_scaled_gives_the_true_bone(rng: np.random.Generator, truth: np.ndarray) -> None:
    pred = rng.normal(size=truth.shape)
    scaled = metrics.bone_scaled(pred, truth)
    np.testing.assert_allclose(scaled[:, 0], 0)
    np.testing.assert_allclose(np.linalg.norm(scaled[:, 9], axis=1), np.linalg.norm(truth[:, 9] - truth[:, 0], axis=1))


def test_degenerate_predictions_stay_finite(truth: np.ndarray) -> None:
    point = np.zeros_like(truth)
    expected = np.linalg.norm(truth - truth[:, :1], axis=2) * 1000
    np.testing.assert_allclose(metrics.joint_errors_mm(point, truth, "root+bone"), expected)
    centred = np.linalg.norm(truth - truth.mean(1, keepdims=True), axis=2) * 1000
    np.testing.assert_allclose(metrics.joint_errors_mm(point, truth, "procrustes"), centred)
    no_bone = truth.copy()
    no_bone[:, 9] = no_bone[:, 0]
    np.testing.assert_allclose(metrics.bone_scaled(no_bone, truth), metrics.root_relative(no_bone))


def test_pck_curve_counts_the_threshold_itself() -> None:
    errors = np.tile(np.array([[10.0], [20.0], [30.0], [40.0]]), (1, 21))
    curve = metrics.pck_curve(errors, np.array([0, 10, 19.9, 20, 35, 40]))
    np.testing.assert_allclose(curve, [0, 0.25, 0.25, 0.5, 0.75, 1])


def test_auc_of_uniform_errors() -> None:
    # Uniform on 0..50 mm: PCK(t) = t / 50, so the area is 1/2 over 0-50 and the mean of 0.4 and 1 over 20-50.
    errors = np.tile(((np.arange(20_000) + 0.5) / 20_000 * 50)[:, None], (1, 21))
    assert metrics.pck_auc(errors, *metrics.AUC_RANGES["0-50"]) == pytest.approx(0.5, abs=1e-4)
    assert metrics.pck_auc(errors, *metrics.AUC_RANGES["20-50"]) == pytest.approx(0.7, abs=1e-4)


def test_auc_extremes() -> None:
    assert metrics.pck_auc(np.zeros((3, 21)), 0, 50, 100) == 1.0
    assert metrics.pck_auc(np.full((3, 21), 51.0), 0, 50, 100) == 0.0


def test_evaluate_pose_is_json(rng: np.random.Generator, truth: np.ndarray) -> None:
    pred = truth + rng.normal(0, 0.01, truth.shape)
    result = json.loads(json.dumps(metrics.evaluate_pose(pred.astype(np.float32), truth)))
    assert set(result) == {"none", "root", "root+bone", "procrustes", "mpjpe_mm_by_joint_root+bone"}
    assert set(result["root"]["pck_auc"]) == {"0-50mm", "20-50mm"}
    assert result["procrustes"]["mpjpe_mm"] < result["root+bone"]["mpjpe_mm"]
    assert list(result["mpjpe_mm_by_joint_root+bone"]) == list(metrics.JOINTS)
    assert np.mean(list(result["mpjpe_mm_by_joint_root+bone"].values())) == pytest.approx(
        result["root+bone"]["mpjpe_mm"]
    )
    assert result["mpjpe_mm_by_joint_root+bone"]["wrist"] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(truth: np.ndarray, value: float) -> None:
    broken = truth.copy()
    broken[[3, 5], 7, 1] = value
    with pytest.raises(HandclrError, match="^2 of 40 predictions"):
        metrics.evaluate_pose(broken, truth)
    with pytest.raises(HandclrError, match="^2 of 40 ground-truth"):
        metrics.evaluate_pose(truth, broken)


def test_shapes_are_checked(truth: np.ndarray) -> None:
    with pytest.raises(HandclrError, match="shape"):
        metrics.evaluate_pose(truth[:-1], truth)
    with pytest.raises(HandclrError, match="no prediction"):
        metrics.evaluate_pose(truth[:0], truth[:0])
