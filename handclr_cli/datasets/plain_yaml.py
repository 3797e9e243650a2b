"""The part of YAML that calibration files are written in: mappings, lists, plain values, and
nothing that acts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from ..contract.errors import HandclrError

_KEY = re.compile(r"""("[^"]*"|'[^']*'|[A-Za-z0-9_.+-]+):(?:\s+(.*))?""")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z0-9_./][^#:\[\]{},&*|>'\"]*")
# What PyYAML's full loader needs for a tuple; here a list like any other.
_TUPLE = "!!python/tuple"


class _Line(NamedTuple):
    number: int
    indent: int
    text: str


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of nested mappings and lists of strings and numbers, flow lists of one level
    included.

    Raises HandclrError where the file cannot be read, is no mapping, or needs more of YAML than
    that.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise HandclrError(f"{path} is missing; unpack it there") from error
    except (OSError, UnicodeDecodeError) as error:
        raise HandclrError(f"cannot read {path}: {error}") from error
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise HandclrError(f"{path}: {error}; unpack it again") from error
    if not isinstance(value, dict):
        raise HandclrError(f"{path}: holds no mapping; unpack it again")
    return value


def parse_yaml(text: str) -> Any:
    """Parse the text of such a file; raises ValueError naming the line where it is not one."""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        if content and not content.startswith("#") and content != "---":
            lines.append(_Line(number, len(line) - len(line.lstrip(" ")), content))
    if not lines:
        return None
    value, end = _block(lines, 0)
    if end < len(lines):
        raise ValueError(f"line {lines[end].number} is indented like nothing before it")
    return value


def _block(lines: list[_Line], at: int) -> tuple[Any, int]:
    """The list or mapping that starts at a line, and the line after it."""
    return _list(lines, at) if _is_item(lines[at]) else _mapping(lines, at)


def _mapping(lines: list[_Line], at: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    indent = lines[at].indent
    while at < len(lines) and lines[at].indent == indent and not _is_item(lines[at]):
        match = _KEY.fullmatch(lines[at].text)
        if not match or (key := match[1].strip("\"'")) in found:
            raise ValueError(
                f"line {lines[at].number} is no `key: value`, or a key that was there before"
            )
        rest, number, at = (match[2] or "").removeprefix(_TUPLE).strip(), lines[at].number, at + 1
        if rest and not rest.startswith("#"):
            found[key] = _value(rest, number)
        # A list may stand no deeper than its key.
        elif at < len(lines) and (
            lines[at].indent > indent or (lines[at].indent == indent and _is_item(lines[at]))
        ):
            found[key], at = _block(lines, at)
        else:
            found[key] = None
    return found, at


def _list(lines: list[_Line], at: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    indent = lines[at].indent
    while at < len(lines) and lines[at].indent == indent and _is_item(lines[at]):
        rest = lines[at].text[1:].strip()
        if rest.startswith("- "):
            inner = lines[at].text[1:].lstrip()
            deeper = indent + len(lines[at].text) - len(inner)
            lines = [*lines[:at], _Line(lines[at].number, deeper, inner), *lines[at + 1 :]]
            value, at = _list(lines, at)
        else:
            value, at = _value(rest, lines[at].number), at + 1
        found.append(value)
    return found, at


def _is_item(line: _Line) -> bool:
    return line.text.startswith("- ")


def _value(text: str, number: int) -> Any:
    """A string, a number, or a flow list of them."""
    text = re.sub(r"\s+#.*", "", text)
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1].strip()
        return [_scalar(part.strip(), number) for part in inner.split(",")] if inner else []
    return _scalar(text, number)


def _scalar(text: str, number: int) -> str | int | float:
    if (
        len(text) > 1
        and text[0] == text[-1]
        and text[0] in "\"'"
        and text[0] not in text[1:-1]
        and "\\" not in text
    ):
        return text[1:-1]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return float(text)
    if _WORD.fullmatch(text):
        return text
    raise ValueError(f"line {number} has a value of an unknown form: {text[:40]}")
