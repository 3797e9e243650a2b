"""The cache of shards: what is kept is whole, used again, and within its limit."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import Cut, served
from shard_helpers import crops, tar_bytes

from handclr_cli.contract import kept, retries
from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.inputs import expand_inputs

SHARDS = {
    f"hands-{number}.tar": tar_bytes(crops((f"attic{number}",), frames=12)) for number in range(3)
}
SIZE = len(SHARDS["hands-0.tar"])
KEYS = [sample.key for number in range(3) for sample in crops((f"attic{number}",), frames=12)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HANDCLR_CACHE", str(tmp_path))
    monkeypatch.delenv(kept.LIMIT, raising=False)
    monkeypatch.setattr(kept, "_in_use", set())
    monkeypatch.setattr(retries, "PAUSES_S", (0.01,))
    return tmp_path / "shards"


@pytest.fixture
def server() -> Cut:
    return Cut(dict(SHARDS))


@pytest.fixture
def urls(server: Cut) -> Iterator[list[str]]:
    with served(server) as url:
        yield expand_inputs([url.replace("crops.tar", "hands-{0..2}.tar?token=secret")])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def limit(monkeypatch: pytest.MonkeyPatch, shards: float) -> None:
    monkeypatch.setenv(kept.LIMIT, repr(shards * SIZE / 1e9))


def test_what_is_kept_is_used_again(urls: list[str], folder: Path, server: Cut) -> None:
    assert ShardIndex(urls).keys == KEYS
    there = files(folder)
    assert sorted(there.values()) == sorted(SHARDS.values())
    # What the server sends now is not what is read: its content is said to be the same.
    server.files = {name: bytes(len(data)) for name, data in SHARDS.items()}
    again = ShardIndex([url.replace("secret", "other") for url in urls])
    assert again.keys == KEYS and files(folder) == there


def test_another_content_is_read_anew(urls: list[str], folder: Path, server: Cut) -> None:
    ShardIndex(urls[0])
    server.files["hands-0.tar"] = SHARDS["hands-1.tar"]
    server.etag = lambda number: '"two"'
    assert ShardIndex(urls[0]).keys == KEYS[12:24]
    assert len(files(folder)) == 2


def test_a_file_that_is_not_whole_is_not_used(urls: list[str], folder: Path, server: Cut) -> None:
    ShardIndex(urls[0])
    (path,) = folder.iterdir()
    path.write_bytes(SHARDS["hands-0.tar"][:-600])
    assert ShardIndex(urls[0]).keys == KEYS[:12]
    assert files(folder) == {path.name: SHARDS["hands-0.tar"]}
    path.unlink()
    server.after, server.etag = 1000, lambda number: f'"{number}"'
    with pytest.raises(HandclrError, match="the file has changed since"):
        ShardIndex(urls[0])
    assert files(folder) == {}


def test_what_was_used_longest_ago_goes(
    urls: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 2.5)
    ended = monkeypatch.setattr
    for number, used in ((0, 1), (1, 2), (0, 3), (2, 4)):
        ended(kept, "_in_use", set())  # as in a process of its own
        ShardIndex(urls[number])
        monkeypatch.setattr(kept.time, "time_ns", lambda used=used: used)
        ShardIndex(urls[number])
    assert sorted(files(folder).values()) == sorted([*SHARDS.values()][::2])


def test_what_has_no_room_is_read_all_the_same(
    urls: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 1.5)
    assert ShardIndex(urls).keys == KEYS  # of which this process uses the first one
    assert list(files(folder).values()) == [SHARDS["hands-0.tar"]]
    for none in ("0", str(SIZE / 2e9)):
        monkeypatch.setenv(kept.LIMIT, none)
        assert ShardIndex(urls[1]).keys == KEYS[12:24]
    assert list(files(folder).values()) == [SHARDS["hands-0.tar"]]
    monkeypatch.setenv(kept.LIMIT, "much")
    with pytest.raises(UsageError, match=r"^HANDCLR_SHARD_CACHE_GB much: not a number"):
        ShardIndex(urls[1])


def test_a_cache_that_cannot_be_written_to_is_done_without(
    urls: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HANDCLR_CACHE", os.devnull)
    assert ShardIndex(urls[0]).keys == KEYS[:12]


def test_readers_side_by_side_fetch_a_shard_once(urls: list[str], folder: Path) -> None:
    found: list[list[str]] = []
    readers = [
        threading.Thread(target=lambda: found.append(ShardIndex(urls).keys)) for _ in range(4)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(30)
    assert found == [KEYS] * 4
    assert sorted(files(folder).values()) == sorted(SHARDS.values())
