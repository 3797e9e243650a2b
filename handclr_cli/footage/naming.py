"""The order and the numbers of images, as their names say them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

from ..contract.sample import LAST_FRAME

_RUN = re.compile(r"([0-9]+)")
# A number of brackets behind it too: "photo (12)".
_AT_END = re.compile(r"([0-9]+)[)\]}]?$")
# Seconds since 1970, or a clock of nanoseconds, with a fraction: written with as many digits as
# there are, .5 comes after .25.
_SECONDS = re.compile(r"[0-9]{9,}\.[0-9]+$")

_Parts = tuple[str | int | Decimal, ...]


def numbered(files: Iterable[Path]) -> list[tuple[int, Path]]:
    """The images of a folder in natural order (2 before 10), each with its frame number.

    That is the number at the end of the name where all have one of at most eight digits and these
    rise from image to image, so that they tell the images apart; else the place in the order, from
    0. Times and dates of several numbers fall back to it (`20230402_000001` after
    `20230401_235959`), and so does an image that is alone.
    """
    ordered = sorted(files, key=_natural)
    named = [image_number(file) for file in ordered]
    numbers = [number for number in named if number is not None]
    if len(ordered) > 1 and len(numbers) == len(ordered) and _rise(numbers):
        return list(zip(numbers, ordered, strict=True))
    return list(enumerate(ordered))


def image_number(file: Path) -> int | None:
    """The number at the end of an image's name; None where there is none, or it is too large."""
    match = _AT_END.search(file.stem)
    if not match or _SECONDS.search(file.stem):
        return None
    number = int(match[1])
    return number if number <= LAST_FRAME else None


def _rise(numbers: list[int]) -> bool:
    return all(before < after for before, after in pairwise(numbers))


def _natural(file: Path) -> tuple[_Parts, str]:
    """A sort key by which whole runs of digits count as numbers, and case does not."""
    texts = _RUN.split(file.stem)
    parts: list[str | int | Decimal] = [text.casefold() for text in texts]
    for place in range(1, len(texts), 2):
        parts[place] = int(texts[place])
    if _SECONDS.search(file.stem):
        parts[-2] = Decimal(f"0.{texts[-2]}")
    return tuple(parts), file.name
