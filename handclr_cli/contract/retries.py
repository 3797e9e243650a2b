"""How long a server is waited for, how often it is asked again, and what its URL may show."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from typing import ClassVar, NamedTuple, TypeVar

# How long a server may take to answer, and then say nothing.
SILENCE_S = 30.0
# How long to leave it alone before each further attempt.
PAUSES_S: tuple[float, ...] = (1.0, 2.0, 4.0)
_LONGEST_PAUSE_S = 60.0
# What must have come since the last failure for the attempts to be counted anew, in bytes.
_PROGRESS = 1 << 20

_Result = TypeVar("_Result")


def shown(url: str) -> str:
    """A URL as messages and records have it: without user, password, query and fragment."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    place = rest.partition("/")[0]
    rest = rest.removeprefix(place[: place.rfind("@") + 1])
    # Elsewhere than on the web a question mark is a wildcard, unless it begins a query.
    query = r"[?#].*" if scheme in ("http", "https") else r"\?[^?]*=.*"
    return scheme + mark + re.sub(query, "", rest, flags=re.S)


def without_secrets(text: str, url: str) -> str:
    """What a library says of a URL, without what `shown` leaves out of it."""
    text = text.replace(url, shown(url))
    place, _, query = url.partition("://")[2].partition("?")
    user = place.partition("/")[0].rpartition("@")[0]
    for secret in (query, user, user.partition(":")[2]):
        text = text.replace(secret, "...") if secret else text
    return text


def silent() -> str:
    """What is wrong where nothing comes."""
    return f"no answer within {SILENCE_S:g} s"


class Content(NamedTuple):
    """What tells one state of a file on a server from another, as far as the server says it."""

    size: int | None
    etag: str | None
    modified: str | None

    @property
    def is_known(self) -> bool:
        """Whether another content would be told from this one."""
        return self.size is not None and (self.etag or self.modified) is not None


class Lost(OSError):
    """A connection that failed in a way that may pass; `pause_s` is what the server asks for."""

    def __init__(self, reason: str, pause_s: float = 0.0) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class Notices:
    """Where the lines go that say what is tried again; the front door has its own place."""

    say: ClassVar[Callable[[str], None]] = lambda line: print(line, file=sys.stderr, flush=True)


class Patience:
    """Tries again what fails at one URL, with a line for each time, and at last gives up."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._failures = self._gained = 0

    def gain(self, count: int) -> None:
        """Note that bytes came; after enough of them the failures before are forgotten."""
        self._gained += count
        if self._gained >= _PROGRESS:
            self._failures = 0

    def until(self, work: Callable[[], _Result]) -> _Result:
        """What `work` returns, which is called again after Lost; raises the last one."""
        while True:
            try:
                return work()
            except Lost as error:
                self._bear(error)

    def _bear(self, error: Lost) -> None:
        self._failures, self._gained = self._failures + 1, 0
        reason = without_secrets(str(error), self._url)
        if self._failures > len(PAUSES_S):
            raise Lost(f"{reason}, tried {self._failures} times") from error
        again = f"trying again ({self._failures} of {len(PAUSES_S)})"
        Notices.say(f"handclr: {shown(self._url)}: {reason}; {again}")
        pause_s = max(PAUSES_S[self._failures - 1], error.pause_s)
        time.sleep(min(pause_s, _LONGEST_PAUSE_S))
