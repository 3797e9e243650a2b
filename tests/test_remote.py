"""URLs: read to their end, or an error that names them; no server is waited for without a limit."""

from __future__ import annotations

import importlib
import io
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from conftest import pack

from handclr_cli.contract import remote
from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.inputs import open_seekable, open_source
from handclr_cli.contract.shards import read_samples

SHARD = pack({"a": {"txt": b"1"}, "b": {"txt": bytes(20_000)}})
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


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SILENCE_S", 0.3)
    monkeypatch.setattr(remote, "_PAUSES_S", (0.01, 0.01))


READERS: dict[str, Callable[[str], object]] = {
    "stream": lambda url: [sample.key for sample in read_samples([url])],
    "index": lambda url: ShardIndex([url]).keys,
    "whole": lambda url: open_seekable(url).read(),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_url_is_read_to_its_end(reader: str) -> None:
    for size in (len(SHARD), None):
        with served(sends(head(size), SHARD)) as url:
            assert READERS[reader](url) in (["a", "b"], SHARD)


SILENT = {
    "says nothing": sends(then_s=5),
    "stops half way": sends(head(len(SHARD)), SHARD[:6000], then_s=5),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("how", SILENT)
def test_a_silent_server_is_named(how: str, reader: str) -> None:
    begin = time.monotonic()
    with served(SILENT[how]) as url, pytest.raises(HandclrError) as caught:
        READERS[reader](url)
    assert str(caught.value) == f"cannot read {url}: nothing came for 0.3 s; is the server there?"
    assert time.monotonic() - begin < 4


@pytest.mark.parametrize("reader", READERS)
def test_a_connection_that_ends_early_is_named(reader: str) -> None:
    broken = pytest.raises(HandclrError, match="/crops.tar: the connection ended")
    with served(sends(head(len(SHARD)), SHARD[:6000])) as url, broken:
        READERS[reader](url)


def test_a_refusal_is_named() -> None:
    refused = pytest.raises(HandclrError, match="/crops.tar: HTTP Error 404")
    with served(sends(head(0, "404 Not Found"))) as url, refused:
        open_source(url)
    with pytest.raises(HandclrError, match="cannot read http://127.0.0.1:9/: Connection refused"):
        open_source("http://127.0.0.1:9/")


def test_a_busy_server_is_asked_again() -> None:
    answers = [sends(head(0, "503 Busy")), sends(head(0, "429 Busy")), sends(head(2), b"ok")]
    with served(lambda handler: answers.pop(0)(handler)) as url, open_source(url) as file:
        assert file.read() == b"ok"


def test_a_program_that_prints_nothing_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    gopen = importlib.import_module("webdataset.gopen")
    opened = gopen.gopen_pipe("pipe:printf half; exec sleep 30")
    monkeypatch.setattr(gopen, "gopen", lambda url, mode: opened)
    begin = time.monotonic()
    file = open_source("s3://bucket/crops.tar")
    with pytest.raises(OSError, match=r"nothing came for 0\.3 s"):
        file.read()
    with pytest.raises(OSError, match="exit"):
        file.close()
    assert time.monotonic() - begin < 5


def test_a_command_may_take_its_time() -> None:
    with open_source("pipe:sleep 1; printf done") as file:
        assert isinstance(file, io.IOBase) or file.read() == b"done"
