"""Tar archives: read member by member from a pipe or a memory map, and written reproducibly."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol

from .errors import DamagedError, HandclrError, TruncatedError

BLOCK = 512
END_OF_ARCHIVE = bytes(2 * BLOCK)
MEMBER_LIMIT = 1 << 30

# Type flags: of a regular file, of headers that say something of the one behind them, of folders
# and the label of an archive, and of what is in other files or has holes.
_REGULAR = (b"0", b"\0", b"7")
_EXTENDED = (b"L", b"K", b"x", b"g")
_FOLDERS = (b"5", b"D", b"V")
_LINKS = {b"1": "a hard link to", b"2": "a symbolic link to"}
_SPARSE, _SPARSE_WORDS = b"S", re.compile(r"GNU\.sparse\.")

Buffer = bytes | memoryview


class Member(NamedTuple):
    """A regular file in a tar, whose bytes are `data`.

    `archive` is the number of its tar, from 0, where several are concatenated; `start` is the
    position of its first header in the stream.
    """

    archive: int
    name: str
    start: int
    data: Buffer


class Cursor(Protocol):
    """A reader of a stream from its start to its end; `position` counts the bytes read."""

    position: int

    def take(self, size: int) -> Buffer:
        """Read the next `size` bytes; fewer only at the end of the stream."""


class StreamCursor:
    """A cursor over a pipe or file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.position = file, 0

    def take(self, size: int) -> bytes:
        """Read the next `size` bytes; fewer only at the end of the file."""
        data = self.file.read(size)
        self.position += len(data)
        return data


class MapCursor:
    """A cursor over a memory map; it takes views, so that only what is used is read from disk."""

    def __init__(self, view: memoryview, position: int = 0) -> None:
        self.view, self.position = view, position

    def take(self, size: int) -> memoryview:
        """A view of the next `size` bytes; fewer only at the end of the map."""
        data = self.view[self.position : self.position + size]
        self.position += len(data)
        return data


def walk(cursor: Cursor, source: str) -> Iterator[Member]:
    """Yield the regular files of one tar or of several concatenated ones.

    Names may be written as in ustar, GNU or PAX. Raises TruncatedError where the stream is empty,
    stops inside a member, or ends without an end-of-archive mark; HandclrError where a header is
    damaged, the data is no tar at all, or a member of a sample is a link or sparse.
    """
    archive, start = 0, cursor.position
    extended: dict[str, str] = {}
    while True:
        block, ended = _next_header(cursor, source)
        if not block:
            return
        if ended:
            archive += 1
        if not extended:
            start = cursor.position - BLOCK
        name, size, kind = _header(block, cursor.position - BLOCK, source)
        if kind in _EXTENDED:
            extended |= _extension(kind, bytes(_payload(cursor, size, name, source)))
            continue
        name = extended.get("path", name)
        data = _payload(cursor, int(extended.get("size", size)), name, source)
        if kind in _REGULAR and not any(map(_SPARSE_WORDS.match, extended)):
            yield Member(archive, name, start, data)
        elif kind not in _FOLDERS:
            _refuse(block, name, extended, source)
        extended = {}


def sample_name(name: str) -> tuple[str, str] | None:
    """Key and suffix, in lower case, of a member of a sample; None for files of other kinds.

    A key is the name of a member up to the first dot after the last slash, as in WebDataset. Files
    without a dot, and hidden ones such as the `._` files of macOS, belong to no sample.
    """
    folder, _, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    if not dot or not stem:
        return None
    return (f"{folder}/{stem}" if folder else stem), suffix.lower()


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    """What a header says of the one behind it, under the names of PAX."""
    if kind == b"x":
        said = _pax(data)
        if not said.get("size", "0").isdecimal():
            del said["size"]
        return said
    if kind == b"g":
        return {}
    text = data.rstrip(b"\0").decode("utf-8", "replace")
    return {"path" if kind == b"L" else "linkpath": text}


def _refuse(block: bytes, name: str, extended: dict[str, str], source: str) -> None:
    """Raise where a member of a sample is not in the tar as it is."""
    kind, name = block[156:157], extended.get("GNU.sparse.name", name)
    if sample_name(name) is None:
        return
    if kind in _LINKS:
        target = extended.get("linkpath") or _text(block[157:257])
        why = f"is {_LINKS[kind]} {target}, not a file; make the tar anew with links dereferenced"
    elif kind in (*_REGULAR, _SPARSE):
        why = "is a sparse file; make the tar anew without holes"
    else:
        why = f"is not a file, but of the type {kind.decode('ascii', 'replace')}"
    raise DamagedError(f"{source}: member {name} {why}")


def _next_header(cursor: Cursor, source: str) -> tuple[bytes, bool]:
    """The next header, no bytes at the end of the stream; and whether an end mark precedes it."""
    zeros = 0
    while True:
        block = bytes(cursor.take(BLOCK))
        ended = zeros * BLOCK >= len(END_OF_ARCHIVE)
        if len(block) < BLOCK and (block or not ended):
            raise _short(cursor.position, source)
        if not block or any(block):
            break
        zeros += 1
    if zeros and not ended:
        raise TruncatedError(
            f"{source}: an archive ends with half an end mark; did a producer fail?"
        )
    return block, ended


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


# What is taken for a tar at times, by its first bytes, and what to do with it.
_KINDS = {
    b"\x1f\x8b": "; it is gzip-compressed, pipe it through zcat",
    b"PK": "; it is an NPZ file: handclr inspect says of which command",
}


def _header(block: bytes, position: int, source: str) -> tuple[str, int, bytes]:
    try:
        checksum = int(block[148:156].strip(b" \0") or b"0", 8)
        size = _number(block[124:136])
    except ValueError:
        checksum, size = -1, 0
    if size < 0 or checksum != sum(block.translate(None, b"\0")) - sum(block[148:156]) + 8 * 32:
        if position:
            raise DamagedError(f"{source}: damaged tar header at byte {position}")
        hint = _KINDS.get(block[:2], "")
        if block[4:8] == b"ftyp":
            hint = "; it is a video: handclr extract makes crops of it"
        raise HandclrError(f"{source}: not a tar archive{hint}")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    return name, size, block[156:157]


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


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


def _short(position: int, source: str) -> TruncatedError:
    if position == 0:
        return TruncatedError(f"{source}: is empty; did the upstream command fail?")
    return TruncatedError(
        f"{source}: ends without an end-of-archive mark; did the upstream command fail?"
    )


def write_member(file: BinaryIO, name: str, data: Buffer) -> None:
    """Append one regular file, without time or owner: the same data gives the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    file.write(info.tobuf(tarfile.GNU_FORMAT))
    file.write(data)
    file.write(bytes(-len(data) % BLOCK))
