"""Who mines beside handclr in `mining.py`: each builds of a pool what answers queries."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from typing import Any

import numpy as np

from handclr_cli.similarity.neighbours import EmbeddedPoses, Neighbours, Searcher

AXES = 14
FETCHED = (2, 8, 32, 128, 512)
OURS = "handclr"
PEERS = (
    *("ckdtree", "sklearn", "faiss-flat", "faiss-ivf", "faiss-hnsw"),
    *("hnswlib", "handclr-hnsw"),
)

# Rows (Q,) of the nearest pose of another video, for queries (Q,).
Answer = Callable[[EmbeddedPoses], np.ndarray]


def contestants(peers: Sequence[str]) -> Iterator[str]:
    """Those that are installed; a peer may be one in several settings."""
    for peer, name in product(peers, CONTESTANTS):
        if peer not in (name, name[:-3]):
            continue
        if find_spec(CONTESTANTS[name][0].split(".")[0]):
            yield name
        else:
            why = f"{CONTESTANTS[name][0]} is not installed"
            print(f"{name}: skipped, {why}", file=sys.stderr, flush=True)


def nearest(searcher: Searcher, queries: EmbeddedPoses) -> Neighbours:
    found = Neighbours.nobody(len(queries.group), 1)
    searcher.search(queries, found, lambda rows: None)
    return found


def growing(pool: EmbeddedPoses, fetch: Callable[[np.ndarray, int], np.ndarray]) -> Answer:
    """Fetch more neighbours, nearest first, of those queries that got their own video only; -1
    where 512 do not do.
    """

    def answer(queries: EmbeddedPoses) -> np.ndarray:
        found, left = np.full(len(queries.group), -1), np.arange(len(queries.group))
        for count in FETCHED:
            rows = fetch(queries.embedding[left], count).astype(np.int64)
            other = (rows >= 0) & (pool.group[rows] != queries.group[left, None])
            done = other.any(axis=1)
            found[left[done]] = rows[done, other[done].argmax(axis=1)]
            left = left[~done]
            if not len(left):
                break
        return found

    return answer


def ckdtree(library: Any, pool: EmbeddedPoses, threads: int) -> Answer:
    tree = library.cKDTree(pool.embedding)
    return growing(pool, lambda points, count: tree.query(points, count, workers=threads)[1])


def sklearn(library: Any, pool: EmbeddedPoses, threads: int) -> Answer:
    tree = library.NearestNeighbors(algorithm="kd_tree", n_jobs=threads).fit(pool.embedding)

    def fetch(points: np.ndarray, count: int) -> np.ndarray:
        return np.asarray(tree.kneighbors(points, count, return_distance=False))

    return growing(pool, fetch)


def faiss_growing(library: Any, pool: EmbeddedPoses, threads: int, kind: str) -> Answer:
    index = library.index_factory(AXES, kind)
    index.add(pool.embedding)

    def fetch(points: np.ndarray, count: int) -> np.ndarray:
        effort = library.SearchParametersHNSW(efSearch=max(count, 64)) if "HNSW" in kind else None
        return np.asarray(index.search(points, count, params=effort)[1])

    return growing(pool, fetch)


def faiss_ivf(library: Any, pool: EmbeddedPoses, threads: int, probes: int) -> Answer:
    index = library.index_factory(AXES, f"IVF{round(4 * len(pool.group) ** 0.5)},Flat")
    index.train(pool.embedding)
    index.add(pool.embedding)

    def answer(queries: EmbeddedPoses) -> np.ndarray:
        found = np.empty(len(queries.group), np.int64)
        for video in np.unique(queries.group):
            own = library.IDSelectorRange(*np.searchsorted(pool.group, [video, video + 1]).tolist())
            chosen = library.SearchParametersIVF(sel=library.IDSelectorNot(own), nprobe=probes)
            asked = queries.group == video
            found[asked] = index.search(queries.embedding[asked], 1, params=chosen)[1][:, 0]
        return found

    return answer


def hnswlib(library: Any, pool: EmbeddedPoses, threads: int) -> Answer:
    index = library.Index(space="l2", dim=AXES)
    index.init_index(len(pool.group), M=16)
    index.add_items(pool.embedding, num_threads=threads)

    def fetch(points: np.ndarray, count: int) -> np.ndarray:
        index.set_ef(max(count, 64))
        try:
            rows = index.knn_query(points, count, num_threads=threads)[0]
        except RuntimeError:  # for all queries, where one does not reach as many
            if len(points) == 1:
                return np.full((1, count), -1)
            return np.concatenate([fetch(part, count) for part in np.array_split(points, 2)])
        return np.asarray(rows.astype(np.int64))

    return growing(pool, fetch)


def ours(library: Any, pool: EmbeddedPoses, threads: int, graph: bool) -> Answer:
    searcher = tree = library.Tree(pool, threads=threads)
    if graph:
        module = import_module("handclr_cli.similarity.graph")
        searcher = module.Graph(pool, 0, threads, lambda: tree)
    return lambda queries: nearest(searcher, queries).row[:, 0]


CONTESTANTS: dict[str, tuple[str, Callable[[Any, EmbeddedPoses, int], Answer]]] = {
    OURS: ("handclr_cli.similarity.tree", partial(ours, graph=False)),
    "handclr-hnsw": ("handclr_cli.similarity.tree", partial(ours, graph=True)),
    "ckdtree": ("scipy.spatial", ckdtree),
    "sklearn": ("sklearn.neighbors", sklearn),
    "faiss-flat": ("faiss", partial(faiss_growing, kind="Flat")),
    "faiss-hnsw": ("faiss", partial(faiss_growing, kind="HNSW16")),
    "faiss-ivf-16": ("faiss", partial(faiss_ivf, probes=16)),
    "faiss-ivf-64": ("faiss", partial(faiss_ivf, probes=64)),
    "hnswlib": ("hnswlib", hnswlib),
}
