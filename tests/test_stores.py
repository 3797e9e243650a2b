"""Objects in stores: what names them, what is read of them, and when they appear.

The store is the memory of this process; what s3fs does with a server is its own.
"""

from __future__ import annotations

import importlib.util
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from shard_helpers import crops, tar_bytes, write_pose

from handclr_cli.contract import retries
from handclr_cli.contract.claims import Read, Reads, Writes, Written, refuse_conflicts
from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.inputs import expand_inputs, open_seekable, open_source
from handclr_cli.contract.output import output_file
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.shards import ShardOutput, read_samples
from handclr_cli.contract.units import Units, even_parts, parts_of_shards
from handclr_cli.similarity.mine_job import MineSettings, run_mine
from handclr_cli.similarity.pca_job import PcaSettings, run_pca

BUCKET = "memory://bucket"


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HANDCLR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(retries, "SILENCE_S", 0.5)
    monkeypatch.setattr(retries, "PAUSES_S", (0.01, 0.01))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])


def put(name: str, data: bytes) -> str:
    fsspec.filesystem("memory").pipe(f"/bucket/{name}", data)
    return f"{BUCKET}/{name}"


def objects() -> list[str]:
    return sorted(MemoryFileSystem.store)


@pytest.fixture
def hands() -> list[str]:
    """Two shards below a prefix, and what is none."""
    for name in (".hidden.tar", "notes.txt", "deep/hands-2.tar", "hands-x.npz"):
        put(f"hands/{name}", b"")
    return [
        put(f"hands/hands-{number}.tar", tar_bytes(crops((f"a{number}", f"b{number}"), frames=9)))
        for number in (9, 10)
    ]


def test_what_names_shards(hands: list[str]) -> None:
    assert expand_inputs([f"{BUCKET}/hands/hands-{{9..10}}.tar"]) == hands
    # As the files of a folder: by name, in which 10 comes before 9.
    for name in ("hands/", "hands/hands-*.tar", "hands/*-[19]*.tar"):
        assert expand_inputs([f"{BUCKET}/{name}"]) == sorted(hands)
    assert expand_inputs([f"{BUCKET}/hands/"], ".npz") == [f"{BUCKET}/hands/hands-x.npz"]
    assert expand_inputs([f"{BUCKET}/gone.tar"]) == [f"{BUCKET}/gone.tar"]
    for name in ("none/", "hands/deep/hands-2.tar/"):
        with pytest.raises(UsageError, match=r"/: no \.tar file below this prefix"):
            expand_inputs([f"{BUCKET}/{name}"])
    with pytest.raises(UsageError, match=r"x\*: nothing matches"):
        expand_inputs([f"{BUCKET}/x*"])


def test_what_is_read_is_what_is_there(hands: list[str], tmp_path: Path) -> None:
    near = [tmp_path / url.rpartition("/")[2] for url in hands]
    for url, path in zip(hands, near, strict=True):
        path.write_bytes(data := fsspec.filesystem("memory").cat(url))
        assert open_seekable(url).read() == data
    assert ShardIndex(hands).keys == ShardIndex(list(map(str, near))).keys
    for name, sources in (("far", hands), ("near", list(map(str, near)))):
        run_pca(PcaSettings(shards=sources, output=str(tmp_path / name)))
    run_pca(PcaSettings(shards=hands, output=f"{BUCKET}/pose.npz"))
    assert (tmp_path / "far").read_bytes() == (tmp_path / "near").read_bytes()
    assert fsspec.filesystem("memory").cat(f"{BUCKET}/pose.npz") == (tmp_path / "near").read_bytes()


def test_an_index_in_a_store_is_made_once_and_read(tmp_path: Path) -> None:
    pose, pairs = write_pose(tmp_path / "pose.npz", [0, 0, 1, 1, 2]), str(tmp_path / "pairs.npz")
    index = f"{BUCKET}/pool.hnsw"
    settings = MineSettings(pose=[str(pose)], output=pairs, index=index)
    run_mine(settings)
    made, found = fsspec.filesystem("memory").cat(index), Path(pairs).read_bytes()
    run_mine(settings)
    assert fsspec.filesystem("memory").cat(index) == made and Path(pairs).read_bytes() == found
    put("pool.hnsw", pose.read_bytes())
    with pytest.raises(HandclrError, match="index: has no graph"):
        run_mine(settings)
    assert fsspec.filesystem("memory").cat(index) == pose.read_bytes()
    written = [
        Written("index", index, Writes("npz", once=True)),
        Written("output", index, Writes("npz")),
    ]
    with pytest.raises(UsageError, match="is an input"):
        refuse_conflicts([], written)


def test_what_cannot_be_read_is_named() -> None:
    with pytest.raises(HandclrError, match="^cannot read memory://bucket/gone.tar: no such object"):
        open_source(f"{BUCKET}/gone.tar")
    if importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    with pytest.raises(HandclrError, match=r"gs://b/x\.tar: .* pip install 'handclr\[gs\]'$"):
        open_source("gs://ann:secret@b/x.tar")


class Flaky(MemoryFileSystem):
    """A store whose files fail, or keep silent, when they are read on from some byte."""

    protocol = "flaky"
    fails: list[Callable[[], object]] = []

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("flaky://"))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return _FlakyFile(self.cat_file(path))


class _FlakyFile:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def seek(self, to: int) -> None:
        self.at = to

    def read(self, count: int) -> bytes:
        if self.at and Flaky.fails:
            Flaky.fails.pop(0)()
        part = self.data[self.at : self.at + min(count, 1000)]
        self.at += len(part)
        return part

    def close(self) -> None:
        pass


def _break() -> None:
    raise ConnectionResetError("reset by peer")


def test_a_store_that_fails_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    put("x.tar", data := bytes(range(256)) * 20)
    Flaky.fails = [_break, lambda: time.sleep(2)]
    assert open_seekable("flaky://bucket/x.tar").read() == data
    assert capsys.readouterr().err.splitlines() == [
        "handclr: flaky://bucket/x.tar: reset by peer; trying again (1 of 2)",
        "handclr: flaky://bucket/x.tar: no answer within 0.5 s; trying again (2 of 2)",
    ]
    Flaky.fails = [_break] * 3
    with pytest.raises(HandclrError, match="reset by peer, tried 3 times$"):
        open_seekable("flaky://bucket/x.tar")
    Flaky.fails = [lambda: (put("x.tar", data[:-1]), _break())]
    with pytest.raises(HandclrError, match="it has changed$"):
        open_seekable("flaky://bucket/x.tar")


@pytest.mark.parametrize("error", [SystemExit(143), KeyboardInterrupt(), HandclrError("full")])
def test_an_object_appears_when_it_is_complete(error: BaseException) -> None:
    url, older = put("hands.tar", tar_bytes([])), tar_bytes([])
    record = provenance("keypoints", {})
    for name in (url, f"{BUCKET}/new.tar"):
        with pytest.raises(type(error)), ShardOutput(name, record) as out:
            out.write(crops()[0])
            raise error
    assert objects() == ["/bucket/hands.tar"]
    assert fsspec.filesystem("memory").cat(url) == older
    with ShardOutput(url, record) as out:
        for sample in crops():
            out.write(sample)
        assert fsspec.filesystem("memory").cat(url) == older
    assert [sample.key for sample in read_samples([url])] == [each.key for each in crops()]


def test_what_must_not_be_written_to() -> None:
    put("notes.tar", b"notes")
    for name, why in (
        ("memory://bucket/notes.tar", "exists and is not a tar"),
        ("memory://bucket/", "no name of an object"),
        ("https://host/x.tar?key=secret", r"^https://host/x\.tar: cannot be written to"),
    ):
        with pytest.raises(UsageError, match=why), output_file(name, "tar"):
            pass
    writes = [Written("output", f"{BUCKET}/in/hands-1.tar", Writes("tar"))]
    for name in ("in/hands-{0..1}.tar", "in/", "in/*", "*/hands-[12].tar", "**/hands-1.tar"):
        with pytest.raises(UsageError, match="is an input of this command"):
            refuse_conflicts([Read("shards", f"{BUCKET}/{name}", Reads(".tar"))], writes)
    for name in ("", "*.tar", "in/x*", "in/deep/"):
        refuse_conflicts([Read("shards", f"{BUCKET}/{name}", Reads(".tar"))], writes)
    refuse_conflicts([Read("pose", f"{BUCKET}/in/", Reads(".npz"))], writes)
    with pytest.raises(UsageError, match="no folder of this machine"):
        refuse_conflicts([], [Written("run", f"{BUCKET}/run", Writes(whole=True))])


def test_numbered_shards_that_are_there_are_left_out(hands: list[str]) -> None:
    record = provenance("keypoints", {"min_score": 0.5})
    parts = parts_of_shards(hands)
    assert parts and [part.number for part in parts] == [9, 10]
    units = Units(f"{BUCKET}/out-%06d.tar", record, parts)
    with units.write(units.units[0]) as writer:
        writer.write(crops()[0])
        writer.counts["in"] = 7
    again = Units(f"{BUCKET}/out-%06d.tar", record, parts)
    assert again.missing() == [again.units[1]]
    assert again.counts(again.units[0]) == Counter({"in": 7})
    other = provenance("keypoints", {"min_score": 0.3})
    with pytest.raises(UsageError, match="out-000009.tar: made with min_score 0.5"):
        Units(f"{BUCKET}/out-%06d.tar", other, parts)
    fewer = Units(f"{BUCKET}/out-%06d.tar", other, even_parts(1, 1), overwrite=True)
    with fewer.write(fewer.units[0]):
        pass
    assert [name for name in objects() if "out" in name] == ["/bucket/out-000000.tar"]
