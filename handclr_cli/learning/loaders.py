"""Processes that load: started, waited for within limits, and ended, whatever becomes of them."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import active_children
from multiprocessing.queues import Queue
from multiprocessing.reduction import ForkingPickler
from types import FrameType
from typing import Any, ClassVar

import cv2
import torch
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import DataLoader

from .. import console
from ..contract.errors import HandclrError

# How often a wait for a batch is interrupted, when it is told of, and when it is over.
POLL_S = 2.0
TOLD_S, LIMIT_S = 60.0, 600.0
# How long processes may take to end once they are told to: one may hang in a file.
ENDING_S = 2.0
# Where torch keeps what processes share: 64 MB in a container, or much less.
SHARED = "/dev/shm"
# Batches are on their way in several processes at once.
_ROOM_FACTOR, _ROOM_LEAST = 4, 1 << 20
# So little room is told of where a process is lost.
_ROOM_TOLD = 100e6
# What the locks of a loader take there, and those of each of its processes: a page each.
_PAGES, _PAGES_EACH, _PAGE = 9, 3, 4096
_END: Any = object()


@contextlib.contextmanager
def started(loader: DataLoader[Any]) -> Iterator[Iterator[Any]]:
    """The batches of a loader, whose processes end with the block; see `patient`.

    Raises HandclrError where there is no room for a process.
    """
    iterator: Iterator[Any] = iter(())
    try:
        iterator = _start(loader)
        yield iterator
    finally:
        _end(iterator)


def _end(iterator: Iterator[Any]) -> None:
    """End the processes, all at once: torch alone would wait for 10 s for each one that hangs.

    They ignore SIGTERM, which would end them at exit: without this, an error would wait for ever.
    """
    processes = getattr(iterator, "_workers", ())
    late = threading.Timer(ENDING_S, _kill, (processes,))
    late.daemon = True
    late.start()
    try:
        getattr(iterator, "_shutdown_workers", lambda: None)()
    finally:
        late.cancel()
        _kill(processes)
        _Deaths.noted = None


def _kill(processes: Sequence[Any]) -> None:
    for process in processes:
        process.kill()


class _Deaths:
    """torch's answer to the end of a process, an error, which waits until a batch is waited for.

    Anywhere else it would leave half a step behind, or half a save.
    """

    waiting: ClassVar[bool] = False
    noted: ClassVar[RuntimeError | None] = None

    def __init__(self, answer: Callable[[int, FrameType | None], Any]) -> None:
        self._answer = answer

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self._answer(number, frame)
        except RuntimeError as error:
            if _Deaths.waiting:
                raise
            _Deaths.noted = error

    @classmethod
    def hear(cls) -> None:
        """Stand before what answers to the end of a process now."""
        answer = signal.getsignal(signal.SIGCHLD)
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and callable(answer) and not isinstance(answer, cls):
            signal.signal(signal.SIGCHLD, cls(answer))

    @classmethod
    @contextlib.contextmanager
    def raised(cls) -> Iterator[None]:
        """Raise the error in a block, or before it where it came earlier."""
        cls.waiting = True
        try:
            if cls.noted is not None:
                raise cls.noted
            yield
        finally:
            cls.waiting = False


def patient(iterator: Iterator[Any], waiting: Callable[[], None]) -> Iterator[Any]:
    """The batches of a loader that is asked again where none came in time.

    `waiting` is called every POLL_S that pass without a batch, and may raise. Raises HandclrError
    where a process is lost, or no batch comes for LIMIT_S.
    """
    silent = 0
    with _Watch(getattr(iterator, "_workers", ())) as watch:
        while True:
            try:
                with watch.limited(), _processes_named(), _Deaths.raised():
                    batch = next(iterator, _END)
            except _SilentError:
                silent += 1
                waiting()
                # Counted, not measured: a job that the scheduler suspends comes back hours later.
                _tell(silent, _awaited(iterator))
                if silent * POLL_S < LIMIT_S:
                    continue
                raise _late(_awaited(iterator)) from None
            except HandclrError as error:
                raise (_late("") if watch.has_ended else error) from error.__cause__
            if batch is _END:
                return
            silent = 0
            yield batch


def _awaited(iterator: Iterator[Any]) -> str:
    """In words, the process that has the next batch to do."""
    task = getattr(iterator, "_task_info", {}).get(getattr(iterator, "_rcvd_idx", None))
    return f" from process {iterator._workers[task[0]].pid}" if task else ""  # type: ignore[attr-defined]


def _tell(silent: int, source: str) -> None:
    """Warn, once, where no batch came for so many POLL_S."""
    if silent == round(TOLD_S / POLL_S):
        left = f"waiting for {LIMIT_S - TOLD_S:,.0f} s more"
        console.warn(f"no batch of crops came{source} for {TOLD_S:,.0f} s; {left}")


def _late(source: str) -> HandclrError:
    silence = f"no batch of crops came{source} for {LIMIT_S:,.0f} s"
    return HandclrError(f"{silence}; see whether the disk that they are on answers")


class _Watch:
    """Ends processes that keep the trainer in the middle of a batch, where torch has no limit."""

    def __init__(self, processes: Sequence[Any]) -> None:
        self._processes, self._over = processes, threading.Event()
        # How many POLL_S the wait has taken that is on now; a list for each wait.
        self._waited: list[int] = []
        self.has_ended = False

    def __enter__(self) -> _Watch:
        if self._processes:
            threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """Count the time that a block takes."""
        self._waited = [0]
        try:
            yield
        finally:
            self._waited = []

    def _run(self) -> None:
        while not self._over.wait(POLL_S):
            if waited := self._waited:
                waited[0] += 1
                _tell(waited[0], "")
                # Of a wait that torch ends itself nothing is left by then.
                if waited[0] * POLL_S > LIMIT_S + POLL_S:
                    self.has_ended = True
                    _kill(self._processes)


def that_fit(workers: int) -> int:
    """As many processes as the locks that they share find room for; says where it is fewer."""
    pages = _shared_room() / _PAGE
    fitting = int(min(workers, max(0, (pages - _PAGES) / _PAGES_EACH)))
    if fitting < workers:
        full = f"{SHARED} has {pages * _PAGE / 1e3:,.0f} kB left"
        console.warn(f"{full}; crops are decoded by {fitting} processes, not {workers}")
    return fitting


def _start(loader: DataLoader[Any]) -> Iterator[Any]:
    before = set(active_children())
    try:
        iterator = iter(loader)
    except OSError as error:  # no room for a process, a lock or a pipe
        # Those that have begun would be waited for at the end.
        _kill([*(set(active_children()) - before)])
        raise _lost(str(error.strerror or error)) from error
    _Deaths.hear()
    return iterator


@contextlib.contextmanager
def _processes_named() -> Iterator[None]:
    """Say in a line what torch says of processes that load."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise _lost("it ended in the middle of a batch") from error
    except RuntimeError as error:
        if "DataLoader timed out" in str(error):
            raise _SilentError from error
        if "DataLoader worker (pid" not in str(error):
            raise
        raise _lost(str(error).partition(". ")[0]) from error


def _lost(reason: str) -> HandclrError:
    room = _shared_room()
    left = f", {room / 1e6:,.1f} MB are free in {SHARED}" if room < _ROOM_TOLD else ""
    why = f"a process that decodes crops cannot go on ({reason}{left})"
    return HandclrError(f"{why}; use fewer, or 0 for none", setting="workers")


class _SilentError(Exception):
    """No batch came in time."""


def calm_worker(worker: int) -> None:
    """Set up a data process: one thread, signals left to the trainer, no end of the shared memory.

    A batch that does not fit into it goes through a pipe; one that cannot be sent at all ends the
    process, which the trainer sees, where it would wait for ever for the batch.
    """
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ForkingPickler.register(torch.Tensor, _reduced)
    Queue._on_queue_feeder_error = staticmethod(_give_up)  # type: ignore[attr-defined]


def _reduced(tensor: torch.Tensor) -> Any:
    """How a tensor is sent to the trainer: in shared memory, or by value where that is short."""
    if _shared_room() > _ROOM_FACTOR * (tensor.nbytes + _ROOM_LEAST):
        try:
            return reduce_tensor(tensor)
        except (RuntimeError, OSError):  # others have taken the room in between
            pass
    return torch.from_numpy, (tensor.numpy(),)


def _shared_room() -> float:
    """Bytes that are free in the shared memory, infinite where there is no such limit."""
    try:
        found = os.statvfs(SHARED)
    except (OSError, AttributeError):
        return math.inf
    return found.f_bavail * found.f_frsize


def _give_up(error: Exception, item: Any) -> None:
    os._exit(1)
