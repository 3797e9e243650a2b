"""The metrics of 3D hand poses: MPJPE, PCK curves and their area.

Joints without labels are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..hand.alignment import Alignment, joint_errors_mm, joint_means, mask_of, mean_over_joints
from ..hand.joints import FINGERS, JOINT_NAMES

AUC_RANGES: dict[str, tuple[float, float, int]] = {"0-50": (0, 50, 100), "20-50": (20, 50, 15)}

DEFINITIONS: dict[Alignment, str] = {
    "none": "Camera-frame joints as predicted, without any alignment.",
    "root": "Prediction and truth are each moved so that the wrist is the origin.",
    "root+bone": (
        "Wrist at the origin, and the prediction scaled so that its bone from the wrist "
        "to the middle finger's base has the true length (the SiMHand protocol)."
    ),
    "procrustes": (
        "The prediction is moved, rotated and scaled onto the truth by least squares "
        "over the joints with labels, without reflection."
    ),
    "procrustes+reflection": (
        "As procrustes, but the prediction may also be mirrored where that fits better: the "
        "alignment of FreiHAND's and DexYCB's own scripts. A mirror image of the truth has no "
        "error after it."
    ),
}
MEASURES: dict[str, str] = {
    "mpjpe_mm": (
        "Euclidean distance of each joint from its label in mm: "
        "of each joint the mean over the samples that have its label, "
        "then the mean over the joints (the plain mean where no label is missing). "
        "All 21 joints count, the wrist too, whose error is 0 after root alignment."
    ),
    "pck_auc": (
        "Area under the share of joints within a threshold, thresholds included, as a share "
        "of the full area: trapezoids over 100 thresholds from 0 to 50 mm and 15 from 20 to 50 mm; "
        "of each joint over the samples that have its label, then the mean over the joints."
    ),
    "mpjpe_mm_by_finger": (
        "The mean of the finger's four joints in mpjpe_mm_by_joint; the wrist is in none."
    ),
    "mpjpe_mm_of_samples": (
        "Quantiles over the samples of the mean over a sample's labelled joints."
    ),
}


def pck_curve(
    errors_mm: np.ndarray, thresholds_mm: np.ndarray, valid: np.ndarray | None = None
) -> np.ndarray:
    """Compute the share of correct joints at each threshold: per joint, then the mean over joints.

    (N, 21) mm and (T,) mm in, (T,) shares in 0..1 out. A joint is correct where its error is at
    most the threshold; those that are not `valid` (N, 21) do not count.
    """
    shares = []
    for threshold in thresholds_mm:
        shares.append(mean_over_joints(joint_means(errors_mm <= threshold, valid)))
    return np.array(shares)


def area_shares(errors_mm: np.ndarray, low: float, high: float, steps: int) -> np.ndarray:
    """What each error adds to the area under the PCK curve from `low` to `high` mm.

    Errors of any shape in mm in, shares in 0..1 of the same shape out. Trapezoids over `steps`
    evenly spaced thresholds, both ends included: an error counts at every threshold that it does
    not exceed, half at the ends. The area is the average of these shares, over samples, then over
    joints.
    """
    shares = (steps - 0.5 - np.arange(steps + 1)) / (steps - 1)
    shares[[0, -1]] = 1, 0
    return shares[np.searchsorted(np.linspace(low, high, steps), errors_mm, side="left")]


def pck_auc(
    errors_mm: np.ndarray, low: float, high: float, steps: int, valid: np.ndarray | None = None
) -> float:
    """Compute the area under the PCK curve from `low` to `high` mm, as a share of the full area.

    (N, 21) mm in, 0..1 out; joints that are not `valid` (N, 21) do not count.
    """
    return float(mean_over_joints(joint_means(area_shares(errors_mm, low, high, steps), valid)))


def pck_to_50mm(
    pred: np.ndarray,
    truth: np.ndarray,
    valid: np.ndarray | None = None,
    alignment: Alignment = "root+bone",
) -> tuple[np.ndarray, np.ndarray, float]:
    """Compute the PCK curve from 0 to 50 mm, and its area, ready for a plot.

    (N, 21, 3) metres in. Out: thresholds (101,) in mm, shares (101,) in 0..1, and the area over 100
    thresholds. Raises HandclrError as `joint_errors_mm`.
    """
    errors, thresholds = joint_errors_mm(pred, truth, alignment, valid), np.linspace(0, 50, 101)
    area = pck_auc(errors, *AUC_RANGES["0-50"], valid)
    return thresholds, pck_curve(errors, thresholds, valid), area


def all_errors_mm(
    pred: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None, placed: bool = True
) -> dict[Alignment, np.ndarray]:
    """`joint_errors_mm` after each of the `alignments`: (N, 21) mm by the name of the alignment."""
    return {name: joint_errors_mm(pred, truth, name, valid) for name in alignments(placed)}


def alignments(placed: bool) -> list[Alignment]:
    """The alignments to measure after.

    Without "none" where predictions are not `placed` in the camera frame.
    """
    return [name for name in DEFINITIONS if placed or name != "none"]


def summarise_errors(
    errors: Mapping[Alignment, np.ndarray], valid: np.ndarray | None = None
) -> dict[str, Any]:
    """Turn errors (N, 21) mm after each alignment into a table ready for JSON.

    Of each: `mpjpe_mm`, `pck_auc` per threshold range, `mpjpe_mm_by_joint`, `mpjpe_mm_by_finger`,
    `mpjpe_mm_of_samples` and a `definition`; MEASURES says what they are. A joint without any label
    is None.
    """
    return {
        name: {**_summary(values, valid), "definition": DEFINITIONS[name]}
        for name, values in errors.items()
    }


def evaluate_pose(
    pred: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None, placed: bool = True
) -> dict[str, Any]:
    """Compute MPJPE and PCK-AUC of predictions after each alignment, as a table ready for JSON.

    pred, truth: (N, 21, 3) metres; valid: bool (N, 21), the joints with labels, all where None;
    placed: whether predictions are placed in the camera frame, so that they can be measured without
    an alignment too. `summarise_errors` says what the table holds. Raises HandclrError where shapes
    differ, values are not finite, or a wrist or middle knuckle has no label.

    >>> import numpy as np, handclr_cli as handclr
    >>> truth = np.random.default_rng(0).normal(0, 0.05, (10, 21, 3))
    >>> scores = handclr.evaluate_pose(truth + [0.003, 0.004, 0.0], truth)
    >>> round(scores["none"]["mpjpe_mm"], 6), round(scores["root"]["mpjpe_mm"], 6)
    (5.0, 0.0)
    """
    return summarise_errors(all_errors_mm(pred, truth, valid, placed), valid)


def _summary(errors: np.ndarray, valid: np.ndarray | None) -> dict[str, Any]:
    mask = mask_of(valid, errors)
    by_joint = joint_means(errors, mask)
    of_samples = (errors * mask).sum(axis=1) / mask.sum(axis=1)
    low, median, high = np.percentile(of_samples, (5, 50, 95)).tolist()
    areas, joints, fingers = {}, {}, {}
    for name, limits in AUC_RANGES.items():
        areas[f"{name}mm"] = pck_auc(errors, *limits, mask)
    for name, value in zip(JOINT_NAMES, by_joint, strict=True):
        joints[name] = None if np.isnan(value) else float(value)
    for name, numbers in FINGERS.items():
        values = by_joint[list(numbers)]
        fingers[name] = None if np.isnan(values).all() else float(mean_over_joints(values))
    return {
        "mpjpe_mm": float(mean_over_joints(by_joint)),
        "pck_auc": areas,
        "mpjpe_mm_by_joint": joints,
        "mpjpe_mm_by_finger": fingers,
        "mpjpe_mm_of_samples": {"p5": low, "median": median, "p95": high},
    }
