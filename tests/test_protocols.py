"""The data sets' own metrics and files against independent transcriptions of their definitions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from handclr_cli.contract.errors import HandclrError
from handclr_cli.evaluation import protocols
from handclr_cli.hand import alignment

POSES = 10_000
SCORES_TXT = [
    *("xyz_mean3d", "xyz_auc3d", "xyz_al_mean3d", "xyz_al_auc3d"),
    *("mesh_mean3d", "mesh_auc3d", "mesh_al_mean3d", "mesh_al_auc3d"),
    *("f_score_5", "f_al_score_5", "f_score_15", "f_al_score_15"),
]


def measures(pred: np.ndarray, truth: np.ndarray, high: float) -> tuple[float, float]:
    """Mean and area as the EvalUtil of both scripts has them: joint by joint, then the mean over
    the joints.
    """
    means, areas = [], []
    thresholds = np.linspace(0, high, 100)
    for joint in range(21):
        distances = np.sqrt(np.square(pred[:, joint] - truth[:, joint]).sum(axis=1))
        means.append(distances.mean())
        shares = [np.count_nonzero(distances <= t) / len(distances) for t in thresholds]
        areas.append(np.trapezoid(shares, thresholds) / np.trapezoid(np.ones(100), thresholds))
    return float(np.mean(means)), float(np.mean(areas))


def aligned(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Each pose centred, of unit extent, turned by SciPy's orthogonal Procrustes, scaled by its
    second result.
    """
    out = []
    for hand, target in zip(pred, truth, strict=True):
        middle, extent = target.mean(0), np.linalg.norm(target - target.mean(0)) + 1e-8
        a = (target - middle) / extent
        b = hand - hand.mean(0)
        b = b / (np.linalg.norm(b) + 1e-8)
        turn, scale = orthogonal_procrustes(a, b)
        out.append(b @ turn.T * scale * extent + middle)
    return np.stack(out)


@pytest.fixture(scope="module")
def poses() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, truths and the aligned predictions, metres; every tenth prediction is
    mirrored.
    """
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.04, (POSES, 21, 3)) + [0, 0, 0.6]
    pred = (
        truth
        + rng.normal(0, 0.01, (POSES, 1, 1)) * rng.normal(0, 1, truth.shape)
        + rng.normal(0, 0.01, (POSES, 1, 3))
    )
    pred[::10, :, 0] *= -1
    return pred, truth, aligned(pred, truth)


@pytest.mark.slow
def test_procrustes_is_scipys_with_its_reflections(
    poses: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    pred, truth, expected = poses
    found = protocols.official_procrustes(pred, truth)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    # A mirrored hand is mirrored back; "procrustes" does not do that, "procrustes+reflection" does.
    theirs = 1000 * np.linalg.norm(found - truth, axis=-1)
    own = alignment.joint_errors_mm(pred, truth, "procrustes")
    assert (own[::10].mean(axis=1) > theirs[::10].mean(axis=1) + 1).all()
    named = alignment.joint_errors_mm(pred, truth, "procrustes+reflection")
    np.testing.assert_allclose(named, theirs, atol=1e-3)


@pytest.mark.slow
def test_freihand_scores_by_their_definition(
    poses: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    pred, truth, straight = poses
    scores = protocols.freihand_scores(pred, truth)
    assert list(scores) == SCORES_TXT
    for name, hands in (("xyz", pred), ("xyz_al", straight)):
        mean, area = measures(hands, truth, 0.05)
        assert scores[f"{name}_mean3d"] == pytest.approx(100 * mean, abs=1e-6)
        assert scores[f"{name}_auc3d"] == pytest.approx(area, abs=1e-6)


@pytest.mark.slow
def test_dexycb_scores_by_their_definition(
    poses: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    pred, truth, _ = poses
    pred_mm, truth_mm = 1000 * pred, 1000 * truth
    expected = {
        "absolute": measures(pred_mm, truth_mm, 50),
        "root-relative": measures(pred_mm - pred_mm[:, :1], truth_mm - truth_mm[:, :1], 50),
        "procrustes": measures(aligned(pred_mm, truth_mm), truth_mm, 50),
    }
    scores = protocols.dexycb_scores(pred, truth)
    assert list(scores) == list(expected)
    for name, (mean, area) in expected.items():
        assert scores[name]["mpjpe_mm"] == pytest.approx(mean, abs=1e-6)
        assert scores[name]["auc"] == pytest.approx(area, abs=1e-6)


def test_assemblyhands_scores_by_their_definition() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 0.05, (POSES, 21, 3))
    pred = truth + rng.normal(0, 0.01, truth.shape)
    valid, left = rng.random((POSES, 21)) < 0.5, rng.random(POSES) < 0.3
    valid[:, [0, 9]], valid[left, 20] = True, False
    # As the toolkit counts: 42 joints, 21 of each hand, in millimetres from the hand's own wrist.
    joints = []
    for side in (False, True):
        for joint in range(21):
            rows = (left == side) & valid[:, joint]
            if rows.any():
                difference = (pred[rows, joint] - pred[rows, 0]) - (
                    truth[rows, joint] - truth[rows, 0]
                )
                joints.append((side, 1000 * np.sqrt(np.square(difference).sum(axis=1)).mean()))
    assert len(joints) == 41  # no left hand has the tip of its little finger
    scores = protocols.assemblyhands_scores(pred, truth, valid, left)
    assert scores["mpjpe_mm"] == pytest.approx(np.mean([error for _, error in joints]), abs=1e-6)
    assert scores["right_mm"] == pytest.approx(
        np.mean([error for side, error in joints if not side]), abs=1e-6
    )
    assert scores["left_mm"] == pytest.approx(
        np.mean([error for side, error in joints if side]), abs=1e-6
    )
    alone = protocols.assemblyhands_scores(pred[left], truth[left], valid[left], left[left])
    assert alone["right_mm"] is None and alone["mpjpe_mm"] == alone["left_mm"] == pytest.approx(
        scores["left_mm"]
    )


def test_freihands_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(0, 0.05, (6, 21, 3)) + [0, 0, 0.6]
    pred, position = truth + 0.01, np.array([3, 0, 5, 1, 4, 2])
    protocols.write_freihand_results(
        str(tmp_path / "new" / "out"), pred, protocols.freihand_scores(pred, truth), position
    )
    xyz, vertices = json.loads((tmp_path / "new" / "out" / "pred.json").read_text())
    assert np.array_equal(np.array(xyz)[position], pred) and len(vertices) == 6
    # The vertices are no mesh of MANO's 778, which the script counts, and no point of a mesh is
    # within its 15 mm.
    assert np.array(vertices).shape == (6, 1, 3)
    assert np.linalg.norm(truth[:, :, None] - np.array(vertices)[:, None], axis=-1).min() > 0.1
    lines = (tmp_path / "new" / "out" / "scores.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in lines] == SCORES_TXT
    assert lines[0] == f"xyz_mean3d: {3**0.5:.6f}" and lines[2] == "xyz_al_mean3d: 0.000000"
    assert lines[4:8] == ["mesh_mean3d: -100.000000", "mesh_auc3d: -1.000000"] + [
        "mesh_al_mean3d: -100.000000",
        "mesh_al_auc3d: -1.000000",
    ]
    assert all(line.endswith(": 0.000000") for line in lines[8:])


def test_dexycbs_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    pred = (rng.normal(0, 0.05, (3, 21, 3)) + [0, 0, 0.6]).astype(np.float32)
    path = tmp_path / "results.txt"
    protocols.write_dexycb_results(
        str(path), pred, np.array([12, 4, 7]), np.array([True, False, False])
    )
    rows = np.array(
        [[float(word) for word in line.split(",")] for line in path.read_text().splitlines()]
    )
    assert rows.shape == (3, 64) and rows[:, 0].tolist() == [4, 7, 12]
    hands = rows[:, 1:].reshape(3, 21, 3) / 1000
    np.testing.assert_allclose(hands[:2], pred[1:], atol=1e-9)
    np.testing.assert_allclose(hands[2], pred[0] * [-1, 1, 1], atol=1e-9)


@pytest.mark.parametrize(
    ("name", "position", "words"),
    [
        ("freihand", [0, 1, 3], "^1 of 4 images of the split are missing, the first is 2"),
        ("freihand", [0, 1, 1], "index 1 comes twice"),
        ("dexycb", [5, -1, 3], "1 of 3 samples have no 'index'"),
    ],
)
def test_positions_that_do_not_fit_are_refused(name: str, position: list[int], words: str) -> None:
    valid = np.ones((3, 21), bool)
    with pytest.raises(HandclrError, match=words):
        protocols.require(name, True, valid, np.array(position))
    protocols.require("dexycb", True, valid, np.array([5, 9, 3]))


def test_what_a_protocol_has_no_rule_for_is_refused() -> None:
    valid = np.ones((3, 21), bool)
    with pytest.raises(HandclrError, match="^dexycb: .* the hands have none"):
        protocols.require("dexycb", False, valid, np.arange(3))
    valid[1, 4] = False
    with pytest.raises(HandclrError, match="^freihand: 1 of 3 samples lack"):
        protocols.require("freihand", True, valid, np.arange(3))
