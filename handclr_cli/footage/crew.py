"""Work done by several processes, answered in order."""

from __future__ import annotations

import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from ..contract.errors import HandclrError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield work(item) for each item in order, by `workers` processes; the results do not depend on how many.

    Each process uses one thread, and ends when this one does, however that ends. Raises what `work` raised, or
    HandclrError where a process died.
    """
    if workers < 2:
        one_thread()
        yield from map(work, items)
        return
    crew = [_hire(work) for _ in range(workers)]
    busy: deque[Connection] = deque()
    try:
        for number, item in enumerate(items):
            pipe = crew[number % workers][1]
            with _alive():
                pipe.send(item)
            busy.append(pipe)
            if len(busy) > 3 * workers:
                yield _answer(busy.popleft())
        while busy:
            yield _answer(busy.popleft())
    finally:
        for process, pipe in crew:
            pipe.close()
            process.terminate()
        for process, _ in crew:
            process.join()


def _hire(work: Callable[[Item], Result]) -> tuple[BaseProcess, Connection]:
    """Start a worker; a plain pipe to it, because a pool's workers wait for ever where their parent was killed."""
    context = get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(work, theirs), daemon=True)
    # Inherited: Ctrl-C is answered here, and the worker ended from here.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    theirs.close()
    return process, mine


def _serve(work: Callable[[Any], Any], pipe: Connection) -> None:
    """Answer what comes through a pipe until its other end is closed."""
    # As an exception, so that half-written files are removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    one_thread()
    with suppress(EOFError, ConnectionError):
        while True:
            item = pipe.recv()
            answer: tuple[Any, Exception | None]
            try:
                answer = work(item), None
            except Exception as error:
                answer = None, error
            pipe.send(answer)
    # Nothing is left to clean up, and the interpreter's own cleaning up is not to be seen failing.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise HandclrError("a worker process ended; was it killed? fewer --workers need less memory") from error


def _answer(pipe: Connection) -> Any:
    with _alive():
        result, error = pipe.recv()
    if error is not None:
        raise error
    return result


def one_thread() -> None:
    """Keep OpenCV, and torch where it is loaded, to one thread: small pictures, and bytes free of the cores."""
    import cv2

    cv2.setNumThreads(1)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
