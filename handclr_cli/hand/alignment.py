"""Alignments of 3D hands and the joint errors after them; joints without labels are left out."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from ..contract.errors import HandclrError
from .joints import JOINT_NAMES, REFERENCE_BONE, WRIST

Alignment = Literal["none", "root", "root+bone", "procrustes", "procrustes+reflection"]

# Shorter than any bone of a hand: dividing by it would only amplify rounding errors.
_NO_LENGTH = 1e-12


def root_relative(x: np.ndarray) -> np.ndarray:
    """Move the wrist to the origin; (..., 21, 3) in, the same shape and unit out.

    >>> import numpy as np, handclr_cli as handclr
    >>> handclr.root_relative(np.full((2, 21, 3), 0.4)).any()
    np.False_
    """
    return x - x[..., WRIST : WRIST + 1, :]


def bone_scaled(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Give the root-relative prediction the true length of the reference bone.

    (..., 21, 3) metres in and out, wrist at the origin. The paper's alignment: no rotation. Where
    the bone has no length in either, the scale stays 1.

    >>> import numpy as np, handclr_cli as handclr
    >>> truth = handclr.root_relative(np.random.default_rng(0).normal(size=(2, 21, 3)))
    >>> bool(np.allclose(handclr.bone_scaled(0.5 * truth, truth), truth))
    True
    """
    start, end = REFERENCE_BONE
    pred_length = np.linalg.norm(pred[..., end, :] - pred[..., start, :], axis=-1)
    true_length = np.linalg.norm(truth[..., end, :] - truth[..., start, :], axis=-1)
    usable = (pred_length > _NO_LENGTH) & (true_length > _NO_LENGTH)
    scale = np.where(usable, true_length, 1.0) / np.where(usable, pred_length, 1.0)
    return root_relative(pred) * scale[..., None, None]


def procrustes(
    pred: np.ndarray,
    truth: np.ndarray,
    valid: np.ndarray | None = None,
    reflection: bool = False,
) -> np.ndarray:
    """Align each prediction to its truth by the best similarity transform.

    (N, 21, 3) metres in and out, in the frame of the truth; fitted on the joints that are `valid`
    (N, 21), applied to all. Umeyama's closed form. With `reflection` the hand may also be mirrored
    where that fits better, as in the official scripts of FreiHAND and DexYCB. A prediction without
    extent lands on the truth's centroid.

    >>> import numpy as np, handclr_cli as handclr
    >>> truth = np.random.default_rng(0).normal(size=(2, 21, 3))
    >>> turned = 3 * truth @ np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]) + 7
    >>> bool(np.allclose(handclr.procrustes(turned, truth), truth))
    True
    """
    mask = mask_of(valid, pred)[..., None]
    share = mask / mask.sum(axis=1, keepdims=True)
    pred_mean = (pred * share).sum(axis=1, keepdims=True)
    true_mean = (truth * share).sum(axis=1, keepdims=True)
    pred_centred, true_centred = pred - pred_mean, (truth - true_mean) * mask
    u, singular, vt = np.linalg.svd(np.swapaxes(pred_centred, 1, 2) @ true_centred)
    signs = np.ones_like(singular)
    if not reflection:
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

    (N, 21, 3) metres in, (N, 21) float64 millimetres out, 0 where a joint is not `valid` (N, 21).
    Raises HandclrError where shapes differ, values are not finite, or a wrist or middle knuckle has
    no label.

    >>> import numpy as np, handclr_cli as handclr
    >>> truth = np.random.default_rng(0).normal(0, 0.05, (2, 21, 3))
    >>> handclr.joint_errors_mm(truth + [0.0, 0.0, 0.01], truth, "none").round(6).max()
    np.float64(10.0)
    """
    pred, truth, mask = checked(pred, truth, valid)
    if alignment == "root":
        pred, truth = root_relative(pred), root_relative(truth)
    elif alignment == "root+bone":
        pred, truth = bone_scaled(pred, truth), root_relative(truth)
    elif alignment in ("procrustes", "procrustes+reflection"):
        pred = procrustes(pred, truth, mask, reflection=alignment != "procrustes")
    elif alignment != "none":
        raise ValueError(f"alignment {alignment!r} is not one of {', '.join(get_args(Alignment))}")
    return np.linalg.norm(pred - truth, axis=-1) * 1000.0 * mask


def joint_means(values: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Average (N, 21, ...) over the samples in which a joint is `valid` (N, 21).

    (21, ...) out, NaN where a joint never is.
    """
    mask = mask_of(valid, values).reshape(*values.shape[:2], *(1,) * (values.ndim - 2))
    with np.errstate(invalid="ignore"):
        return (values * mask).sum(axis=0) / mask.sum(axis=0)


def mean_over_joints(by_joint: np.ndarray, axis: int = 0) -> np.ndarray:
    """Average over the joints of `axis` that are not NaN: those with a label anywhere."""
    return np.nanmean(by_joint, axis=axis)


def checked(
    pred: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both as float64 (N, 21, 3) and the mask bool (N, 21), or raise HandclrError."""
    pred, truth = np.asarray(pred, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if pred.shape != truth.shape or pred.ndim != 3 or pred.shape[1:] != (len(JOINT_NAMES), 3):
        raise HandclrError(
            f"predictions {pred.shape} and ground truth {truth.shape} "
            "must both have the shape (N, 21, 3); predict exactly the samples that are evaluated"
        )
    if not len(pred):
        raise HandclrError(
            "there is no prediction to evaluate; check that the input holds labelled samples"
        )
    mask = mask_of(valid, pred)
    _refuse(
        ~np.isfinite(pred),
        "predictions hold NaN or infinite values; use another checkpoint or a lower rate",
    )
    _refuse(
        ~np.isfinite(truth),
        "ground-truth poses hold NaN or infinite values; drop the samples without labels",
    )
    _refuse(
        ~mask[:, REFERENCE_BONE],
        "samples have no label of the wrist or the middle knuckle; drop them",
    )
    return pred, truth, mask


def _refuse(bad: np.ndarray, what: str) -> None:
    """Raise HandclrError where any value of a sample is bad, (N, ...) bool."""
    count = int(bad.reshape(len(bad), -1).any(axis=1).sum())
    if count:
        raise HandclrError(f"{count} of {len(bad)} {what}")


def mask_of(valid: np.ndarray | None, values: np.ndarray) -> np.ndarray:
    """Which joints count, bool (N, 21): those `valid` (N, 21), or all of `values` (N, 21, ...)."""
    return np.ones(values.shape[:2], bool) if valid is None else np.asarray(valid, bool)
