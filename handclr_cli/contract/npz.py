"""NPZ files: their arrays declared once, checked when read and when written."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from .errors import HandclrError, TruncatedError, lacks_memory
from .inputs import display_name, open_seekable, reading
from .output import output_file
from .provenance import Provenance, dumps, read_provenance


@dataclass(frozen=True)
class Array:
    """An array of an NPZ file; dtype S is bytes of any length, letters in a shape are sizes.

    Where it `may_lack` numbers, these are NaN.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    meaning: str
    optional: bool = False
    may_lack: bool = False

    def fits(self, shape: tuple[int, ...], dtype: np.dtype[Any], sizes: dict[str, int]) -> bool:
        """Whether an array is as declared; `sizes` are those of letters, and new ones are added."""
        same = dtype.kind == "S" if self.dtype == "S" else dtype == np.dtype(self.dtype)
        if not same or len(shape) != len(self.shape):
            return False
        for declared, size in zip(self.shape, shape, strict=True):
            wanted = sizes.setdefault(declared, size) if isinstance(declared, str) else declared
            if wanted != size:
                return False
        return True


POSE = (
    Array("key", "S", ("N",), "key of the sample"),
    Array("video", "S", ("V",), "names of the videos, UTF-8"),
    Array("video_id", "int32", ("N",), "row of the sample's video in `video`"),
    Array(
        "embedding",
        "float32",
        ("N", "D"),
        "pose embedding, in units of the normalised keypoints; in metres for world landmarks alone",
    ),
    Array(
        "components",
        "float64",
        ("D", "F"),
        "principal axes, rows orthonormal, sign fixed; F is 42 for 2D keypoints, 63 for world "
        "landmarks, 105 for both",
    ),
    Array(
        "mean",
        "float64",
        ("F",),
        "mean of the normalised vectors: 2D (x, y of joint 0, x, y of joint 1, ...), then world "
        "landmarks (x, y, z of joint 0, ...)",
    ),
    Array("explained_variance_ratio", "float64", ("D",), "share of the variance along each axis"),
    Array(
        "world_scale",
        "float64",
        (),
        "only for both: what the metres of the world landmarks are multiplied by",
        optional=True,
    ),
    Array(
        "side_score",
        "float64",
        ("N",),
        "how sure the side of the hand is, 0 to 1, as the JSON says; 1 where it says nothing",
        optional=True,
    ),
    Array(
        "hnsw_base",
        "uint8",
        ("N", "B"),
        "only in an index: links, vector and row of each element",
        optional=True,
    ),
    Array(
        "hnsw_links",
        "uint8",
        ("L", "C"),
        "only in an index: links above the lowest level",
        optional=True,
    ),
    Array(
        "hnsw_levels",
        "int32",
        ("N",),
        "only in an index: highest level of each element",
        optional=True,
    ),
)
PAIRS = (
    Array("key", "S", ("N",), "key of the query, the crop that a positive is sought for"),
    Array(
        "target",
        "S",
        ("M",),
        "keys of the crops that `positive` points to; absent where they are `key`",
        optional=True,
    ),
    Array(
        "positive",
        "int32",
        ("N", "K"),
        "rows of the positives in `target`, else in `key`, nearest first; -1 where none",
    ),
    Array(
        "distance", "float32", ("N", "K"), "Euclidean distance of the embeddings; inf where none"
    ),
)
PREDICTIONS = (
    Array("key", "S", ("N",), "key of the sample"),
    Array(
        "keypoints3d",
        "float32",
        ("N", 21, 3),
        "metres, camera frame as in a sample; wrist at the origin where its position is unknown",
    ),
    Array("keypoints2d", "float32", ("N", 21, 2), "crop pixels as in a sample", optional=True),
    Array(
        "source3d",
        "float32",
        ("N", 21, 3),
        "metres, camera frame of the source; left hands are not mirrored",
        optional=True,
    ),
    Array(
        "source2d", "float32", ("N", 21, 2), "pixels of the source, centres at .5", optional=True
    ),
    Array(
        "depth_sigma",
        "float32",
        ("N",),
        "metres, standard deviation of the hand's z that errors of the prediction cause; size and "
        "camera are taken as exact. inf where no position in front of the camera fits, or z is "
        "smaller than its deviation",
        optional=True,
    ),
    Array(
        "camera",
        "float32",
        ("N", 3, 3),
        "pinhole matrix of the source, in its pixels: it projects `source3d` to `source2d`, up to "
        "errors of the prediction",
        optional=True,
    ),
    Array("video", "S", ("N",), "name of the video, UTF-8, empty where unknown", optional=True),
    Array("frame", "int64", ("N",), "number of the frame, -1 where unknown", optional=True),
    Array(
        "time_s",
        "float64",
        ("N",),
        "seconds since the first frame, NaN where unknown and of images",
        optional=True,
        may_lack=True,
    ),
    Array("hand", "S", ("N",), "left or right in the source, empty where unknown", optional=True),
    Array(
        "score",
        "float64",
        ("N",),
        "confidence of the hand and its side, 0 to 1, NaN where unknown",
        optional=True,
        may_lack=True,
    ),
    Array(
        "track",
        "int64",
        ("N",),
        "number of the hand's track in its video, from 1 in the order in which tracks begin, 0 "
        "where unknown",
        optional=True,
    ),
    Array(
        "side_score",
        "float64",
        ("N",),
        "how sure the side of the track is, 0.5 to 1, NaN where unknown",
        optional=True,
        may_lack=True,
    ),
    Array(
        "truth3d",
        "float32",
        ("N", 21, 3),
        "only from evaluate: metres, camera frame",
        optional=True,
    ),
    Array(
        "error_mm",
        "float32",
        ("N", 21),
        "only from evaluate: root-relative error of each joint, 0 where it has no label",
        optional=True,
    ),
    Array(
        "valid",
        "uint8",
        ("N", 21),
        "only from evaluate: 1 where a joint has a label",
        optional=True,
    ),
    Array("unit", "S", ("N",), "only from evaluate: what the intervals resample", optional=True),
)
KINDS = {"pose": POSE, "pairs": PAIRS, "predictions": PREDICTIONS}


def read_npz(
    source: str, kind: str, only: Collection[str] | None = None
) -> tuple[dict[str, np.ndarray], Provenance | None]:
    """Read and check a `pose`, `pairs` or `predictions` file; `-` is standard input.

    Returns the arrays, of which `only` some may be asked for, and the provenance. Raises
    HandclrError where the file is damaged, or an array is missing or not as declared.
    """
    name = display_name(source)
    try:
        with open_seekable(source) as file:
            if not file.read(1):
                raise TruncatedError(f"{name}: is empty; did the upstream command fail?")
            file.seek(0)
            with np.load(file, allow_pickle=False) as npz:
                wanted = set(npz.files) if only is None else {*only, "meta"}
                found = {key: npz[key] for key in npz.files if key in wanted}
    except HandclrError:
        raise
    except Exception as error:  # whatever NumPy, zipfile and zlib raise on bytes of any kind
        if lacks_memory(error):
            raise
        if isinstance(error, OSError) and error.errno:
            with reading(source):
                raise
        raise HandclrError(
            f"{name}: not an NPZ file, or damaged; is this the output of {kind_maker(kind)}?"
        ) from error
    _check(found, kind, name, only)
    return found, read_provenance(str(found.pop("meta", "")), f"{name}: array 'meta'")


def write_npz(path: str, kind: str, arrays: dict[str, np.ndarray], record: Provenance) -> None:
    """Check and write a file of the given kind with its provenance; `-` is standard output."""
    _check(arrays, kind, path)
    with output_file(path, "npz") as file:
        np.savez(_Stream(file), allow_pickle=False, meta=np.array(dumps(record)), **arrays)


class _Stream(io.RawIOBase):
    """A file without seeking, so that zipfile writes the same bytes to disk and to pipes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self.file.write(data)


def as_keys(names: list[str]) -> np.ndarray:
    """Turn names into an array of UTF-8 bytes, a quarter of the size of NumPy's text."""
    return np.array([name.encode("utf-8", "replace") for name in names], dtype=bytes).reshape(-1)


def repeated_key(keys: np.ndarray) -> bytes | None:
    """A key that comes twice among bytes (N,), if there is one."""
    ordered = np.sort(keys)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    return bytes(twice[0]) if len(twice) else None


def kind_maker(kind: str) -> str:
    """The command that writes a kind of NPZ file."""
    return {"pose": "handclr pca", "pairs": "handclr mine", "predictions": "handclr predict"}[kind]


def _check(
    arrays: dict[str, Any], kind: str, name: str, only: Collection[str] | None = None
) -> None:
    sizes: dict[str, int] = {}
    for declared in KINDS[kind]:
        if declared.name not in arrays:
            if declared.optional or (only is not None and declared.name not in only):
                continue
            raise HandclrError(
                f"{name}: no array '{declared.name}'; "
                f"a {kind} file is the output of {kind_maker(kind)}, "
                f"this one has {', '.join(sorted(arrays)) or 'nothing'}"
            )
        array = arrays[declared.name]
        if not isinstance(array, np.ndarray):  # what NumPy makes of bytes that it does not know
            raise HandclrError(f"{name}: array '{declared.name}' is not in NPY format, or damaged")
        if not declared.fits(array.shape, array.dtype, sizes):
            raise HandclrError(
                f"{name}: array '{declared.name}' should be {declared.dtype} {declared.shape}, "
                f"found {array.dtype} {array.shape}"
            )
        if declared.name == "positive" and array.size:
            targets = sizes.get("M", sizes["N"])
            if array.min() < -1 or array.max() >= targets:
                raise HandclrError(f"{name}: array 'positive' has rows that are not in the file")
        if array.dtype.kind == "f" and not declared.may_lack and np.isnan(array).any():
            raise HandclrError(f"{name}: array '{declared.name}' holds NaN")
