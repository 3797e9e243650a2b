"""Where a run is logged beside its log.jsonl: each tracker is told in a thread of its own.

What a tracker or its server does neither ends a training nor holds it up: one that fails, hangs or
does not keep up is named in one warning and told nothing more.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Full, Queue
from threading import Event, Thread
from typing import Any, Protocol

from .. import console
from ..choices import TrackerName
from ..contract.errors import HandclrError, UsageError
from .tracker_kinds import CLOSE_S, MlflowTracker, Point, TensorboardTracker, WandbTracker

# Where the trackers keep what their servers call the run, within its folder.
IDENTITIES = (WandbTracker.identity, MlflowTracker.identity)
# How long a server that is slow to answer is waited for, before the first step and after the last.
BEGIN_S, END_S = 10.0, CLOSE_S + 2
# Of what is told and not yet taken: about half an hour of a training.
_BACKLOG = 1000
_DATABASE = re.compile(r"(sqlite|mysql|postgresql|mssql)(\+\w+)?:")
_INTERRUPTED = 130

Record = Mapping[str, Any]


class Tracker(Protocol):
    """A place where a run is logged; what a method raises costs this tracker alone.

    After that it is only closed.
    """

    def begin(self, config: Record, first: int) -> None:
        """Open the run, anew or again, that goes on with step `first`."""

    def log(self, points: Sequence[Point]) -> None:
        """Log numbers at their steps."""

    def close(self, code: int) -> None:
        """End the run with the exit code of this process."""


KINDS: dict[str, Callable[[Path], Tracker]] = {
    TrackerName.TENSORBOARD: TensorboardTracker,
    TrackerName.WANDB: WandbTracker,
    TrackerName.MLFLOW: MlflowTracker,
}


def check_trackers(names: Sequence[str]) -> None:
    """Raise UsageError where a tracker is unknown, or its library not installed."""
    for name in names:
        missing = f"not installed here; pip install 'handclr[{name}]'"
        if name not in KINDS:
            raise UsageError(f"not one of {', '.join(KINDS)}", setting="log", value=name)
        if not _installed(name):
            raise UsageError(missing, setting="log", value=name)
        database = _DATABASE.match(os.environ.get("MLFLOW_TRACKING_URI", ""))
        if name == "mlflow" and database and not _installed("sqlalchemy"):
            why = "the database of MLFLOW_TRACKING_URI needs the whole of it; pip install mlflow"
            raise UsageError(why, setting="log", value=name)


def _installed(library: str) -> bool:
    # A folder of that name in the current one is found too, and has no origin.
    found = importlib.util.find_spec(library)
    return found is not None and found.origin is not None


@contextlib.contextmanager
def opened_trackers(names: Sequence[str], folder: str | Path) -> Iterator[Trackers]:
    """The trackers of a run in a folder, for a block, which are told how it ended.

    They are waited for until END_S after its end.
    """
    told = []
    for name in dict.fromkeys(names):
        # Their libraries are loaded here: a process that is forked while another thread imports may
        # never get past an import of its own.
        try:
            told.append(_Told(name, KINDS[name](Path(folder))))
        except Exception as error:
            _given_up(name, error)
    trackers = Trackers(told)
    try:
        yield trackers
    except BaseException as error:
        trackers.close(_code_of(error))
        raise
    trackers.close(0)


def _code_of(error: BaseException) -> int:
    """The exit code of a process that an error ends."""
    if isinstance(error, HandclrError):
        return error.exit_code
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return _INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


class Trackers:
    """The trackers of a run, told together."""

    def __init__(self, told: Sequence[_Told] = ()) -> None:
        self._told = told
        self._begun = False
        self._last: dict[str, int] = {}

    def begin(self, config: Record, first: int) -> None:
        """Open the run that goes on with step `first`; what takes longer is not waited for."""
        self._begun = True
        _wait([one.tell(one.tracker.begin, config, first) for one in self._told], BEGIN_S)

    def log(self, records: Sequence[Record]) -> None:
        """Log all numbers of records but their steps, once for each step."""
        if not self._told:
            return
        points = [(record["step"], self._new(record)) for record in records]
        for one in self._told:
            one.tell(one.tracker.log, points)

    def close(self, code: int) -> None:
        """End the run with an exit code, where it has begun."""
        if not self._begun:
            return
        done = [one.tell(one.tracker.close, code, last=True) for one in self._told]
        _wait(done, END_S)
        for one, event in zip(self._told, done, strict=True):
            if not event.is_set():
                one.give_up(f"not ended within {END_S:g} s")

    def _new(self, record: Record) -> dict[str, float]:
        """The numbers of a record that its step does not have yet."""
        step: int = record["step"]
        names = [name for name in record if name != "step" and self._last.get(name) != step]
        self._last.update(dict.fromkeys(names, step))
        return {name: record[name] for name in names}


def _wait(events: Sequence[Event], seconds: float) -> None:
    until = time.monotonic() + seconds
    for event in events:
        event.wait(max(0.0, until - time.monotonic()))


def _given_up(name: str, why: object) -> None:
    said = str(why) or type(why).__name__
    console.warn(f"log {name}: {said.rstrip('.')}; nothing more is logged there")


class _Told:
    """A tracker and the thread that it is told in, until it fails."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.name, self.tracker = name, tracker
        self._over = False
        self._waiting: Queue[tuple[Callable[[], None], bool, Event]] = Queue(_BACKLOG)
        Thread(target=self._work, name=f"log {name}", daemon=True).start()

    def tell(self, method: Callable[..., None], *arguments: Any, last: bool = False) -> Event:
        """Call a method of the tracker when its turn comes; returns what is set after that.

        Where the tracker has failed, only the last call is made.
        """
        done = Event()
        try:
            if last or not self._over:
                self._waiting.put_nowait((lambda: method(*arguments), last, done))
                return done
        except Full:
            self.give_up("does not keep up")
        done.set()
        return done

    def give_up(self, why: object) -> None:
        """Tell the tracker nothing more, and say why, unless that was done."""
        if not self._over:
            self._over = True
            _given_up(self.name, why)

    def _work(self) -> None:
        last = False
        while not last:
            call, last, done = self._waiting.get()
            try:
                if last or not self._over:
                    call()
            except (Exception, SystemExit) as error:
                self.give_up(error)
            done.set()
