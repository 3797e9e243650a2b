"""The data sets' own protocols.

FreiHAND's pred.json and scores.txt, DexYCB's result file, AssemblyHands' error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from ..contract.output import atomic_write
from ..hand.alignment import checked, joint_means, mean_over_joints, root_relative
from .metrics import pck_auc

# Images of FreiHAND's evaluation split; its script needs all of them.
FREIHAND_SAMPLES = 3960
# FreiHAND's script adds this to the extents, which changes the eighth digit.
_EXTENT = 1e-8
_AUC_MM = (0, 50, 100)


def freihand_scores(pred: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The twelve numbers of FreiHAND's scores.txt, in its order.

    Takes (N, 21, 3) metres in the camera frame. Means in cm: of each joint over the samples, then
    over the joints. AUC: the area under each joint's PCK curve at 100 thresholds from 0 to 5 cm,
    which count themselves, then the mean over the joints. `al`: `official_procrustes`. The mesh is
    not predicted: its means and areas are what the script prints where there is none, and its
    F-scores are those of the one point in pred.json that stands for it, 0.
    """
    pred, truth, _ = checked(pred, truth)
    scores: dict[str, float] = {}
    for name, hands in (("xyz", pred), ("xyz_al", official_procrustes(pred, truth))):
        error, area = _mean_and_area(1000 * hands, 1000 * truth)
        scores |= {f"{name}_mean3d": error / 10, f"{name}_auc3d": area}
    for name in ("mesh", "mesh_al"):
        scores |= {f"{name}_mean3d": -100.0, f"{name}_auc3d": -1.0}
    return scores | {f"{name}_{mm}": 0.0 for mm in (5, 15) for name in ("f_score", "f_al_score")}


def write_freihand_results(
    folder: str, pred: np.ndarray, scores: dict[str, float], position: np.ndarray
) -> None:
    """Write `pred.json` and `scores.txt` into a folder, which is made if it is not there.

    `pred.json` is [joints, vertices], both in the order of `position` (N,), that in the split: (21,
    3) metres in the camera frame, and for the mesh, which is not predicted, one vertex at the
    camera. Raises HandclrError where the positions are not 0 to N - 1.
    """
    order = _complete(position)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HandclrError(f"cannot write {folder}: {error.strerror}") from error
    answer = [np.asarray(pred, np.float64)[order].tolist(), [[[0.0, 0.0, 0.0]]] * len(order)]
    with atomic_write(os.path.join(folder, "pred.json"), "json") as file:
        file.write(json.dumps(answer).encode())
    with atomic_write(os.path.join(folder, "scores.txt"), "scores") as file:
        for name, value in scores.items():
            file.write(f"{name}: {value:f}\n".encode())


def dexycb_scores(pred: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, float]]:
    """The three metrics of DexYCB's hand pose evaluation, each as MPJPE in mm and as AUC.

    Takes (N, 21, 3) metres in the camera frame. Absolute; root-relative, the wrist subtracted from
    both; `official_procrustes`, as FreiHAND's. AUC at 100 thresholds from 0 to 50 mm. Samples
    without a hand, which the official evaluation skips, are not among labelled crops. Left and
    right hands count alike: mirroring both prediction and truth changes no distance.
    """
    pred, truth, _ = checked(pred, truth)
    pred, truth = 1000 * pred, 1000 * truth
    hands = {
        "absolute": (pred, truth),
        "root-relative": (root_relative(pred), root_relative(truth)),
        "procrustes": (official_procrustes(pred, truth), truth),
    }
    scores = {name: _mean_and_area(*pair) for name, pair in hands.items()}
    return {name: {"mpjpe_mm": error, "auc": area} for name, (error, area) in scores.items()}


def write_dexycb_results(
    path: str, pred: np.ndarray, position: np.ndarray, mirrored: np.ndarray
) -> None:
    """Write DexYCB's result file, a line per sample.

    A line is the sample's position in the split, then 63 numbers x, y, z in mm. pred (N, 21, 3)
    metres in the crop's camera frame; where `mirrored` (N,) the hand is mirrored back into the
    source. In the order of `position` (N,). Raises HandclrError where a position is unknown or
    comes twice.
    """
    order = _known(position)
    hands = 1000 * in_source_frame(pred, mirrored)[order].reshape(len(order), -1)
    with atomic_write(path, "results") as file:
        for number, values in zip(position[order].tolist(), hands.tolist(), strict=True):
            line = ",".join(f"{value:.6f}" for value in values)
            file.write(f"{number},{line}\n".encode())


def assemblyhands_scores(
    pred: np.ndarray, truth: np.ndarray, valid: np.ndarray, left: np.ndarray
) -> dict[str, float | None]:
    """AssemblyHands' error, wrist-relative in mm.

    Of each joint the mean over the samples that have its label, then the mean over joints.
    (N, 21, 3) metres, valid and left bool (N, 21) and (N,). `mpjpe_mm` is the mean over all 42
    joints, `right_mm` and `left_mm` over the 21 of a hand; None where a set has no such hand. The
    published code does not say what happens to a joint that never has a label, which is left out
    here, nor to a hand without a wrist, which import skips.
    """
    pred, truth, valid = checked(pred, truth, valid)
    errors = 1000 * np.linalg.norm(root_relative(pred) - root_relative(truth), axis=-1)
    hands = {"right_mm": ~left, "left_mm": left}
    scores: dict[str, float | None] = {"mpjpe_mm": None, **dict.fromkeys(hands)}
    joints = []
    for name, rows in hands.items():
        if rows.any():
            joints.append(joint_means(errors[rows], valid[rows]))
            scores[name] = float(mean_over_joints(joints[-1]))
    scores["mpjpe_mm"] = float(mean_over_joints(np.concatenate(joints)))
    return scores


def official_procrustes(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Align as FreiHAND's script: centred, of unit extent, turned *or mirrored*, scaled.

    (N, 21, 3) in any unit. Unlike in `alignment.procrustes` the orthogonal matrix may be a
    reflection; "procrustes+reflection" of `evaluate` differs by what the script adds to the
    extents alone.
    """
    pred_mean, true_mean = pred.mean(axis=1, keepdims=True), truth.mean(axis=1, keepdims=True)
    pred_centred, true_centred = pred - pred_mean, truth - true_mean
    pred_extent, true_extent = _extent(pred_centred), _extent(true_centred)
    shape, target = pred_centred / pred_extent, true_centred / true_extent
    u, singular, vt = np.linalg.svd(np.swapaxes(shape, 1, 2) @ target)
    return shape @ (u @ vt) * singular.sum(axis=1)[:, None, None] * true_extent + true_mean


def in_source_frame(hands: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Mirror back the hands (N, 21, 3) whose crops are `mirrored` (N,).

    x of the camera frame changes its sign.
    """
    signs = np.where(np.asarray(mirrored, bool)[:, None] & (np.arange(3) == 0), -1.0, 1.0)
    return np.asarray(hands, np.float64) * signs[:, None]


# What the scores of each protocol are measured after, where a name alone does not say it.
DEFINITIONS: dict[str, str] = {
    "freihand": (
        "xyz: camera frame, without any alignment; xyz_al: the official script's Procrustes, "
        "which may mirror the hand (procrustes+reflection, not procrustes); means in cm."
    ),
    "dexycb": (
        "procrustes: the official script's, which may mirror the hand (procrustes+reflection "
        "elsewhere in this report)."
    ),
    "assemblyhands": "Wrist-relative: no scale, no rotation.",
}
SCORES: dict[str, Callable[[np.ndarray, np.ndarray], dict[str, Any]]] = {
    "freihand": freihand_scores,
    "dexycb": dexycb_scores,
}


def require(name: str, placed: bool, valid: np.ndarray, position: np.ndarray) -> None:
    """Raise HandclrError where a protocol of SCORES cannot be applied, before the work.

    Hands must be `placed` in the camera frame, all joints `valid` (N, 21), and each `position` (N,)
    in the split known and unique; FreiHAND needs the whole split.
    """
    if not placed:
        raise HandclrError(
            "its metrics need positions in the camera frame, and the hands have none", setting=name
        )
    lacking = int((~valid).any(axis=1).sum())
    if lacking:
        raise HandclrError(
            f"{lacking} of {len(valid)} samples lack the labels of some joints", setting=name
        )
    (_complete if name == "freihand" else _known)(position)


def _extent(centred: np.ndarray) -> np.ndarray:
    return np.linalg.norm(centred, axis=(1, 2), keepdims=True) + _EXTENT


def _mean_and_area(pred_mm: np.ndarray, truth_mm: np.ndarray) -> tuple[float, float]:
    errors = np.linalg.norm(pred_mm - truth_mm, axis=-1)
    return float(mean_over_joints(joint_means(errors))), pck_auc(errors, *_AUC_MM)


def _known(position: np.ndarray) -> np.ndarray:
    """The order of positions; raises HandclrError where one is unknown or comes twice."""
    unknown = int((position < 0).sum())
    if unknown:
        raise HandclrError(
            f"{unknown} of {len(position)} samples have no 'index' in their JSON; "
            "import the set again"
        )
    order = np.argsort(position, kind="stable")
    twice = np.flatnonzero(np.diff(position[order]) == 0)
    if len(twice):
        raise HandclrError(
            f"index {position[order][twice[0]]} comes twice in the input; give one split alone"
        )
    return order


def _complete(position: np.ndarray) -> np.ndarray:
    """The order of positions; raises HandclrError where they are not 0 to N - 1."""
    order = _known(position)
    missing = int(position.max()) + 1 - len(position)
    if missing:
        first = np.flatnonzero(position[order] != np.arange(len(order)))[0]
        raise HandclrError(
            f"{missing} of {position.max() + 1} images of the split are missing, "
            f"the first is {first}"
        )
    return order
