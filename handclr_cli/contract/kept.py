"""Shards of servers that are kept on this machine, up to a limit, for the next run.

A file in the cache is complete: it gets its name when it is, and is used where it has the size that
the server says. Its name is a digest of the URL and of what the server says of its content.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from .errors import HandclrError, UsageError
from .inputs import display_name, open_source, reading
from .output import atomic_write
from .retries import Content, shown
from .temporary import lock_file

LIMIT = "HANDCLR_SHARD_CACHE_GB"
_LIMIT_GB = 20.0
_GB = 10**9
_CHUNK = 1 << 20
_SUFFIX = ".tar"

# What this process has mapped: to remove it would free nothing.
_in_use: set[Path] = set()


def cache_folder() -> Path:
    """`HANDCLR_CACHE`, else `$XDG_CACHE_HOME/handclr`, else `~/.cache/handclr`."""
    if os.environ.get("HANDCLR_CACHE"):
        return Path(os.environ["HANDCLR_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "handclr"


def open_kept(source: str) -> BinaryIO:
    """Open a source as `open_source` does; of a URL the file in the cache, copied there first.

    It is the stream itself where the server does not tell one content from another, or the cache
    has no room for it beside what this process reads. Raises HandclrError where copying fails.
    """
    file = open_source(source)
    content = getattr(getattr(file, "raw", None), "content", None)
    if not isinstance(content, Content) or not content.is_known:
        return file
    path = cache_folder() / "shards" / f"{_digest(source, content)}{_SUFFIX}"
    kept = _open(path, content)
    if kept is None and _makes_room(path.parent, content.size or 0):
        kept = _copied(source, file, path)
    if kept is None:
        return file
    file.close()
    _in_use.add(path)
    return kept


def _copied(source: str, file: BinaryIO, path: Path) -> BinaryIO | None:
    """Copy a stream into the cache, unless another process does, which is waited for.

    None, with the stream where it was, where the cache cannot be written to.
    """
    content = file.raw.content  # type: ignore[attr-defined]
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_file(path.with_suffix(".lock"), wait=True))
        except OSError:
            return None
        if kept := _open(path, content):
            return kept
        with atomic_write(path, "cached") as copy:
            while data := _read(source, file):
                _write(copy, data, path)
            _refuse_other(source, file, content)
        return open(path, "rb")


def _read(source: str, file: BinaryIO) -> bytes:
    with reading(source):
        return file.read(_CHUNK)


def _write(copy: BinaryIO, data: bytes, path: Path) -> None:
    try:
        copy.write(data)
    except OSError as error:
        reason = f"cannot write to {path.parent}: {error.strerror or error}"
        raise HandclrError(f"{reason}; with {LIMIT}=0 no shards are kept") from error


def _refuse_other(source: str, file: BinaryIO, content: Content) -> None:
    """Raise HandclrError where the file was replaced while its first bytes were waited for."""
    if file.raw.content != content:  # type: ignore[attr-defined]
        raise HandclrError(f"{display_name(source)}: changed while it was read; run this again")


def _digest(source: str, content: Content) -> str:
    """What a file is called; a query, which may be a signature, counts where nothing else does."""
    name = source if content.etag is None else shown(source)
    return sha256(repr((name, *content)).encode("utf-8", "replace")).hexdigest()[:32]


def _open(path: Path, content: Content) -> BinaryIO | None:
    """A file of the cache, marked as used now; None where it is not there, or not whole."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - open to be mapped
    except OSError:
        return None
    about = os.fstat(file.fileno())
    if about.st_size != content.size:
        file.close()
        return None
    with contextlib.suppress(OSError):
        os.utime(path, ns=(time.time_ns(), about.st_mtime_ns))
    return file


def _makes_room(folder: Path, size: int) -> bool:
    """Remove what was used longest ago, so that `size` more bytes are within the limit.

    False where they are not, whatever is removed.
    """
    limit = _limit()
    files = sorted(_files(folder), key=lambda each: each[1].st_atime_ns)
    total = sum(about.st_size for _, about in files)
    free = [(path, about.st_size) for path, about in files if path not in _in_use]
    free = [(path, bytes_) for path, bytes_ in free if path.suffix == _SUFFIX]
    if total - sum(bytes_ for _, bytes_ in free) + size > limit:
        return False
    for path, bytes_ in free:
        if total + size <= limit:
            break
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        total -= bytes_
    return True


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of the cache; those that are being written are counted too."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                yield Path(entry.path), entry.stat(follow_symlinks=False)


def _limit() -> float:
    """The most bytes to keep; raises UsageError where the variable is no number."""
    text = os.environ.get(LIMIT) or str(_LIMIT_GB)
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not limit >= 0:
        raise UsageError(f"{LIMIT} {text}: not a number of gigabytes; 0 keeps no shards")
    return limit * _GB
