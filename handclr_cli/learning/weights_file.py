"""Files of tensors, ours and other people's: read without running code, and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..contract.errors import HandclrError

# What is downloaded in place of weights, told by its first bytes in lower case.
_KINDS = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the weights; fetch them with git lfs pull",
    ),
    (b"<!doctype html", "a web page, not weights; download the file itself"),
    (b"<html", "a web page, not weights; download the file itself"),
    (b"<?xml", "an XML page, not weights; download the file itself"),
    (b"\x1f\x8b", "gzip-compressed; unpack it with gunzip first"),
    (b"\xfd7zxz", "xz-compressed; unpack it with unxz first"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed; unpack it with unzstd first"),
    (b"\x89hdf", "an HDF5 file; convert its weights with torch.save"),
)
_SAFETENSORS = re.compile(rb".{8}\{\s*\"", re.DOTALL)
_CLASS = re.compile(r"GLOBAL ([\w.]+)")
_HEAD = 64


def load_tensors(path: str | Path) -> Any:
    """What a file that torch.save wrote holds, on the CPU; nothing in it is executed.

    Raises HandclrError where the file cannot be read, holds more than tensors and plain values, or
    is something else, which is named.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise HandclrError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds for a damaged file
        raise HandclrError(f"{path}: {_what_it_is(head, error)}") from error


def _what_it_is(head: bytes, error: Exception) -> str:
    """What a file that cannot be loaded is, told by its first bytes or by torch's words."""
    if not head.strip():
        return "is empty; did the download or the training fail?"
    for start, name in _KINDS:
        if head.lstrip().lower().startswith(start):
            return f"is {name}"
    if _SAFETENSORS.match(head):
        return "is a safetensors file; convert its weights with torch.save"
    if found := _CLASS.search(str(error)):
        holds = f"holds a {found[1]}, and nothing but tensors and plain values is loaded"
        return f"{holds}; torch.save its state dict alone"
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return "needs more memory than there is, or is damaged"
    return "not a checkpoint, or damaged"


def refuse_not_finite(tensors: Mapping[str, Tensor], path: object) -> None:
    """Raise HandclrError where a tensor of weights holds NaN or an infinity."""
    bad = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    if bad:
        more = f" and {len(bad) - 1:,} more" if len(bad) > 1 else ""
        holds = f"{path}: tensor {bad[0]}{more} holds values that are not finite"
        raise HandclrError(f"{holds}; the training that made it went wrong, take other weights")
