"""Synthetic hands in the layout of AssemblyHands v1-1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..hand.camera import project
from ..hand.joints import FINGERS, WRIST
from .layout_files import (
    FRAMES,
    Advance,
    LabelledScene,
    MakeScene,
    in_view,
    keep,
    save,
    save_image,
    save_json,
    shares,
    whole_folder,
)
from .shot import Shot

_SIZE = (636, 480)
_CAMERAS = ("HMC_21176875", "HMC_21176623", "HMC_21110305", "HMC_21179183")
_SUFFIX = "_mono10bit"
# The original labels a part of 30 Hz video too.
_STEP = 10
# One's own hands, from the left of the picture.
_SIDES = ("left", "right")
_PARTS = {"right": slice(0, 21), "left": slice(21, 42)}
# A hand's joints in the order of the data set: every finger from its tip, the wrist last.
_ORDER = [joint for chain in FINGERS.values() for joint in reversed(chain)] + [WRIST]


def write_assemblyhands(root: Path, make_scene: MakeScene, count: int, advance: Advance) -> int:
    """Write both hands of people before four head cameras in AssemblyHands' layout.

    Returns the number of images: about `count` for train and max(1, count // 8) for val, four for
    each moment, in sequences of up to FRAMES moments. Images without a hand in view are left out,
    as in the original, so there may be fewer. 636x480, grey; millimetres; pixel coordinates as in
    the Shot. Boxes are tight around a hand's joints, within the image. The test split is left out,
    as it has no public labels. Raises UsageError where `root` is not empty, HandclrError where the
    intrinsics of a camera change within a scene: the layout has no place for that.
    """
    with whole_folder(root, count) as folder:
        written = first = 0
        for split, images in (("train", count), ("val", max(1, count // 8))):
            moments = max(1, round(images / len(_CAMERAS)))
            labels = _Labels(folder, split)
            for frames in shares(moments, -(-moments // FRAMES)):
                labels.add_scene(make_scene(first, _SIZE, _SIDES), first, frames, advance)
                first += 1
            labels.save()
            written += len(labels.images)
        save(folder / "annotations" / "skeleton.txt", _skeleton().encode())
    return written


class _Labels:
    """The images of a split, written as they come, and the labels for its three files."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.calibration: dict[str, Any] = {}
        self.world: dict[str, dict[str, Any]] = {}

    def add_scene(self, scene: LabelledScene, index: int, frames: int, advance: Advance) -> None:
        person = 9001 + scene.subject
        scene_name = f"{person}-s{index:04d}_{person}"
        sequence = f"nusar-2021_action_both_{scene_name}_user_id_2021-02-02_161800"
        intrinsics: dict[str, np.ndarray] = {}
        poses: dict[str, dict[str, Any]] = {}
        self.world[sequence] = {}
        for time in range(frames):
            frame = time * _STEP
            shots = {name: scene.shoot(time, camera) for camera, name in enumerate(_CAMERAS)}
            self.world[sequence][f"{frame:06d}"] = _world(list(shots.values()))
            poses[f"{frame:06d}"] = {}
            for name, shot in shots.items():
                poses[f"{frame:06d}"][name + _SUFFIX] = _millimetres(shot).tolist()
                keep(intrinsics, name + _SUFFIX, shot.intrinsics, "intrinsics")
                self.add_image(sequence, name, frame, shot)
                advance(1)
        matrices = {name: matrix.tolist() for name, matrix in intrinsics.items()}
        self.calibration[sequence] = {"intrinsics": matrices, "extrinsics": poses}

    def add_image(self, sequence: str, camera: str, frame: int, shot: Shot) -> None:
        import cv2

        joints, present = _joints(shot)
        valid = present & in_view(joints, shot)
        if not valid.any():
            return
        path = f"ego_images_rectified/{self.split}/{sequence}/{camera}{_SUFFIX}/{frame:06d}.jpg"
        save_image(self.folder / "images" / path, cv2.cvtColor(shot.image, cv2.COLOR_RGB2GRAY))
        number, (height, width) = len(self.images), shot.image.shape[:2]
        image = {
            "id": number,
            "seq_name": sequence,
            "camera": camera,
            "frame_idx": frame,
            "file_name": path,
        }
        self.images.append({**image, "width": width, "height": height})
        boxes = {
            side: _box(joints[part], shot) if valid[part].any() else None
            for side, part in _PARTS.items()
        }
        annotation = {"id": number, "image_id": number, "bbox": boxes}
        self.annotations.append({**annotation, "joint_valid": valid.astype(int).tolist()})

    def save(self) -> None:
        for name, content in {
            "ego_data": {"images": self.images, "annotations": self.annotations},
            "ego_calib": {"calibration": self.calibration},
            "joint_3d": {"annotations": self.world},
        }.items():
            file = f"assemblyhands_{self.split}_{name}_v1-1.json"
            save_json(self.folder / "annotations" / self.split / file, content)


def _joints(shot: Shot) -> tuple[np.ndarray, np.ndarray]:
    """The 42 joints in the data set's order, (42, 3) metres in the camera frame; which exist."""
    joints, present = np.zeros((42, 3)), np.zeros(42, dtype=bool)
    for truth in shot.hands:
        part = _PARTS[truth.side]
        joints[part], present[part] = truth.keypoints3d[_ORDER], True
    return joints, present


def _world(shots: list[Shot]) -> dict[str, Any]:
    """The 42 joints in the world, from any camera that has them; zeros for a hand in none."""
    points, known = np.zeros((42, 3)), np.zeros(42, dtype=bool)
    for shot in shots:
        joints, present = _joints(shot)
        pose = _millimetres(shot)
        new = present & ~known
        points[new] = (1000 * joints[new] - pose[:, 3]) @ pose[:, :3]
        known |= new
    return {"world_coord": points.tolist(), "joint_valid": known.astype(int).tolist()}


def _millimetres(shot: Shot) -> np.ndarray:
    return shot.extrinsics * [1, 1, 1, 1000]


def _box(joints: np.ndarray, shot: Shot) -> list[float]:
    """Box x0, y0, x1, y1, within the image, of a hand's joints that are before the camera."""
    pixels = project(joints[joints[:, 2] > 0], shot.intrinsics)
    height, width = shot.image.shape[:2]
    corners = np.stack([pixels.min(axis=0), pixels.max(axis=0)]).clip(0, [width, height])
    return corners.ravel().tolist()


def _skeleton() -> str:
    """The text of skeleton.txt: every joint's parent is the next one towards the wrist."""
    lines, fingers = ["# name, id, id of the parent"], list(FINGERS)
    for offset, side in ((0, "r"), (21, "l")):
        for joint in range(20):
            parent = 20 if joint % 4 == 3 else joint + 1
            name = f"{side}_{fingers[joint // 4]}{4 - joint % 4}"
            lines.append(f"{name} {offset + joint} {offset + parent}")
        lines.append(f"{side}_wrist {offset + 20} -1")
    return "\n".join(lines) + "\n"
