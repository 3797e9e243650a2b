"""A pool of poses and the engine that searches it, in batches where it is large."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ..choices import EngineName
from ..contract.errors import HandclrError, UsageError
from ..contract.inputs import is_there
from ..contract.poses import PoseTable
from .device import DeviceTiles
from .exact import Tiles
from .graph import Graph
from .neighbours import EmbeddedPoses, Neighbours, Searcher

BATCH_ROWS = 1 << 22
# Below, comparing all takes no longer than loading the compiled tree.
FEW_ROWS = 8192
PAIRS_FOR_A_DEVICE = 4e10
# Of NVIDIA's driver, also below Windows. Where there is neither, torch need not be loaded, which
# takes seconds and 0.6 GB.
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
    """How a pool is searched: by which engine, but auto, and on what.

    `threads` are those on the CPU, `device` is exact-gpu's, `seed` is hnsw's.
    """

    name: EngineName
    threads: int = 1
    device: str = "cuda"
    seed: int = 0


class Pool:
    """A table of poses and its engine.

    `groups` (V,) int32 are the exclusion groups of all videos by their numbers. `progress` is
    called with a label and the number of rows to come, for each search. `graph`: the arrays of an
    index over this table (file `graph_name`), so that hnsw need not build one.
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
        self._left = 0
        if engine.name == "hnsw":
            self._whole = self._graph(graph, graph_name)

    def search(
        self, embedding: np.ndarray, video: np.ndarray, request: Request, label: str
    ) -> Neighbours:
        """Find the neighbours of queries in the whole pool.

        embedding: (Q, D) float32; video: (Q,), the numbers of their videos.
        """
        queries = EmbeddedPoses(embedding, self.groups[video])
        found = Neighbours.nobody(len(video), request.top_k, request.distinct, request.max_distance)
        searchers, self._left = self._searchers(), 0
        first = next(searchers)  # made before the clock starts
        with self.progress(label, len(video) * len(self._batches)) as advance:
            for searcher in chain([first], searchers):
                before = _left_by(searcher)
                searcher.search(queries, found, advance)
                self._left += _left_by(searcher) - before
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
        """How many queries of the last search the engine could not answer for certain and left to
        the exact one.

        One may be left in several batches of a large pool.
        """
        return self._left

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
        video = self.table.video[first_row : first_row + len(embedding)]
        return EmbeddedPoses(embedding, self.groups[video])

    def _searcher(self, poses: EmbeddedPoses, first_row: int) -> Searcher:
        if self.engine.name != "exact-gpu":
            return self._exact(poses, first_row)
        device = self.engine.device
        return DeviceTiles(poses, first_row, device, lambda: self._exact(poses, first_row))

    def _exact(self, poses: EmbeddedPoses, first_row: int) -> Searcher:
        return exact_searcher(poses, first_row, self.engine.threads)

    def _graph(self, arrays: Mapping[str, np.ndarray] | None, name: str) -> Graph:
        poses, engine = self._poses(self._batches[0], 0), self.engine

        def exact() -> Searcher:
            return self._exact(poses, 0)

        if arrays is not None:
            return Graph.from_arrays(poses, arrays, 0, engine.threads, exact, name)
        with self.progress("index", len(poses.group)) as advance:
            return Graph(poses, 0, engine.threads, exact, engine.seed, advance)


def _left_by(searcher: Searcher) -> int:
    """How many queries a searcher has left to the exact one so far."""
    return searcher.fallback.answered if isinstance(searcher, (Graph, DeviceTiles)) else 0


def exact_searcher(poses: EmbeddedPoses, first_row: int, threads: int) -> Searcher:
    """Poses made ready for exact search on the CPU; `first_row` is their first row in the answers.

    Raises HandclrError where the search cannot be compiled.
    """
    if len(poses.group) <= FEW_ROWS:
        return Tiles(poses, first_row)
    try:
        from .tree import Tree
    except RuntimeError as error:  # numba finds no folder for the code it compiles
        why = f"cannot compile the search; set NUMBA_CACHE_DIR to a folder ({error})"
        raise HandclrError(why) from error
    return Tree(poses, first_row, threads)


def read_graph(
    path: str | None, engine: str, queries: PoseTable, pool: PoseTable
) -> dict[str, np.ndarray] | None:
    """The arrays of the graph in an index file, where it exists, else in the pool's own file.

    None where there is neither or the engine is exact. Raises UsageError where an exact engine is
    given an index, HandclrError where the file has no graph.
    """
    if engine not in ("auto", "hnsw"):
        if path:
            raise UsageError(f"is for the engine hnsw, not {engine}", setting="index")
        return None
    if path is None or not is_there(path):
        return pool.graph()
    graph = PoseTable([path], like=queries).graph()
    if graph is None:
        why = "has no graph; name an index made by handclr mine, or a file that does not exist"
        raise HandclrError(why, setting="index")
    return graph


def choose_engine(asked: EngineName, rows: int, queries: int, indexed: bool) -> EngineName:
    """The engine for `queries` against `rows` poses: as asked, else by index, size and CUDA."""
    if asked != "auto":
        return asked
    if indexed:
        return "hnsw"
    if rows * queries < PAIRS_FOR_A_DEVICE or not any(map(os.path.exists, DEVICE_FILES)):
        return "exact-cpu"
    import torch

    return "exact-gpu" if torch.cuda.is_available() else "exact-cpu"
