"""Tar archives as streams of members: one walker for pipes and for memory maps, one deterministic
writer.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol

from .errors import DamagedError, HandclrError, TruncatedError

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)
MEMBER_LIMIT = 1 << 30

Buffer = bytes | memoryview


class Member(NamedTuple):
    """A regular file in a tar: its archive in a concatenation (from 0), name, first header's
    position, payload.
    """

    archive: int
    name: str
    start: int
    data: Buffer


class Cursor(Protocol):
    """A forward reader that knows where it is; `take` returns fewer bytes only at the end."""

    position: int

    def take(self, size: int) -> Buffer: ...


class StreamCursor:
    """A cursor over a pipe or file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.position = file, 0

    def take(self, size: int) -> bytes:
        data = self.file.read(size)
        self.position += len(data)
        return data


class MapCursor:
    """A cursor over a memory map; what it takes is a view, so that payloads are not touched until
    read.
    """

    def __init__(self, view: memoryview, position: int = 0) -> None:
        self.view, self.position = view, position

    def take(self, size: int) -> memoryview:
        data = self.view[self.position : self.position + size]
        self.position += len(data)
        return data


def walk(cursor: Cursor, source: str) -> Iterator[Member]:
    """Yield the regular files of one tar or of several concatenated ones (ustar, GNU and PAX
    names).

    Raises TruncatedError where the stream is empty, stops inside a member, or ends without an
    end-of-archive mark; HandclrError where a header is damaged or the data is no tar at all.
    """
    archive, zeros, long_name = 0, 0, None
    start = cursor.position
    while True:
        block = bytes(cursor.take(BLOCK))
        if not block and zeros * BLOCK >= len(END_OF_ARCHIVE):
            return
        if len(block) < BLOCK:
            raise _short(block, cursor.position, source)
        if not any(block):
            zeros += 1
            continue
        if zeros * BLOCK >= len(END_OF_ARCHIVE):
            archive, zeros = archive + 1, 0
        if zeros:
            raise TruncatedError(
                f"{source}: an archive ends with half an end mark; did a producer fail?"
            )
        name, size, kind = _header(block, cursor.position - BLOCK, source)
        start = cursor.position - BLOCK if long_name is None else start
        data = _payload(cursor, size, name, source)
        if kind == b"L":
            long_name = bytes(data).rstrip(b"\0").decode("utf-8", "replace")
        elif kind == b"x":
            long_name = _pax(bytes(data)).get("path", long_name)
        elif kind in b"0\0" + b"7":
            yield Member(archive, long_name or name, start, data)
        if kind not in b"LxgK":
            long_name = None


def _payload(cursor: Cursor, size: int, name: str, source: str) -> Buffer:
    if size > MEMBER_LIMIT:
        raise DamagedError(
            f"{source}: member {name} claims {size} bytes; this is not a shard of crops"
        )
    data = cursor.take(size)
    padding = -size % BLOCK
    if len(data) < size or len(cursor.take(padding)) < padding:
        raise TruncatedError(
            f"{source}: ends in the middle of member {name}; did the upstream command fail?"
        )
    return data


def _header(block: bytes, position: int, source: str) -> tuple[str, int, bytes]:
    try:
        checksum = int(block[148:156].strip(b" \0") or b"0", 8)
        size = _number(block[124:136])
    except ValueError:
        checksum, size = -1, 0
    if size < 0 or checksum != sum(block.translate(None, b"\0")) - sum(block[148:156]) + 8 * 32:
        if position:
            raise DamagedError(f"{source}: damaged tar header at byte {position}")
        hint = "; it is gzip-compressed, pipe it through zcat" if block[:2] == b"\x1f\x8b" else ""
        raise HandclrError(f"{source}: not a tar archive{hint}")
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345]:
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "replace"), size, block[156:157]


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU base-256, for sizes beyond eleven octal digits
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


def _pax(data: bytes) -> dict[str, str]:
    records = {}
    while data:
        digits, _, _ = data.partition(b" ")
        if not digits.isdigit() or len(digits) > 10 or int(digits) <= len(digits):
            break
        record, data = data[len(digits) + 1 : int(digits) - 1], data[int(digits) :]
        key, _, value = record.partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    return records


def _short(block: bytes, position: int, source: str) -> TruncatedError:
    if position == 0:
        return TruncatedError(f"{source}: is empty; did the upstream command fail?")
    return TruncatedError(
        f"{source}: ends without an end-of-archive mark; did the upstream command fail?"
    )


def write_member(file: BinaryIO, name: str, data: Buffer) -> None:
    """Append one regular file, with no time, owner or PAX header: the same data gives the same
    bytes.
    """
    info = tarfile.TarInfo(name)
    info.size = len(data)
    file.write(info.tobuf(tarfile.GNU_FORMAT))
    file.write(data)
    file.write(bytes(-len(data) % BLOCK))
