"""Approximate search in an HNSW graph (Malkov and Yashunin, 2018), completed by an exact one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..contract.errors import HandclrError
from .neighbours import EmbeddedPoses, Fallback, Neighbours, Searcher, squared_distance

# 16 links, 32 at the lowest level, the best of 100 candidates: what hnswlib's users take.
LINKS, EFFORT = 16, 100
FETCHED, LEAST_EFFORT = (32, 128, 512), 64
CHUNK = 2048
INSERTED = 1 << 14
FEWEST_LINKS, MOST_LINKS = 2, 4096
# hnswlib compares float32 distances, which err by less than this share.
_SLACK = 1e-5
_CHECKED = 1 << 16


class Graph:
    """A pool as a graph that hnswlib walks; answers are not exact, and recall must be measured.

    A query's own group is not kept out of the walk, which would cost recall, but dropped from the
    rows it fetched: 32, then 128, then 512. A query is answered when its farthest row fetched is
    farther than its K-th neighbour, or than the greatest distance allowed. What is still open then
    is left to the searcher that `exact` makes.

    Rows enter the graph in an order drawn from `seed`: in the order of time, clusters of
    near-duplicate frames lose touch with each other. One thread builds, since the order of
    insertion decides the graph, and tells `on_rows` how many rows it inserted; `threads` search.
    Takes about 210 bytes a pose at 14 dimensions, beside the pool. `first_row` is the number of the
    pool's first row in the answers. For `index` see `from_arrays`.
    """

    def __init__(
        self,
        pool: EmbeddedPoses,
        first_row: int,
        threads: int,
        exact: Callable[[], Searcher],
        seed: int = 0,
        on_rows: Callable[[int], None] = lambda rows: None,
        index: Any = None,
    ) -> None:
        self.pool, self.first_row, self.threads = pool, first_row, threads
        self.fallback = Fallback(exact)
        self._index = index or _build(pool.embedding, seed, on_rows)

    @classmethod
    def from_arrays(
        cls,
        pool: EmbeddedPoses,
        arrays: Mapping[str, np.ndarray],
        first_row: int,
        threads: int,
        exact: Callable[[], Searcher],
        name: str,
    ) -> Graph:
        """The graph that `arrays` was called on, over the same pool.

        `name` is their file in messages. Raises HandclrError where the arrays are damaged, or are
        those of other poses. Whatever passes can be walked: every link leads to an element that is
        there, on a level that it has.
        """
        return cls(pool, first_row, threads, exact, index=_restored(pool.embedding, arrays, name))

    def over(self, pool: EmbeddedPoses, exact: Callable[[], Searcher]) -> Graph:
        """The same graph over the same poses in other groups."""
        return Graph(pool, self.first_row, self.threads, exact, index=self._index)

    def arrays(self) -> dict[str, np.ndarray]:
        """The graph: `hnsw_base` uint8 (N, B), `hnsw_links` uint8 (L, C), `hnsw_levels` int32 (N,).

        An element of the base: a count and room for 2M links, the vector, its row (uint64). The
        links above the lowest level: for each element in turn and for each level from 1 to its
        highest, a count and room for M.
        """
        state = self._index.__getstate__()[0]
        count = state["cur_element_count"]
        base, links = state["data_level0"].view(np.uint8), state["link_lists"].view(np.uint8)
        return {
            "hnsw_base": base.reshape(count, state["size_data_per_element"]),
            "hnsw_links": links.reshape(-1, state["size_links_per_element"]),
            "hnsw_levels": state["element_levels"][:count],
        }

    def search(
        self, queries: EmbeddedPoses, found: Neighbours, on_rows: Callable[[int], None]
    ) -> None:
        """Improve `found` by the poses of this pool."""
        still_open = [np.zeros(0, np.int64)]
        for start in range(0, len(queries.group), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(queries.group)))
            still_open.append(self._search_chunk(queries, found, rows))
            on_rows(len(rows) - len(still_open[-1]))
        self.fallback.search(np.concatenate(still_open), queries, found, on_rows)

    def _search_chunk(
        self, queries: EmbeddedPoses, found: Neighbours, rows: np.ndarray
    ) -> np.ndarray:
        """Answer some queries, fetching more and more; returns those still open, left unchanged."""
        size, top_k = len(self.pool.group), found.row.shape[1]
        counts = {min(count, size) for count in FETCHED if count > top_k or count >= size}
        for fetched in sorted(counts - {0}):
            part = found.take(rows)
            done = self._answer(queries.take(rows), part, fetched)
            found.put(rows[done], part.take(done))
            rows = rows[~done]
            if not len(rows):
                break
        return rows

    def _answer(self, queries: EmbeddedPoses, found: Neighbours, fetched: int) -> np.ndarray:
        """Improve `found` by the nearest rows of other groups; returns what is answered (Q,)."""
        self._index.set_ef(max(fetched, LEAST_EFFORT))
        nearest = self._fetch(queries.embedding, fetched)
        others = self.pool.group[nearest] != queries.group[:, None]
        asked, place = np.nonzero((nearest >= 0) & others)
        row = nearest[asked, place]
        squared = squared_distance(queries.embedding[asked], self.pool.embedding[row])
        found.offer(asked, row + self.first_row, squared, self.pool.group[row])
        farthest = squared_distance(queries.embedding, self.pool.embedding[nearest[:, -1]])
        enough = farthest * (1 - _SLACK) > found.squared[:, -1]
        return (nearest[:, -1] >= 0) & (enough | (fetched == len(self.pool.group)))

    def _fetch(self, embedding: np.ndarray, count: int) -> np.ndarray:
        """Rows (Q, count) int64 where the walk ends, nearest first; -1 where it finds fewer."""
        try:
            rows, _ = self._index.knn_query(embedding, k=count, num_threads=self.threads)
            return rows.astype(np.int64)
        except RuntimeError:  # for all queries, if one cannot have that many
            if len(embedding) == 1:
                return np.full((1, count), -1)
            half = len(embedding) // 2
            parts = self._fetch(embedding[:half], count), self._fetch(embedding[half:], count)
            return np.concatenate(parts)


def _build(embedding: np.ndarray, seed: int, on_rows: Callable[[int], None]) -> Any:
    import hnswlib

    index = hnswlib.Index(space="l2", dim=embedding.shape[1])
    index.init_index(max(len(embedding), 1), M=LINKS, ef_construction=EFFORT, random_seed=seed)
    order = np.random.default_rng(seed).permutation(len(embedding))
    for start in range(0, len(order), INSERTED):
        rows = order[start : start + INSERTED]
        index.add_items(embedding[rows], rows, num_threads=1)
        on_rows(len(rows))
    return index


def _restored(embedding: np.ndarray, arrays: Mapping[str, np.ndarray], name: str) -> Any:
    """The hnswlib index that these arrays describe; all that they do not say follows from them."""
    import hnswlib

    _check(embedding, arrays, name)
    base, links, levels = (arrays[f"hnsw_{part}"] for part in ("base", "links", "levels"))
    count, axes = embedding.shape
    width = (links.shape[1] - 4) // 4
    label = _part(base, slice(-8, None), "<u8")[:, 0]
    every_level = np.ascontiguousarray(levels)
    return hnswlib.Index(
        {
            "ser_version": 1,
            "space": "l2",
            "dim": axes,
            "index_inited": True,
            "ep_added": True,
            "normalize": False,
            "num_threads": 1,
            "seed": 0,
            "offset_level0": 0,
            "max_elements": count,
            "cur_element_count": count,
            "size_data_per_element": base.shape[1],
            "label_offset": base.shape[1] - 8,
            "offset_data": 4 + 8 * width,
            "max_level": int(levels.max()),
            # The first of the highest level: a later one of that level does not take its place.
            "enterpoint_node": int(levels.argmax()),
            "max_M": width,
            "max_M0": 2 * width,
            "M": width,
            "mult": 1 / np.log(width),
            "ef_construction": max(EFFORT, width),
            "ef": LEAST_EFFORT,
            "has_deletions": False,
            "size_links_per_element": links.shape[1],
            "allow_replace_deleted": False,
            "label_lookup_external": label,
            "label_lookup_internal": np.arange(count, dtype=np.uint32),
            "element_levels": every_level,
            "data_level0": np.ascontiguousarray(base).view(np.int8).ravel(),
            "link_lists": np.ascontiguousarray(links).view(np.int8).ravel(),
        }
    )


class _Damaged(Exception):
    pass


def _check(embedding: np.ndarray, arrays: Mapping[str, np.ndarray], name: str) -> None:
    """Raise HandclrError unless the arrays are a graph over these poses that can be walked."""
    base, links, levels = (arrays[f"hnsw_{part}"] for part in ("base", "links", "levels"))
    try:
        _check_sizes(embedding, base, links, levels)
        _check_base(embedding, base, links.shape[1], levels)
        _check_levels(links, levels)
    except _Damaged as error:
        why = f"damaged, or the index of other poses: {error}; remove it and make it anew"
        raise HandclrError(f"{name}: {why}") from None


def _demand(fine: bool | np.bool_, what: str) -> None:
    if not fine:
        raise _Damaged(what)


def _check_sizes(
    embedding: np.ndarray, base: np.ndarray, links: np.ndarray, levels: np.ndarray
) -> None:
    count, axes = embedding.shape
    kinds = (base.dtype, links.dtype, levels.dtype, base.ndim, links.ndim, levels.ndim)
    _demand(kinds == (np.uint8, np.uint8, np.int32, 2, 2, 1), "arrays of other kinds")
    width, rest = divmod(links.shape[1] - 4, 4)
    is_width = rest == 0 and FEWEST_LINKS <= width <= MOST_LINKS
    _demand(is_width, f"records of {links.shape[1]} bytes")
    size = 4 + 8 * width + 4 * axes + 8
    _demand(base.shape[1] == size, f"elements of {base.shape[1]} bytes")
    _demand(0 < count == len(base) == len(levels), f"{len(base):,} elements for {count:,} poses")
    agree = levels.min() >= 0 and levels.sum(dtype=np.int64) == len(links)
    _demand(agree, "levels and links do not agree")


def _check_base(
    embedding: np.ndarray, base: np.ndarray, link_bytes: int, levels: np.ndarray
) -> None:
    """Check the elements of the lowest level: their rows, vectors and links."""
    start_of_vector = 4 + 2 * (link_bytes - 4)
    seen = np.zeros(len(base), bool)
    for start in range(0, len(base), _CHECKED):
        part = base[start : start + _CHECKED]
        label = _part(part, slice(-8, None), "<u8")[:, 0]
        _demand(label.max() < len(base), "rows that are not in the file")
        seen[label.astype(np.int64)] = True
        vector = _part(part, slice(start_of_vector, -8), "<u4")
        there = np.ascontiguousarray(embedding[label.astype(np.int64)], "<f4").view("<u4")
        _demand(np.array_equal(vector, there), "other vectors")
        records = _part(part, slice(start_of_vector), "<u4")
        _demand(_links_are_good(records, levels), "links that lead nowhere")
    _demand(seen.all(), "rows that come twice")


def _check_levels(links: np.ndarray, levels: np.ndarray) -> None:
    """Check the links above the lowest level."""
    first = np.cumsum(levels, dtype=np.int64) - levels
    level = np.arange(len(links)) - np.repeat(first, levels) + 1
    for start in range(0, len(links), _CHECKED):
        rows = slice(start, start + _CHECKED)
        records = _part(links[rows], slice(None), "<u4")
        _demand(_links_are_good(records, levels, level[rows]), "links that lead nowhere")


def _links_are_good(records: np.ndarray, levels: np.ndarray, level: np.ndarray | int = 0) -> bool:
    """Whether records (R, 1 + M), a count and ids, lead to elements of their level only.

    No count may be larger than the room for ids.
    """
    links = records[:, 1:]
    if records[:, 0].max(initial=0) > links.shape[1]:
        return False
    used = np.arange(links.shape[1]) < records[:, :1]
    ids = links[used]
    if ids.max(initial=0) >= len(levels):
        return False
    needed = np.broadcast_to(np.reshape(level, (-1, 1)), links.shape)[used]
    return bool((levels[ids] >= needed).all())


def _part(records: np.ndarray, columns: slice, dtype: str) -> np.ndarray:
    """Some bytes of each record as numbers, (R, n)."""
    return np.ascontiguousarray(records[:, columns]).view(dtype)
