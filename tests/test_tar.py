"""The tar walker: every dialect that people pipe in, and no damage that passes in silence."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from shard_helpers import python_tar, raw_tar

from handclr_cli.contract.errors import DamagedError, HandclrError, TruncatedError
from handclr_cli.contract.tar import (
    BLOCK,
    END_OF_ARCHIVE,
    MapCursor,
    StreamCursor,
    walk,
    write_member,
)

Pair = tuple[str, bytes]
CURSORS = ("stream", "map")
LONG = "kitchen_" + "x" * 160 + ".jpg"
MEMBERS = [
    ("__handclr__", b'{"stage":"extract"}'),
    ("a_00000000_r.jpg", bytes(range(256)) * 3),
    ("a_00000000_r.json", b"{}"),
    ("b_00000001_l.jpg", b""),
    ("b_00000001_l.json", b"x" * BLOCK),
]


def members(data: bytes, cursor: str = "stream") -> list[Pair]:
    return [(name, payload) for _, name, payload in detailed(data, cursor)]


def detailed(data: bytes, cursor: str = "stream") -> list[tuple[int, str, bytes]]:
    reader = StreamCursor(io.BytesIO(data)) if cursor == "stream" else MapCursor(memoryview(data))
    return [
        (member.archive, member.name, bytes(member.data)) for member in walk(reader, "test.tar")
    ]


def gnu_tar(folder: Path, pairs: list[Pair], *options: str) -> bytes:
    for name, data in pairs:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    names = [name for name, _ in pairs]
    return subprocess.run(
        ["tar", "-cf", "-", *options, *names], cwd=folder, check=True, capture_output=True
    ).stdout


def fixed_header(block: bytes) -> bytes:
    """A header with its checksum put right."""
    total = sum(block[:148]) + 8 * 32 + sum(block[156:512])
    return block[:148] + b"%06o\0 " % total + block[156:]


@pytest.mark.parametrize("cursor", CURSORS)
def test_round_trip(cursor: str) -> None:
    data = raw_tar(MEMBERS)
    assert members(data, cursor) == MEMBERS
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [name for name, _ in MEMBERS]
        assert {(info.mtime, info.uid, info.gid, info.uname, info.mode) for info in tar} == {
            (0, 0, 0, "", 0o644)
        }


def test_gnu_tar_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "ours.tar"
    path.write_bytes(raw_tar([*MEMBERS, (LONG, b"long")]))
    listed = subprocess.run(["tar", "-tf", str(path)], check=True, capture_output=True)
    assert listed.stderr == b""
    assert listed.stdout.decode().split() == [*(name for name, _ in MEMBERS), LONG]


def test_start_is_the_first_header_of_a_member() -> None:
    data = raw_tar([("a.jpg", b"1"), (LONG, b"2"), ("b.jpg", b"3")])
    starts = [member.start for member in walk(StreamCursor(io.BytesIO(data)), "test.tar")]
    for start, name in zip(starts, ["a.jpg", LONG, "b.jpg"], strict=True):
        assert next(walk(MapCursor(memoryview(data), start), "test.tar")).name == name


@pytest.mark.parametrize("cursor", CURSORS)
def test_concatenation(cursor: str, tmp_path: Path) -> None:
    foreign = gnu_tar(tmp_path, [("c_00000000_r.jpg", b"gnu"), (LONG, b"long")])
    assert len(foreign) == 10240  # GNU tar pads with zeros beyond the mark
    found = detailed(raw_tar(MEMBERS) + foreign + raw_tar([("d.jpg", b"4")]), cursor)
    assert [name for _, name, _ in found] == [
        *(name for name, _ in MEMBERS),
        "c_00000000_r.jpg",
        LONG,
        "d.jpg",
    ]
    assert [archive for archive, _, _ in found] == [0] * 5 + [1, 1, 2]


@pytest.mark.parametrize("cursor", CURSORS)
def test_an_archive_without_members(cursor: str) -> None:
    assert members(END_OF_ARCHIVE, cursor) == []
    assert members(END_OF_ARCHIVE + raw_tar([("a.jpg", b"1")]) + END_OF_ARCHIVE, cursor) == [
        ("a.jpg", b"1")
    ]


@pytest.mark.parametrize("cursor", CURSORS)
def test_pax_with_float_times_and_long_names(cursor: str) -> None:
    pairs = [
        ("a.jpg", b"1"),
        (LONG, b"22"),
        ("küche_" + "ö" * 70 + ".json", b"{}"),
        ("b.jpg", b"3"),
    ]
    data = python_tar(pairs, tarfile.PAX_FORMAT, mtime=1700000000.123456)
    assert b"mtime=1700000000.123456" in data
    assert members(data, cursor) == pairs


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("length", [99, 100, 101, 155, 156, 255, 256, 257, 600])
def test_names_of_any_length(form: int, length: int) -> None:
    pairs = [("n" * (length - 4) + ".jpg", b"1"), ("short.jpg", b"2")]
    assert members(python_tar(pairs, form)) == pairs
    assert members(raw_tar(pairs)) == pairs


def test_ustar_prefix() -> None:
    pairs = [("folder" * 15 + "/" + "n" * 90 + ".jpg", b"1"), ("short.jpg", b"2")]
    assert members(python_tar(pairs, tarfile.USTAR_FORMAT)) == pairs


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "pax", "ustar", "v7"])
def test_every_format_of_gnu_tar(form: str, tmp_path: Path) -> None:
    pairs = [("set/" + "n" * 85 + ".jpg", b"1" * 600), ("set/b.json", b"{}")]
    if form in ("gnu", "oldgnu", "pax"):
        pairs.append((f"set/{LONG}", b"long"))
    assert members(gnu_tar(tmp_path, pairs, f"--format={form}")) == pairs


def packed(folder: Path, *options: str) -> bytes:
    """The folder `set`, as GNU tar packs it."""
    words = ["tar", "-c", "--sort=name", *options, "set"]
    return subprocess.run(words, cwd=folder, check=True, capture_output=True).stdout


def test_folders_are_not_members(tmp_path: Path) -> None:
    (tmp_path / "set" / "empty.jpg").mkdir(parents=True)
    (tmp_path / "set" / "a.jpg").write_bytes(b"1")
    for options in ([], ["--label=crops.jpg"]):
        assert members(packed(tmp_path, *options)) == [("set/a.jpg", b"1")]


@pytest.mark.parametrize("cursor", CURSORS)
def test_links_are_refused_and_not_passed_over(cursor: str, tmp_path: Path) -> None:
    """A crop under two names is a hard link in a tar, and has no bytes of its own."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jpg").write_bytes(b"1")
    (tmp_path / "set" / "b.jpg").hardlink_to(tmp_path / "set" / "a.jpg")
    said = r"^test\.tar: member set/b\.jpg is a hard link to set/a\.jpg, not a file; make the tar"
    with pytest.raises(DamagedError, match=said):
        members(packed(tmp_path), cursor)
    same = [("set/a.jpg", b"1"), ("set/b.jpg", b"1")]
    assert members(packed(tmp_path, "--hard-dereference"), cursor) == same
    (tmp_path / "set" / "b.jpg").unlink()
    name, target = "l" * 120 + ".jpg", "t" * 150
    (tmp_path / "set" / name).symlink_to(target)
    for form in ("gnu", "pax"):
        with pytest.raises(DamagedError, match=f"set/{name} is a symbolic link to {target}"):
            members(packed(tmp_path, f"--format={form}"), cursor)


def test_what_is_no_member_of_a_sample_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "latest").symlink_to("a.jpg")
    (tmp_path / "set" / ".hidden.jpg").symlink_to("a.jpg")
    (tmp_path / "set" / "z.jpg").write_bytes(b"2")
    assert members(packed(tmp_path)) == [("set/z.jpg", b"2")]


def test_devices_are_refused() -> None:
    block = bytearray(raw_tar([("a.jpg", b"")])[:BLOCK])
    for kind, named in ((b"3", "3"), (b"6", "6"), (b"M", "M")):
        block[156:157] = kind
        with pytest.raises(DamagedError, match=f"a.jpg is not a file, but of the type {named}"):
            members(fixed_header(bytes(block)) + END_OF_ARCHIVE)


@pytest.mark.parametrize("form", ["gnu", "pax --sparse-version=0.0", "pax --sparse-version=1.0"])
def test_files_with_holes_are_refused(form: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with open(tmp_path / "set" / "a.npy", "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    options = f"--sparse --format={form}".split()
    with pytest.raises(DamagedError, match=r"member set/a\.npy is a sparse file"):
        members(packed(tmp_path, *options))


def test_a_size_that_only_pax_has() -> None:
    record = b"10 size=3\n"
    data = bytearray(raw_tar([("a.jpg", b"123"), ("b.jpg", b"4")]))
    data[124:136] = b"00000000000\0"
    head = bytearray(raw_tar([("x", record)])[: 2 * BLOCK])
    head[156:157] = b"x"
    both = fixed_header(bytes(head[:BLOCK])) + bytes(head[BLOCK:])
    both += fixed_header(bytes(data[:BLOCK])) + bytes(data[BLOCK:])
    assert members(both) == [("a.jpg", b"123"), ("b.jpg", b"4")]


def test_base_256_size() -> None:
    data = bytearray(raw_tar([("a.jpg", b"123")]))
    data[124:136] = b"\x80" + (3).to_bytes(11, "big")
    assert members(fixed_header(bytes(data[:BLOCK])) + bytes(data[BLOCK:])) == [("a.jpg", b"123")]


@pytest.mark.parametrize("cursor", CURSORS)
def test_truncation_is_never_silent(cursor: str) -> None:
    pairs = [*MEMBERS, (LONG, b"long")]
    data = raw_tar(pairs)
    cuts = set(range(0, len(data), BLOCK)) | set(
        np.random.default_rng(0).integers(1, len(data), 200).tolist()
    )
    for cut in sorted(cuts):
        with pytest.raises(TruncatedError, match=r"^test\.tar: ") as caught:
            members(data[:cut], cursor)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cursor", CURSORS)
def test_a_truncated_second_archive(cursor: str) -> None:
    first, second = raw_tar(MEMBERS), raw_tar([("c.jpg", b"1" * 700)])
    for cut in range(BLOCK, len(second), BLOCK):
        with pytest.raises(TruncatedError):
            members(first + second[:cut], cursor)


@pytest.mark.parametrize("cursor", CURSORS)
def test_half_an_end_mark_before_the_next_archive(cursor: str) -> None:
    data = raw_tar(MEMBERS)
    with pytest.raises(TruncatedError, match="half an end mark"):
        members(data[:-BLOCK] + data, cursor)


@pytest.mark.parametrize("cursor", CURSORS)
def test_members_before_the_cut_are_yielded_first(cursor: str) -> None:
    data = raw_tar(MEMBERS)[: -len(END_OF_ARCHIVE)]
    reader = StreamCursor(io.BytesIO(data)) if cursor == "stream" else MapCursor(memoryview(data))
    walker: Iterator[object] = walk(reader, "test.tar")
    for _ in MEMBERS:
        next(walker)
    with pytest.raises(TruncatedError, match="without an end-of-archive mark"):
        next(walker)


@pytest.mark.parametrize("cursor", CURSORS)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"just a few words\n" * 100, "not a tar archive$"),
        (b"short\n", "without an end-of-archive mark"),
        (
            gzip.compress(raw_tar(MEMBERS) + np.random.default_rng(0).bytes(2000)),
            "gzip-compressed, pipe it",
        ),
    ],
)
def test_what_is_no_tar(data: bytes, message: str, cursor: str) -> None:
    with pytest.raises(HandclrError, match=message):
        members(data, cursor)


@pytest.mark.parametrize("cursor", CURSORS)
@pytest.mark.parametrize(
    "size",
    [
        b"77777777777\0",
        b"\x80" + (1 << 60).to_bytes(11, "big"),
        b"\xff" * 12,
        b"-0000000005\0",
        b"0x000000005\0",
    ],
)
def test_sizes_that_cannot_be(size: bytes, cursor: str) -> None:
    data = raw_tar([("a.jpg", b"123")])
    header = fixed_header(data[:124] + size + data[136:BLOCK])
    with pytest.raises(HandclrError):
        members(header + data[BLOCK:], cursor)
    with pytest.raises(HandclrError):
        members(raw_tar(MEMBERS) + header + data[BLOCK:], cursor)


@pytest.mark.parametrize("cursor", CURSORS)
def test_damaged_checksum_names_the_place(cursor: str) -> None:
    data = bytearray(raw_tar(MEMBERS))
    data[3] ^= 1
    with pytest.raises(HandclrError, match="not a tar archive"):
        members(bytes(data), cursor)
    data = bytearray(raw_tar(MEMBERS))
    data[2 * BLOCK] ^= 1
    with pytest.raises(HandclrError, match="damaged tar header at byte 1024"):
        members(bytes(data), cursor)


@pytest.mark.parametrize(
    "record",
    [b"9" * 5000 + b" path=x\n", b"0 path=x\n", b"-3 path=x\n", b"no records", b"\xff" * 30],
)
def test_damaged_pax_records(record: bytes) -> None:
    header = raw_tar([("PaxHeaders/a.jpg", record)])[: -len(END_OF_ARCHIVE)]
    header = fixed_header(header[:156] + b"x" + header[157:BLOCK]) + header[BLOCK:]
    assert members(header + raw_tar([("a.jpg", b"1")])) == [("a.jpg", b"1")]


def test_flipped_bytes_raise_our_error_or_none() -> None:
    good = python_tar(
        [(LONG, b"1" * 300), ("b.json", b"{}")], tarfile.PAX_FORMAT, mtime=0.5
    ) + raw_tar([("c.jpg", b"2" * 600), (LONG, b"3")])
    rng = np.random.default_rng(0)
    raised = 0
    for _ in range(300):
        data = bytearray(good)
        for position in rng.integers(0, len(data), rng.integers(1, 6)).tolist():
            data[position] = int(rng.integers(0, 256))
        if rng.random() < 0.5:  # a valid checksum lets the damage in deeper
            data[:BLOCK] = fixed_header(bytes(data[:BLOCK]))
        for cursor in CURSORS:
            try:
                members(bytes(data), cursor)
            except HandclrError as error:
                raised += 1
                assert str(error).startswith("test.tar: ")
    assert raised > 100


def test_written_bytes_depend_on_the_data_alone() -> None:
    first, second = io.BytesIO(), io.BytesIO()
    write_member(first, "a.jpg", b"123")
    write_member(second, "a.jpg", memoryview(b"123"))
    assert first.getvalue() == second.getvalue()
    assert len(first.getvalue()) == 2 * BLOCK
