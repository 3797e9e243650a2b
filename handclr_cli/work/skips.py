"""Items of an input that cannot be used: each is named, all are counted, and the rest goes on."""

from __future__ import annotations

from .. import console
from ..contract.errors import HandclrError

# So many are named for each reason, and where none can be used, or before the first that can.
_NAMED = 20


def warn_skipped(line: str, count: int) -> None:
    """Warn of an input that is left out, the `count`-th for its reason; of many, the first only."""
    if count < _NAMED:
        console.warn(f"{line}; skipped")
    elif count == _NAMED:
        console.warn(f"{line}; skipped; more of these are only counted")


class Skips:
    """Names and counts what cannot be used; with `strict` the first is an error.

    Nothing is said before something can be used: where nothing can, one error says so in place of
    a warning for each.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict, self.count = strict, 0
        self._any_used = False
        self._waiting: list[HandclrError] = []

    def add(self, error: HandclrError) -> None:
        """Leave an item out."""
        if self.strict:
            raise error
        self.count += 1
        if self._any_used:
            console.warn(f"{error}; skipped")
        elif len(self._waiting) < _NAMED:
            self._waiting.append(error)

    def used(self) -> None:
        """Note that an item can be used."""
        if not self._any_used:
            self._any_used = True
            self._flush()

    def check(self) -> None:
        """Raise HandclrError where items were left out and none could be used."""
        if self._waiting:
            raise HandclrError(f"{self._waiting[0]}; none of {self.count:,} can be used")

    def _flush(self) -> None:
        for error in self._waiting:
            console.warn(f"{error}; skipped")
        if self.count > len(self._waiting):
            console.warn(f"{self.count - len(self._waiting):,} more are skipped")
        self._waiting = []
