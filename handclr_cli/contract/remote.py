"""URLs and commands as streams of bytes; no server is waited for without a limit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

from . import retries
from .errors import HandclrError
from .retries import shown, without_secrets
from .stores import is_store, open_store
from .web import open_web

COMMAND = "pipe:"


def open_url(url: str) -> BinaryIO:
    """Open a URL for reading.

    http and https are read here, those of stores through fsspec. `pipe:` runs a command, which may
    take as long as it likes. Raises HandclrError where it cannot be opened; reading raises OSError
    where it fails for good, or stops early and cannot be gone on with.
    """
    from http.client import HTTPException

    if is_store(url):
        return open_store(url)
    try:
        if url.startswith(COMMAND):
            from webdataset.gopen import gopen

            return gopen(url, "rb")
        return open_web(url)
    except (ValueError, OSError, HTTPException) as error:
        raise HandclrError(f"cannot read {shown(url)}: {_reason(error, url)}") from error


@contextlib.contextmanager
def limited_silence() -> Iterator[None]:
    """Let whatever connects to a server in a block wait for SILENCE_S at most."""
    import socket

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(retries.SILENCE_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _reason(error: Exception, url: str) -> str:
    cause = getattr(error, "reason", None)
    text = getattr(cause, "strerror", None) or str(error) or type(error).__name__
    return without_secrets(text, url)
