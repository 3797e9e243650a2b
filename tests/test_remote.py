"""URLs: read to their end, or an error that names them; no server is waited for without a limit."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import pack
from file_server import Cut, head, sends, served
from shard_helpers import crops, write_shard

from handclr_cli.contract import retries
from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.inputs import display_name, expand_inputs, open_seekable, open_source
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.shards import read_samples
from handclr_cli.similarity.pca_job import PcaSettings, run_pca

SHARD = pack({"a": {"txt": b"1"}, "b": {"txt": bytes(20_000)}})


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HANDCLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(retries, "SILENCE_S", 0.3)
    monkeypatch.setattr(retries, "PAUSES_S", (0.01, 0.01))


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
    "says nothing": (sends(then_s=5), "no answer within 0.3 s, tried 3 times"),
    "stops half way": (
        sends(head(len(SHARD)), SHARD[:6000], then_s=5),
        "the connection ended at byte 6,000, and the server does not send parts of files",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("how", SILENT)
def test_a_silent_server_is_named(how: str, reader: str) -> None:
    answer, reason = SILENT[how]
    begin = time.monotonic()
    with served(answer) as url, pytest.raises(HandclrError) as caught:
        READERS[reader](url)
    assert str(caught.value) == f"cannot read {url}: {reason}"
    assert time.monotonic() - begin < 4


def test_a_refusal_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    refused = pytest.raises(HandclrError, match="/crops.tar: HTTP Error 404")
    with served(sends(head(0, "404 Not Found"))) as url, refused:
        open_source(url)
    assert capsys.readouterr().err == ""
    with pytest.raises(HandclrError, match="Connection refused, tried 3 times"):
        open_source("http://127.0.0.1:9/")
    assert capsys.readouterr().err.splitlines() == [
        f"handclr: http://127.0.0.1:9/: Connection refused; trying again ({n} of 2)" for n in (1, 2)
    ]


def test_a_busy_server_is_asked_again() -> None:
    answers = [sends(head(0, "503 Busy")), sends(head(0, "429 Busy")), sends(head(2), b"ok")]
    with served(lambda handler: answers.pop(0)(handler)) as url, open_source(url) as file:
        assert file.read() == b"ok"


@pytest.mark.parametrize("reader", READERS)
def test_what_is_cut_off_is_read_on(reader: str, capsys: pytest.CaptureFixture[str]) -> None:
    server = Cut({"crops.tar": SHARD}, after=len(SHARD) // 2 - 5)
    with served(server) as url:
        assert READERS[reader](url) in (["a", "b"], SHARD)
    half = len(SHARD) // 2 - 5
    ranges = [each.get("range") for each in server.asked]
    assert ranges == [None, f"bytes={half}-", f"bytes={2 * half}-"]
    left = f"the connection ended {len(SHARD) - half:,} bytes early; trying again (1 of 2)"
    assert f"handclr: {url}: {left}" in capsys.readouterr().err


def test_what_is_cut_off_and_changes_is_an_error() -> None:
    server = Cut({"crops.tar": SHARD}, after=9000)
    server.etag = lambda number: f'"{number}"'
    changed = pytest.raises(HandclrError, match=r"at byte 9,000, and the file has changed since$")
    with served(server) as url, changed:
        open_seekable(url)


def test_a_password_is_sent_and_never_shown() -> None:
    server = Cut({"crops.tar": SHARD})
    with served(server) as url:
        secret = url.replace("//", "//ann:se%40cret@") + "?Signature=hidden"
        assert open_seekable(secret).read() == SHARD
        assert server.asked[0]["authorization"] == "Basic YW5uOnNlQGNyZXQ="
        server.files["crops.tar"] = SHARD[:7000]
        with pytest.raises(HandclrError) as caught:
            READERS["index"](secret)
    assert str(caught.value).startswith(f"{url}: ") and display_name(secret) == url
    assert provenance("pca", {}, [secret])["inputs"] == ["crops.tar"]
    with pytest.raises(HandclrError) as caught:
        open_source("http://ann:secret@127.0.0.1:9/a b?Signature=hidden")
    assert "secret" not in str(caught.value) and "hidden" not in str(caught.value)


def test_shards_of_a_server_are_those_of_the_folder(tmp_path: Path) -> None:
    files = {}
    for number in range(2):
        name = f"hands-{number}.tar"
        write_shard(tmp_path / name, crops((f"attic{number}", f"barn{number}"), frames=9))
        files[name] = (tmp_path / name).read_bytes()
    server = Cut(files, after=len(files["hands-0.tar"]) - 700)
    with served(server) as url:
        ranged = url.replace("crops.tar", "hands-{0..1}.tar?token=x")
        sources = expand_inputs([ranged])
        assert sources == [ranged.replace("{0..1}", number) for number in "01"]
        run_pca(PcaSettings(shards=sources, output=str(tmp_path / "far.npz")))
    run_pca(PcaSettings(shards=expand_inputs([str(tmp_path)]), output=str(tmp_path / "near.npz")))
    assert (tmp_path / "far.npz").read_bytes() == (tmp_path / "near.npz").read_bytes()


@pytest.mark.slow
def test_a_command_may_take_its_time() -> None:
    with open_source("pipe:sleep 1; printf done") as file:
        assert isinstance(file, io.IOBase) or file.read() == b"done"
