"""3D hand pose errors: alignments, joint errors, PCK curves and their area; joints without labels are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from ..contract.errors import HandclrError

Alignment = Literal["none", "root", "root+bone", "procrustes"]

WRIST = 0
REFERENCE_BONE = (0, 9)
FINGERS: dict[str, tuple[int, int, int, int]] = {
    "thumb": (1, 2, 3, 4),
    "index": (5, 6, 7, 8),
    "middle": (9, 10, 11, 12),
    "ring": (13, 14, 15, 16),
    "pinky": (17, 18, 19, 20),
}
JOINTS: tuple[str, ...] = (
    "wrist",
    *(f"thumb_{part}" for part in ("cmc", "mcp", "ip", "tip")),
    *(f"{finger}_{part}" for finger in list(FINGERS)[1:] for part in ("mcp", "pip", "dip", "tip")),
)

AUC_RANGES: dict[str, tuple[float, float, int]] = {"0-50": (0, 50, 100), "20-50": (20, 50, 15)}

DEFINITIONS: dict[Alignment, str] = {
    "none": "Camera-frame joints as predicted, without any alignment.",
    "root": "Prediction and truth are each moved so that the wrist is the origin.",
    "root+bone": "Wrist at the origin, and the prediction scaled so that its bone from the wrist to the "
    "middle finger's base has the true length (the SiMHand protocol).",
    "procrustes": "The prediction is moved, rotated and scaled onto the truth by least squares over the joints with "
    "labels, without reflection.",
}
MEASURES: dict[str, str] = {
    "mpjpe_mm": "Euclidean distance of each joint from its label in mm: of each joint the mean over the samples that "
    "have its label, then the mean over the joints (the plain mean where no label is missing). All 21 joints count, "
    "the wrist too, whose error is 0 after root alignment.",
    "pck_auc": "Area under the share of joints within a threshold, thresholds included, as a share of the full area: "
    "trapezoids over 100 thresholds from 0 to 50 mm and 15 from 20 to 50 mm; of each joint over the samples that have "
    "its label, then the mean over the joints.",
    "mpjpe_mm_by_finger": "The mean of the finger's four joints in mpjpe_mm_by_joint; the wrist is in none.",
    "mpjpe_mm_of_samples": "Quantiles over the samples of the mean over a sample's labelled joints.",
}

# Shorter than any bone that a model means: dividing by it would only blow up rounding noise.
_NO_LENGTH = 1e-12


def root_relative(x: np.ndarray) -> np.ndarray:
    """Move the wrist to the origin; (..., 21, 3) in, the same shape and unit out."""
    return x - x[..., WRIST : WRIST + 1, :]


def bone_scaled(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Give the root-relative prediction the true length of the reference bone.

    (..., 21, 3) metres in and out, wrist at the origin. The paper's alignment: no rotation. Where the bone
    has no length in either, the scale stays 1.
    """
    start, end = REFERENCE_BONE
    pred_length = np.linalg.norm(pred[..., end, :] - pred[..., start, :], axis=-1)
    true_length = np.linalg.norm(truth[..., end, :] - truth[..., start, :], axis=-1)
    usable = (pred_length > _NO_LENGTH) & (true_length > _NO_LENGTH)
    scale = np.where(usable, true_length, 1.0) / np.where(usable, pred_length, 1.0)
    return root_relative(pred) * scale[..., None, None]


def procrustes(pred: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Align each prediction to its truth by the best similarity transform without a reflection.

    (N, 21, 3) metres in and out, in the frame of the truth; fitted on the joints that are `valid` (N, 21), applied to
    all. Umeyama's closed form; FreiHAND's official script lets the rotation mirror the hand, this does not. A
    prediction without extent lands on the truth's centroid.
    """
    mask = _mask(valid, pred)[..., None]
    share = mask / mask.sum(axis=1, keepdims=True)
    pred_mean = (pred * share).sum(axis=1, keepdims=True)
    true_mean = (truth * share).sum(axis=1, keepdims=True)
    pred_centred, true_centred = pred - pred_mean, (truth - true_mean) * mask
    u, singular, vt = np.linalg.svd(np.swapaxes(pred_centred, 1, 2) @ true_centred)
    signs = np.ones_like(singular)
    signs[:, -1] = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    rotation = (u * signs[:, None, :]) @ vt
    extent = np.square(pred_centred * mask).sum(axis=(1, 2))
    usable = extent > _NO_LENGTH**2
    scale = np.where(usable, (singular * signs).sum(axis=1), 1.0) / np.where(usable, extent, 1.0)
    return scale[:, None, None] * (pred_centred @ rotation) + true_mean


def joint_errors_mm(
    pred: np.ndarray, truth: np.ndarray, alignment: Alignment, valid: np.ndarray | None = None
) -> np.ndarray:
    """Measure the distance of every joint from its truth after an alignment.

    (N, 21, 3) metres in, (N, 21) float64 millimetres out, 0 where a joint is not `valid` (N, 21). Raises HandclrError
    where shapes differ, values are not finite, or a wrist or middle knuckle has no label.
    """
    pred, truth, mask = checked(pred, truth, valid)
    if alignment == "root":
        pred, truth = root_relative(pred), root_relative(truth)
    elif alignment == "root+bone":
        pred, truth = bone_scaled(pred, truth), root_relative(truth)
    elif alignment == "procrustes":
        pred = procrustes(pred, truth, mask)
    elif alignment != "none":
        raise ValueError(f"alignment {alignment!r} is not one of {', '.join(get_args(Alignment))}")
    return np.linalg.norm(pred - truth, axis=-1) * 1000.0 * mask


def joint_means(values: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Average (N, 21, ...) over the samples in which a joint is `valid` (N, 21): (21, ...), NaN where it never is."""
    mask = _mask(valid, values).reshape(*values.shape[:2], *(1,) * (values.ndim - 2))
    with np.errstate(invalid="ignore"):
        return (values * mask).sum(axis=0) / mask.sum(axis=0)


def mean_over_joints(by_joint: np.ndarray, axis: int = 0) -> np.ndarray:
    """Average over the joints of `axis` that are not NaN: those with a label anywhere."""
    return np.nanmean(by_joint, axis=axis)


def pck_curve(errors_mm: np.ndarray, thresholds_mm: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Compute the share of correct joints at each threshold: per joint, then the mean over joints.

    (N, 21) mm and (T,) mm in, (T,) shares in 0..1 out. A joint is correct where its error is at most the
    threshold; those that are not `valid` (N, 21) do not count.
    """
    shares = [mean_over_joints(joint_means(errors_mm <= threshold, valid)) for threshold in thresholds_mm]
    return np.array(shares)


def area_shares(errors_mm: np.ndarray, low: float, high: float, steps: int) -> np.ndarray:
    """What each error adds to the area under the PCK curve from `low` to `high` mm: any shape in, 0..1 out.

    Trapezoids over `steps` evenly spaced thresholds, both ends included: an error counts at every threshold that it
    does not exceed, half at the ends. The area is the average of these shares, over samples, then over joints.
    """
    shares = (steps - 0.5 - np.arange(steps + 1)) / (steps - 1)
    shares[[0, -1]] = 1, 0
    return shares[np.searchsorted(np.linspace(low, high, steps), errors_mm, side="left")]


def pck_auc(errors_mm: np.ndarray, low: float, high: float, steps: int, valid: np.ndarray | None = None) -> float:
    """Compute the area under the PCK curve from `low` to `high` mm, as a share of the full area.

    (N, 21) mm in, 0..1 out; joints that are not `valid` (N, 21) do not count.
    """
    return float(mean_over_joints(joint_means(area_shares(errors_mm, low, high, steps), valid)))


def pck_to_50mm(
    pred: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None, alignment: Alignment = "root+bone"
) -> tuple[np.ndarray, np.ndarray, float]:
    """Compute the PCK curve from 0 to 50 mm, and its area, ready for a plot.

    (N, 21, 3) metres in. Out: thresholds (101,) in mm, shares (101,) in 0..1, and the area over 100 thresholds.
    Raises HandclrError as `joint_errors_mm`.
    """
    errors, thresholds = joint_errors_mm(pred, truth, alignment, valid), np.linspace(0, 50, 101)
    return thresholds, pck_curve(errors, thresholds, valid), pck_auc(errors, *AUC_RANGES["0-50"], valid)


def all_errors_mm(
    pred: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None, placed: bool = True
) -> dict[Alignment, np.ndarray]:
    """`joint_errors_mm` after each alignment; without "none" where predictions are not `placed` in the camera frame."""
    names = [name for name in DEFINITIONS if placed or name != "none"]
    return {name: joint_errors_mm(pred, truth, name, valid) for name in names}


def summarise(errors: Mapping[Alignment, np.ndarray], valid: np.ndarray | None = None) -> dict[str, Any]:
    """Turn errors (N, 21) mm after each alignment into a table ready for JSON.

    Of each: `mpjpe_mm`, `pck_auc` per threshold range, `mpjpe_mm_by_joint`, `mpjpe_mm_by_finger`,
    `mpjpe_mm_of_samples` and a `definition`; MEASURES says what they are. A joint without any label is None.
    """
    return {name: {**_summary(values, valid), "definition": DEFINITIONS[name]} for name, values in errors.items()}


def evaluate_pose(
    pred: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None, placed: bool = True
) -> dict[str, Any]:
    """Compute the metrics of a set of predictions (N, 21, 3) metres: `summarise` of `all_errors_mm`."""
    return summarise(all_errors_mm(pred, truth, valid, placed), valid)


def checked(
    pred: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both as float64 (N, 21, 3) and the mask bool (N, 21), or raise HandclrError."""
    pred, truth = np.asarray(pred, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if pred.shape != truth.shape or pred.ndim != 3 or pred.shape[1:] != (len(JOINTS), 3):
        raise HandclrError(
            f"predictions {pred.shape} and ground truth {truth.shape} must both have the shape (N, 21, 3); "
            "predict exactly the samples that are evaluated"
        )
    if not len(pred):
        raise HandclrError("there is no prediction to evaluate; check that the input holds labelled samples")
    mask = _mask(valid, pred)
    for name, bad, advice in (
        ("predictions hold NaN or infinite values", ~np.isfinite(pred), "use another checkpoint or a lower rate"),
        ("ground-truth poses hold NaN or infinite values", ~np.isfinite(truth), "drop the samples without labels"),
        ("samples have no label of the wrist or the middle knuckle", ~mask[:, REFERENCE_BONE], "drop them"),
    ):
        count = int(bad.reshape(len(pred), -1).any(axis=1).sum())
        if count:
            raise HandclrError(f"{count} of {len(pred)} {name}; {advice}")
    return pred, truth, mask


def _mask(valid: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    return np.ones(values.shape[:2], bool) if valid is None else np.asarray(valid, bool)


def _summary(errors: np.ndarray, valid: np.ndarray | None) -> dict[str, Any]:
    mask = _mask(valid, errors)
    by_joint = joint_means(errors, mask)
    fingers = {name: by_joint[list(joints)] for name, joints in FINGERS.items()}
    low, median, high = np.percentile((errors * mask).sum(axis=1) / mask.sum(axis=1), (5, 50, 95)).tolist()
    return {
        "mpjpe_mm": float(mean_over_joints(by_joint)),
        "pck_auc": {f"{name}mm": pck_auc(errors, *limits, mask) for name, limits in AUC_RANGES.items()},
        "mpjpe_mm_by_joint": {name: _number(value) for name, value in zip(JOINTS, by_joint, strict=True)},
        "mpjpe_mm_by_finger": {
            name: None if np.isnan(values).all() else float(mean_over_joints(values))
            for name, values in fingers.items()
        },
        "mpjpe_mm_of_samples": {"p5": low, "median": median, "p95": high},
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
