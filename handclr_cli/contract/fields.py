"""The members of a sample: their names, dtypes, shapes and meanings, and how each is encoded."""

from __future__ import annotations

import functools
import io
import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import HandclrError, lacks_memory
from .jsontext import parse_json

JOINT_COUNT = 21


@dataclass(frozen=True)
class Field:
    """A member of a sample: its suffix, what it decodes to, and the commands that write it.

    `others` are suffixes under which other programs write it, read where the first is not there.
    """

    suffix: str
    dtype: str
    shape: tuple[int | str, ...]
    meaning: str
    writers: tuple[str, ...]
    others: tuple[str, ...] = ()


IMAGE = Field(
    "jpg",
    "uint8",
    ("S", "S", 3),
    "square RGB crop, **always a right hand**: left ones are mirrored. Without it, a member `jpeg` "
    "or `png` is taken",
    ("extract", "import", "synth"),
    ("jpeg", "png"),
)
INFO = Field(
    "json",
    "object",
    (),
    "`video`, `frame`, `time_s` since the first frame, `box` [x0, y0, x1, y1] (the crop's square "
    "in displayed pixels of the source, before mirroring; it may reach beyond the frame), "
    "`source_size` [width, height] as displayed (rotated as the file says, square pixels), "
    '`hand` "left"/"right" in the source, `flipped` (whether the crop is mirrored), `score`. Where '
    "hands are followed from frame to frame: `track`, one number for one hand (the frame where its "
    "track begins, plus 100,000,000 for each other hand whose track begins there), and "
    "`side_score`, 0.5 to 1, how sure `hand` is. Labelled sets add `sample` (the same for all "
    "images of one pose), `index` (its place in the split), and `version`, `subject`, `camera` or "
    "`hand_id`",
    ("extract", "import", "synth"),
)
KEYPOINTS_2D = Field(
    "keypoints2d.npy",
    "float32",
    (JOINT_COUNT, 2),
    "crop pixels after mirroring, x right, y down, pixel centres at .5, MediaPipe order",
    ("keypoints", "extract", "import", "synth"),
)
KEYPOINTS_3D = Field(
    "keypoints3d.npy",
    "float32",
    (JOINT_COUNT, 3),
    "metres, camera frame (x right, y down, z forward), after mirroring",
    ("import", "synth"),
)
WORLD_3D = Field(
    "world3d.npy",
    "float32",
    (JOINT_COUNT, 3),
    "MediaPipe's estimate of the hand's shape: metres from the wrist, axes of `keypoints3d`, after "
    "mirroring; it says nothing of the distance to the camera",
    ("keypoints", "extract"),
)
INTRINSICS = Field(
    "intrinsics.npy",
    "float32",
    (3, 3),
    "pinhole matrix of the crop, in crop pixels, after mirroring",
    ("import", "synth"),
)
VALID = Field(
    "valid.npy",
    "uint8",
    (JOINT_COUNT,),
    "1 where a joint has a label; wrist and middle knuckle always have one. Without this member, "
    "all joints have. Coordinates of joints without a label are finite and mean nothing",
    ("import",),
)
FIELDS = (IMAGE, INFO, KEYPOINTS_2D, KEYPOINTS_3D, WORLD_3D, INTRINSICS, VALID)


def decode(field: Field, payload: bytes | memoryview, where: str, suffix: str = "") -> Any:
    """Decode and check a member.

    Gives an image uint8 (S, S, 3) RGB, a dict, or an array of finite numbers in the declared dtype
    and shape. Raises HandclrError, with `where` in front, if the payload is damaged or is not what
    the field declares; it names the field by `suffix`, where that is another than its own.
    """
    try:
        if field is IMAGE:
            return _decode_image(payload)
        if field is INFO:
            return _decode_object(payload)
        return _decode_array(field, payload)
    except Exception as error:  # whatever OpenCV, NumPy and json raise on bytes of any kind
        if lacks_memory(error):
            raise
        raise HandclrError(f"{where}: bad {suffix or field.suffix}: {error}") from error


def encode_array(field: Field, array: np.ndarray) -> bytes:
    """Encode an array as NPY bytes, in the dtype of its field; it must have the field's shape."""
    value = np.ascontiguousarray(array, dtype=field.dtype)
    _check_shape(field, value.shape)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, value, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def legible(name: str) -> str:
    """The name of a file as text; bytes of it that are not UTF-8 are written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def encode_object(value: dict[str, Any]) -> bytes:
    """Encode a JSON member: compact, UTF-8, keys in the order given."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def encode_image(image: np.ndarray, quality: int = 95) -> bytes:
    """Encode a uint8 (S, S, 3) RGB crop as JPEG bytes."""
    import cv2

    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    return data.tobytes()


def _decode_image(payload: bytes | memoryview) -> np.ndarray:
    import cv2

    data = np.frombuffer(payload, np.uint8)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(data, flags) if data.size else None
    if image is None:
        raise ValueError("not an image")
    if image.shape[0] != image.shape[1]:
        raise ValueError(f"not square: {image.shape[1]}x{image.shape[0]} pixels")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _decode_object(payload: bytes | memoryview) -> dict[str, Any]:
    value = parse_json(bytes(payload))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _decode_array(field: Field, payload: bytes | memoryview) -> np.ndarray:
    header = _own_header(field)
    # Comparing the header with the one that encode_array writes is much faster than parsing it.
    if payload[: len(header)] == header:
        shape = [int(side) for side in field.shape]
        array = np.frombuffer(payload[len(header) :], field.dtype).reshape(shape).copy()
    else:
        array = np.lib.format.read_array(io.BytesIO(payload), allow_pickle=False)
    _check_shape(field, array.shape)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"expected numbers, found {array.dtype}")
    with np.errstate(over="ignore"):
        value = array.astype(field.dtype, copy=False)
    if not np.isfinite(value).all():
        raise ValueError("holds values that are not finite")
    return value


@functools.cache
def _own_header(field: Field) -> bytes:
    empty = np.zeros([int(side) for side in field.shape], field.dtype)
    return encode_array(field, empty)[: -empty.nbytes]


def _check_shape(field: Field, shape: tuple[int, ...]) -> None:
    if shape != field.shape:
        raise ValueError(f"expected shape {field.shape}, found {shape}")
