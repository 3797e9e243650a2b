"""The annotation file of Hand100M, read into arrays."""

from __future__ import annotations

import json
import mmap
import os
from array import array
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from ..contract.errors import HandclrError
from ..contract.fields import JOINT_COUNT


class Annotations:
    """The hands of one annotation file, (N,) of them in its order, and the images that they are in.

    `ids` as written, strings or numbers; `left` bool; `image` int32 rows of `files` (names relative
    to the root of the frames) and `sizes` int32 (I, 2), width and height, 0 where it does not say;
    `box` float64 (N, 4) x0, y0, x1, y1 pixels of the image; `keypoints` float32 (N, 21, 2), x and y
    as shares of the published crop; `positive` int32 (N, K) rows of the mined positives in the
    order of the file, -1 where none, and `distance` float32 (N, K), inf there. Positives that are
    not in the file, or whose distance is none, are left out and counted in `unknown_positives`.
    Boxes and keypoints need not be finite.

    Raises HandclrError naming the annotation that cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        gathered = _Gathered(os.fspath(path))
        gathered.read()
        if not gathered.ids:
            raise HandclrError(f"{path}: holds no annotations; download it again")
        self.ids = gathered.ids
        self.left = np.array(gathered.left, bool)
        self.files = gathered.files
        self.sizes = np.array(gathered.sizes, np.int32).reshape(-1, 2)
        self.image = gathered.image_rows()
        self.box = np.array(gathered.boxes).reshape(-1, 4)
        self.keypoints = np.array(gathered.points).reshape(-1, JOINT_COUNT, 3)[:, :, :2].copy()
        self.positive, self.distance, self.unknown_positives = gathered.pairs()

    def __len__(self) -> int:
        return len(self.ids)


class _Gathered:
    """Takes the values out of each object as the file is parsed.

    All objects at once would need ten times the memory.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: list[str] = []
        self.sizes = array("i")
        self.ids: list[str | int] = []
        self.left = array("b")
        self.boxes = array("d")
        self.points = array("f")
        self._images: list[str] = []
        self._image_ids: list[str] = []
        self._positives: list[str] = []
        self._distances = array("d")
        self._counts = array("i")

    def read(self) -> None:
        """Parse the file; raises HandclrError where it is not what it should be."""
        try:
            with (
                open(self.path, "rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                # Decoded from the mapping, so that the bytes of a file of gigabytes are not in
                # memory beside its text.
                found = json.loads(str(data, "utf-8-sig"), object_hook=self._take)
        except OSError as error:
            raise HandclrError(f"cannot read {self.path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise HandclrError(
                f"{self.path}: not JSON, or truncated; download it again ({error})"
            ) from error
        found = found if isinstance(found, dict) else {}
        self._check("images", found.get("images"), len(self.files))
        self._check("annotations", found.get("annotations"), len(self.ids))

    def _check(self, name: str, rows: Any, count: int) -> None:
        """Raise HandclrError unless `rows` is a list of as many entries, all of them taken out."""
        if not isinstance(rows, list):
            raise HandclrError(
                f"{self.path}: has no list of {name}; is it an annotation file of Hand100M?"
            )
        left = [position for position, row in enumerate(rows) if row is not None]
        if len(rows) != count or left:
            position = left[0] if left else len(rows)
            raise HandclrError(
                f"{self.path}: entry {position} of {name} is not as in Hand100M; download it again"
            )

    def _take(self, found: dict[str, Any]) -> dict[str, Any] | None:
        if "hand_id" in found or "keypoint_25d" in found:
            self._take_hand(found)
        elif "file_name" in found:
            self._take_image(found)
        else:
            return found
        return None

    def _take_image(self, image: dict[str, Any]) -> None:
        try:
            name, size = image["file_name"], (image.get("width") or 0, image.get("height") or 0)
            if not isinstance(name, str) or not name:
                raise TypeError("file_name is not a name")
            self._image_ids.append(_identity(image["id"]))
            self.sizes.extend(size)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            self._refuse("image", len(self.files), image.get("file_name"), error)
        self.files.append(name)

    def _take_hand(self, hand: dict[str, Any]) -> None:
        try:
            box = json.loads(hand["boxes"]) if isinstance(hand["boxes"], str) else hand["boxes"]
            points = hand["keypoint_25d"]
            positives = hand.get("positive_sample") or []
            distances = hand.get("distance") or []
            _expect("boxes", box, 4)
            _expect("keypoint_25d", points, 3 * JOINT_COUNT)
            _expect("positive_sample", positives)
            _expect("distance", distances, len(positives))
            self._positives += map(_identity, positives)
            self._distances.extend(distances)
            self._counts.append(len(positives))
            self._images.append(_identity(hand["image_id"]))
            self.left.append(_is_left(hand["left_right"]))
            self.boxes.extend(box)
            self.points.extend(points)
            _identity(hand["hand_id"])
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            self._refuse("annotation", len(self.ids), hand.get("hand_id"), error)
        self.ids.append(hand["hand_id"])

    def _refuse(self, what: str, position: int, name: Any, error: Exception) -> NoReturn:
        why = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise HandclrError(
            f"{self.path}: {what} {position} ({name}) cannot be used: {why}"
        ) from error

    def image_rows(self) -> np.ndarray:
        """The row of each hand's image, int32 (N,)."""
        rows = _rows(self._image_ids, f"{self.path}: image id")
        found = np.array([rows.get(image, -1) for image in self._images], np.int32)
        if (found < 0).any():
            lost = int((found < 0).argmax())
            which = f"annotation {lost} ({self.ids[lost]})"
            raise HandclrError(
                f"{self.path}: {which} is of image {self._images[lost]}, which is not in the file"
            )
        return found

    def pairs(self) -> tuple[np.ndarray, np.ndarray, int]:
        """The mined positives of each hand as rows int32 (N, K), nearest first as in the file.

        With them their distances, float32 (N, K), and how many positives are of no hand in the
        file.
        """
        rows = _rows([str(name) for name in self.ids], f"{self.path}: hand_id")
        flat = np.array([rows.get(name, -1) for name in self._positives], np.int32)
        distances = np.array(self._distances, np.float32)
        flat[~(np.isfinite(distances) & (distances >= 0))] = -1
        counts = np.array(self._counts)
        place = np.arange(counts.max(initial=0)) < counts[:, None]
        positive = np.full(place.shape, -1, np.int32)
        distance = np.full(place.shape, np.inf, np.float32)
        positive[place], distance[place] = flat, np.where(flat < 0, np.inf, distances)
        return positive, distance, int((flat < 0).sum())


def _is_left(value: Any) -> bool:
    if value not in ("Left", "Right"):
        raise TypeError(f"left_right is {value!r}")
    return value == "Left"


def _identity(value: Any) -> str:
    """An id, a number in one place and a string in another, as a string."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError(f"{value!r} is no id")
    return str(value)


def _expect(name: str, value: Any, length: int | None = None) -> None:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise TypeError(f"{name} is not a list{f' of {length}' if length is not None else ''}")


def _rows(names: Sequence[str], what: str) -> dict[str, int]:
    rows = {name: row for row, name in enumerate(names)}
    if len(rows) != len(names):
        twice = next(name for row, name in enumerate(names) if rows[name] != row)
        raise HandclrError(f"{what} {twice} comes twice; download the file again")
    return rows
