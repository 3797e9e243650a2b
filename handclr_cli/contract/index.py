"""Random access to the samples of many shards: the tars are mapped, their headers walked once."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from .errors import HandclrError
from .fields import IMAGE
from .inputs import STDIN, display_name, reading
from .kept import open_kept
from .provenance import Provenance, dumps
from .sample import Sample
from .shards import group
from .tar import MapCursor

# Open files beside the shards: those of torch, of pipes and of worker processes.
_OTHER_FILES = 1000


class ShardIndex:
    """Samples of shards by position or by key; only the samples used are read from disk.

    `keys` and `origins` are the keys in order, and the provenances of the samples, each once.
    URLs are copied to the cache first, standard input and pipes to an anonymous temporary file.
    With `measured`, the images are looked at too, without decoding them: `sides` int32 (N,) are
    those of the crops in pixels, 0 for the `damaged`, which are errors by row; `image_sizes` int64
    (N,) are bytes, 0 where there is no image. Raises HandclrError where a key comes twice, and for
    damaged or truncated shards as `archives` does.

    >>> import handclr_cli as handclr
    >>> index = handclr.ShardIndex("hands.tar")  # or a list of shards
    >>> sample = index[index.row("video0-v0_00000003_r")]
    >>> sample.image.shape, sample.keypoints2d.shape
    ((64, 64, 3), (21, 2))
    """

    def __init__(self, sources: str | Sequence[str], measured: bool = False) -> None:
        sources = [sources] if isinstance(sources, str) else sources
        self.keys: list[str] = []
        self.damaged: dict[int, HandclrError] = {}
        self._measured = measured
        self._sides: list[int] = []
        self._image_sizes: list[int] = []
        self._origins: dict[str, Provenance] = {}
        self._names = [display_name(source) for source in sources]
        _allow_files(len(sources))
        self._views = [_map(source) for source in sources]
        self._rows: dict[str, int] = {}
        places = [place for shard in range(len(sources)) for place in self._walk(shard)]
        self._places = np.array(places, np.int64).reshape(-1, 2)
        self.origins = list(self._origins.values())
        self.sides = np.array(self._sides, np.int32)
        self.image_sizes = np.array(self._image_sizes, np.int64)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, row: int) -> Sample:
        shard, start = self._places[row].tolist()
        return next(group(MapCursor(self._views[shard], start), self._names[shard]))

    def __iter__(self) -> Iterator[Sample]:
        return (self[row] for row in range(len(self)))

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def row(self, key: str) -> int:
        """The position of a key; raises KeyError where it is not there."""
        return self._rows[key]

    def rows_of(self, keys: np.ndarray) -> np.ndarray:
        """The positions of keys bytes (N,), int64 (N,), -1 where a key is not there."""
        return np.array(
            [self._rows.get(key.decode("utf-8", "replace"), -1) for key in keys.tolist()], np.int64
        )

    def _walk(self, shard: int) -> Iterator[tuple[int, int]]:
        name, last = self._names[shard], None
        for sample in group(MapCursor(self._views[shard]), name):
            if sample.key in self._rows:
                raise HandclrError(
                    f"{name}: key {sample.key} appears twice in the input; keys must be unique"
                )
            if sample.origin is not None and sample.origin is not last:
                self._origins.setdefault(dumps(sample.origin), sample.origin)
            last = sample.origin
            self._rows[sample.key] = len(self.keys)
            self.keys.append(sample.key)
            if self._measured:
                self._sides.append(self._side(sample))
                self._image_sizes.append(sample.size_of(IMAGE))
            yield shard, sample.start

    def _side(self, sample: Sample) -> int:
        try:
            return sample.checked_side()
        except HandclrError as error:
            self.damaged[len(self.keys) - 1] = error
            return 0


def _allow_files(count: int) -> None:
    """Raise the soft limit of open files, often 1,024, as each mapped shard stays open."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = count + _OTHER_FILES
        if soft != resource.RLIM_INFINITY and soft < wanted:
            most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def mapped(file: BinaryIO) -> memoryview:
    """The bytes of a file as a memory map; a pipe is copied to an anonymous temporary file."""
    try:
        descriptor = file.fileno()
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (AttributeError, OSError):  # not a file of the operating system
        regular = False
    if not regular:
        return _spooled(file)
    if os.fstat(descriptor).st_size == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))


def _spooled(file: BinaryIO) -> memoryview:
    with tempfile.TemporaryFile() as spool:
        while data := file.read(1 << 20):
            try:
                spool.write(data)
                spool.flush()
            except OSError as error:
                full = f"cannot write to {tempfile.gettempdir()}: {error.strerror or error}"
                advice = "set TMPDIR to a folder with room for the input"
                raise HandclrError(f"{full}; {advice}") from error
        return mapped(spool)


def _map(source: str) -> memoryview:
    with reading(source), open_kept(source) as file:
        # Standard input may be a regular file that was read from already.
        return _spooled(file) if source == STDIN else mapped(file)
