"""The reports of an evaluation: the scores of one set of predictions, and of two compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..hand.alignment import joint_errors_mm
from ..hand.joints import WRIST
from ..hand.placement import DEPTH_SIGMA, median_sigma_mm
from . import intervals, metrics, protocols
from .labels import Labels
from .predictions import Evaluated, Predicted, has_position

UNFOUND = (
    "crops in which no hand is found are given the mean of the hands found, at their mean place"
)

Curve = tuple[np.ndarray, np.ndarray, float]


def score_predictions(
    predicted: Predicted,
    labels: Labels,
    baseline: np.ndarray | None,
    asked: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """The scores of predictions, ready for JSON.

    Counts, definitions, the metrics with intervals, and the protocols' own scores. `baseline`
    (N, 21, 3) metres from the wrist is what the mean pose of the training set predicts; `asked` are
    names in `protocols.SCORES`. AssemblyHands' protocol joins where labels are missing or both
    hands are there.
    """
    hands, truth, valid = predicted.keypoints3d, labels.keypoints3d, labels.valid
    errors = metrics.all_errors_mm(hands, truth, valid, predicted.placed)
    report: dict[str, Any] = {
        "samples": len(labels),
        "joints_without_labels": int((~valid).sum()),
        **_found(predicted),
        "scale": predicted.scale,
        "position": predicted.position,
        "measures": metrics.MEASURES,
        "interval": {
            "definition": intervals.DEFINITION,
            "unit": labels.unit,
            "units": len(np.unique(labels.units)),
        },
        "model": intervals.pose_table(errors, valid, labels.units, seed),
    }
    if predicted.depth_sigma is not None:
        report["depth_sigma"] = _depth_sigma(hands, truth, predicted.depth_sigma)
    if baseline is not None:
        still = metrics.all_errors_mm(baseline, truth, valid, placed=False)
        report["mean_pose_of_training_set"] = intervals.pose_table(still, valid, labels.units, seed)
    scores: dict[str, Any] = {name: protocols.SCORES[name](hands, truth) for name in asked}
    if labels.sided.all() and (labels.of_both_hands or not valid.all()):
        scores["assemblyhands"] = protocols.assemblyhands_scores(hands, truth, valid, labels.left)
    if scores:
        report["official"] = scores
        report["official_definitions"] = {name: protocols.DEFINITIONS[name] for name in scores}
    return report


def pck_curves(
    predicted: Predicted, labels: Labels, baseline: np.ndarray | None
) -> dict[str, Curve]:
    """PCK curves of the predictions after each alignment, and of the mean pose.

    The mean pose is aligned by "root+bone".
    """
    hands, truth, valid = predicted.keypoints3d, labels.keypoints3d, labels.valid
    found: dict[str, Curve] = {}
    for name in metrics.alignments(predicted.placed):
        label = "no alignment" if name == "none" else name
        found[label] = metrics.pck_to_50mm(hands, truth, valid, name)
    if baseline is not None:
        found["mean pose, root+bone"] = metrics.pck_to_50mm(baseline, truth, valid)
    return found


def _found(predicted: Predicted) -> dict[str, Any]:
    if predicted.found is None:
        return {}
    return {"hands_found": {"samples": predicted.found, "others": UNFOUND}}


def _depth_sigma(hands: np.ndarray, truth: np.ndarray, sigma: np.ndarray) -> dict[str, Any]:
    """How far placed depths may be off, and the share of wrists that are not farther off.

    Hands and truth (N, 21, 3), sigma (N,), metres.
    """
    known = np.isfinite(sigma)
    off = np.abs(hands[:, WRIST, 2] - truth[:, WRIST, 2])[known]
    return {
        "median_mm": median_sigma_mm(sigma),
        "wrists_within": float((off <= sigma[known]).mean()) if known.any() else None,
        "definition": f"{DEPTH_SIGMA}. wrists_within: the share whose true distance is within it, "
        "about 0.68 where size and camera are right and the errors are as expected.",
    }


def evaluated_arrays(predicted: Predicted, labels: Labels) -> dict[str, np.ndarray]:
    """The arrays of the NPZ file of an evaluation.

    `error_mm` is root-relative, 0 where a joint has no label.
    """
    hands, truth, valid = predicted.keypoints3d, labels.keypoints3d, labels.valid
    sigma = predicted.depth_sigma
    return {
        "key": labels.keys,
        "keypoints3d": hands.astype(np.float32),
        **({} if sigma is None else {"depth_sigma": sigma}),
        "truth3d": truth,
        "error_mm": joint_errors_mm(hands, truth, "root", valid).astype(np.float32),
        "valid": valid.astype(np.uint8),
        "unit": labels.units,
    }


def compare_evaluations(a: Evaluated, b: Evaluated, seed: int) -> dict[str, Any]:
    """The report of two evaluations of the same samples, ready for JSON.

    `a` and `b` are in one order.
    """
    placed = has_position(a.keypoints3d) and has_position(b.keypoints3d)
    first = metrics.all_errors_mm(a.keypoints3d, a.truth3d, a.valid, placed)
    second = metrics.all_errors_mm(b.keypoints3d, a.truth3d, a.valid, placed)
    return {
        "samples": len(a.keys),
        "measures": {"mpjpe_mm": metrics.MEASURES["mpjpe_mm"]},
        "interval": {"definition": intervals.DEFINITION, "units": len(np.unique(a.units))},
        "comparison": intervals.paired_table(first, second, a.valid, a.units, seed),
    }
