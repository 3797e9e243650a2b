"""Detect the kind of a file or folder from its contents: shards, NPZ file, weights or run."""

from __future__ import annotations

import glob
import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..contract.errors import HandclrError, TruncatedError, UsageError
from ..contract.inputs import (
    BRACES,
    STDIN,
    URL,
    display_name,
    expand_inputs,
    in_range,
    is_url,
    open_source,
    open_start,
    reading,
)
from ..contract.numbering import left_over
from ..contract.provenance import loads
from ..contract.remote import COMMAND
from ..contract.tar import BLOCK, MapCursor, walk

_CONFIG, _LOG = "config.json", "log.jsonl"


class Kind(StrEnum):
    """The kinds of things that can be inspected; ABSENT is a file that is missing."""

    SHARDS = "shards"
    ARRAYS = "arrays"
    WEIGHTS = "weights"
    RUN = "run"
    ABSENT = "absent"


class Thing(NamedTuple):
    """Something to inspect; `file` is open where it cannot be opened again by its name."""

    kind: Kind
    name: str
    file: BinaryIO | None = None


_SUFFIXES = {
    ".tar": Kind.SHARDS,
    ".npz": Kind.ARRAYS,
    ".hnsw": Kind.ARRAYS,
    ".pt": Kind.WEIGHTS,
    ".pth": Kind.WEIGHTS,
    ".ckpt": Kind.WEIGHTS,
}


def refuse_absent(paths: Sequence[str]) -> None:
    """Raise UsageError where a path is plainly not there: before another one is read."""
    for path in paths:
        many = BRACES.search(path) or glob.has_magic(path)
        if path != STDIN and not URL.match(path) and not many:
            expand_inputs([path], "")


def recognise(path: str) -> Iterator[Thing]:
    """Yield the things that a file, folder, pattern, brace range, URL or `-` contains.

    Missing files of a brace range are yielded as ABSENT. Raises UsageError where no file has the
    name or matches the pattern, HandclrError where a file or folder is of no known kind.
    """
    if path == STDIN:
        yield _stream(path)
    elif URL.match(path):
        for name in expand_inputs([path]):
            yield from [_remote(name)] if is_url(name) else recognise(name)
    elif BRACES.search(path) and not os.path.exists(path):
        yield from _range(path)
    elif os.path.isdir(path):
        yield from _folder(path)
    elif not os.path.exists(path) and glob.has_magic(path):
        for name in expand_inputs([path]):
            yield from recognise(name)
    elif os.path.isfile(path):
        yield _file(path)
    else:
        expand_inputs([path])
        yield _stream(path)


def _range(pattern: str) -> Iterator[Thing]:
    """The files of a brace range, and what matches the patterns that its names are."""
    names = in_range(pattern)
    there = {
        name
        for name in names
        if os.path.exists(name) or BRACES.search(name) or glob.has_magic(name)
    }
    if not there:
        why = "none of these is there" if names else "the range counts down"
        raise UsageError(f"{pattern}: {why}")
    for name in names:
        if name in there:
            yield from recognise(name)
        else:
            yield Thing(Kind.ABSENT, name)


def _folder(folder: str) -> Iterator[Thing]:
    if _is_run(folder):
        yield Thing(Kind.RUN, folder)
        return
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise HandclrError(f"cannot read {folder}: {error.strerror}") from error
    paths = [os.path.join(folder, name) for name in names if name[0] != "."]
    found = [Thing(kind, path) for path in paths if (kind := _by_name(path))]
    if not found:
        nothing = f"{folder}: no finished shards, NPZ files, weights or runs in this folder"
        for name in left_over(folder):
            raise HandclrError(
                f"{nothing}; {name} is being written, or was left by a writer that was killed"
            )
        raise HandclrError(f"{nothing}; handclr extract makes shards of footage")
    yield from found


def _is_run(folder: str) -> bool:
    """Whether a folder is a run directory, and not one of other programs with a config.json."""
    try:
        config = Path(folder, _CONFIG).read_bytes()
    except OSError:
        return False
    return "stage" in (loads(config) or {}) or Path(folder, _LOG).is_file()


def _by_name(path: str) -> Kind | None:
    if os.path.isdir(path):
        return Kind.RUN if _is_run(path) else None
    return _SUFFIXES.get(os.path.splitext(path)[1].lower())


def _file(path: str) -> Thing:
    """Detect a regular file by its first bytes, or by its name where it is damaged."""
    with open_source(path) as file:
        head = file.read(BLOCK)
        if head[:2] == b"PK":
            return Thing(_in_zip(file, path), path)
    if head[:1] == b"\x80":
        return Thing(Kind.WEIGHTS, path)
    if len(head) == BLOCK and _begins_tar(head):
        return Thing(Kind.SHARDS, path)
    kind = _by_name(path)
    if kind:
        return Thing(kind, path)
    if not head:
        raise HandclrError(f"{path}: is empty; did the upstream command fail?")
    hint = "; it is gzip-compressed, pipe it through zcat" if head[:2] == b"\x1f\x8b" else ""
    hint = hint or "; handclr extract makes shards of footage"
    raise HandclrError(f"{path}: neither shards, an NPZ file nor weights{hint}")


def _remote(source: str) -> Thing:
    """Detect what a URL holds by its start; shards are opened again when they are read."""
    if source.startswith(COMMAND):
        return _stream(source)
    with reading(source), open_start(source) as file:
        is_zip = file.read(1) == b"P"
    if is_zip:
        return _stream(source)
    return Thing(Kind.SHARDS, display_name(source), io.BufferedReader(_Later(source)))


class _Later(io.RawIOBase):
    """A source that is open only while it is read, as one of many."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._file: BinaryIO | None = None
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._ended:
            return 0
        self._file = self._file or open_source(self._source)
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        if not data and len(buffer):
            self._ended = True
            self._file.close()
        return len(data)


def _stream(source: str) -> Thing:
    """Open a pipe, and detect by its first byte whether it is an NPZ file or shards."""
    file, name = open_source(source), display_name(source)
    peek = getattr(file, "peek", None)
    with reading(source):
        if peek is None or not peek(1).startswith(b"P"):
            return Thing(Kind.SHARDS, name, file)
        whole = io.BytesIO(file.read())
    kind = _in_zip(whole, name)
    if kind is Kind.WEIGHTS:
        raise HandclrError(f"{name}: weights can be read from a file only; name it")
    return Thing(kind, name, whole)


def _in_zip(file: BinaryIO, name: str) -> Kind:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except Exception:  # whatever zipfile raises on damaged files; reading it will say what is wrong
        return _by_name(name) or Kind.ARRAYS
    if any(each.endswith("data.pkl") for each in names):
        return Kind.WEIGHTS
    if not names or any(each.endswith(".npy") for each in names):
        return Kind.ARRAYS
    raise HandclrError(f"{name}: a ZIP archive that is neither an NPZ file nor weights")


def _begins_tar(head: bytes) -> bool:
    try:
        next(walk(MapCursor(memoryview(head)), ""), None)
    except TruncatedError:
        return True
    except HandclrError:
        return False
    return True
