"""Random access to shards: the same samples as the stream's, by position and by key."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from shard_helpers import cli_env, crops, python_tar, raw_tar, tar_bytes, write_shard

from handclr_cli.contract.errors import HandclrError, TruncatedError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import read_samples
from handclr_cli.contract.tar import BLOCK

OTHER = provenance("extract", {"fps": 5.0})


def content(sample: Sample) -> tuple[str, dict[str, bytes]]:
    return sample.key, {suffix: bytes(data) for suffix, data in sample.members.items()}


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Three shards; the second holds two archives, the third is a foreign one with long names."""
    first = write_shard(tmp_path / "a.tar", crops(["attic"]))
    second = write_shard(tmp_path / "b.tar", crops(["barn"], frames=2))
    second.write_bytes(second.read_bytes() + tar_bytes(crops(["cellar"], frames=2), OTHER))
    foreign = [
        (f"{'long' * 40}{number}.{suffix}", b"1" * number)
        for number in range(2)
        for suffix in ("jpg", "json")
    ]
    (tmp_path / "c.tar").write_bytes(python_tar(foreign, 2, mtime=0.5))
    return [str(first), str(second), str(tmp_path / "c.tar")]


def test_mapped_samples_equal_streamed_ones(sources: list[str]) -> None:
    streamed = list(read_samples(sources))
    index = ShardIndex(sources)
    assert len(index) == len(streamed) == 9
    assert index.keys == [sample.key for sample in streamed]
    assert [content(sample) for sample in index] == [content(sample) for sample in streamed]
    for row in (8, 0, 4, 3, 6, -1, -9):
        assert content(index[row]) == content(streamed[row])
    assert (index[1].image == streamed[1].image).all()
    assert (index[1].keypoints2d == streamed[1].keypoints2d).all()
    assert index[1].info == streamed[1].info
    assert index[4].source == sources[1]


def test_measured_images(tmp_path: Path) -> None:
    samples = crops(["attic"])
    del samples[1].members["jpg"]
    samples[2].members["jpg"] = b"junk"
    index = ShardIndex(str(write_shard(tmp_path / "a.tar", samples)), measured=True)
    sizes = [len(sample.members.get("jpg", b"")) for sample in samples]
    assert index.image_sizes.tolist() == sizes and sizes[1:3] == [0, 4] and sizes[0]
    assert index.sides[1:3].tolist() == [0, 0] and sorted(index.damaged) == [1, 2]


def test_by_key(sources: list[str]) -> None:
    index = ShardIndex(sources)
    for row, key in enumerate(index.keys):
        assert index.row(key) == row
        assert key in index
        assert index[index.row(key)].key == key
    assert "nobody" not in index
    with pytest.raises(KeyError):
        index.row("nobody")
    with pytest.raises(IndexError):
        index[9]
    with pytest.raises(IndexError):
        index[-10]


def test_origins(sources: list[str]) -> None:
    """Each once; a foreign archive has none to tell of, wherever it stands."""
    both = Path(sources[0])
    both.write_bytes(both.read_bytes() + Path(sources[2]).read_bytes())
    stages = [origin["arguments"] for origin in ShardIndex(sources[:2]).origins]
    assert stages == [{"fps": 1.0}, {"fps": 5.0}]


@pytest.mark.skipif(sys.platform == "win32", reason="files are limited by POSIX")
@pytest.mark.slow
def test_more_shards_than_a_process_may_open_at_first(tmp_path: Path) -> None:
    """1,024 files is what a login shell allows; the crops of the paper are 12,000 shards."""
    path = write_shard(tmp_path / "a.tar", crops(["attic"]))
    names = [str(path), *(str(tmp_path / f"{number}.tar") for number in range(80))]
    for name in names[1:]:
        write_shard(Path(name), [])
    script = (
        "import resource, sys\n"
        "from handclr_cli.contract.index import ShardIndex\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (50, hard))\n"
        "print(len(ShardIndex(sys.argv[1:])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *names], capture_output=True, timeout=60, env=cli_env()
    )
    assert done.stdout.split() == [b"%d" % len(ShardIndex(names[:1]))], done.stderr


def test_no_samples(tmp_path: Path) -> None:
    index = ShardIndex([str(write_shard(tmp_path / "x.tar", []))])
    assert (len(index), index.keys, list(index)) == (0, [], [])
    assert len(ShardIndex([])) == 0


def test_keys_must_be_unique(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.tar", crops(["attic"]))
    with pytest.raises(HandclrError, match=r"a\.tar: key attic_00000000_r appears twice"):
        ShardIndex([str(path), str(path)])
    (tmp_path / "b.tar").write_bytes(raw_tar([("a.jpg", b"1"), ("b.jpg", b"1"), ("a.json", b"{}")]))
    with pytest.raises(HandclrError, match=r"b\.tar: key a comes again"):
        ShardIndex([str(tmp_path / "b.tar")])


def test_truncation(tmp_path: Path, sources: list[str]) -> None:
    data = Path(sources[1]).read_bytes()
    for cut in range(0, len(data), 3 * BLOCK):
        (tmp_path / "x.tar").write_bytes(data[:cut])
        if cut == len(tar_bytes(crops(["barn"], frames=2))):
            continue  # the end of the first archive is an end
        with pytest.raises(TruncatedError, match=r"x\.tar"):
            ShardIndex([sources[0], str(tmp_path / "x.tar")])


def test_what_cannot_be_mapped(tmp_path: Path) -> None:
    with pytest.raises(HandclrError, match=r"cannot read .*gone\.tar"):
        ShardIndex([str(tmp_path / "gone.tar")])
    with pytest.raises(HandclrError, match="Is a directory"):
        ShardIndex([str(tmp_path)])
    (tmp_path / "text.tar").write_text("words\n" * 200)
    with pytest.raises(HandclrError, match="not a tar archive"):
        ShardIndex([str(tmp_path / "text.tar")])


@pytest.mark.slow
def test_standard_input(sources: list[str]) -> None:
    code = (
        "import sys; from handclr_cli.contract.index import ShardIndex; index ="
        " ShardIndex([sys.argv[1], '-']); print(len(index), index[-1].key, index[3].info['video'])"
    )
    command = [sys.executable, "-c", code, sources[0]]
    data = Path(sources[1]).read_bytes()
    done = subprocess.run(command, input=data, capture_output=True, env=cli_env(), check=True)
    assert done.stdout.decode().split() == ["7", "cellar_00000001_r", "barn"]
    done = subprocess.run(command, input=data[:-BLOCK], capture_output=True, env=cli_env())
    assert b"TruncatedError: standard input: ends without" in done.stderr


def test_a_named_pipe(tmp_path: Path, sources: list[str]) -> None:
    """As `<(command)` gives: a path, but no size and nothing to map."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    feeder = threading.Thread(target=lambda: fifo.write_bytes(Path(sources[0]).read_bytes()))
    feeder.start()
    index = ShardIndex([str(fifo)])
    feeder.join()
    assert index.keys == [sample.key for sample in read_samples(sources[:1])]
    assert len(ShardIndex([f"pipe:cat {sources[1]}"])) == 4
