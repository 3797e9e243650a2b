"""A sample: the members of a tar that share a key, and the rule for keys."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import PurePath
from typing import Any

import numpy as np

from .errors import HandclrError
from .fields import (
    IMAGE,
    INFO,
    JOINT_COUNT,
    KEYPOINTS_2D,
    KEYPOINTS_3D,
    VALID,
    WORLD_3D,
    Field,
    decode,
)
from .pictures import check_whole, square_side
from .provenance import Provenance

KEY = re.compile(r"(?P<video>.+)_(?P<frame>\d{8})_(?P<hand>[lr])(?P<number>\d*)")

_ALWAYS_LABELLED = {0: "wrist", 9: "middle knuckle"}


@dataclass
class Sample:
    """The members of one key as raw bytes, by suffix; each is decoded and checked when asked for.

    `origin` is its provenance, `source` the name of its tar and `start` its position there.
    """

    key: str
    members: dict[str, bytes | memoryview]
    origin: Provenance | None = None
    source: str = ""
    start: int = 0
    cache: dict[str, Any] = field(default_factory=dict, repr=False)

    def __contains__(self, wanted: Field) -> bool:
        return self.suffix_of(wanted) is not None

    def suffix_of(self, wanted: Field) -> str | None:
        """The suffix under which a field is there: the contract's, else one of the others."""
        if wanted.suffix in self.members:
            return wanted.suffix
        return next((suffix for suffix in wanted.others if suffix in self.members), None)

    def read(self, wanted: Field) -> Any:
        """Decode one field; raises HandclrError where it is missing or damaged."""
        if wanted.suffix not in self.cache:
            payload, suffix = self.payload(wanted)
            where = f"{self.source}: sample {self.key}"
            self.cache[wanted.suffix] = decode(wanted, payload, where, suffix)
        return self.cache[wanted.suffix]

    def payload(self, wanted: Field) -> tuple[bytes | memoryview, str]:
        """The bytes of a field, and its suffix; raises HandclrError where it is missing."""
        suffix = self.suffix_of(wanted)
        if suffix is None:
            raise HandclrError(f"{self.source}: sample {self.key} has no {wanted.suffix}")
        return self.members[suffix], suffix

    def size_of(self, wanted: Field) -> int:
        """The bytes of a field, 0 where it is missing."""
        suffix = self.suffix_of(wanted)
        return 0 if suffix is None else len(self.members[suffix])

    @property
    def image(self) -> np.ndarray:
        """The crop, uint8 (S, S, 3) RGB."""
        return self.read(IMAGE)

    @property
    def side(self) -> int:
        """The side of the crop in pixels, from its header.

        Raises HandclrError where there is no image, or it is not a square JPEG or PNG.
        """
        return square_side(*self._picture())

    def checked_side(self) -> int:
        """The same, where all of the image is there as far as that is seen without decoding it."""
        payload, where = self._picture()
        side = square_side(payload, where)
        check_whole(payload, where)
        return side

    def _picture(self) -> tuple[bytes | memoryview, str]:
        """The bytes of the crop, and what they are called in messages."""
        payload, suffix = self.payload(IMAGE)
        return payload, f"{self.source}: sample {self.key}: {suffix}"

    @property
    def info(self) -> dict[str, Any]:
        """The JSON member, or an empty dict where there is none."""
        return self.read(INFO) if INFO in self else {}

    @property
    def keypoints2d(self) -> np.ndarray:
        """float32 (21, 2), crop pixels."""
        return self.read(KEYPOINTS_2D)

    @property
    def keypoints3d(self) -> np.ndarray:
        """float32 (21, 3), metres."""
        return self.read(KEYPOINTS_3D)

    @property
    def world3d(self) -> np.ndarray:
        """float32 (21, 3), metres from the wrist, as MediaPipe estimates them."""
        return self.read(WORLD_3D)

    @property
    def has_landmarks(self) -> bool:
        """Whether it holds what the landmarker finds, 2D keypoints and world landmarks."""
        return KEYPOINTS_2D in self and WORLD_3D in self

    @property
    def has_pose(self) -> bool:
        """Whether it holds 2D keypoints of all joints: the landmarker's, or of labels that are
        whole.
        """
        return KEYPOINTS_2D in self and (WORLD_3D in self or self.is_whole)

    @property
    def is_whole(self) -> bool:
        """Whether all joints have labels, where any have."""
        return VALID not in self or bool(self.read(VALID).all())

    @property
    def valid(self) -> np.ndarray:
        """Which joints have labels, bool (21,).

        Raises HandclrError where wrist or middle knuckle, by which hands are measured, have none.
        """
        if VALID not in self:
            return np.ones(JOINT_COUNT, bool)
        found = self.read(VALID).astype(bool)
        for joint, name in _ALWAYS_LABELLED.items():
            if not found[joint]:
                where = f"{self.source}: sample {self.key}: bad {VALID.suffix}"
                raise HandclrError(f"{where}: the {name} has no label, and always needs one")
        return found

    @property
    def hand(self) -> str | None:
        """left or right in the source: by the JSON member, else by a key such as handclr's."""
        said = self.info.get("hand")
        if said in ("left", "right"):
            return str(said)
        match = KEY.fullmatch(self.key)
        return {"l": "left", "r": "right"}[match["hand"]] if match else None

    @property
    def flipped(self) -> bool | None:
        """Whether the crop was mirrored: as the JSON says, else as its hand does; None: unknown.

        A crop always shows a right hand, so that one of a left hand was.
        """
        said = self.info.get("flipped")
        if said is not None:
            return bool(said)
        return None if self.hand is None else self.hand == "left"

    @property
    def side_score(self) -> float | None:
        """How sure it is that `hand` is the side, 0 to 1, by the JSON; None where it does not say.

        Raises HandclrError where it says something else.
        """
        said = self.info.get("side_score")
        if said is None:
            return None
        if type(said) not in (int, float) or not 0 <= said <= 1:
            why = f"side_score is {json.dumps(said)}, not a number from 0 to 1"
            raise HandclrError(f"{self.source}: sample {self.key}: {why}")
        return float(said)

    @property
    def video(self) -> str:
        """The name of the video; raises HandclrError where neither JSON member nor key says it."""
        named = self.named_video
        if named is None:
            why = "neither a JSON member nor its key names its video"
            raise HandclrError(f"{self.source}: sample {self.key}: {why}")
        return named

    @property
    def named_video(self) -> str | None:
        """The name of the video by the JSON member, else by a key such as handclr's, else None."""
        if self.info.get("video") is not None:
            return str(self.info["video"])
        match = KEY.fullmatch(self.key)
        return match["video"] if match else None


# The largest number of a frame: a key has eight digits for it.
LAST_FRAME = 99_999_999


def sample_key(video_id: str, frame: int, hand: str, number: int = 0) -> str:
    """Compose `<video>_<frame>_<l|r>[n]`; `number` counts hands of one side in one frame from 0."""
    return f"{video_id}_{frame:08d}_{hand[0]}{number or ''}"


def video_names(paths: list[PurePath]) -> list[str]:
    """Name each path by its last two parts, or by more of them where names would be the same."""
    names: dict[PurePath, str] = {}
    pending, depth = dict.fromkeys(paths), 2
    while pending:
        groups: dict[str, list[PurePath]] = {}
        for path in pending:
            groups.setdefault("/".join(path.parts[-depth:]), []).append(path)
        pending = {}
        for name, group in groups.items():
            if len(group) == 1 or all(len(path.parts) <= depth for path in group):
                names.update(dict.fromkeys(group, name))
            else:
                pending.update(dict.fromkeys(group))
        depth += 1
    return [names[path] for path in paths]


def video_id(name: str, digits: int = 8) -> str:
    """The ASCII start of the keys of a video: a readable stem and a digest of its whole name."""
    stem = re.sub(r"[^A-Za-z0-9-]+", "-", PurePath(name).stem).strip("-")[:48] or "video"
    return f"{stem}-{sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:digits]}"


def video_ids(names: Sequence[str]) -> list[str]:
    """The `video_id` of each of different names, with longer digests where two would be the same.

    Two are the same in one of ten data sets of 30,000 names that end in video.mp4.
    """
    ids = [video_id(name) for name in names]
    times = Counter(ids)
    return [
        short if times[short] == 1 else video_id(name, 16)
        for name, short in zip(names, ids, strict=True)
    ]
