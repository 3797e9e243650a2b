"""The pictures of the page, each as a data URI with an alternative text."""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import INTRINSICS, KEYPOINTS_2D
from ..contract.index import ShardIndex
from ..contract.sample import Sample
from ..evaluation.metrics import pck_to_50mm
from ..hand.alignment import root_relative
from ..hand.camera import project
from ..similarity.quality import pair_distance_mm
from .artefacts import Artefacts
from .curves import pck_plot, variance_plot
from .pairs_page import choose_rows, spread
from .sheets import draw_skeleton

TILE = 160
_QUALITY = 88


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, its alternative text, and the caption below it."""

    uri: str
    alt: str
    caption: str = ""


# Pictures that stand side by side.
Group = list[Picture]


def crop_groups(artefacts: Artefacts, count: int) -> list[Group]:
    """Crops with the keypoints found in them, at even distances through the shard."""
    index = artefacts.hands_index
    samples = [index[row] for row in spread(len(index), count)]
    return [[_drawn(sample, f"A crop of {sample.video}", _where(sample))] for sample in samples]


def pair_groups(artefacts: Artefacts, count: int) -> list[Group]:
    """Queries beside their nearest positives, at even ranks of distance from near to far."""
    pairs, index = artefacts.pair_arrays, artefacts.hands_index
    targets = pairs.get("target", pairs["key"])
    positive, distance = pairs["positive"][:, 0], pairs["distance"][:, 0]
    groups = []
    for row in choose_rows(distance, "quantiles", count).tolist():
        keys = pairs["key"][row].decode(), targets[positive[row]].decode()
        query, other = (index[index.row(key)] for key in keys)
        apart = f"distance {distance[row]:.3f}{_true_distance(artefacts.truth_index, keys)}"
        words = f"{Path(other.video).stem}, {apart}"
        left = _drawn(query, f"Query, from {query.video}", Path(query.video).stem)
        right = _drawn(other, f"Positive, from {other.video}", words)
        groups.append([left, right])
    return groups


def skeleton_groups(artefacts: Artefacts, count: int) -> list[Group]:
    """True and predicted skeletons on test crops, at even ranks of the first model's error.

    The best crop comes first. Predictions have no place in space: their wrist is put on the true
    one before they are projected.
    """
    first = artefacts.models[0].predicted
    errors = first["error_mm"].mean(axis=1)
    rows = np.argsort(errors, kind="stable")[spread(len(errors), count)]
    return [_skeletons(artefacts, first["key"][row], first["truth3d"][row]) for row in rows]


def _skeletons(artefacts: Artefacts, key: bytes, truth: np.ndarray) -> Group:
    """One test crop with its true skeleton (21, 3) metres, then with that of each model."""
    sample = artefacts.test_index[artefacts.test_index.row(key.decode())]
    camera = sample.read(INTRINSICS)
    group = [_tile(sample.image, _projected(truth, camera), "True skeleton", "truth")]
    for model in artefacts.models:
        row = model.rows[key]
        hand, error = model.predicted["keypoints3d"][row], model.predicted["error_mm"][row]
        points = _projected(root_relative(hand) + truth[:1], camera)
        words = f"{model.label}, {error.mean():.0f} mm"
        group.append(_tile(sample.image, points, f"Skeleton predicted {words} off", words))
    return group


def variance_picture(artefacts: Artefacts) -> Picture:
    """The variance that the axes of the pose embedding explain."""
    ratio = artefacts.pose_arrays["explained_variance_ratio"]
    alt = f"Explained variance of {len(ratio)} components, together {ratio.sum():.1%}"
    return _plotted(lambda path: variance_plot(ratio, path), alt)


def loss_picture(run: Path, alt: str) -> Picture:
    """The loss curve that a trainer has drawn in its run directory."""
    path = run / "loss.png"
    if not path.is_file():
        raise HandclrError(f"{path}: missing; run the trainer again to draw it")
    return Picture(_uri("png", path.read_bytes()), alt)


def pck_picture(artefacts: Artefacts, mean_pose: np.ndarray) -> Picture:
    """PCK curves of all models and of the training set's mean pose (21, 3) metres.

    They are aligned by root and bone.
    """
    curves = {}
    for model in artefacts.models:
        predicted = model.predicted
        curves[model.label] = pck_to_50mm(predicted["keypoints3d"], predicted["truth3d"])
    truth = artefacts.models[0].predicted["truth3d"]
    curves["mean pose"] = pck_to_50mm(np.broadcast_to(mean_pose, truth.shape), truth)
    areas = ", ".join(f"{name} {area:.3f}" for name, (_, _, area) in curves.items())
    return _plotted(lambda path: pck_plot(curves, path), f"PCK curves; area under each: {areas}")


def _true_distance(truth: ShardIndex, keys: tuple[str, str]) -> str:
    """How far apart the true hands of a pair are, as words; empty where one is not known."""
    if keys[0] not in truth or keys[1] not in truth:
        return ""
    first, second = (truth[truth.row(key)].keypoints3d[None] for key in keys)
    return f", {pair_distance_mm(first, second)[0]:.0f} mm"


def _where(sample: Sample) -> str:
    info = sample.info
    side = f"{info.get('hand', 'unknown')}{', mirrored' if info.get('flipped') else ''}"
    return f"{Path(sample.video).stem}, frame {info.get('frame', '?')}, {side}"


def _projected(hand: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Project (21, 3) metres to (21, 2) crop pixels; joints behind the camera are NaN."""
    points = project(hand.astype(np.float64), camera.astype(np.float64))
    return np.where(hand[:, 2:] > 0, points, math.nan)


def _drawn(sample: Sample, alt: str, caption: str) -> Picture:
    return _tile(sample.image, sample.keypoints2d if KEYPOINTS_2D in sample else None, alt, caption)


def _tile(image: np.ndarray, keypoints2d: np.ndarray | None, alt: str, caption: str) -> Picture:
    import cv2

    scale = TILE / image.shape[0]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    tile = cv2.resize(image, (TILE, TILE), interpolation=how)
    if keypoints2d is not None:
        tile = draw_skeleton(tile, keypoints2d, scale)
    bgr, quality = cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    data = cv2.imencode(".jpg", bgr, quality)[1]
    return Picture(_uri("jpeg", data.tobytes()), alt, caption)


def _plotted(plot: Callable[[Path], None], alt: str) -> Picture:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plot.png"
        plot(path)
        return Picture(_uri("png", path.read_bytes()), alt)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
