"""What is in an NPZ file: the headers of its arrays, and numbers from some of the arrays."""

from __future__ import annotations

import zipfile
from typing import Any, BinaryIO

import numpy as np

from ..contract.errors import HandclrError
from ..contract.npz import KINDS
from ..contract.provenance import loads
from ..hand.alignment import joint_means, mean_over_joints

# The array, besides `key`, by which each kind is recognised.
_TELLTALE = {"pose": "embedding", "pairs": "positive", "predictions": "keypoints3d"}
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_SMALL = 1 << 24


def describe_npz(file: BinaryIO, name: str) -> dict[str, Any]:
    """Describe an NPZ file, as JSON with the keys that the page on footage lists.

    Nothing is unpickled. Raises HandclrError where the file is not an NPZ file, or its directory is
    damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            headers = {name.removesuffix(".npy"): _header(archive, name) for name in names}
            problems = _damage(archive)
    except Exception as error:  # whatever zipfile and NumPy raise on bytes of any kind
        raise HandclrError(f"{name}: not an NPZ file, or damaged; is it whole?") from error
    kind = _kind(headers)
    counts: dict[str, Any] = {}
    if kind in KINDS:
        problems += _misfits(kind, headers)
        if not problems:
            counts = _counts(kind, file, headers, problems)
    indexed = kind == "pose" and "hnsw_base" in headers
    arrays = {
        key: {"dtype": _dtype(dtype), "shape": list(shape)}
        for key, (shape, dtype) in headers.items()
    }
    return {
        "kind": "npz",
        "name": name,
        "type": "index" if indexed else kind,
        "arrays": arrays,
        **counts,
        "provenance": _meta(file, headers),
        "sound": not problems,
        "problems": problems,
    }


Header = tuple[tuple[int, ...], np.dtype[Any]]


def _kind(headers: dict[str, Header]) -> str:
    for kind, telltale in _TELLTALE.items():
        if "key" in headers and telltale in headers:
            return kind
    return "arrays"


def _header(archive: zipfile.ZipFile, entry: str) -> Header:
    with archive.open(entry) as member:
        major, _ = np.lib.format.read_magic(member)
        if major == 1:
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    return shape, dtype


def _damage(archive: zipfile.ZipFile) -> list[str]:
    try:
        broken = archive.testzip()
    except Exception:  # a member that cannot even be unpacked
        return ["an array is damaged"]
    return [f"array '{broken.removesuffix('.npy')}' is damaged"] if broken else []


def _misfits(kind: str, headers: dict[str, Header]) -> list[str]:
    """The arrays that are missing or not as the contract declares them, a line each."""
    sides: dict[str, int] = {}
    found = []
    for declared in KINDS[kind]:
        if declared.name not in headers:
            if not declared.optional:
                found.append(f"no array '{declared.name}'")
        elif not declared.fits(*headers[declared.name], sides):
            shape, dtype = headers[declared.name]
            wanted = "bytes" if declared.dtype == "S" else declared.dtype
            found.append(
                f"array '{declared.name}' should be {wanted} {declared.shape}, "
                f"is {_dtype(dtype)} {shape}"
            )
    return found


def _counts(
    kind: str, file: BinaryIO, headers: dict[str, Header], problems: list[str]
) -> dict[str, Any]:
    try:
        return {"pose": _pose, "pairs": _pairs, "predictions": _predictions}[kind](file, headers)
    except (ValueError, MemoryError, OSError, EOFError):  # less data than a header says
        problems.append("its arrays are not of the size that they say")
        return {}


def _dtype(dtype: np.dtype[Any]) -> str:
    if dtype.hasobject:
        return "object (pickled, not read)"
    return {"S": "bytes", "U": "text"}.get(dtype.kind, str(dtype))


def _read(file: BinaryIO, *names: str) -> list[np.ndarray]:
    file.seek(0)
    with np.load(file, allow_pickle=False) as npz:
        return [npz[name] for name in names]


def _meta(file: BinaryIO, headers: dict[str, Header]) -> dict[str, Any] | None:
    """The provenance in `meta`, where that is a text as the contract declares it."""
    shape, dtype = headers.get("meta", ((0,), np.dtype("u1")))
    if shape or dtype.kind != "U" or dtype.itemsize > _SMALL:
        return None
    try:
        return loads(str(_read(file, "meta")[0]))
    except (ValueError, OSError, zipfile.BadZipFile):
        return None


def _pose(file: BinaryIO, headers: dict[str, Header]) -> dict[str, Any]:
    (ratio,) = _read(file, "explained_variance_ratio")
    poses, dimensions = headers["embedding"][0]
    return {
        "poses": poses,
        "videos": headers["video"][0][0],
        "dimensions": dimensions,
        "explained_variance": [round(float(value), 6) for value in ratio],
    }


def _pairs(file: BinaryIO, headers: dict[str, Header]) -> dict[str, Any]:
    positive, distance = _read(file, "positive", "distance")
    there = positive >= 0
    queries, most = positive.shape
    nearest = distance[there[:, 0], 0] if most else distance[:0, 0]
    return {
        "queries": queries,
        "targets": headers.get("target", headers["key"])[0][0],
        "positives_each": most,
        "pairs": int(there.sum()),
        "without_positive": int((~there.any(axis=1)).sum()),
        "distance": _quantiles(nearest),
    }


def _predictions(file: BinaryIO, headers: dict[str, Header]) -> dict[str, Any]:
    found: dict[str, Any] = {"samples": headers["key"][0][0], "with_truth": "truth3d" in headers}
    if "error_mm" in headers:
        (error,) = _read(file, "error_mm")
        valid = _read(file, "valid")[0] > 0 if "valid" in headers else np.isfinite(error)
        mean = float(mean_over_joints(joint_means(error, valid))) if valid.any() else None
        found["error_mm"] = None if mean is None else round(mean, 4)
    return found


def _quantiles(values: np.ndarray) -> dict[str, float]:
    """Quantiles of the finite values of (N,), by names such as p50; none where there are none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return {}
    # One by one: several at once are calculated in float64, which gives other last digits.
    return {
        f"p{100 * share:.0f}": round(float(np.quantile(finite, share)), 6) for share in _QUANTILES
    }
