"""Crops decoded to one side, and kept in memory that all workers share or on the device."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from typing import get_args

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..choices import Cache
from ..contract.errors import HandclrError, UsageError
from ..contract.fields import IMAGE
from ..contract.index import ShardIndex
from ..contract.pictures import is_jpeg
from .augmentation import Image
from .hardware import free_memory
from .loading import Told, grey, mended_batches

# What the automatic choice of a cache may take of what is free.
SHARE = 0.5
_FILL_BATCH = 256


class CropStore(Dataset[np.ndarray]):
    """The crops of an index by row, RGB uint8 (side, side, 3).

    Those of the rows `keep` are decoded once for this process and all that it forks. Raises
    HandclrError for a member that is no square image.
    """

    def __init__(self, index: ShardIndex, side: int, keep: Sequence[int] | np.ndarray = ()) -> None:
        self.index, self.side = index, side
        self._places: np.ndarray | None = None
        if len(keep):
            self._places = np.full(len(index), -1)
            self._places[keep] = np.arange(len(keep))
            # Anonymous and shared: not bounded by /dev/shm, and no page is used before it is
            # written. Without overcommitment all of them count from the start.
            count, size = len(keep), side * side * 3
            memory = mmap.mmap(-1, count * (size + 1))
            flat = np.frombuffer(memory, np.uint8)
            self._done = flat[:count]
            self._kept = flat[count : count + count * size].reshape(-1, side, side, 3)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> Image:
        at = -1 if self._places is None else int(self._places[row])
        if at < 0:
            return self._decode(row)
        if not self._done[at]:  # two workers may both come here: they write the same bytes
            self._kept[at] = self._decode(row)
            self._done[at] = 1
        return self._kept[at]

    def on_device(
        self,
        device: torch.device,
        workers: int,
        rows: Sequence[int] | None = None,
        unread: set[str] | None = None,
    ) -> Tensor:
        """The crops of some rows, or all, as one tensor on the device, uint8 (N, side, side, 3).

        Those that cannot be read are grey; `unread` gets what is said of them, but for those that
        the index knows as damaged.
        """
        wanted = range(len(self)) if rows is None else rows
        shape = len(wanted), self.side, self.side, 3
        crops = torch.empty(shape, dtype=torch.uint8, device=device)
        starts = range(0, len(wanted), _FILL_BATCH)
        parts = [wanted[start : start + _FILL_BATCH] for start in starts]
        filled, told = 0, Told("grey stands in for it")
        unread = set() if unread is None else unread
        mend = grey(self.side)
        with mended_batches(self, parts, _stack, workers, device, mend) as loaded:
            for part in loaded:
                pictures, failed = told(part), part.failed.items()
                rows_failed = [(wanted[filled + at], error) for at, error in failed]
                unread |= {str(e) for row, e in rows_failed if row not in self.index.damaged}
                crops[filled : filled + len(pictures)] = pictures.to(device, non_blocking=True)
                filled += len(pictures)
        return crops

    def _decode(self, row: int) -> Image:
        sample = self.index[row]
        payload, _ = sample.payload(IMAGE)
        # At half its side a JPEG is decoded in less than half the time.
        halved = is_jpeg(payload) and sample.side >= 2 * self.side and sample.side % 2 == 0
        image = _half(payload) if halved else None
        image = sample.image if image is None else image
        if image.shape[0] == self.side:
            return image
        how = cv2.INTER_AREA if image.shape[0] > self.side else cv2.INTER_LINEAR
        out = cv2.resize(image, (self.side, self.side), interpolation=how)
        return np.asarray(out, np.uint8)


def crop_side(index: ShardIndex, wanted: float = math.inf) -> int:
    """The side to decode crops to: as wanted, rounded up, but not above that of the largest.

    The index must have been measured; without crops, the side is as wanted.
    """
    largest = float(index.sides.max(initial=0)) or math.inf
    return math.ceil(min(wanted, largest))


def choose_cache(
    asked: str, crops: int, side: int, device: torch.device, warped: bool, neighbours: int = 1
) -> str:
    """Where decoded crops are kept: none, ram or gpu.

    auto takes the quickest that uses at most half of what is free. warped: the device makes the
    views, so that it may keep the crops. `neighbours` processes share this machine's memory. Raises
    UsageError for another name, HandclrError where there is no room for what is asked.
    """
    if asked not in get_args(Cache):
        raise UsageError(f"choose from {', '.join(get_args(Cache))}", setting="cache")
    need = crops * side * side * 3
    room = {"ram": free_memory() // neighbours, "none": need}
    if warped:
        room = {"gpu": free_memory(device), **room}
    if asked == "auto":
        return next(name for name, free in room.items() if name == "none" or need <= SHARE * free)
    if asked not in room:
        raise UsageError("the views are not made on a GPU here", setting="cache")
    if need > room[asked]:
        full = f"{need / 1e9:.1f} GB of decoded crops, {room[asked] / 1e9:.1f} GB are free"
        raise HandclrError(full, setting="cache")
    return asked


def _stack(pictures: list[Image]) -> Tensor:
    return torch.from_numpy(np.stack(pictures))


def _half(payload: bytes | memoryview) -> Image | None:
    """The crop at half its side; None where it is damaged."""
    data = np.frombuffer(payload, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_REDUCED_COLOR_2 | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
