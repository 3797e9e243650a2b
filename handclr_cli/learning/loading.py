"""Loading of batches by worker processes, for training and for prediction."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .. import console
from ..contract.errors import HandclrError
from . import loaders


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
    """Warns of crops that cannot be read, of each once; `instead` says what stands in for them.

    What is said of each is noted in `unread`, by which several of these know what was told.
    """

    def __init__(self, instead: str, unread: set[str] | None = None) -> None:
        self.instead = instead
        self.unread = set[str]() if unread is None else unread

    def __call__(self, loaded: Loaded) -> Any:
        """Warn of what failed; returns the batch."""
        for error in loaded.failed.values():
            if str(error) not in self.unread:
                self.unread.add(str(error))
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
    workers = loaders.that_fit(workers)
    if workers:
        # OpenCV's threads do not survive a fork, and a worker would wait for ever for them to end.
        cv2.setNumThreads(1)
    with warnings.catch_warnings():
        # Who asks for more processes than cores has counted them.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader = DataLoader(
            Guarded(dataset),
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=loaders.calm_worker,
            pin_memory=device.type == "cuda",
            multiprocessing_context="fork" if workers else None,
            timeout=loaders.POLL_S if workers else 0,
        )
    with loaders.started(loader) as iterator:
        yield (_raise_error(batch) for batch in loaders.patient(iterator, waiting))


def in_parts(count: int, size: int) -> list[range]:
    """The numbers below `count`, in order, in parts of `size`; the last may be smaller."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def _raise_error(batch: Any) -> Any:
    if isinstance(batch, HandclrError):
        raise batch
    return batch
