"""Objects in stores, such as s3://bucket/hands.tar, through fsspec: read, listed and written."""

from __future__ import annotations

import contextlib
import errno
import io
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, NoReturn, TypeVar

from . import retries
from .errors import HandclrError
from .retries import Content, Lost, Patience, shown, without_secrets

STORE = re.compile(r"(?!(?:https?|file)://)([a-z][a-z0-9+.-]*)://")
# What is fetched at once of an object that is read to its end, in bytes.
_BLOCK, _BUFFER = 8 << 20, 1 << 20
# What is uploaded at once, and how long that may take with the attempts of the library.
_PART, _UPLOAD_S = 16 << 20, 180.0
# The extras of this package that bring the library for a scheme.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}
# What may pass, by the names of the classes, as each library has its own.
_PASSING = {
    *("ConnectionError", "TimeoutError", "HTTPClientError", "TransportError"),
    *("ClientConnectionError", "ClientPayloadError", "ServerTimeoutError"),
}
# And by their numbers; s3fs calls an answer so that it does not know.
_BUSY = (errno.EBUSY, errno.EIO, errno.EAGAIN, errno.ETIMEDOUT)
# Of an info, what is another one when the content is, and when it was written.
_ETAGS = ("ETag", "etag", "md5Hash", "content_md5", "xet_hash", "blob_id")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")

_Result = TypeVar("_Result")


def is_store(name: str) -> bool:
    """Whether a name is a URL of a store: of neither the web nor this machine."""
    return STORE.match(name) is not None


def open_store(url: str, block: int = _BLOCK) -> BinaryIO:
    """Open an object for reading, `block` bytes at a time.

    Raises HandclrError where it cannot be opened; reading raises OSError where it fails.
    """
    with _named(url, "read"):
        return io.BufferedReader(_Object(url, block), min(block, _BUFFER))


def ends_of_object(url: str, first: int, last: int) -> tuple[bytes, bytes]:
    """The first and the last bytes of an object, at most as many as asked for.

    Both are empty where there is no object. Raises HandclrError where it cannot be read.
    """

    def read() -> tuple[bytes, bytes]:
        filesystem, path = _filesystem(url)
        filesystem.invalidate_cache()
        try:
            size = filesystem.info(path)["size"]
        except FileNotFoundError:
            return b"", b""
        head, end = (
            bytes(filesystem.cat_file(path, start=start, end=stop)) if start < stop else b""
            for start, stop in ((0, min(first, size)), (max(0, size - last), size))
        )
        return head, end

    with _named(url, "read"):
        return Patience(url).until(lambda: _within(read))


def matching(pattern: str) -> list[str]:
    """The objects that match the wildcards of a URL, sorted by name as files of a folder are.

    There are none where nothing matches. Raises HandclrError where they cannot be listed.
    """
    head = re.split(r"[*?[]", pattern, maxsplit=1)[0].rpartition("/")[0]
    rest = pattern[len(head) + 1 :]

    def find() -> list[str]:
        filesystem, root = _filesystem(head)
        filesystem.invalidate_cache()
        found = filesystem.glob(f"{root.rstrip('/')}/{rest}", detail=True)
        names = [name for name, about in found.items() if about["type"] == "file"]
        return [f"{head}/{name[len(root.rstrip('/')) :].lstrip('/')}" for name in names]

    with _named(pattern, "list"):
        try:
            return sorted(Patience(pattern).until(lambda: _within(find)))
        except FileNotFoundError:
            return []


def listed(folder: str, suffix: str = "") -> list[str]:
    """The objects right below a prefix with `suffix`, hidden ones left out; see `matching`."""
    found = matching(f"{folder.rstrip('/')}/*{suffix}")
    return [url for url in found if url.rpartition("/")[2][0] != "."]


def remove_object(url: str) -> None:
    """Remove an object; raises HandclrError where that fails."""
    with _named(url, "remove"):
        filesystem, path = _filesystem(url)
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm_file(path)


@contextlib.contextmanager
def new_object(url: str) -> Iterator[BinaryIO]:
    """Open an object for writing, which appears when the block ends.

    On an exception what was uploaded is discarded, and an object that was there stays as it was.
    Raises HandclrError where it cannot be written.
    """
    with _named(url, "write"):
        # An instance of its own: a transaction takes in all that its file system writes.
        filesystem, path = _filesystem(url, skip_instance_cache=True)
        transaction = filesystem.transaction
        transaction.start()
        upload = _Upload(url, filesystem.open(path, "wb", block_size=_PART))
    try:
        yield (writer := io.BufferedWriter(upload, _BUFFER))
        writer.flush()
        with _named(url, "write"):
            upload.finish()
            _within(transaction.complete, _UPLOAD_S)
    except BaseException:
        upload.discard()
        raise


class _Upload(io.RawIOBase):
    """An object that is written; errors of its library are those of ours, which name it."""

    def __init__(self, url: str, file: Any) -> None:
        self._url, self._file = url, file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._file is not None:
            with _named(self._url, "write"):
                part, file = bytes(data), self._file
                _within(lambda: file.write(part), _UPLOAD_S)
        return len(data)

    def finish(self) -> None:
        """Upload what is left; the object appears with the end of the transaction."""
        _within(self._file.close, _UPLOAD_S)

    def discard(self) -> None:
        """Drop what was uploaded, and take no more."""
        file, self._file = self._file, None
        with contextlib.suppress(Exception):
            _within(file.discard)
        # Else Python would finish the object when it throws the file away.
        with contextlib.suppress(AttributeError):
            file.closed = True


class _Object(io.RawIOBase):
    """The bytes of an object; what fails is read again from where it failed."""

    def __init__(self, url: str, block: int) -> None:
        self._url, self._block, self._patience = url, block, Patience(url)
        self._position = 0
        self.content: Content | None = None
        self._file: Any = None
        self._patience.until(lambda: _within(self._open))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._patience.until(lambda: self._read(len(buffer)))
        except OSError:
            raise
        except Exception as error:  # whatever the library of the store raises
            raise OSError(_reason(error, self._url)) from error
        buffer[: len(data)] = data
        self._position += len(data)
        self._patience.gain(len(data))
        return len(data)

    def close(self) -> None:
        if not self.closed and self._file is not None:
            with contextlib.suppress(Exception):
                self._file.close()
        super().close()

    def _read(self, count: int) -> bytes:
        try:
            return _within(lambda: self._fetch(count))
        except Lost:
            # Another thread may still be waiting in this one.
            self._file = None
            raise

    def _fetch(self, count: int) -> bytes:
        if self._file is None:
            self._open()
        return bytes(self._file.read(count))

    def _open(self) -> None:
        filesystem, path = _filesystem(self._url)
        filesystem.invalidate_cache()
        info = filesystem.info(path)
        content = Content(info.get("size"), _first(info, _ETAGS), _first(info, _TIMES))
        if self._position and content != self.content:
            raise ValueError(f"the connection ended at byte {self._position:,}, and it has changed")
        file = filesystem.open(path, "rb", block_size=self._block)
        file.seek(self._position)
        self._file, self.content = file, content


def _first(info: dict[str, Any], names: Sequence[str]) -> str | None:
    return next((str(info[name]) for name in names if info.get(name) is not None), None)


def _filesystem(url: str, **options: Any) -> tuple[Any, str]:
    """The file system of a URL, and the path in it; raises HandclrError where no library has it."""
    import fsspec

    scheme = url.partition("://")[0]
    try:
        filesystem, path = fsspec.url_to_fs(url, **options)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        advice = f"pip install 'handclr[{extra}]'" if extra else str(error)
        raise HandclrError(f"{shown(url)}: {scheme}:// needs a library: {advice}") from error
    except ValueError as error:
        if "Protocol" not in str(error):
            raise
        raise ValueError(f"no library is known for {scheme}://") from error
    return filesystem, path


def _within(work: Callable[[], _Result], most_s: float | None = None) -> _Result:
    """What `work` returns; raises Lost where it fails in a way that passes, or takes `most_s`.

    That is SILENCE_S where it is not given.
    """
    from concurrent.futures import Future

    outcome: Future[_Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    # A thread that ends with the process: a library may wait for ever.
    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(most_s or retries.SILENCE_S)
    except TimeoutError as error:
        raise Lost(f"no answer within {most_s or retries.SILENCE_S:g} s") from error
    except Lost:
        raise
    except Exception as error:
        if _may_pass(error):
            raise Lost(str(error) or type(error).__name__) from error
        raise


def _may_pass(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in _BUSY:
        return True
    return not {kind.__name__ for kind in type(error).__mro__}.isdisjoint(_PASSING)


@contextlib.contextmanager
def _named(url: str, verb: str) -> Iterator[None]:
    """Name the object where a library fails in a block: HandclrError for whatever it raises."""
    try:
        yield
    except (HandclrError, FileNotFoundError) as error:
        if isinstance(error, HandclrError) or verb == "list":
            raise
        _refuse(url, verb, "no such object", error)
    except Exception as error:
        _refuse(url, verb, _reason(error, url), error)


def _refuse(url: str, verb: str, reason: str, error: Exception) -> NoReturn:
    raise HandclrError(f"cannot {verb} {shown(url)}: {reason}") from error


def _reason(error: Exception, url: str) -> str:
    return without_secrets(str(error), url) or type(error).__name__
