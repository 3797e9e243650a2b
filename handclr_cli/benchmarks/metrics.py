"""3D hand pose errors: alignments, joint errors, PCK curves and their area."""

from __future__ import annotations

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
    "procrustes": "The prediction is moved, rotated and scaled onto the truth by least squares, without reflection.",
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


def procrustes(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Align each prediction to its truth by the best similarity transform without a reflection.

    (N, 21, 3) metres in and out, in the frame of the truth. Umeyama's closed form; FreiHAND's official script
    lets the rotation mirror the hand, this does not. A prediction without extent lands on the truth's
    centroid.
    """
    pred_mean = pred.mean(axis=1, keepdims=True)
    true_mean = truth.mean(axis=1, keepdims=True)
    pred_centred, true_centred = pred - pred_mean, truth - true_mean
    u, singular, vt = np.linalg.svd(np.swapaxes(pred_centred, 1, 2) @ true_centred)
    signs = np.ones_like(singular)
    signs[:, -1] = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)
    rotation = (u * signs[:, None, :]) @ vt
    extent = np.square(pred_centred).sum(axis=(1, 2))
    usable = extent > _NO_LENGTH**2
    scale = np.where(usable, (singular * signs).sum(axis=1), 1.0) / np.where(usable, extent, 1.0)
    return scale[:, None, None] * (pred_centred @ rotation) + true_mean


def joint_errors_mm(pred: np.ndarray, truth: np.ndarray, alignment: Alignment) -> np.ndarray:
    """Measure the distance of every joint from its truth after an alignment.

    (N, 21, 3) metres in, (N, 21) float64 millimetres out. Raises HandclrError where shapes differ or values
    are not finite.
    """
    pred, truth = _checked(pred, truth)
    if alignment == "root":
        pred, truth = root_relative(pred), root_relative(truth)
    elif alignment == "root+bone":
        pred, truth = bone_scaled(pred, truth), root_relative(truth)
    elif alignment == "procrustes":
        pred = procrustes(pred, truth)
    elif alignment != "none":
        raise ValueError(f"alignment {alignment!r} is not one of {', '.join(get_args(Alignment))}")
    return np.linalg.norm(pred - truth, axis=-1) * 1000.0


def pck_curve(errors_mm: np.ndarray, thresholds_mm: np.ndarray) -> np.ndarray:
    """Compute the share of correct joints at each threshold: per joint, then the mean over joints.

    (N, 21) mm and (T,) mm in, (T,) shares in 0..1 out. A joint is correct where its error is at most the
    threshold.
    """
    return np.array([(errors_mm <= threshold).mean(axis=0).mean() for threshold in thresholds_mm])


def pck_auc(errors_mm: np.ndarray, low: float, high: float, steps: int) -> float:
    """Compute the area under the PCK curve from `low` to `high` mm, as a share of the full area.

    (N, 21) mm in, 0..1 out. Trapezoids over `steps` evenly spaced thresholds, both ends included.
    """
    curve = pck_curve(errors_mm, np.linspace(low, high, steps))
    # Even spacing: the mean height of the trapezoids is the area over the range.
    return float(((curve[1:] + curve[:-1]) / 2).mean())


def pck_to_50mm(pred: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Compute the PCK curve from 0 to 50 mm after "root+bone", and its area, ready for a plot.

    (N, 21, 3) metres in. Out: thresholds (101,) in mm, shares (101,) in 0..1, and the area over 100 thresholds.
    Raises HandclrError as `joint_errors_mm`.
    """
    errors, thresholds = joint_errors_mm(pred, truth, "root+bone"), np.linspace(0, 50, 101)
    return thresholds, pck_curve(errors, thresholds), pck_auc(errors, *AUC_RANGES["0-50"])


def evaluate_pose(pred: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Compute the metrics table of a set of predictions, ready for JSON.

    (N, 21, 3) metres in. Out: for each alignment `mpjpe_mm`, `pck_auc` per threshold range and a
    `definition`; under `joints` the mean error in mm of each joint after "root+bone". Raises HandclrError
    where there is no prediction, shapes differ or values are not finite.
    """
    result: dict[str, Any] = {}
    for alignment, definition in DEFINITIONS.items():
        errors = joint_errors_mm(pred, truth, alignment)
        result[alignment] = {
            "mpjpe_mm": float(errors.mean()),
            "pck_auc": {f"{name}mm": pck_auc(errors, *limits) for name, limits in AUC_RANGES.items()},
            "definition": definition,
        }
        if alignment == "root+bone":
            joints = dict(zip(JOINTS, errors.mean(axis=0).tolist(), strict=True))
    return {**result, "mpjpe_mm_by_joint_root+bone": joints}


def _checked(pred: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64 (N, 21, 3), or raise HandclrError."""
    pred, truth = np.asarray(pred, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if pred.shape != truth.shape or pred.ndim != 3 or pred.shape[1:] != (len(JOINTS), 3):
        raise HandclrError(
            f"predictions {pred.shape} and ground truth {truth.shape} must both have the shape (N, 21, 3); "
            "predict exactly the samples that are evaluated"
        )
    if not len(pred):
        raise HandclrError("there is no prediction to evaluate; check that the input holds labelled samples")
    for name, values, advice in (
        ("predictions", pred, "the model has diverged: lower its learning rate or use another checkpoint"),
        ("ground-truth poses", truth, "drop the samples without valid labels"),
    ):
        bad = int((~np.isfinite(values)).any(axis=(1, 2)).sum())
        if bad:
            raise HandclrError(f"{bad} of {len(values)} {name} hold NaN or infinite values; {advice}")
    return pred, truth
