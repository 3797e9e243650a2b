"""Loading of batches by worker processes, for training and for prediction."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from ..contract.errors import HandclrError


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


@contextlib.contextmanager
def batches(
    dataset: Dataset[Any],
    sampler: Iterable[Any],
    collate: Callable[[list[Any]], Any],
    workers: int,
    device: torch.device,
) -> Iterator[Iterator[Any]]:
    """Load batches in `workers` processes, which end with the block whatever ends it.

    `sampler` yields lists of what `dataset` is indexed by. Raises the HandclrError of an item.
    """

    def collate_or_error(items: list[Any]) -> Any:
        error = next((item for item in items if isinstance(item, HandclrError)), None)
        return error or collate(items)

    if workers:
        # OpenCV's threads do not survive a fork, and a worker would wait for ever for them to end.
        cv2.setNumThreads(1)
    loader = DataLoader(
        Guarded(dataset),
        batch_sampler=sampler,
        collate_fn=collate_or_error,
        num_workers=workers,
        worker_init_fn=calm_worker,
        pin_memory=device.type == "cuda",
        multiprocessing_context="fork" if workers else None,
    )
    iterator = iter(loader)
    try:
        yield (_raise_error(batch) for batch in iterator)
    except torch.OutOfMemoryError as error:
        advice = "lower the batch or the size, or encode a batch in more parts"
        raise HandclrError(f"the device is out of memory; {advice}") from error
    finally:
        # Workers ignore SIGTERM, which would end them at exit: without this, an error would wait
        # for ever.
        getattr(iterator, "_shutdown_workers", lambda: None)()


def in_parts(count: int, size: int) -> list[range]:
    """The numbers below `count`, in order, in parts of `size`; the last may be smaller."""
    return [range(first, min(first + size, count)) for first in range(0, count, size)]


def _raise_error(batch: Any) -> Any:
    if isinstance(batch, HandclrError):
        raise batch
    return batch


def calm_worker(worker: int) -> None:
    """Set up a data process: one thread, and signals left to the trainer."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
