"""What the bytes of an image say before it is decoded: its size, and whether it is complete."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from .errors import HandclrError

Buffer = bytes | memoryview

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_END_OF_JPEG = b"\xff\xd9"
_START_OF_SCAN = 0xDA


def image_size(payload: Buffer, where: str = "jpg") -> tuple[int, int]:
    """Read width and height from the header of a JPEG or PNG image, without decoding it.

    Raises HandclrError, with `where` in front, for anything else.
    """
    data = memoryview(payload)
    size = _png_size(data) if data[: len(_PNG)] == _PNG else _jpeg_size(data)
    if size is None or 0 in size:
        raise HandclrError(f"{where}: not a JPEG or PNG image")
    return size


def is_jpeg(payload: Buffer) -> bool:
    """Whether the bytes begin as a JPEG image."""
    return bytes(payload[: len(_JPEG)]) == _JPEG


def square_side(payload: Buffer, where: str) -> int:
    """The side of a square image, from its header; raises HandclrError, also as `image_size`."""
    width, height = image_size(payload, where)
    if width != height:
        raise HandclrError(f"{where}: not square: {width}x{height} pixels")
    return width


def check_whole(payload: Buffer, where: str) -> None:
    """Raise HandclrError where an image is cut short, or is a PNG with a wrong checksum."""
    data = memoryview(payload)
    if not (_jpeg_ends(data) if is_jpeg(data) else _png_is_sound(data)):
        raise HandclrError(f"{where}: damaged, or cut short")


def _png_size(data: memoryview) -> tuple[int, int] | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _png_is_sound(data: memoryview) -> bool:
    """Whether the chunks have their checksums, up to the last, which ends the image."""
    at = len(_PNG)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        at += 12 + length
        if len(body) < 4 + length or data[at - 4 : at] != zlib.crc32(body).to_bytes(4, "big"):
            return False
        if body[:4] == b"IEND":
            return True
    return False


def _jpeg_size(data: memoryview) -> tuple[int, int] | None:
    for marker, at in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 7 <= len(data):
            height, width = struct.unpack(">HH", data[at + 3 : at + 7])
            return width, height
    return None


def _jpeg_ends(data: memoryview) -> bool:
    """Whether a scan follows the headers, and the mark of the end it; anything may stand behind."""
    scan = next((at for marker, at in _segments(data) if marker == _START_OF_SCAN), len(data))
    # Nearly always the mark is at the very end, and the rest need not be read from the disk.
    return data[max(scan, len(data) - 2) :] == _END_OF_JPEG or _END_OF_JPEG in bytes(data[scan:])


def _segments(data: memoryview) -> Iterator[tuple[int, int]]:
    """The markers of a JPEG up to its first scan, and where the length behind each is."""
    at = len(_JPEG)
    if data[:at] != _JPEG:
        return
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a byte of padding
            at += 1
            continue
        yield marker, at + 2
        if marker == _START_OF_SCAN:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
