"""The pictures of the page, each as a data URI with words for those who cannot see it."""

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
    """An image as a data URI, its alternative text, and words to stand below it."""

    uri: str
    alt: str
    caption: str = ""


# Pictures that belong together, side by side.
Group = list[Picture]


def crop_groups(artefacts: Artefacts, count: int) -> list[Group]:
    """Crops with the keypoints found in them, at even distances through the shard."""
    index = artefacts.hands_index
    samples = [index[row] for row in spread(len(index), count)]
    return [[_drawn(sample, f"A crop of {sample.video}", _where(sample))] for sample in samples]


def pair_groups(artefacts: Artefacts, count: int) -> list[Group]:
    """Queries beside their nearest positive, at even ranks of the distance from the nearest to the
    furthest pair.
    """
    pairs, index, truth = artefacts.pair_arrays, artefacts.hands_index, artefacts.truth_index
    targets, positive, distance = (
        pairs.get("target", pairs["key"]),
        pairs["positive"][:, 0],
        pairs["distance"][:, 0],
    )
    groups = []
    for row in choose_rows(distance, "quantiles", count).tolist():
        keys = [pairs["key"][row].decode(), targets[positive[row]].decode()]
        query, other = (index[index.row(key)] for key in keys)
        apart = f"distance {distance[row]:.3f}"
        if all(key in truth for key in keys):
            hands = [truth[truth.row(key)].keypoints3d[None] for key in keys]
            apart += f", {pair_distance_mm(*hands)[0]:.0f} mm"
        groups.append(
            [
                _drawn(query, f"Query, from {query.video}", Path(query.video).stem),
                _drawn(
                    other, f"Positive, from {other.video}", f"{Path(other.video).stem}, {apart}"
                ),
            ]
        )
    return groups


def skeleton_groups(artefacts: Artefacts, count: int) -> list[Group]:
    """True and predicted skeletons on test crops, at even ranks of the first model's error, the
    best first.

    Predictions know no place in space: they are put with their wrist on the true one, then
    projected.
    """
    index, models = artefacts.test_index, artefacts.models
    predicted = [
        {key: row for row, key in enumerate(model.predicted["key"].tolist())} for model in models
    ]
    errors = models[0].predicted["error_mm"].mean(axis=1)
    groups = []
    for row in np.argsort(errors, kind="stable")[spread(len(errors), count)].tolist():
        key = models[0].predicted["key"][row]
        sample = index[index.row(key.decode())]
        truth, camera = models[0].predicted["truth3d"][row], sample.read(INTRINSICS)
        group = [_tile(sample.image, _projected(truth, camera), "True skeleton", "truth")]
        for model, rows in zip(models, predicted, strict=True):
            hand, error = (model.predicted[name][rows[key]] for name in ("keypoints3d", "error_mm"))
            points = _projected(root_relative(hand) + truth[:1], camera)
            words = f"{model.label}, {error.mean():.0f} mm"
            group.append(_tile(sample.image, points, f"Skeleton predicted {words} off", words))
        groups.append(group)
    return groups


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
    """PCK curves of all models and of the training set's mean pose (21, 3) metres, aligned by root
    and bone.
    """
    truth = artefacts.models[0].predicted["truth3d"]
    hands = {
        model.label: (model.predicted["keypoints3d"], model.predicted["truth3d"])
        for model in artefacts.models
    }
    hands["mean pose"] = (np.broadcast_to(mean_pose, truth.shape), truth)
    curves = {name: pck_to_50mm(predicted, true) for name, (predicted, true) in hands.items()}
    areas = ", ".join(f"{name} {area:.3f}" for name, (_, _, area) in curves.items())
    return _plotted(lambda path: pck_plot(curves, path), f"PCK curves; area under each: {areas}")


def _where(sample: Sample) -> str:
    info = sample.info
    side = f"{info.get('hand', 'unknown')}{', mirrored' if info.get('flipped') else ''}"
    return f"{Path(sample.video).stem}, frame {info.get('frame', '?')}, {side}"


def _projected(hand: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Project (21, 3) metres to (21, 2) crop pixels; NaN, which is not drawn, where a joint is
    behind the camera.
    """
    points = project(hand.astype(np.float64), camera.astype(np.float64))
    return np.where(hand[:, 2:] > 0, points, math.nan)


def _drawn(sample: Sample, alt: str, caption: str) -> Picture:
    return _tile(sample.image, sample.keypoints2d if KEYPOINTS_2D in sample else None, alt, caption)


def _tile(image: np.ndarray, keypoints2d: np.ndarray | None, alt: str, caption: str) -> Picture:
    import cv2

    scale = TILE / image.shape[0]
    tile = cv2.resize(
        image, (TILE, TILE), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    if keypoints2d is not None:
        tile = draw_skeleton(tile, keypoints2d, scale)
    data = cv2.imencode(
        ".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )[1]
    return Picture(_uri("jpeg", data.tobytes()), alt, caption)


def _plotted(plot: Callable[[Path], None], alt: str) -> Picture:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plot.png"
        plot(path)
        return Picture(_uri("png", path.read_bytes()), alt)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
