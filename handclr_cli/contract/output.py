"""Files that appear under their final name only when they are complete."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from .errors import HandclrError, UsageError
from .inputs import is_url
from .kinds import refuse_other_kind, refuse_other_object
from .retries import shown
from .stores import is_store, new_object, remove_object
from .temporary import temporary_file


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], kind: str, suffix: str = "") -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; when the block ends, it is renamed to `path`.

    The data is on disk before it is renamed. On an exception the temporary file is removed, and a
    file that was at `path` stays as it was. `kind` is one of `kinds.KINDS`; the temporary name ends
    in `suffix`. An object in a store, too, appears when it is complete. Raises UsageError where a
    file of another kind is at `path`, HandclrError where the file cannot be written.
    """
    if is_store(name := os.fspath(path)):
        if suffix:
            raise UsageError(f"{shown(name)}: films are written to this machine only; name a file")
        if name.endswith("/"):
            raise UsageError(f"{shown(name)}: no name of an object; write one behind the /")
        refuse_other_object(name, kind)
        with new_object(name) as upload:
            yield upload
        return
    if is_url(name):
        raise UsageError(f"{shown(name)}: cannot be written to; name a file, or s3://bucket/name")
    if os.path.exists(path) and not os.path.isfile(path):
        # A device or a pipe (/dev/stdout, >(command)) cannot be renamed to, and /dev/null must not
        # be replaced.
        try:
            with open(path, "wb") as device:
                yield device
        except BrokenPipeError:
            raise
        except OSError as error:
            raise HandclrError(f"cannot write {path}: {error.strerror or error}") from error
        return
    path = Path(os.path.realpath(path))
    try:
        refuse_other_kind(path, kind)
        with temporary_file(path, suffix) as file:
            yield cast(BinaryIO, file)
            file.flush()
            os.fsync(file.fileno())
            temporary = file.name
            if os.name == "nt":  # where an open file cannot be renamed
                file.close()
            os.replace(temporary, path)
    except OSError as error:
        raise HandclrError(f"cannot write {path}: {error.strerror or error}") from error


def remove_output(name: str) -> None:
    """Remove a file, or an object in a store, if it is there."""
    if is_store(name):
        remove_object(name)
    else:
        Path(name).unlink(missing_ok=True)


def write_json(
    path: str | os.PathLike[str], value: dict[str, Any], ensure_ascii: bool = True
) -> None:
    """Write indented JSON as `atomic_write` does; raises HandclrError where that fails."""
    with atomic_write(path, "json") as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=ensure_ascii).encode() + b"\n")


def append_lines(path: str | os.PathLike[str], lines: Iterable[str]) -> None:
    """Append lines to a log, made if it is not there; a link is not followed.

    Raises HandclrError where that fails. A process that is killed may leave a part of a line.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    try:
        with open(os.open(path, flags, 0o666), "a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
    except OSError as error:
        raise HandclrError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def output_file(path: str, kind: str, is_text: bool = False) -> Iterator[BinaryIO]:
    """Open `path` atomically, or standard output where it is `-`.

    That may be a terminal for text only.
    """
    if path != "-":
        with atomic_write(path, kind) as file:
            yield file
        return
    (refuse_closed if is_text else refuse_terminal)()
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise HandclrError(f"cannot write standard output: {error.strerror or error}") from error


def refuse_closed() -> None:
    """Raise HandclrError where standard output is closed, for a command whose result goes there."""
    if sys.stdout is None:
        raise HandclrError("standard output is closed; send it to a file or a pipe")


def refuse_terminal() -> None:
    """Raise UsageError where standard output is a terminal, HandclrError where it is closed."""
    refuse_closed()
    if sys.stdout.isatty():
        raise UsageError("refusing to write binary data to the terminal; name a file or use a pipe")
