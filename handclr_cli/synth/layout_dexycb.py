"""Synthetic hands in the layout of DexYCB."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..hand.camera import project
from ..hand.joints import JOINT_NAMES
from .layout_files import (
    FRAMES,
    Advance,
    LabelledScene,
    MakeScene,
    hand,
    in_view,
    keep,
    save,
    save_image,
    save_npz,
    shares,
    whole_folder,
)
from .shot import LEFT_HAND, OBJECT, Shot

_SIZE = (640, 480)
_SUBJECTS = (
    "20200709-subject-01",
    "20200813-subject-02",
    "20200820-subject-03",
    "20200903-subject-04",
    "20200908-subject-05",
    "20200918-subject-06",
    "20200928-subject-07",
    "20201002-subject-08",
    "20201015-subject-09",
    "20201022-subject-10",
)
_SERIALS = (
    "836212060125",
    "839512060362",
    "840412060917",
    "841412060263",
    "932122060857",
    "932122060861",
    "932122061900",
    "932122062010",
)
_MASTER = "840412060917"
# With more moments than this, sequences have more than one frame.
_SEQUENCES = 50
# Every 21st image is unlabelled; odd, so that this happens to each of the cameras.
_UNLABELLED = 21
_OBJECTS = 21
# RealSense puts the centre of the first pixel at 0, a Shot at .5.
_SHIFT = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])


def write_dexycb(root: Path, make_scene: MakeScene, count: int, advance: Advance) -> int:
    """Write single hands, right and left alternately, in DexYCB's layout.

    Returns the number of images. 8 cameras see each of max(2, count / 8) moments. Up to 50 scenes,
    each a sequence, have one moment; with more moments they have up to FRAMES of them, and then
    there are more scenes. The scene's person is the subject; more than ten people share ten
    folders, each person always in the same one. 640x480; metres, camera frame; pixel centres at
    integers, as RealSense has them; extrinsics lead from a camera to the master's, `apriltag` from
    the scene's world. -1 in `joint_3d` and `joint_2d`, and no hand in `seg`, mark hands out of view
    and every 21st image, because the original has unlabelled images too. Zeros, because unknown
    here: `pose_m` (readers of MANO find no hand then, and no wrong one), `pose_y`, `betas`. The
    held object's number is arbitrary; the intrinsics of the depth camera repeat those of colour.
    Left out: depth images, pose.npz, models, bop. Raises UsageError where `root` is not empty,
    HandclrError where a camera moves or has other intrinsics in another scene: the layout has no
    place for that.
    """
    with whole_folder(root, count) as folder:
        moments = max(2, round(count / len(_SERIALS)))
        sequences = min(moments, max(_SEQUENCES, -(-moments // FRAMES)))
        images = _Images()
        orders = [0] * len(_SUBJECTS)
        for index, frames in enumerate(shares(moments, sequences)):
            scene = make_scene(index, _SIZE, ("right",))
            subject = scene.subject % len(_SUBJECTS)
            place = folder / _SUBJECTS[subject] / _sequence_name(subject, orders[subject])
            side = ("right", "left")[(subject + orders[subject]) % 2]
            orders[subject] += 1
            if side == "left":
                scene = make_scene(index, _SIZE, (side,))
            ycb = 1 + index % _OBJECTS
            poses = images.add_sequence(place, scene, side, ycb, frames, advance)
            _save_texts(folder / "calibration", place, side, ycb, frames, poses)
        for serial, matrix in images.intrinsics.items():
            text = "".join(f"{name}:\n{_pinhole(matrix)}" for name in ("color", "depth"))
            save(folder / "calibration" / "intrinsics" / f"{serial}_640x480.yml", text.encode())
    return images.written


class _Images:
    """The images and labels, written as they come, their number, and the cameras they share."""

    def __init__(self) -> None:
        self.written = 0
        self.intrinsics: dict[str, np.ndarray] = {}

    def add_sequence(
        self, place: Path, scene: LabelledScene, side: str, ycb: int, frames: int, advance: Advance
    ) -> dict[str, np.ndarray]:
        """Write what all cameras see and return their poses, world to camera."""
        poses: dict[str, np.ndarray] = {}
        for frame in range(frames):
            for camera, serial in enumerate(_SERIALS):
                shot = scene.shoot(frame, camera)
                keep(self.intrinsics, serial, shot.intrinsics - _SHIFT, "intrinsics")
                keep(poses, serial, shot.extrinsics, "extrinsics")
                self.written += 1
                labels = _labels(shot, side, ycb, wanted=self.written % _UNLABELLED > 0)
                save_image(place / serial / f"color_{frame:06d}.jpg", shot.image)
                save_npz(place / serial / f"labels_{frame:06d}.npz", labels)
                advance(1)
        return poses


def _sequence_name(subject: int, order: int) -> str:
    """The date of the subject and the time of day of one of the sequences."""
    minutes, second = divmod(14 * 3600 + 17 * 60 + 54 + 30 * order, 60)
    hour, minute = divmod(minutes, 60)
    return f"{_SUBJECTS[subject][:8]}_{hour:02d}{minute:02d}{second:02d}"


def _labels(shot: Shot, side: str, ycb: int, wanted: bool) -> dict[str, np.ndarray]:
    joints, labelled = hand(shot, side), None
    if wanted and joints is not None and (joints[:, 2] > 0).all() and in_view(joints, shot).any():
        labelled = joints
    pixels = None if labelled is None else project(labelled, shot.intrinsics - _SHIFT)
    things = np.where(shot.segmentation == OBJECT, ycb, 0)
    value = 0 if labelled is None else 255
    return {
        "seg": np.where(shot.segmentation >= LEFT_HAND, value, things).astype(np.uint8),
        "pose_y": np.zeros((1, 3, 4), np.float32),
        "pose_m": np.zeros((1, 51), np.float32),
        "joint_3d": _or_absent(labelled, 3),
        "joint_2d": _or_absent(pixels, 2),
    }


def _or_absent(points: np.ndarray | None, axes: int) -> np.ndarray:
    if points is None:
        return np.full((1, len(JOINT_NAMES), axes), -1, np.float32)
    return points[None].astype(np.float32)


def _save_texts(
    calibration: Path, place: Path, side: str, ycb: int, frames: int, poses: dict[str, np.ndarray]
) -> None:
    """Write a sequence's meta.yml, and the files it names: its cameras' poses, its hand's shape."""
    date, _, subject = place.parent.name.partition("-")
    mano = f"{date}_140042_{subject}_{side}"
    serials = "".join(f"  - '{serial}'\n" for serial in _SERIALS)
    meta = (
        f"serials:\n{serials}"
        f"num_frames: {frames}\n"
        f"extrinsics: '{place.name}'\n"
        f"ycb_ids: [{ycb}]\n"
        "ycb_grasp_ind: 0\n"
        f"mano_sides:\n  - '{side}'\n"
        f"mano_calib:\n  - '{mano}'\n"
    )
    save(place / "meta.yml", meta.encode())
    save(calibration / f"mano_{mano}" / "mano.yml", ("betas:\n" + "- 0.0\n" * 10).encode())
    cameras = {serial: np.vstack([pose, [0, 0, 0, 1]]) for serial, pose in poses.items()}
    master = cameras[_MASTER]
    to_master = {f"'{serial}'": master @ np.linalg.inv(pose) for serial, pose in cameras.items()}
    # Fixed-point, because YAML 1.1 takes 1e-17 for a word; adding zero drops the sign of -0.
    tuples = ""
    for name, matrix in {**to_master, "apriltag": master}.items():
        values = (matrix[:3].round(12) + 0.0).ravel()
        tuples += f"  {name}: !!python/tuple\n"
        tuples += "".join(f"  - {value:.12f}\n" for value in values)
    text = f"extrinsics:\n{tuples}master: '{_MASTER}'\n"
    save(calibration / f"extrinsics_{place.name}" / "extrinsics.yml", text.encode())


def _pinhole(matrix: np.ndarray) -> str:
    places = {"fx": (0, 0), "fy": (1, 1), "ppx": (0, 2), "ppy": (1, 2)}
    return "".join(f"  {name}: {matrix[place]:.9f}\n" for name, place in places.items())
