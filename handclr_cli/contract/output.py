"""Files that appear under their final name only when they are complete."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .errors import HandclrError, UsageError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; when the block ends, it is renamed to `path`.

    The data is on disk before it is renamed. On an exception the temporary file is removed, and a
    file that was at `path` stays as it was. Raises HandclrError where the file cannot be written.
    """
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
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        # Opened inside the try: a signal may arrive right after the file is made.
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise HandclrError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_json(
    path: str | os.PathLike[str], value: dict[str, Any], ensure_ascii: bool = True
) -> None:
    """Write indented JSON as `atomic_write` does; raises HandclrError where that fails."""
    with atomic_write(path) as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=ensure_ascii).encode() + b"\n")


@contextlib.contextmanager
def binary_output(path: str) -> Iterator[BinaryIO]:
    """Open `path` atomically, or standard output where it is `-` and not a terminal."""
    if path != "-":
        with atomic_write(path) as file:
            yield file
        return
    refuse_terminal()
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise HandclrError(f"cannot write standard output: {error.strerror or error}") from error


def refuse_terminal() -> None:
    """Raise UsageError where standard output is a terminal or closed."""
    if sys.stdout is None:
        raise UsageError("standard output is closed; name a file or use a pipe")
    if sys.stdout.isatty():
        raise UsageError("refusing to write binary data to the terminal; name a file or use a pipe")
