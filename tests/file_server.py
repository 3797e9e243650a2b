"""Servers on this machine that answer as servers do on a bad day."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Answer = Callable[[socketserver.StreamRequestHandler], None]


def head(size: int | None, status: str = "200 OK") -> bytes:
    length = "" if size is None else f"Content-Length: {size}\r\n"
    return f"HTTP/1.1 {status}\r\n{length}Connection: close\r\n\r\n".encode()


def sends(*parts: bytes, then_s: float = 0.0) -> Answer:
    def answer(handler: socketserver.StreamRequestHandler) -> None:
        while handler.rfile.readline().strip():
            pass
        for part in parts:
            handler.wfile.write(part)
        handler.wfile.flush()
        time.sleep(then_s)

    return answer


@contextmanager
def served(answer: Answer) -> Iterator[str]:
    """The URL of a server on this machine that answers so."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            answer(self)

    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/crops.tar"
        server.shutdown()


class Cut:
    """A server of files by name that knows ranges, and cuts its answers off after some bytes.

    `asked` are the headers of the requests; `etag` gives that of each answer, by its number.
    """

    def __init__(self, files: dict[str, bytes], after: int = 1 << 30) -> None:
        self.files, self.after = files, after
        self.etag: Callable[[int], str] = lambda number: '"one"'
        self.asked: list[dict[str, str]] = []

    def __call__(self, handler: socketserver.StreamRequestHandler) -> None:
        name = handler.rfile.readline().split()[1].decode().partition("?")[0]
        lines = iter(lambda: handler.rfile.readline().decode().strip(), "")
        told = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
        self.asked.append(told)
        data = self.files[name.rpartition("/")[2]]
        start = int(told.get("range", "bytes=0-")[len("bytes=") : -1])
        rest = data[start:]
        status = "206 Partial Content" if start else "200 OK"
        part = f"Content-Range: bytes {start}-{len(data) - 1}/{len(data)}\r\n" if start else ""
        etag = self.etag(len(self.asked))
        text = head(len(rest), status).decode().replace("\r\n", f"\r\nETag: {etag}\r\n{part}", 1)
        handler.wfile.write(text.encode() + rest[: self.after])
