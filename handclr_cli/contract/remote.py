"""URLs and commands as streams of bytes; no server is waited for without a limit."""

from __future__ import annotations

import contextlib
import io
import os
import select
import subprocess
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

from .errors import HandclrError

# How long a server may take to answer, and then say nothing.
SILENCE_S = 60.0
# Of a server that says it is busy, and how long to leave it alone before each further attempt.
_BUSY = (408, 429, 500, 502, 503, 504)
_PAUSES_S = (1.0, 2.0, 4.0)


def open_url(url: str) -> BinaryIO:
    """Open a URL for reading.

    http and https are read here, other schemes through the programs that webdataset's gopen calls
    for them. `pipe:` runs a command, which may take as long as it likes. Raises HandclrError where
    it cannot be opened; reading raises OSError where it fails, stops early, or is silent for
    SILENCE_S.
    """
    from http.client import HTTPException

    try:
        if url.startswith(("http://", "https://")):
            return io.BufferedReader(_Answer(url), 1 << 16)
        return _opened_by_a_program(url)
    except (ValueError, OSError, ImportError, HTTPException) as error:
        raise HandclrError(f"cannot read {url}: {_reason(error)}") from error


@contextlib.contextmanager
def limited_silence() -> Iterator[None]:
    """Let whatever connects to a server in a block wait for SILENCE_S at most."""
    import socket

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _silent() -> str:
    return f"nothing came for {SILENCE_S:g} s; is the server there?"


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None)
    if isinstance(error, TimeoutError) or isinstance(cause, TimeoutError):
        return _silent()
    return str(getattr(cause, "strerror", None) or error) or type(error).__name__


def _answer(url: str) -> Any:
    """The answer of a server, which is asked again while it says that it is busy."""
    from urllib.error import HTTPError
    from urllib.request import urlopen

    for pause in _PAUSES_S:
        try:
            return urlopen(url, timeout=SILENCE_S)
        except HTTPError as error:
            if error.code not in _BUSY:
                raise
            time.sleep(pause)
    return urlopen(url, timeout=SILENCE_S)


class _Answer(io.RawIOBase):
    """The body of an answer by HTTP, whose end is an error where it comes before it should."""

    def __init__(self, url: str) -> None:
        self._answer = _answer(url)
        self._left = self._answer.length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        from http.client import HTTPException

        try:
            data = self._answer.read(len(buffer))
        except TimeoutError as error:
            raise OSError(_silent()) from error
        except HTTPException as error:
            raise OSError(f"the connection ended early ({error})") from error
        if self._left is not None:
            self._left -= len(data)
            if not data and self._left and len(buffer):
                raise OSError(f"the connection ended {self._left:,} bytes early")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._answer.close()
        super().close()


def _opened_by_a_program(url: str) -> BinaryIO:
    from webdataset.gopen import gopen

    file = gopen(url, "rb")
    process = getattr(file, "proc", None)
    if process is None or url.startswith("pipe:"):
        return file
    return io.BufferedReader(_Output(file, process), 1 << 16)


class _Output(io.RawIOBase):
    """What a program prints; it is ended where it prints nothing for too long."""

    def __init__(self, pipe: Any, process: subprocess.Popen[bytes]) -> None:
        self._pipe, self._process = pipe, process

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        end = self._pipe.stream.fileno()
        if not select.select([end], [], [], SILENCE_S)[0]:
            self._process.kill()
            raise OSError(_silent())
        data = os.read(end, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._pipe.close()
