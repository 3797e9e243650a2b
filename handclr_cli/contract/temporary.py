"""Temporary files and folders beside their target, and how those of dead writers are known.

The name is random and made exclusively, so that no link is followed and no other writer has it. The
writer holds the system's lock on it (flock) until it has ended, however it ends: whoever gets the
lock knows that the writer is gone. Over NFS the lock holds between hosts, unless the folder is
mounted with `nolock` or `local_lock`; so what was made on another host, or before a reboot, must
also have been left alone for a day.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = re.compile(r"\.(?P<name>.+)\.tmp-(?P<kernel>[0-9a-f]{8})[0-9a-f]{16}(?P<suffix>\..+)?", re.S)
_LEFT_ALONE_S = 24 * 3600
# Of a file's name in most file systems, in bytes; a temporary name is this much longer than its
# target's at most.
_NAME_MAX, _LONGER = 255, 40
_TRIES = 100

_held: set[int] = set()


@contextlib.contextmanager
def temporary_file(target: Path, suffix: str = "") -> Iterator[IO[bytes]]:
    """Make a new file beside `target`, locked and open for reading and writing.

    Its name, which ends in `suffix`, is `name` of the file. When the block ends, it is removed if
    it is still there. What dead writers have left of the same target is removed first. Raises
    OSError where there can be no file.
    """
    sweep(target)
    for _ in range(_TRIES):
        path = _new_name(target, suffix)
        try:
            # Opened inside the try: a signal may arrive right after the file is made.
            with open(path, "x+b") as file, _locked(file.fileno()):
                if not _is(path, file.fileno()):  # swept before it was locked
                    continue
                yield file
                return
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
    raise OSError(f"temporary files disappear from {target.parent}")


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Make a new folder beside `target` as `temporary_file` makes a file, and its parents."""
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target)
    path = _new_name(target, "")
    try:
        path.mkdir()
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with _locked(descriptor):
                yield path
        finally:
            os.close(descriptor)
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def lock_file(path: str | os.PathLike[str], wait: bool) -> Iterator[bool]:
    """Hold the lock of a file, made if it is not there, until the block or the process ends.

    Gives whether the lock could be taken: False where the file system has no locks. Raises
    BlockingIOError where another process holds it and we do not `wait`, OSError where the file
    cannot be opened. The file is removed at the end.
    """
    for _ in range(_TRIES):
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(path, flags, 0o666)
        try:
            with _locked(descriptor, wait) as locked:
                if not _is(path, descriptor):  # removed by the one who held it
                    continue
                try:
                    yield locked
                finally:
                    with contextlib.suppress(OSError):
                        os.unlink(path)
                return
        finally:
            os.close(descriptor)
    raise OSError(f"{path} disappears")


def sweep(target: Path) -> None:
    """Remove the temporary files and folders of a target whose writers are gone."""
    stem = _stem(target)
    try:
        names = [name for name in os.listdir(target.parent) if name.startswith(f".{stem}.tmp-")]
    except OSError:
        return
    for name in names:
        match = NAME.fullmatch(name)
        if match and match["name"] == stem:
            with contextlib.suppress(OSError):
                _remove_if_dead(target.with_name(name), match["kernel"])


def _remove_if_dead(path: Path, kernel: str) -> None:
    folder = path.is_dir()
    flags = os.O_RDONLY if folder else os.O_RDWR
    descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        with _locked(descriptor, wait=False) as locked:
            if locked and _is(path, descriptor) and (kernel == _kernel() or _left_alone(path)):
                (shutil.rmtree if folder else os.unlink)(path)
    finally:
        os.close(descriptor)


def _left_alone(path: Path) -> bool:
    """Whether a file was last written to a day ago, by the clock of the file's own server."""
    probe = _new_name(path, "")
    try:
        with open(probe, "xb") as file:
            now = os.fstat(file.fileno()).st_mtime
    finally:
        probe.unlink(missing_ok=True)
    return now - path.stat().st_mtime > _LEFT_ALONE_S


def _new_name(target: Path, suffix: str) -> Path:
    return target.with_name(f".{_stem(target)}.tmp-{_kernel()}{os.urandom(8).hex()}{suffix}")


def _stem(target: Path) -> str:
    """The name of the target, or a digest of one that leaves no room for the rest."""
    name = os.fsencode(target.name)
    if len(name) + _LONGER <= _NAME_MAX:
        return target.name
    return _digest(name)


@functools.cache
def _kernel() -> str:
    """What stands for this run of this machine: its containers share it, and its locks."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        text = os.uname().nodename if hasattr(os, "uname") else ""
    return _digest(text.encode())[:8]


def _digest(data: bytes) -> str:
    from hashlib import sha256  # loads OpenSSL, for which the help of a command has no use

    return sha256(data).hexdigest()


def _is(path: str | os.PathLike[str], descriptor: int) -> bool:
    """Whether a name still stands for the file that was opened under it."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _locked(descriptor: int, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of an open file; gives False where the file system has none."""
    locked = _lock(descriptor, wait)
    _held.add(descriptor)
    try:
        yield locked
    finally:
        _held.discard(descriptor)


def _lock(descriptor: int, wait: bool) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _let_go() -> None:
    """In a forked child, let go of its parent's locks, which would outlive the parent.

    The numbers stay taken, as files of the parent are still tied to them here.
    """
    for descriptor in _held:
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
