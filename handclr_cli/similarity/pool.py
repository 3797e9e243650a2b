"""A pool of poses and the engine that searches it, batch by batch where it is larger than what is
held at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ..contract.errors import HandclrError
from ..contract.poses import PoseTable
from .device import DeviceTiles
from .exact import Tiles
from .graph import Graph
from .neighbours import EmbeddedPoses, Neighbours, Searcher

ENGINES = ("auto", "exact-cpu", "exact-gpu", "hnsw")
BATCH_ROWS = 1 << 22
# Below, comparing all takes no longer than loading the compiled tree.
FEW_ROWS = 8192
PAIRS_FOR_A_DEVICE = 4e10
# Of NVIDIA's driver, also below Windows: without them torch need not be loaded, which takes seconds
# and 0.6 GB.
DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg")
HNSW_TOP_K = 256

Progress = Callable[[str, int], AbstractContextManager[Callable[..., None]]]


@dataclass(frozen=True)
class Request:
    """What is looked for: the nearest `top_k`, of `distinct` groups, within `max_distance`."""

    top_k: int = 1
    distinct: bool = False
    max_distance: float = np.inf


@dataclass(frozen=True)
class Engine:
    """How a pool is searched: a name of ENGINES but auto, threads on the CPU, the device of
    exact-gpu, hnsw's seed.
    """

    name: str
    threads: int = 1
    device: str = "cuda"
    seed: int = 0


class Pool:
    """A table of poses and its engine; `groups` (V,) int32 are the exclusion groups of all videos
    by their numbers.

    `progress` is called with a label and the number of rows to come, for each search. `graph`: the
    arrays of an index over this table (file `graph_name`), so that hnsw need not build one.
    """

    def __init__(
        self,
        table: PoseTable,
        groups: np.ndarray,
        engine: Engine,
        progress: Progress,
        graph: Mapping[str, np.ndarray] | None = None,
        graph_name: str = "",
    ) -> None:
        self.table, self.groups, self.engine, self.progress = table, groups, engine, progress
        # A graph is one: it answers for the whole pool or not at all.
        self._batches = table.batches(len(table) if engine.name == "hnsw" else BATCH_ROWS)
        self._whole: Searcher | None = None
        if engine.name == "hnsw":
            self._whole = self._graph(graph, graph_name)

    def search(
        self, embedding: np.ndarray, video: np.ndarray, request: Request, label: str
    ) -> Neighbours:
        """Find the neighbours of queries, embeddings (Q, D) and the numbers of their videos (Q,),
        in the whole pool.
        """
        queries = EmbeddedPoses(embedding, self.groups[video])
        found = Neighbours.nobody(len(video), request.top_k, request.distinct, request.max_distance)
        searchers = self._searchers()
        first = next(searchers)  # made before the clock starts
        with self.progress(label, len(video) * len(self._batches)) as advance:
            for searcher in chain([first], searchers):
                searcher.search(queries, found, advance)
        return found

    def regrouped(self, groups: np.ndarray) -> Pool:
        """The same pool with other exclusion groups."""
        other = copy(self)
        other.groups, other._whole = groups, None
        if isinstance(self._whole, Graph):
            poses = other._poses(self._batches[0], 0)
            other._whole = self._whole.over(poses, lambda: other._exact(poses, 0))
        return other

    def graph(self) -> dict[str, np.ndarray] | None:
        """The arrays of the index, where the engine has one."""
        return self._whole.arrays() if isinstance(self._whole, Graph) else None

    def left_to_tree(self) -> int:
        """How many queries the engine could not answer for certain, and were answered by the exact
        one.
        """
        return self._whole.fallback.answered if isinstance(self._whole, (Graph, DeviceTiles)) else 0

    def _searchers(self) -> Iterator[Searcher]:
        if self._whole:
            yield self._whole
            return
        first = 0
        for sources in self._batches:
            poses = self._poses(sources, first)
            searcher = self._searcher(poses, first)
            if len(self._batches) == 1:
                self._whole = searcher
            yield searcher
            first += len(poses.group)

    def _poses(self, sources: list[str], first_row: int) -> EmbeddedPoses:
        embedding = self.table.embedding(sources)
        return EmbeddedPoses(
            embedding, self.groups[self.table.video[first_row : first_row + len(embedding)]]
        )

    def _searcher(self, poses: EmbeddedPoses, first_row: int) -> Searcher:
        if self.engine.name == "exact-gpu":
            return DeviceTiles(
                poses, first_row, self.engine.device, lambda: self._exact(poses, first_row)
            )
        return self._exact(poses, first_row)

    def _exact(self, poses: EmbeddedPoses, first_row: int) -> Searcher:
        if len(poses.group) <= FEW_ROWS:
            return Tiles(poses, first_row)
        try:
            from .tree import Tree
        except RuntimeError as error:  # numba finds no folder for the code it compiles
            raise HandclrError(
                f"cannot compile the search; set NUMBA_CACHE_DIR to a folder ({error})"
            ) from error
        return Tree(poses, first_row, self.engine.threads)

    def _graph(self, arrays: Mapping[str, np.ndarray] | None, name: str) -> Graph:
        poses, threads = self._poses(self._batches[0], 0), self.engine.threads
        if arrays is not None:
            return Graph.from_arrays(poses, arrays, 0, threads, lambda: self._exact(poses, 0), name)
        with self.progress("index", len(poses.group)) as advance:
            return Graph(
                poses, 0, threads, lambda: self._exact(poses, 0), self.engine.seed, advance
            )


def choose_engine(asked: str, rows: int, queries: int, indexed: bool) -> str:
    """The engine for `queries` against `rows` poses: as asked, or by index, by size and by whether
    there is CUDA.
    """
    if asked != "auto":
        return asked
    if indexed:
        return "hnsw"
    if rows * queries < PAIRS_FOR_A_DEVICE or not any(map(os.path.exists, DEVICE_FILES)):
        return "exact-cpu"
    import torch

    return "exact-gpu" if torch.cuda.is_available() else "exact-cpu"
