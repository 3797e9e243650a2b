"""Loading of batches by worker processes, for training and for prediction."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import active_children
from multiprocessing.queues import Queue
from multiprocessing.reduction import ForkingPickler
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import DataLoader, Dataset

from .. import console
from ..contract.errors import HandclrError

# How often a wait for a batch is interrupted, and when it is over.
POLL_S = 2.0
LIMIT_S = 600.0
# Where torch keeps what processes share: 64 MB in a container, or much less.
SHARED = "/dev/shm"
# Batches are on their way in several processes at once.
_ROOM_FACTOR, _ROOM_LEAST = 4, 1 << 20
# What the locks of a loader take there, and those of each of its processes: a page each.
_PAGES, _PAGES_EACH, _PAGE = 9, 3, 4096
_END: Any = object()


class Guarded(Dataset[Any]):
    """A data set whose HandclrErrors are items.

    Raised in a worker process, they would reach the trainer as the text of a traceback.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, at: Any) -> Any:
        try:
            return self.dataset[at]
        except HandclrError as error:
            return error


class Loaded(NamedTuple):
    """A batch, and the errors of the items that could not be read, by their places in it."""

    batch: Any
    failed: dict[int, HandclrError]


Mend = Callable[[list[Any]], list[Any]]


@contextlib.contextmanager
def batches(
    dataset: Dataset[Any],
    sampler: Iterable[Any],
    collate: Callable[[list[Any]], Any],
    workers: int,
    device: torch.device,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[Iterator[Any]]:
    """Load batches in `workers` processes, which end with the block whatever ends it.

    `sampler` yields lists of what `dataset` is indexed by; `waiting` is called every POLL_S that
    pass without a batch, and may raise. Raises the HandclrError of an item, or one of its own where
    a process is lost or none of them gives a batch for LIMIT_S.
    """

    def collate_or_error(items: list[Any]) -> Any:
        error = next((item for item in items if isinstance(item, HandclrError)), None)
        return error or collate(items)

    with _loaded(dataset, sampler, collate_or_error, workers, device, waiting) as loaded:
        yield loaded


@contextlib.contextmanager
def mended_batches(
    dataset: Dataset[Any],
    sampler: Iterable[Any],
    collate: Callable[[list[Any]], Any],
    workers: int,
    device: torch.device,
    mend: Mend,
    waiting: Callable[[], None] = lambda: None,
) -> Iterator[Iterator[Loaded]]:
    """Load batches as `batches` does; an item that cannot be read costs no more than itself.

    `mend` makes a list of items, with a HandclrError in the place of each such one, into one for
    `collate`; where it makes an empty one, the first error is raised. `waiting` is called every
    POLL_S that pass without a batch, and may raise.
    """

    def collate_mended(items: list[Any]) -> Any:
        failed = {at: item for at, item in enumerate(items) if isinstance(item, HandclrError)}
        if not failed:
            return Loaded(collate(items), {})
        mended = mend(items)
        return Loaded(collate(mended), failed) if mended else next(iter(failed.values()))

    with _loaded(dataset, sampler, collate_mended, workers, device, waiting) as loaded:
        yield loaded


def repeat_others(items: list[Any]) -> list[Any]:
    """Put others of the batch in the places of those that cannot be read, so that it stays full."""
    good = [item for item in items if not isinstance(item, HandclrError)]
    if not good:
        return []
    return [
        good[at % len(good)] if isinstance(item, HandclrError) else item
        for at, item in enumerate(items)
    ]


def grey(side: int) -> Mend:
    """What puts grey crops, uint8 (side, side, 3), in the places of those that cannot be read."""
    plain = np.full((side, side, 3), 128, np.uint8)
    return lambda items: [plain if isinstance(item, HandclrError) else item for item in items]


class Told:
    """Warns of crops that cannot be read, of each once; `instead` says what stands in for them."""

    def __init__(self, instead: str) -> None:
        self.instead = instead
        self._told = set[str]()

    def __call__(self, loaded: Loaded) -> Any:
        """Warn of what failed; returns the batch."""
        for error in loaded.failed.values():
            if str(error) not in self._told:
                self._told.add(str(error))
                console.warn(f"{error}; {self.instead}")
        return loaded.batch


@contextlib.contextmanager
def _loaded(
    dataset: Dataset[Any],
    sampler: Iterable[Any],
    collate: Callable[[list[Any]], Any],
    workers: int,
    device: torch.device,
    waiting: Callable[[], None],
) -> Iterator[Iterator[Any]]:
    workers = _that_fit(workers)
    if workers:
        # OpenCV's threads do not survive a fork, and a worker would wait for ever for them to end.
        cv2.setNumThreads(1)
    loader = DataLoader(
        Guarded(dataset),
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=calm_worker,
        pin_memory=device.type == "cuda",
        multiprocessing_context="fork" if workers else None,
        timeout=POLL_S if workers else 0,
    )
    iterator: Iterator[Any] = iter(())
    try:
        iterator = _started(loader)
        yield (_raise_error(batch) for batch in _patient(iterator, waiting))
    except torch.OutOfMemoryError as error:
        advice = "lower the batch or the size, or encode a batch in more parts"
        raise HandclrError(f"the device is out of memory; {advice}") from error
    finally:
        # Workers ignore SIGTERM, which would end them at exit: without this, an error would wait
        # for ever.
        getattr(iterator, "_shutdown_workers", lambda: None)()
        for process in getattr(iterator, "_workers", ()):
            process.kill()  # those that hang in a file


def _patient(iterator: Iterator[Any], waiting: Callable[[], None]) -> Iterator[Any]:
    """The batches of a loader that is asked again where none came in time."""
    silent = 0
    with _Watch(getattr(iterator, "_workers", ())) as watch:
        while True:
            try:
                with watch.limited(), _processes_named():
                    batch = next(iterator, _END)
            except _SilentError:
                silent += 1
                waiting()
                # Counted, not measured: a job that the scheduler suspends comes back hours later.
                if silent * POLL_S < LIMIT_S:
                    continue
                late = f"no batch of crops came for {LIMIT_S:,.0f} s"
                raise HandclrError(f"{late}; does the disk that they are on answer?") from None
            if batch is _END:
                return
            silent = 0
            yield batch


class _Watch:
    """Ends processes that keep the trainer in the middle of a batch, where torch has no limit."""

    def __init__(self, processes: Sequence[Any]) -> None:
        self._processes, self._over = processes, threading.Event()
        self._waited: int | None = None

    def __enter__(self) -> _Watch:
        if self._processes:
            threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """Count the time that a block takes."""
        self._waited = 0
        try:
            yield
        finally:
            self._waited = None

    def _run(self) -> None:
        while not self._over.wait(POLL_S):
            if self._waited is not None:
                self._waited += 1
                # Of a wait that torch ends itself nothing is left by then.
                if self._waited * POLL_S > LIMIT_S + POLL_S:
                    for process in self._processes:
                        process.kill()


def _that_fit(workers: int) -> int:
    """As many processes as the locks that they share find room for; says where it is fewer."""
    pages = _shared_room() / _PAGE
    fitting = int(min(workers, max(0, (pages - _PAGES) / _PAGES_EACH)))
    if fitting < workers:
        full = f"{SHARED} has {pages * _PAGE / 1e3:,.0f} kB left"
        console.warn(f"{full}; crops are decoded by {fitting} processes, not {workers}")
    return fitting


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    before = set(active_children())
    try:
        return iter(loader)
    except OSError as error:  # no room for a process, a lock or a pipe
        for process in set(active_children()) - before:
            process.kill()  # those that have begun would be waited for at the end
        raise _lost(str(error.strerror or error)) from error


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
    room = _shared_room() / 1e6
    left = "" if math.isinf(room) else f", {room:,.1f} MB are free in {SHARED}"
    why = f"a process that decodes crops cannot go on ({reason}{left})"
    return HandclrError(f"{why}; use fewer, or 0 for none", setting="workers")


class _SilentError(Exception):
    """No batch came in time."""


def in_parts(count: int, size: int) -> list[range]:
    """The numbers below `count`, in order, in parts of `size`; the last may be smaller."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def _raise_error(batch: Any) -> Any:
    if isinstance(batch, HandclrError):
        raise batch
    return batch


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
