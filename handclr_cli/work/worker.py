"""One process of a crew, and what it works on."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from .. import console
from ..contract.retries import Notices
from . import pulse

Item = TypeVar("Item")
Result = TypeVar("Result")

# How long workers that are told to end may take: a decoder may be deep in a damaged file.
PATIENCE_S = 5.0


class Task(Generic[Item, Result]):
    """An item, its results that wait for their turn, and how many processes ended over it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.results: deque[Result] = deque()
        self.received = self.lost = 0
        self.over = False
        self.error: Exception | None = None


class Worker:
    """A process and a pipe to it; the workers of a pool would wait for ever for a killed parent."""

    def __init__(self, work: Callable[[Any], Iterable[Any]]) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._beats = context.RawValue("Q", 0)
        quiet = console.State.quiet or console.State.muted
        told = (work, theirs, self._beats, quiet)
        self.process = context.Process(target=_serve, args=told, daemon=True)
        self.task: Task[Any, Any] | None = None
        self.skip = self.answers = 0
        self.ready = self.hung = False
        self.silent_s, self._seen = 0.0, 0
        # The worker inherits this: Ctrl-C is answered here, and the worker is ended from here.
        with _ignored(signal.SIGINT):
            self.process.start()
        theirs.close()

    def take(self, task: Task[Any, Any]) -> None:
        """Give it a task; the results that an earlier worker gave of it are not kept twice."""
        self.task, self.skip, self.silent_s = task, task.received, 0.0
        if self.ready:
            self._send(task.item)

    def begin(self) -> None:
        """Begin the first task, now that the process is ready for it: a pipe holds only so much."""
        self.ready = True
        if self.task is not None:
            self._send(self.task.item)

    def _send(self, item: Any) -> None:
        # In a filter this signal ends the process when its reader has gone, but a worker that has
        # gone is replaced.
        with _ignored(signal.SIGPIPE), suppress(ConnectionError):  # seen when it is to answer
            self.pipe.send(item)

    def has_pulse(self) -> bool:
        """Whether the work has gone on since this was asked last."""
        before, self._seen = self._seen, self._beats.value
        return self._seen != before

    def kill(self) -> None:
        """End a process that hangs, which hears nothing else."""
        self.hung = True
        self.process.kill()

    def end(self, patience_s: float = PATIENCE_S) -> None:
        """End the process; native threads may keep it from ending by itself."""
        self.pipe.close()
        self.process.join(max(0.0, patience_s))
        self.process.kill()
        self.process.join()


def _serve(work: Callable[[Any], Iterable[Any]], pipe: Connection, beats: Any, quiet: bool) -> None:
    """Answer the items that come through a pipe until its other end is closed."""
    pulse.begin(beats)
    console.State.quiet, Notices.say = quiet, console.say
    # Raise an exception on SIGTERM, so that half-written files are removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    _let_go_of_pipes()
    one_thread()
    if prepare := getattr(work, "prepare", None):
        with suppress(Exception):  # the work raises it again, where it can be handled
            prepare()
    with suppress(EOFError, OSError):
        pipe.send((None, None))
        while True:
            for answer in _answers(work, pipe.recv()):
                pipe.send(answer)
    # Nothing is left to clean up; this hides what the interpreter may print when it ends.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _answers(work: Callable[[Any], Iterable[Any]], item: Any) -> Iterator[tuple[bool, Any]]:
    """What is sent of an item: whether it is over, and a result or the error at its end."""
    error = None
    try:
        for result in work(item):
            yield False, result
    except Exception as raised:
        error = raised
    yield True, error


def _let_go_of_pipes() -> None:
    """Leave standard input and output to the parent; native libraries would print into a tar."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    if nothing > 2:
        os.close(nothing)


@contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


def one_thread() -> None:
    """Let OpenCV, and torch where it is loaded, use one thread.

    Images are small, and the bytes must not depend on the number of cores.
    """
    import cv2

    cv2.setNumThreads(1)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
