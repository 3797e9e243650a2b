"""What predicts hands: a model of `handclr finetune`, or MediaPipe's hand landmarker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ..choices import MEDIAPIPE
from ..contract.errors import HandclrError
from ..contract.index import ShardIndex
from ..contract.provenance import file_checksum
from ..contract.sample import Sample
from ..contract.shipped import SHIPPED, weights_file
from ..hand.camera import to_source_axes
from ..hand.joints import REFERENCE_BONE
from ..work import cores
from .crops import Crop, read_crop
from .settings import PredictSettings

if TYPE_CHECKING:
    from ..footage.frames import Hand
    from ..footage.world_poses import WorldPoses
    from ..learning.posemodel import PoseModel, Poses
    from .guided import GuidedModel

    Found = tuple[Sample, Hand | HandclrError | None]

MEAN_BONE, MEASURED_BONE = "the training set's mean", "as measured"
OWN_BONE = "MediaPipe's median"
# What people call models that have a name.
NAMES = {SHIPPED: "handclr's model"}
_LEAST_MM = 1e-3
OnSkip = Callable[[HandclrError], None]


class Estimate(NamedTuple):
    """Hands of some crops: xyz (n, 21, 3) metres from the wrist, uv (n, 21, 2) in crop sides."""

    crops: list[Crop]
    xyz: np.ndarray
    uv: np.ndarray


class Sized(NamedTuple):
    """Hands xyz (N, 21, 3) in metres, their reference bone in mm, and what that is taken from."""

    xyz: np.ndarray
    bone_mm: float
    bone_of: str


class Estimator(Protocol):
    """Predicts hands of crops.

    `name` is what people call it, `checksums` are those of its files; `sees_crops`: whether it
    looks at the pictures of crops whose keypoints are known; `without_hand` counts the crops in
    which it found none.
    """

    name: str
    sees_crops: bool
    without_hand: int

    @property
    def checksums(self) -> dict[str, str]: ...

    def of_shards(self, index: ShardIndex, fov: float, on_skip: OnSkip) -> Iterator[Estimate]:
        """Predict the crops of an index in order; those that cannot be used go to `on_skip`."""
        ...

    def of_samples(
        self, samples: Iterable[Sample], side: int, fov: float, on_skip: OnSkip
    ) -> Iterator[Estimate]:
        """Predict crops of `side` pixels as they come, with or without a picture."""
        ...

    def sized(self, xyz: np.ndarray, bone_mm: float | None, person: np.ndarray) -> Sized:
        """Give hands the size of a measured reference bone, or the estimator's own.

        Those of one `person`, (N,) numbers, are of one hand.
        """
        ...


class ModelEstimator:
    """A model.pt, which looks at the crops; a guided one is told what the landmarker finds there.

    `alone`: it is told nothing.
    """

    sees_crops = True
    without_hand = 0

    def __init__(self, settings: PredictSettings) -> None:
        from ..learning.hardware import pick_device
        from ..learning.posemodel import load_model

        path = weights_file(settings.model)
        self.model: PoseModel = load_model(path, pick_device(settings.device))
        self._checksums = file_checksum(path)
        self.name = NAMES.get(settings.model, next(iter(self._checksums)))
        self._batch, self._workers = settings.batch, settings.workers
        self._guided: GuidedModel | None = None
        if self.model.is_guided and not settings.alone:
            from ..footage.world_poses import WorldPoses
            from .guided import GuidedModel

            poses = WorldPoses(settings.landmarker, settings.min_score, settings.workers)
            self._guided = GuidedModel(self.model, poses)

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of the model, and of the landmarker's networks if they were needed."""
        return self._checksums | (self._guided.checksums if self._guided else {})

    def of_shards(self, index: ShardIndex, fov: float, on_skip: OnSkip) -> Iterator[Estimate]:
        """As `Estimator`."""
        from ..learning.prediction import predict_crops, predict_samples

        read = partial(read_crop, fov_deg=fov)
        if self._guided:
            told = self._guided.told(index, on_skip)
            for crops, poses in predict_samples(self.model, told, read, self._batch, on_skip):
                yield self._estimate(crops, poses)
            return
        workers = cores.worker_count(self._workers)
        for _, crops, poses in predict_crops(
            self.model, index, read, self._batch, workers, on_skip
        ):
            yield self._estimate(crops, poses)

    def of_samples(
        self, samples: Iterable[Sample], side: int, fov: float, on_skip: OnSkip
    ) -> Iterator[Estimate]:
        """As `Estimator`."""
        from ..learning.prediction import predict_samples
        from .guided import known_landmarks

        told = known_landmarks(samples, side) if self._guided else ((one, None) for one in samples)
        read = partial(read_crop, fov_deg=fov, side=side)
        for crops, poses in predict_samples(self.model, told, read, self._batch, on_skip):
            yield self._estimate(crops, poses)

    def _estimate(self, crops: list[Crop], poses: Poses) -> Estimate:
        """Poses along the axes of the source's camera."""
        xyz, uv = poses
        if self.model.own_axes:
            cameras = np.array([crop.cut.camera for crop in crops])
            sides = np.array([crop.cut.side for crop in crops])
            xyz = to_source_axes(xyz.astype(np.float64), cameras, sides)
        return Estimate(crops, xyz, uv)

    def sized(self, xyz: np.ndarray, bone_mm: float | None, person: np.ndarray) -> Sized:
        """As `Estimator`: the model's metres are those of its training set's mean bone."""
        own_mm = 1000 * self.model.mean.bone
        if bone_mm is None:
            return Sized(xyz, round(own_mm, 4), MEAN_BONE)
        return _measured(xyz, bone_mm, person)


class LandmarkerEstimator:
    """MediaPipe's world landmarks, which `extract` and `keypoints` may have left in the crops."""

    name = "MediaPipe's hand landmarker"
    sees_crops = False

    def __init__(self, poses: WorldPoses) -> None:
        self._poses = poses
        self.without_hand = 0

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of the landmarker's networks."""
        return self._poses.checksums

    def of_shards(self, index: ShardIndex, fov: float, on_skip: OnSkip) -> Iterator[Estimate]:
        """As `Estimator`; crops in which no hand is found are counted and left out."""
        return self._estimates(self._poses.find(index), None, fov, on_skip)

    def of_samples(
        self, samples: Iterable[Sample], side: int, fov: float, on_skip: OnSkip
    ) -> Iterator[Estimate]:
        """As `Estimator`."""
        from ..footage.world_poses import known_hand

        found = ((sample, known_hand(sample)) for sample in samples)
        return self._estimates(found, side, fov, on_skip)

    def sized(self, xyz: np.ndarray, bone_mm: float | None, person: np.ndarray) -> Sized:
        """As `Estimator`: MediaPipe's metres are its own, and vary from frame to frame.

        A measured bone is the median of each person's.
        """
        if bone_mm is None:
            median_mm = float(np.median(_bones_mm(xyz))) if len(xyz) else 0.0
            return Sized(xyz, round(median_mm, 4), OWN_BONE)
        return _measured(xyz, bone_mm, person)

    def _estimates(
        self, found_hands: Iterable[Found], side: int | None, fov: float, on_skip: OnSkip
    ) -> Iterator[Estimate]:
        for sample, found in found_hands:
            if isinstance(found, HandclrError):
                on_skip(found)
                continue
            if found is None or found.world is None:
                self.without_hand += 1
                continue
            try:
                crop = read_crop(sample, fov, side)
            except HandclrError as error:
                on_skip(error)
                continue
            uv = found.keypoints / crop.cut.side
            yield Estimate([crop], found.world[None], uv[None])


def _measured(xyz: np.ndarray, bone_mm: float, person: np.ndarray) -> Sized:
    """Hands (N, 21, 3) whose median bone, for each `person`, (N,) numbers, is the measured one."""
    bones_mm, scale = _bones_mm(xyz), np.ones(len(xyz))
    for each in np.unique(person):
        own = person == each
        scale[own] = bone_mm / max(float(np.median(bones_mm[own])), _LEAST_MM)
    return Sized(xyz * scale[:, None, None], bone_mm, MEASURED_BONE)


def _bones_mm(xyz: np.ndarray) -> np.ndarray:
    """The reference bones (N,) in mm of hands (N, 21, 3) in metres."""
    start, end = REFERENCE_BONE
    bones: np.ndarray = 1000 * np.linalg.norm(xyz[:, end] - xyz[:, start], axis=-1)
    return bones


def load_estimator(settings: PredictSettings) -> Estimator:
    """The estimator that is asked for; raises HandclrError where it cannot be had."""
    if settings.model == MEDIAPIPE:
        from ..footage.world_poses import WorldPoses

        poses = WorldPoses(settings.landmarker, settings.min_score, settings.workers)
        return LandmarkerEstimator(poses)
    return ModelEstimator(settings)
