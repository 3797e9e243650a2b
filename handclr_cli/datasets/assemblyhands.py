"""The egocentric part of AssemblyHands v1-1 as it lies on disk after unpacking."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np

from ..choices import AssemblyhandsSplit
from ..contract.errors import HandclrError
from ..contract.jsontext import parse_json
from ..contract.sample import LAST_FRAME
from ..hand.joints import REFERENCE_BONE
from .labelled import Invalid, LabelledHand

SPLITS: tuple[str, ...] = get_args(AssemblyhandsSplit)
SIDES = ("right", "left")
LEAST_JOINTS = 10
_SUFFIX = "_mono10bit"
# The place of each of MediaPipe's joints among a hand's 21: there each finger begins with its tip,
# and the wrist comes last.
_ORDER = np.array([20, *(base + step for base in (0, 4, 8, 12, 16) for step in (3, 2, 1, 0))])
_LABELS = ("bbox", "joint_valid", "keypoints")
# Of the product of a rotation with itself turned back, from one.
_NO_ROTATION = 0.01
_PERSON = re.compile(r"_(\d+)_user_id")

_Place = tuple[str, str, int]


class AssemblyHands:
    """One split of AssemblyHands' egocentric views.

    Each annotated image gives two items, the right hand and the left hand. `root` holds
    `annotations` and `images`. A joint is valid where both the image's and the moment's labels say
    so. A hand without a box, with fewer than 10 valid joints, or without wrist or middle knuckle
    gives no sample. `index` is the position of the image's annotation. The labels on disk are in
    millimetres, in the world; here they are as in LabelledHand, with pixel coordinates as the data
    set has them. Its own 2D labels are large and kept only with `compare`. Sequences without images
    are left out, and `notes` say so. Raises HandclrError where a file is missing or does not fit
    the others.
    """

    def __init__(self, root: str | os.PathLike[str], split: str, compare: bool = True) -> None:
        if split not in SPLITS:
            raise HandclrError(
                f"AssemblyHands has no labelled split {split!r}; use one of: {', '.join(SPLITS)}"
            )
        self.root, self.split, self._compare = Path(root), split, compare
        # The files are large: each is freed before the next is read.
        self._read_data(self._load("ego_data", "images", "annotations"))
        self._read_world(self._load("joint_3d", "annotations")["annotations"])
        self._read_cameras(self._load("ego_calib", "calibration")["calibration"])

    def __len__(self) -> int:
        return len(SIDES) * len(self._places)

    def __getitem__(self, number: int) -> LabelledHand | tuple[Invalid, Path]:
        row, hand = divmod(range(len(self))[number], len(SIDES))
        sequence, camera, frame = self._places[row]
        path = self.root / "images" / self._files[row]
        joints = _ORDER + 21 * hand
        moment, pose = self._moments[row], self._extrinsics[row]
        if moment < 0 or np.isnan(pose).all():
            return Invalid.UNLABELLED, path
        if not _rigid(pose):
            return Invalid.BAD_CAMERA, path
        if invalid := self._again.get(row):
            return invalid, path
        if not self._boxed[row, hand]:
            return Invalid.NO_BOX, path
        valid = self._valid[row, joints] & self._world_valid[moment, joints]
        if valid.sum() < LEAST_JOINTS:
            return Invalid.FEW_JOINTS, path
        if not valid[[*REFERENCE_BONE]].all():
            return Invalid.NO_REFERENCE, path
        person = _PERSON.search(sequence)
        return LabelledHand(
            path=path,
            side=SIDES[hand],
            keypoints3d=(self._world[moment, joints] @ pose[:, :3].T + pose[:, 3]) / 1000,
            intrinsics=self._intrinsics[sequence, camera],
            valid=None if valid.all() else valid,
            keypoints2d=None if self._pixels is None else self._pixels[row, joints],
            size=self._sizes[row],
            info={
                "video": f"assemblyhands-{self.split}-{sequence}-{camera}",
                "frame": frame,
                "sample": f"assemblyhands-{self.split}-{sequence}-{frame:06d}",
                **({"subject": person[1]} if person else {}),
                "camera": camera,
                "index": self._indices[row],
            },
        )

    def _file(self, name: str) -> Path:
        folder = self.root / "annotations" / self.split
        return folder / f"assemblyhands_{self.split}_{name}_v1-1.json"

    def _load(self, name: str, *keys: str) -> dict[str, Any]:
        """One of the three files of labels, which must have the keys."""
        path = self._file(name)
        if not self.root.is_dir():
            raise HandclrError(
                f"{self.root} is not a folder; give the one that holds annotations and images"
            )
        try:
            found = parse_json(path.read_bytes())
        except FileNotFoundError as error:
            raise HandclrError(
                f"{path} is missing; unpack AssemblyHands v1-1's annotations there"
            ) from error
        except (OSError, ValueError) as error:
            raise HandclrError(
                f"{path}: cannot be read as JSON; unpack it again ({error})"
            ) from error
        if not isinstance(found, dict) or not all(found.get(key) for key in keys):
            raise HandclrError(f"{path}: holds no {' and '.join(keys)}; unpack it again")
        return found

    def _read_data(self, data: dict[str, Any]) -> None:
        """Read the annotations whose sequence has images: place, file, joints, boxes, pixels."""
        try:
            images = _by_id(data["images"])
            labels = [(label, images[label["image_id"]]) for label in data["annotations"]]
            files = {str(image["seq_name"]): str(image["file_name"]) for _, image in labels}
            there = self._on_disk(files)
            self._indices: list[int] = []
            self._places: list[_Place] = []
            self._files: list[str] = []
            self._sizes: list[tuple[int, int] | None] = []
            kept: list[dict[str, Any]] = []
            for index, (label, image) in enumerate(labels):
                if (sequence := str(image["seq_name"])) in there:
                    self._indices.append(index)
                    self._places.append((sequence, str(image["camera"]), _frame(image)))
                    self._files.append(str(image["file_name"]))
                    self._sizes.append(_size(image))
                    kept.append(label)
            self._read_labels(kept)
            self._again = self._annotated_again(kept)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise HandclrError(
                f"{self._file('ego_data')}: not as in v1-1; unpack it again ({what})"
            ) from error

    def _read_labels(self, labels: list[dict[str, Any]]) -> None:
        valid = np.array([label["joint_valid"] for label in labels])
        self._valid = valid.reshape(-1, 42) > 0
        boxed = []
        for label in labels:
            boxed.append([bool(label["bbox"].get(side)) for side in SIDES])
        self._boxed = np.array(boxed)
        self._pixels = None
        if self._compare:
            self._pixels = _pixels([label.get("keypoints") for label in labels])

    def _annotated_again(self, labels: list[dict[str, Any]]) -> dict[int, Invalid]:
        """Why rows of an image that has several are not used, by row.

        The first is, where all say the same; none is, where they do not.
        """
        first: dict[_Place, int] = {}
        again: dict[int, Invalid] = {}
        for row, (place, label) in enumerate(zip(self._places, labels, strict=True)):
            before = first.setdefault(place, row)
            if before == row:
                continue
            same = all(labels[before].get(name) == label.get(name) for name in _LABELS)
            again[row] = Invalid.REPEATED if same else Invalid.BAD_LABELS
            if not same:
                again[before] = Invalid.BAD_LABELS
        return again

    def _on_disk(self, files: dict[str, str]) -> set[str]:
        """The sequences that have a folder of images; `files` names one image of each."""
        folders = {}
        for sequence, file in files.items():
            folders[sequence] = (self.root / "images" / file).parent.parent
        missing = sorted(sequence for sequence, folder in folders.items() if not folder.is_dir())
        if len(missing) == len(folders):
            raise HandclrError(
                f"{folders[missing[0]]} is missing, as are the images of every sequence "
                f"of {self.split}; unpack ego_images_rectified into {self.root / 'images'}"
            )
        self.notes: tuple[str, ...] = ()
        if missing:
            which = (
                f"{len(missing)} of {len(folders)} sequences of {self.split} "
                "have no images and are left out"
            )
            self.notes = (f"{self.root}: {which}, {missing[0]} first",)
        return folders.keys() - set(missing)

    def _read_world(self, annotations: dict[str, Any]) -> None:
        """Read the 42 joints of each moment, and the moment of each annotation.

        The joints are in millimetres; a mask says which of them are valid.
        """
        rows: dict[tuple[str, int], int] = {}
        world, valid = [np.empty((0, 42, 3))], [np.empty((0, 42), bool)]
        for sequence, _, frame in self._places:
            if (sequence, frame) in rows:
                continue
            try:
                moment = annotations[sequence].get(f"{frame:06d}")
                rows[sequence, frame] = len(world) - 1 if moment else -1
                if moment:
                    world.append(np.asarray(moment["world_coord"], np.float64).reshape(1, 42, 3))
                    valid.append(np.asarray(moment.get("joint_valid", [1] * 42)).reshape(1, 42) > 0)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                what = f"42 joints for frame {frame:06d} of {sequence}"
                raise self._misfit("joint_3d", what) from error
        self._world, self._world_valid = np.concatenate(world), np.concatenate(valid)
        self._moments = [rows[sequence, frame] for sequence, _, frame in self._places]

    def _read_cameras(self, calibration: dict[str, Any]) -> None:
        """Read the cameras' intrinsics, and the extrinsics of each annotation.

        Extrinsics are world to camera, NaN where they are missing.
        """
        self._intrinsics: dict[tuple[str, str], np.ndarray] = {}
        self._extrinsics = np.full((len(self._places), 3, 4), np.nan)
        for row, (sequence, camera, frame) in enumerate(self._places):
            name = camera.removesuffix(_SUFFIX) + _SUFFIX
            try:
                pose = calibration[sequence]["extrinsics"].get(f"{frame:06d}", {}).get(name)
                if pose is not None:
                    self._extrinsics[row] = np.asarray(pose, np.float64).reshape(3, 4)
                if (sequence, camera) not in self._intrinsics:
                    matrix = np.asarray(calibration[sequence]["intrinsics"][name], np.float64)
                    self._intrinsics[sequence, camera] = matrix.reshape(3, 3)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                what = f"camera {name} for frame {frame:06d} of {sequence}"
                raise self._misfit("ego_calib", what) from error

    def _misfit(self, name: str, what: str) -> HandclrError:
        return HandclrError(
            f"{self._file(name)}: has no {what}, which {self._file('ego_data').name} names; "
            "unpack both from AssemblyHands v1-1"
        )


def _by_id(images: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for image in images:
        if found.setdefault(image["id"], image) != image:
            raise ValueError(f"image id {image['id']} comes twice")
    return found


def _frame(image: dict[str, Any]) -> int:
    frame = int(image["frame_idx"])
    if not 0 <= frame <= LAST_FRAME or frame != float(image["frame_idx"]):
        raise ValueError(f"frame_idx {image['frame_idx']} is not the number of a frame")
    return frame


def _size(image: dict[str, Any]) -> tuple[int, int] | None:
    """The width and height of an image as annotated, None where it does not say."""
    width, height = image.get("width"), image.get("height")
    return (int(width), int(height)) if width and height else None


def _rigid(pose: np.ndarray) -> bool:
    """Whether (3, 4) is a rotation, and a translation that is finite."""
    turn = pose[:, :3]
    return bool(
        np.isfinite(pose).all()
        and np.abs(turn @ turn.T - np.eye(3)).max() <= _NO_ROTATION
        and np.linalg.det(turn) > 0
    )


def _pixels(keypoints: list[Any]) -> np.ndarray | None:
    """The 2D labels of 42 joints, (N, 42, 2), or None where not all rows have them.

    A joint whose confidence is zero is NaN.
    """
    if not all(keypoints):
        return None
    found = np.array(keypoints, np.float64).reshape(-1, 42, 3)
    return np.where(found[..., 2:] > 0, found[..., :2], np.nan)
