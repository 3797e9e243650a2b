"""Image files that hold more than one picture, of which a decoder of images shows the first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

_PNG = b"\x89PNG\r\n\x1a\n"
# Of an extended WebP file, the flag of animations.
_WEBP_ANIMATED = 0x02
# In a TIFF, the tag of what a picture is for, and the flag of a smaller version of another one.
_SUBFILE, _REDUCED = 254, 1
# More pages than anybody writes; a file whose chain goes in a circle has no end.
_PAGES = 10_000


def holds_several(data: memoryview) -> bool:
    """Whether the bytes of an image file are an animation, or of several pages.

    Animated PNG, WebP, AVIF and GIF, and TIFF of several pages; smaller versions of a page do not
    count. False for bytes that are none of these, or damaged.
    """
    for is_one, several in _KINDS:
        if is_one(data):
            return several(data)
    return False


def _animated_png(data: memoryview) -> bool:
    """Whether there is a chunk of animation control, which comes before the first picture."""
    place = len(_PNG)
    while place + 8 <= len(data):
        name = bytes(data[place + 4 : place + 8])
        if name in (b"acTL", b"IDAT"):
            return name == b"acTL" and int.from_bytes(data[place + 8 : place + 12], "big") > 1
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return False


def _animated_webp(data: memoryview) -> bool:
    return data[12:16] == b"VP8X" and len(data) > 20 and bool(data[20] & _WEBP_ANIMATED)


def _animated_gif(data: memoryview) -> bool:
    """Whether there is a second picture behind the first."""
    if len(data) < 13:
        return False
    place, pictures = 13 + _colours(data[10]), 0
    while place + 10 <= len(data) and data[place] in b"\x21\x2c":
        picture = data[place] == 0x2C
        pictures += picture
        if pictures > 1:
            return True
        place += 11 + _colours(data[place + 9]) if picture else 2
        while place < len(data) and data[place]:
            place += 1 + data[place]
        place += 1
    return False


def _colours(flags: int) -> int:
    """The length in bytes of the colour table that a GIF's flags announce."""
    return 3 << (1 + (flags & 7)) if flags & 0x80 else 0


def _pages_of_tiff(data: memoryview) -> bool:
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    pages = _pages(data, order)
    return next(pages, None) is not None and next(pages, None) is not None


def _pages(data: memoryview, order: Literal["little", "big"]) -> Iterator[int]:
    """Where the pages of a TIFF are described, without smaller versions of others."""

    def number(place: int, size: int) -> int:
        return int.from_bytes(data[place : place + size], order)

    # BigTIFF has wider fields: of a place, of a count, and so of an entry.
    wide = number(2, 2) == 43
    size, counted, entry = (8, 8, 20) if wide else (4, 2, 12)
    place = number(8 if wide else 4, size)
    for _ in range(_PAGES):
        count = number(place, counted)
        if not 0 < place < len(data) or place + counted + count * entry > len(data):
            return
        entries = range(place + counted, place + counted + count * entry, entry)
        value = 12 if wide else 8
        if not any(
            number(at, 2) == _SUBFILE and number(at + value, 4) & _REDUCED for at in entries
        ):
            yield place
        place = number(entries.stop, size)


def _is_tiff(data: memoryview) -> bool:
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


_KINDS: tuple[tuple[Callable[[memoryview], bool], Callable[[memoryview], bool]], ...] = (
    (lambda data: data[:8] == _PNG, _animated_png),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _animated_webp),
    (lambda data: data[4:12] == b"ftypavis", bool),
    (lambda data: data[:4] == b"GIF8", _animated_gif),
    (_is_tiff, _pages_of_tiff),
)
