"""Pose metrics against independent formulas."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from handclr_cli.contract.errors import HandclrError
from handclr_cli.evaluation import metrics
from handclr_cli.hand import alignment, joints
from handclr_cli.synth import skeleton


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
    assert len(joints.JOINT_NAMES) == 21
    assert joints.JOINT_NAMES[0] == "wrist"
    assert joints.JOINT_NAMES[4] == "thumb_tip"
    assert joints.JOINT_NAMES[9] == "middle_mcp"
    assert joints.JOINT_NAMES[20] == "pinky_tip"
    assert sorted(j for joints in joints.FINGERS.values() for j in joints) == list(range(1, 21))


def test_procrustes_matches_the_independent_recipe(
    rng: np.random.Generator, truth: np.ndarray
) -> None:
    pred = 3 * truth @ Rotation.random(rng=1).as_matrix() + rng.normal(0, 0.01, truth.shape)
    expected = np.stack([reference_alignment(p, t) for p, t in zip(pred, truth, strict=True)])
    np.testing.assert_allclose(alignment.procrustes(pred, truth), expected, atol=1e-10)


def test_procrustes_recovers_a_similarity(rng: np.random.Generator, truth: np.ndarray) -> None:
    rotation = Rotation.random(len(truth), rng=2).as_matrix()
    scale = rng.uniform(0.1, 10, (len(truth), 1, 1))
    pred = scale * (truth @ rotation) + rng.normal(0, 1, (len(truth), 1, 3))
    assert alignment.joint_errors_mm(pred, truth, "procrustes").max() < 1e-6


def test_procrustes_does_not_reflect(truth: np.ndarray) -> None:
    pred = truth * [-1, 1, 1]
    aligned = alignment.procrustes(pred, truth)
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


def bent_hands(rng: np.random.Generator, count: int) -> np.ndarray:
    """Hands of one build in poses within the joints' limits, (N, 21, 3) metres."""
    low, high = skeleton.LIMITS.T
    angles = rng.uniform(0.7 * low, 0.7 * high, (count, len(low)))
    return skeleton.keypoints(*skeleton.pose_bones(skeleton.average_build(), angles))


def test_a_mirror_image_is_right_with_reflection_alone(rng: np.random.Generator) -> None:
    hands = bent_hands(rng, 200)
    near = hands + rng.normal(0, 0.002, hands.shape)
    found: dict[str, list[float]] = {}
    for pred in (near, near * [1, 1, -1]):
        for name in ("procrustes", "procrustes+reflection"):
            errors = alignment.joint_errors_mm(pred, hands, name)
            found.setdefault(name, []).append(float(errors.mean()))
    straight, mirrored = zip(*found.values(), strict=True)
    assert straight[0] == straight[1] == mirrored[1] == pytest.approx(2.9, abs=0.2)
    # By SciPy: its best orthogonal matrix with a reflection, its best rotation without.
    turned = [reference_alignment(*pair) for pair in zip(near * [1, 1, -1], hands, strict=True)]
    assert mirrored[1] == pytest.approx(1000 * np.linalg.norm(turned - hands, axis=-1).mean())
    proper = []
    for hand, target in zip(near * [1, 1, -1], hands, strict=True):
        centred, goal = hand - hand.mean(0), target - target.mean(0)
        rotated = Rotation.align_vectors(goal, centred)[0].apply(centred)
        scaled = (rotated * goal).sum() / np.square(rotated).sum() * rotated
        proper.append(1000 * np.linalg.norm(scaled - goal, axis=-1).mean())
    assert mirrored[0] == pytest.approx(np.mean(proper), rel=1e-6) and mirrored[0] > 15


def test_reflection_changes_nothing_where_no_hand_is_mirrored(rng: np.random.Generator) -> None:
    hands = bent_hands(rng, 200)
    pred = 1.1 * hands @ Rotation.random(200, rng=3).as_matrix()
    pred += rng.normal(0, 0.004, hands.shape)
    tables = metrics.evaluate_pose(pred, hands)
    same = [tables[name] for name in ("procrustes", "procrustes+reflection")]
    assert same[0].pop("definition") != same[1].pop("definition")
    assert same[0] == same[1]


def test_invariances(rng: np.random.Generator, truth: np.ndarray) -> None:
    pred = truth + rng.normal(0, 0.01, truth.shape)
    moved, scaled = pred + [0.3, -0.2, 1.0], pred * 7.5

    def errors(value: np.ndarray, name: alignment.Alignment) -> np.ndarray:
        return alignment.joint_errors_mm(value, truth, name)

    unmoved: tuple[alignment.Alignment, ...] = ("root", "root+bone", "procrustes")
    for name in unmoved:
        np.testing.assert_allclose(errors(moved, name), errors(pred, name), atol=1e-9)
    for name in unmoved[1:]:
        np.testing.assert_allclose(errors(scaled, name), errors(pred, name), atol=1e-9)
    assert errors(moved, "none").mean() > 1000
    assert errors(scaled, "root").mean() > 100


def test_errors_are_millimetres(truth: np.ndarray) -> None:
    np.testing.assert_allclose(
        alignment.joint_errors_mm(truth + [0.003, 0.004, 0], truth, "none"), 5.0
    )


def test_bone_scaled_gives_the_true_bone(rng: np.random.Generator, truth: np.ndarray) -> None:
    pred = rng.normal(size=truth.shape)
    scaled = alignment.bone_scaled(pred, truth)
    np.testing.assert_allclose(scaled[:, 0], 0)
    np.testing.assert_allclose(
        np.linalg.norm(scaled[:, 9], axis=1), np.linalg.norm(truth[:, 9] - truth[:, 0], axis=1)
    )


def test_degenerate_predictions_stay_finite(truth: np.ndarray) -> None:
    point = np.zeros_like(truth)
    expected = np.linalg.norm(truth - truth[:, :1], axis=2) * 1000
    np.testing.assert_allclose(alignment.joint_errors_mm(point, truth, "root+bone"), expected)
    centred = np.linalg.norm(truth - truth.mean(1, keepdims=True), axis=2) * 1000
    np.testing.assert_allclose(alignment.joint_errors_mm(point, truth, "procrustes"), centred)
    no_bone = truth.copy()
    no_bone[:, 9] = no_bone[:, 0]
    np.testing.assert_allclose(
        alignment.bone_scaled(no_bone, truth), alignment.root_relative(no_bone)
    )


def test_pck_curve_counts_the_threshold_itself() -> None:
    errors = np.tile(np.array([[10.0], [20.0], [30.0], [40.0]]), (1, 21))
    curve = metrics.pck_curve(errors, np.array([0, 10, 19.9, 20, 35, 40]))
    np.testing.assert_allclose(curve, [0, 0.25, 0.25, 0.5, 0.75, 1])


def test_auc_of_uniform_errors() -> None:
    # Uniform on 0..50 mm: PCK(t) = t / 50, so the area is 1/2 over 0-50 and the mean of 0.4 and 1
    # over 20-50.
    errors = np.tile(((np.arange(20_000) + 0.5) / 20_000 * 50)[:, None], (1, 21))
    assert metrics.pck_auc(errors, *metrics.AUC_RANGES["0-50"]) == pytest.approx(0.5, abs=1e-4)
    assert metrics.pck_auc(errors, *metrics.AUC_RANGES["20-50"]) == pytest.approx(0.7, abs=1e-4)


def test_auc_extremes() -> None:
    assert metrics.pck_auc(np.zeros((3, 21)), 0, 50, 100) == 1.0
    assert metrics.pck_auc(np.full((3, 21), 51.0), 0, 50, 100) == 0.0


def test_auc_is_the_mean_of_what_each_error_adds(rng: np.random.Generator) -> None:
    errors = rng.gamma(2, 10, (200, 21))
    for low, high, steps in metrics.AUC_RANGES.values():
        thresholds = np.linspace(low, high, steps)
        by_joint = [
            np.trapezoid([(errors[:, joint] <= t).mean() for t in thresholds], thresholds)
            / (high - low)
            for joint in range(21)
        ]
        assert metrics.pck_auc(errors, low, high, steps) == pytest.approx(
            np.mean(by_joint), abs=1e-12
        )
    exact = np.full(
        (3, 21), 20.0
    )  # the first of the thresholds from 20 to 50 mm, and itself correct
    assert metrics.pck_auc(exact, 20, 50, 15) == pytest.approx(1.0, abs=1e-12)


def test_joints_without_labels_count_nowhere(rng: np.random.Generator, truth: np.ndarray) -> None:
    pred = truth + rng.normal(0, 0.02, truth.shape)
    valid = rng.random(truth.shape[:2]) < 0.6
    valid[:, [0, 9]] = True
    for name in ("none", "root", "root+bone", "procrustes"):
        found = alignment.joint_errors_mm(pred, truth, name, valid)
        for sample, mask in enumerate(valid):
            hand, target = pred[sample][mask], truth[sample][mask]
            if name == "procrustes":
                centred = target - target.mean(0)
                rotation, _ = Rotation.align_vectors(centred, hand - hand.mean(0))
                turned = rotation.apply(hand - hand.mean(0))
                hand = (turned * centred).sum() / np.square(turned).sum() * turned + target.mean(0)
            elif name != "none":
                hand, target = hand - hand[0], target - target[0]
                knuckle = int(mask[:9].sum())
                scale = np.linalg.norm(target[knuckle]) / np.linalg.norm(hand[knuckle])
                hand = hand * (scale if name == "root+bone" else 1)
            expected = 1000 * np.linalg.norm(hand - target, axis=1)
            np.testing.assert_allclose(found[sample][mask], expected, atol=1e-6)
            assert not found[sample][~mask].any()


def test_the_mean_is_per_joint_first(rng: np.random.Generator) -> None:
    truth = np.zeros((4, 21, 3))
    truth[:, 9, 0] = 0.1
    pred = truth + rng.normal(0, 0.02, truth.shape)
    valid = rng.random((4, 21)) < 0.5
    valid[:, [0, 9]], valid[:, 13] = True, False
    valid[0, 14], valid[:, 15:17] = True, False
    table = metrics.evaluate_pose(pred, truth, valid)["none"]
    means = {}
    for joint, name in enumerate(joints.JOINT_NAMES):
        errors = [
            1000 * np.linalg.norm(pred[i, joint] - truth[i, joint])
            for i in range(4)
            if valid[i, joint]
        ]
        means[name] = pytest.approx(np.mean(errors)) if errors else None
    assert table["mpjpe_mm_by_joint"] == means
    labelled = [value for value in table["mpjpe_mm_by_joint"].values() if value is not None]
    assert table["mpjpe_mm"] == pytest.approx(np.mean(labelled))
    assert table["mpjpe_mm_by_finger"]["ring"] == table["mpjpe_mm_by_joint"]["ring_pip"]
    everything = metrics.evaluate_pose(pred, truth)["none"]
    assert everything["mpjpe_mm"] == pytest.approx(
        1000 * np.linalg.norm(pred - truth, axis=2).mean(), rel=1e-12
    )


def test_a_finger_without_any_label_is_null(truth: np.ndarray) -> None:
    valid = np.ones(truth.shape[:2], bool)
    valid[:, 17:] = False
    table = json.loads(json.dumps(metrics.evaluate_pose(truth, truth, valid)["root"]))
    assert (
        table["mpjpe_mm_by_finger"]["pinky"] is None
        and table["mpjpe_mm_by_joint"]["pinky_tip"] is None
    )
    assert table["mpjpe_mm"] == 0 and table["pck_auc"]["0-50mm"] == 1


def test_evaluate_pose_is_json(rng: np.random.Generator, truth: np.ndarray) -> None:
    pred = truth + rng.normal(0, 0.01, truth.shape)
    result = json.loads(json.dumps(metrics.evaluate_pose(pred.astype(np.float32), truth)))
    unplaced = ["root", "root+bone", "procrustes", "procrustes+reflection"]
    assert list(result) == ["none", *unplaced]
    assert list(metrics.evaluate_pose(pred, truth, placed=False)) == unplaced
    assert set(result["root"]["pck_auc"]) == {"0-50mm", "20-50mm"}
    assert result["procrustes"]["mpjpe_mm"] < result["root+bone"]["mpjpe_mm"]
    by_joint = result["root+bone"]["mpjpe_mm_by_joint"]
    assert list(by_joint) == list(joints.JOINT_NAMES) and by_joint["wrist"] == 0
    assert np.mean(list(by_joint.values())) == pytest.approx(result["root+bone"]["mpjpe_mm"])
    thumb = [by_joint[name] for name in joints.JOINT_NAMES[1:5]]
    assert result["root+bone"]["mpjpe_mm_by_finger"]["thumb"] == pytest.approx(np.mean(thumb))
    per_sample = alignment.joint_errors_mm(pred.astype(np.float32), truth, "root+bone").mean(axis=1)
    assert result["root+bone"]["mpjpe_mm_of_samples"]["median"] == pytest.approx(
        np.median(per_sample)
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(truth: np.ndarray, value: float) -> None:
    broken = truth.copy()
    broken[[3, 5], 7, 1] = value
    with pytest.raises(HandclrError, match="^2 of 40 predictions"):
        metrics.evaluate_pose(broken, truth)
    with pytest.raises(HandclrError, match="^2 of 40 ground-truth"):
        metrics.evaluate_pose(truth, broken)


def test_a_wrist_without_a_label_is_refused(truth: np.ndarray) -> None:
    valid = np.ones(truth.shape[:2], bool)
    valid[2, 9] = False
    with pytest.raises(
        HandclrError, match="^1 of 40 samples have no label of the wrist or the middle knuckle"
    ):
        metrics.evaluate_pose(truth, truth, valid)


def test_shapes_are_checked(truth: np.ndarray) -> None:
    with pytest.raises(HandclrError, match="shape"):
        metrics.evaluate_pose(truth[:-1], truth)
    with pytest.raises(HandclrError, match="no prediction"):
        metrics.evaluate_pose(truth[:0], truth[:0])
