"""What a path stands for: shards, NPZ files, weights, runs, told by what is in the files."""

from __future__ import annotations

import glob
import io
import os
import zipfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..contract.errors import HandclrError, TruncatedError, UsageError
from ..contract.inputs import BRACES, STDIN, URL, display_name, expand_inputs, open_source
from ..contract.numbering import left_over
from ..contract.provenance import loads
from ..contract.tar import BLOCK, MapCursor, walk

_CONFIG, _LOG = "config.json", "log.jsonl"


class Kind(StrEnum):
    """What there is to look into."""

    SHARDS = "shards"
    ARRAYS = "arrays"
    WEIGHTS = "weights"
    RUN = "run"
    ABSENT = "absent"


class Thing(NamedTuple):
    """Something to look into; `file` is there where it cannot be opened by its name again."""

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


def recognise(path: str) -> Iterator[Thing]:
    """Yield what a file, folder, pattern, brace range, URL or `-` stands for.

    Of a brace range what is not there is yielded as ABSENT. Raises UsageError where nothing is
    named or matched, HandclrError where a file or folder holds nothing that is known.
    """
    if path == STDIN or URL.match(path):
        yield _stream(path)
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
    """The files of a brace range; patterns in it are files that should be there."""
    match = BRACES.search(pattern)
    assert match
    first, last = match.groups()
    names = [
        f"{pattern[: match.start()]}{n:0{len(first)}d}{pattern[match.end() :]}"
        for n in range(int(first), int(last) + 1)
    ]
    there = [
        name
        for name in names
        if os.path.exists(name) or BRACES.search(name) or glob.has_magic(name)
    ]
    if not there:
        raise UsageError(
            f"{pattern}: {'none of these is there' if names else 'the range counts down'}"
        )
    for name in names:
        if name in set(there):
            yield from recognise(name)
        else:
            yield Thing(Kind.ABSENT, name)


def _folder(folder: str) -> Iterator[Thing]:
    if _is_run(folder):
        yield Thing(Kind.RUN, folder)
        return
    try:
        paths = [
            os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name[0] != "."
        ]
    except OSError as error:
        raise HandclrError(f"cannot read {folder}: {error.strerror}") from error
    found = [Thing(kind, path) for path in paths if (kind := _by_name(path))]
    if not found:
        unfinished = left_over(folder)
        being = (
            f"; {unfinished[0]} is being written, or was left by a writer that was killed"
            if unfinished
            else ""
        )
        raise HandclrError(
            f"{folder}: no finished shards, NPZ files, weights or runs in this folder{being}"
        )
    yield from found


def _is_run(folder: str) -> bool:
    """Whether a folder is a run directory: other programs have a config.json too."""
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
    """A regular file by its first bytes, or by its name where it is damaged."""
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
    raise HandclrError(f"{path}: neither shards, an NPZ file nor weights{hint}")


def _stream(source: str) -> Thing:
    """A pipe, opened: NPZ files and shards can be told by the first byte."""
    file, name = open_source(source), display_name(source)
    peek = getattr(file, "peek", None)
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
    except Exception:  # whatever zipfile raises on bytes of any kind; who reads it by its name will say what is wrong
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
