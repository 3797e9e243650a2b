"""What kind of file lies at a name, so that an output replaces only a file of its own kind."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

from .errors import UsageError
from .retries import shown
from .stores import ends_of_object
from .tar import BLOCK

# At the end of a film that handclr drew: an MP4 box that players pass over.
FILM_MARK = struct.pack(">I4s", 16, b"free") + b"handclr "
_HEAD = 4096
_ZIP = b"PK\x03\x04"


class FileKind(NamedTuple):
    """A kind of output: what it is called, and how a file of it is known by its start and end."""

    name: str
    fits: Callable[[bytes, bytes], bool]


def refuse_other_kind(path: str | os.PathLike[str], kind: str) -> None:
    """Raise UsageError where a file at `path` is of another kind than that which is to replace it.

    Nothing, an empty file, and what is no file, such as a device, may be written to.
    """
    if why := other_kind(path, kind):
        raise UsageError(f"{path} {why}")


def other_kind(path: str | os.PathLike[str], kind: str) -> str:
    """What is wrong with writing a file of a kind to `path`, in words; empty where nothing is."""
    if not os.path.isfile(path) or not os.path.getsize(path):
        return ""
    with open(path, "rb") as file:
        return _unfit(file.read(_HEAD), _end(file), kind)


def refuse_other_object(url: str, kind: str) -> None:
    """Raise UsageError where an object in a store is of another kind, as of a file."""
    head, end = ends_of_object(url, _HEAD, len(FILM_MARK))
    if head and (why := _unfit(head, end, kind)):
        raise UsageError(f"{shown(url)} {why}")


def _unfit(head: bytes, end: bytes, kind: str) -> str:
    if KINDS[kind].fits(head, end):
        return ""
    return f"exists and is not {KINDS[kind].name}; name another output, or move that file elsewhere"


def _end(file: BinaryIO) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - len(FILM_MARK)))
    return file.read()


def _is_tar(head: bytes, end: bytes) -> bool:
    """A first header with the right checksum, or the end mark alone."""
    block = head[:BLOCK]
    if len(block) < BLOCK:
        return False
    if not any(block):
        return True
    told = block[148:156].strip(b"\0 ")
    total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    return re.fullmatch(rb"[0-7]+", told) is not None and int(told, 8) == total


def _zip_of(pattern: bytes) -> Callable[[bytes, bytes], bool]:
    """A ZIP archive whose first member has a name of this pattern."""

    def fits(head: bytes, end: bytes) -> bool:
        length = int.from_bytes(head[26:28], "little")
        return head.startswith(_ZIP) and bool(re.fullmatch(pattern, head[30 : 30 + length], re.S))

    return fits


def _is_text(pattern: bytes) -> Callable[[bytes, bytes], bool]:
    """Text that starts with this pattern, after a byte order mark and white space."""
    start = re.compile(rb"(?:\xef\xbb\xbf)?\s*" + pattern, re.I)
    return lambda head, end: b"\0" not in head and start.match(head) is not None


def _is_table(head: bytes, end: bytes) -> bool:
    return any(KINDS[kind].fits(head, end) for kind in ("csv", "jsonl", "npz"))


def _is_mp4(head: bytes, end: bytes) -> bool:
    return head[4:8] == b"ftyp"


KINDS = {
    "tar": FileKind("a tar", _is_tar),
    "npz": FileKind("an NPZ file", _zip_of(rb".+\.npy")),
    "checkpoint": FileKind("a PyTorch checkpoint", _zip_of(rb".+/data\.pkl")),
    "onnx": FileKind(
        "an ONNX model", lambda head, end: re.match(rb"\x08.[\x12-\x42]", head, re.S) is not None
    ),
    # Tables of hands, which all begin alike.
    "csv": FileKind("a CSV of hands", _is_text(rb"video,frame,time_s,hand,score,track,wrist_x,")),
    "jsonl": FileKind("JSON lines of hands", _is_text(rb'\{"video":')),
    "table": FileKind("a table of hands", _is_table),
    "png": FileKind("a PNG", lambda head, end: head.startswith(b"\x89PNG\r\n\x1a\n")),
    "json": FileKind("JSON", _is_text(rb"[{\[]")),
    "scores": FileKind("FreiHAND's scores.txt", _is_text(rb"xyz_mean3d: ")),
    "results": FileKind("a result file of DexYCB", _is_text(rb"\d+(,-?[\d.]+){63}")),
    "html": FileKind("an HTML page", _is_text(rb"<(!doctype )?html")),
    "mp4": FileKind("an MP4", _is_mp4),
    "film": FileKind(
        "a film that handclr drew", lambda head, end: _is_mp4(head, end) and end == FILM_MARK
    ),
    # Of our own cache, which may hold a damaged file.
    "cached": FileKind("a cached file", lambda head, end: True),
}
