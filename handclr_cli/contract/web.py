"""http and https: an answer that is cut off is read on from where it ended, or is an error."""

from __future__ import annotations

import io
from typing import Any, BinaryIO

from . import retries
from .retries import Content, Lost, Patience

# Of a server that says it is busy, or that another one behind it is.
_BUSY = (408, 429, 500, 502, 503, 504)
_PARTIAL = 206
_BUFFER = 1 << 16


def open_web(url: str) -> BinaryIO:
    """Open a URL of http or https for reading.

    Raises OSError, ValueError or HTTPException where it cannot be opened; reading raises OSError
    where it fails or is silent, and cannot be gone on with.
    """
    return io.BufferedReader(_Body(url), _BUFFER)


class _Body(io.RawIOBase):
    """The body of an answer, and of the further ones for what is missing of it."""

    def __init__(self, url: str) -> None:
        self._url, self._patience = url, Patience(url)
        self._position = 0
        self._answer: Any = None
        self.content = Content(None, None, None)
        self._patience.until(self._connect)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not len(buffer):
            return 0
        data = self._patience.until(lambda: self._read(len(buffer)))
        buffer[: len(data)] = data
        self._position += len(data)
        self._patience.gain(len(data))
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._hang_up()
        super().close()

    def _read(self, count: int) -> bytes:
        from http.client import HTTPException

        if self._answer is None:
            self._connect()
        try:
            # What came is not lost where more of it fails, as with `read`.
            data: bytes = self._answer.read1(count)
        except TimeoutError as error:
            self._hang_up()
            raise Lost(retries.silent()) from error
        except (OSError, HTTPException) as error:
            self._hang_up()
            raise Lost("the connection ended early") from error
        left = (self.content.size or 0) - self._position
        if not data and left > 0:
            self._hang_up()
            raise Lost(f"the connection ended {left:,} bytes early")
        return data

    def _connect(self) -> None:
        """Ask for the file, or for the rest of it where some was handed on already."""
        answer = _answer(self._url, self._position)
        if not self._position:
            self._answer, self.content = answer, _content(answer, answer.length)
            return
        try:
            self._refuse_other(answer)
        except OSError:
            answer.close()
            raise
        self._answer = answer

    def _refuse_other(self, answer: Any) -> None:
        """Raise OSError where an answer is not the rest of what was read."""
        early = f"the connection ended at byte {self._position:,}"
        if answer.status != _PARTIAL:
            raise OSError(f"{early}, and the server does not send parts of files")
        part, _, size = str(answer.headers.get("Content-Range", "")).rpartition("/")
        total = int(size) if size.isdecimal() else None
        wanted = part.startswith(f"bytes {self._position}-")
        if not wanted or _content(answer, total) != self.content:
            raise OSError(f"{early}, and the file has changed since")

    def _hang_up(self) -> None:
        if self._answer is not None:
            self._answer.close()
        self._answer = None


def _content(answer: Any, size: int | None) -> Content:
    etag = answer.headers.get("ETag")
    # A weak one does not promise that all bytes are the same.
    strong = None if etag is None or etag.startswith("W/") else etag
    return Content(size, strong, answer.headers.get("Last-Modified"))


def _answer(url: str, position: int) -> Any:
    """The answer of a server; raises Lost where it has none, or will have another one later."""
    from http.client import HTTPException, InvalidURL
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        return urlopen(_request(url, position), timeout=retries.SILENCE_S)
    except HTTPError as error:
        if error.code not in _BUSY:
            raise
        pause = str(error.headers.get("Retry-After", ""))
        raise Lost(str(error), float(pause) if pause.isdecimal() else 0.0) from error
    except InvalidURL:
        raise
    except (OSError, HTTPException) as error:
        cause = error.reason if isinstance(error, URLError) else error
        if not _may_pass(cause):
            raise
        if isinstance(cause, TimeoutError):
            raise Lost(retries.silent()) from error
        raise Lost(getattr(cause, "strerror", None) or str(cause)) from error


def _may_pass(cause: object) -> bool:
    """Whether another attempt may do better: not with a wrong name or certificate."""
    import socket
    import ssl

    if isinstance(cause, socket.gaierror):
        return cause.errno == socket.EAI_AGAIN
    return isinstance(cause, Exception) and not isinstance(cause, ssl.SSLCertVerificationError)


def _request(url: str, position: int) -> Any:
    """What is asked for; a user and password in the URL are sent to its own host only."""
    import base64
    from urllib.parse import unquote, urlsplit
    from urllib.request import Request

    parts = urlsplit(url)
    user, mark, host = parts.netloc.rpartition("@")
    request = Request(parts._replace(netloc=host).geturl() if mark else url)
    if mark:
        secret = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    if position:
        request.add_header("Range", f"bytes={position}-")
    return request
