"""JSON of any origin: plain values of a bounded depth and size, or a ValueError."""

from __future__ import annotations

import json
from typing import Any

# Deeper than any file of ours, and shallow enough for whatever walks through it.
_DEEPEST = 100
_LEAST, _MOST = -(2**63), 2**64


def parse_json(text: bytes | str) -> Any:
    """Parse JSON; raises ValueError, and nothing else, where it is no JSON, or too much of it.

    Integers have at most 64 bits, and lists and objects are nested at most 100 deep: what comes
    after would fail on more, each part in its own way.
    """
    try:
        found = json.loads(text, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    brackets = ("[", "{") if isinstance(text, str) else (b"[", b"{")
    if sum(map(text.count, brackets)) > _DEEPEST and _depth(found) > _DEEPEST:  # type: ignore[arg-type]
        raise ValueError("nested too deeply")
    return found


def _integer(digits: str) -> int:
    value = int(digits) if len(digits) < 25 else _MOST
    if not _LEAST <= value < _MOST:
        raise ValueError(f"a number of {len(digits)} digits")
    return value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        if depth > _DEEPEST:
            break
        inner = [one.values() if isinstance(one, dict) else one for one in level if _nests(one)]
        level = [each for group in inner for each in group if _nests(each)]
    return depth


def _nests(value: Any) -> bool:
    return isinstance(value, dict | list)
