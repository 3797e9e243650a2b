"""The DexYCB data set as it lies on disk after unpacking, whole or in parts."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from ..choices import DexycbSplit
from ..contract.errors import HandclrError
from .labelled import Invalid, LabelledHand
from .yaml_file import read_yaml

SPLITS: tuple[str, ...] = get_args(DexycbSplit)
_SUBJECT = re.compile(r"\d{8}-subject-(\d{2})")
_COLOUR = re.compile(r"color_(\d{6})\.jpg")
_SEQUENCES = 100
_LENS = ("fx", "fy", "ppx", "ppy")
_SIZE = (640, 480)
# RealSense puts the centre of the first pixel at 0, a sample at .5.
_CENTRE = 0.5


def in_split(split: str, subject: int, order: int, camera: int) -> bool:
    """Whether a camera's view of a sequence belongs to a split; all numbers count from 0.

    `order` is the sequence's place among the subject's, sorted by name; `camera` the place among
    the sorted serials. S0 holds out sequences, S1 subjects, S2 cameras, S3 the grasped objects.
    """
    if split == "all":
        return True
    setup, _, part = split.partition("-")
    if setup == "s0":
        mine = "train" if order % 5 != 4 else "val" if subject < 2 else "test"
    elif setup == "s1":
        mine = {6: "val", 7: "test", 8: "test"}.get(subject, "train")
    elif setup == "s2":
        mine = {6: "val", 7: "test"}.get(camera, "train")
    else:
        mine = {3: "val", 19: "val", 7: "test", 11: "test", 15: "test"}.get(order // 5, "train")
    return mine == part


@dataclass(frozen=True)
class _View:
    """What one camera saw of one sequence."""

    folder: Path
    subject: str
    sequence: str
    serial: str
    side: str


class _Meta(NamedTuple):
    """What meta.yml says of a sequence.

    The sorted serials of the cameras, the number of frames, and the side of the hand.
    """

    serials: list[str]
    frames: int
    side: str


class DexYCB:
    """One split of DexYCB: an item for each image that is on disk.

    Items are in the order of subject, sequence, camera and frame. `root` holds the subjects'
    folders and `calibration`. `split` is one of SPLITS; `all` takes what is there. The splits go by
    a sequence's place among the 100 of its subject; where fewer are there, by the place among
    these, and `notes` say so. `index` counts all frames that meta.yml names, on disk or not,
    labelled or not, as result files do. Both hands, metres. Raises HandclrError where a file that
    describes the images is missing or damaged, or where the split has no image.
    """

    def __init__(self, root: str | os.PathLike[str], split: str) -> None:
        if split not in SPLITS:
            raise HandclrError(f"DexYCB has no split {split!r}; use one of: {', '.join(SPLITS)}")
        self.root, self.split = Path(root), split
        self._views: list[_View] = []
        self._intrinsics: dict[str, np.ndarray] = {}
        self._found: list[tuple[int, int, int]] = []
        self._counted = 0
        notes = []
        subjects = _subjects(self.root)
        for folder, subject in subjects:
            sequences = sorted(path for path in folder.iterdir() if path.is_dir())
            if split != "all" and len(sequences) != _SEQUENCES:
                notes.append(
                    f"{folder}: {len(sequences)} of {_SEQUENCES} sequences; "
                    f"{split} goes by their place among those that are there, "
                    "so it is not the official split (the split all takes everything)"
                )
            self._read_sequences(sequences, subject)
        self._rows = np.array(self._found, np.int64).reshape(-1, 3)
        if not self._found:
            names = ", ".join(folder.name for folder, _ in subjects)
            raise HandclrError(
                f"{root} has no image of {split}; it holds {names} (the split all takes everything)"
            )
        if self._counted > len(self):
            notes.append(
                f"{root}: {len(self):,} of the {self._counted:,} images of {split} "
                "that meta.yml names are there"
            )
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> LabelledHand | tuple[Invalid, Path]:
        place, frame, index = self._rows[number].tolist()
        view = self._views[place]
        path = view.folder / f"labels_{frame:06d}.npz"
        try:
            with np.load(path, allow_pickle=False) as labels:
                keypoints3d = labels["joint_3d"].astype(np.float64).reshape(21, 3)
                keypoints2d = labels["joint_2d"].astype(np.float64).reshape(21, 2)
        except Exception:  # whatever NumPy, zipfile and zlib raise on bytes of any kind
            return Invalid.BAD_LABELS, path
        image = view.folder / f"color_{frame:06d}.jpg"
        if (keypoints3d == -1).all():
            return Invalid.UNLABELLED, image
        name = f"dexycb-{view.subject}-{view.sequence}"
        return LabelledHand(
            path=image,
            side=view.side,
            keypoints3d=keypoints3d,
            intrinsics=self._intrinsics[view.serial],
            size=_SIZE,
            keypoints2d=np.where(keypoints2d == -1, np.nan, keypoints2d + _CENTRE),
            info={
                "video": f"{name}-{view.serial}",
                "frame": frame,
                "sample": f"{name}-{frame:06d}",
                "subject": view.subject,
                "camera": view.serial,
                "index": index,
            },
        )

    def _read_sequences(self, sequences: Sequence[Path], subject: int) -> None:
        """Take in the views of a subject's sequences that are in the split, and their frames."""
        for order, sequence in enumerate(sequences):
            meta = _meta(sequence / "meta.yml")
            for camera, serial in enumerate(meta.serials):
                if not in_split(self.split, subject, order, camera):
                    continue
                folder = sequence / serial
                frames = _frames(folder, meta.frames)
                for frame in frames:
                    self._found.append((len(self._views), frame, self._counted + frame))
                if frames:
                    self._add_intrinsics(serial)
                view = _View(folder, sequence.parent.name, sequence.name, serial, meta.side)
                self._views.append(view)
                self._counted += meta.frames

    def _add_intrinsics(self, serial: str) -> None:
        if serial in self._intrinsics:
            return
        path = self.root / "calibration" / "intrinsics" / f"{serial}_{_SIZE[0]}x{_SIZE[1]}.yml"
        lens = read_yaml(path).get("color")
        if not isinstance(lens, dict) or not lens.keys() >= set(_LENS):
            raise HandclrError(f"{path}: has no color with fx, fy, ppx and ppy; unpack it again")
        # What is no number costs the images of this camera only.
        fx, fy, x, y = (_number(lens[name]) for name in _LENS)
        matrix = [[fx, 0, x + _CENTRE], [0, fy, y + _CENTRE], [0, 0, 1]]
        self._intrinsics[serial] = np.array(matrix, np.float64)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _subjects(root: Path) -> list[tuple[Path, int]]:
    """The folders of the subjects, and their numbers from 0, in order."""
    if not root.is_dir():
        raise HandclrError(
            f"{root} is not a folder; give the one that holds DexYCB's subjects and calibration"
        )
    found = []
    for path in root.iterdir():
        if match := _SUBJECT.fullmatch(path.name):
            found.append((path, int(match[1]) - 1))
    if not found:
        raise HandclrError(
            f"{root} holds no subject, expected 20200709-subject-01 and so on; unpack DexYCB there"
        )
    return sorted(found, key=lambda pair: (pair[1], pair[0]))


def _meta(path: Path) -> _Meta:
    found = read_yaml(path)
    serials, frames, sides = (found.get(name) for name in ("serials", "num_frames", "mano_sides"))
    if not (
        isinstance(serials, list)
        and all(isinstance(serial, str | int) for serial in serials)
        and isinstance(frames, int)
        and sides in (["right"], ["left"])
    ):
        raise HandclrError(
            f"{path}: expected serials, num_frames and mano_sides (right or left); unpack it again"
        )
    names = sorted(str(serial) for serial in serials)
    if len(set(names)) < len(names):
        raise HandclrError(f"{path}: names a camera twice; unpack it again")
    return _Meta(names, frames, sides[0])


def _frames(folder: Path, count: int) -> list[int]:
    """The frames of which the image is there."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    frames = sorted(int(match[1]) for name in names if (match := _COLOUR.fullmatch(name)))
    if frames and frames[-1] >= count:
        raise HandclrError(
            f"{folder}: has frame {frames[-1]}, but meta.yml counts {count}; "
            "unpack the sequence again"
        )
    return frames
