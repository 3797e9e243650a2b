"""Match paths from other programs to local files by their longest common suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from ..contract.errors import UsageError
from .kinds import VIDEO_SUFFIXES


def find_by_tail(names: Sequence[str], paths: Sequence[str], source: str) -> list[int]:
    """For each name the row of the path that shares the longest tail of whole parts, -1 for none.

    A name may lack the suffix of the file. A tail that several names or several paths end with
    decides nothing. Raises UsageError, naming `source`, where a whole name fits several paths, or
    several names mean one path.
    """
    whole, stems = _Ends(paths), _Ends([_without_suffix(path) for path in paths])
    given = _Ends(names)
    found = [_find(name, whole if name in whole else stems, given, paths, source) for name in names]
    taken: dict[int, str] = {}
    for name, row in zip(names, found, strict=True):
        if row >= 0 and taken.setdefault(row, name) != name:
            raise UsageError(
                f"{source}: {taken[row]} and {name} may both be {paths[row]}; name it in one way"
            )
    return found


def _find(name: str, paths: _Ends, names: _Ends, where: Sequence[str], source: str) -> int:
    parts = _parts(name)
    for depth in range(len(parts), 0, -1):
        rows = paths.ending(parts[-depth:])
        if not rows:
            continue
        if depth == len(parts) and len(rows) > 1:
            raise UsageError(
                f"{source}: {name} may be {where[rows[0]]} or {where[rows[1]]}; name one of them"
            )
        alone = depth == len(parts) or len(names.ending(parts[-depth:])) == 1
        return rows[0] if alone and len(rows) == 1 else -1
    return -1


class _Ends:
    """Rows by the last parts of their paths; longer tails are indexed only where needed."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._by_last: dict[str, list[int]] = {}
        for row, path in enumerate(paths):
            self._by_last.setdefault(_last(path), []).append(row)
        self._longer: dict[str, dict[tuple[str, ...], list[int]]] = {}

    def __contains__(self, name: str) -> bool:
        return _last(name) in self._by_last

    def ending(self, parts: Sequence[str]) -> list[int]:
        """The rows whose paths end with these parts."""
        rows = self._by_last.get(parts[-1], [])
        if len(parts) == 1 or not rows:
            return rows
        if parts[-1] not in self._longer:
            ends: dict[tuple[str, ...], list[int]] = {}
            for row in rows:
                own = _parts(self._paths[row])
                for depth in range(2, len(own) + 1):
                    ends.setdefault(tuple(own[-depth:]), []).append(row)
            self._longer[parts[-1]] = ends
        return self._longer[parts[-1]].get(tuple(parts), [])


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")] or [""]


def _last(path: str) -> str:
    return _parts(path)[-1]


def _without_suffix(path: str) -> str:
    """A path without its suffix; what stands behind the point of a date or a time is none."""
    suffix = PurePosixPath(path).suffix
    if not suffix or (suffix[1:].isdigit() and suffix not in VIDEO_SUFFIXES):
        return path
    return str(PurePosixPath(path).with_suffix(""))
