"""Exact search on a CPU in a tree whose walk passes over the query's own video."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

from .kernels import ABSENT, MIXED, WIDTH, search_tree, spatial_order
from .neighbours import EmbeddedPoses, Neighbours

QUERIES_PER_TASK = 2048


class Tree:
    """A pool as a tree of 16 children a node and 16 poses a leaf, each child with its bounding box.

    Distances to 16 boxes or poses are computed at once in float32, and whatever may enter is
    decided in float64. A child whose poses are all of the query's group is passed over unseen, so
    that near-duplicate frames of a video cost nothing. A node ends the walk where its box is
    farther than the K-th nearest so far, or as far and its lowest row is higher: ties go to the
    lower row, and a pool of equal poses is not searched one by one. Takes about 75 bytes a pose at
    14 dimensions.

    `first_row` is the number of the pool's first row in the answers; `threads` search side by side.
    """

    def __init__(self, pool: EmbeddedPoses, first_row: int = 0, threads: int = 1) -> None:
        self.threads = threads
        embedding = np.ascontiguousarray(pool.embedding, np.float32)
        order = spatial_order(embedding)
        padded = np.pad(order, (0, -len(order) % WIDTH), mode="edge")
        blocks = embedding[padded].reshape(-1, WIDTH, embedding.shape[1]).transpose(0, 2, 1)
        groups = pool.group[padded].astype(np.int32).reshape(-1, WIDTH)
        rows = (padded + first_row).astype(np.int32).reshape(-1, WIDTH)
        inner = _inner_nodes(blocks, groups, rows)
        groups.reshape(-1)[len(order) :] = ABSENT
        self._parts = (np.ascontiguousarray(blocks), groups, rows, *inner)

    def search(
        self, queries: EmbeddedPoses, found: Neighbours, on_rows: Callable[[int], None]
    ) -> None:
        """Improve `found` by the poses of this pool; ties go to the lower row."""
        embedding = np.ascontiguousarray(queries.embedding, np.float32)
        # Neighbours walk the same nodes, which are then in the processor's cache.
        order = spatial_order(embedding)
        axes = (0,) * embedding.shape[1]
        step = min(QUERIES_PER_TASK, max(1, len(order) // (4 * self.threads)))
        tasks = [order[start : start + step] for start in range(0, len(order), step)]

        def answer(rows: np.ndarray) -> int:
            part = found.take(rows)
            group = queries.group[rows].astype(np.int32)
            to_fill = part.row, part.squared, part.group
            search_tree(embedding[rows], group, *self._parts, *to_fill, found.distinct, axes)
            found.put(rows, part)
            return len(rows)

        pool = ThreadPoolExecutor(self.threads)
        try:
            for done in as_completed([pool.submit(answer, rows) for rows in tasks]):
                on_rows(done.result())
        finally:
            pool.shutdown(cancel_futures=True)


def _inner_nodes(
    blocks: np.ndarray, groups: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The boxes (B, 2, D, 16), groups and lowest rows (B, 16) of all nodes' children.

    The last array says where each level begins (L,). Levels follow each other from the leaves'
    parents to the root, which has a level of its own even over one leaf.
    """
    low, high, low_row = blocks.min(axis=2), blocks.max(axis=2), rows.min(axis=1)
    group = np.where((groups == groups[:, :1]).all(axis=1), groups[:, 0], MIXED)
    boxes, box_groups, box_rows, begin = [], [], [], 0
    levels: list[int] = []
    while not levels or len(group) > 1:
        absent = -len(group) % WIDTH
        low, high = _in_nodes(low, absent), _in_nodes(high, absent)
        boxes.append(np.stack([low.transpose(0, 2, 1), high.transpose(0, 2, 1)], axis=1))
        padded = np.pad(group, (0, absent), mode="edge").reshape(-1, WIDTH)
        box_groups.append(padded.copy())
        box_groups[-1].reshape(-1)[len(group) :] = ABSENT
        box_rows.append(np.pad(low_row, (0, absent), mode="edge").reshape(-1, WIDTH))
        levels.append(begin)
        begin += len(padded)
        low, high, low_row = low.min(axis=1), high.max(axis=1), box_rows[-1].min(axis=1)
        group = np.where((padded == padded[:, :1]).all(axis=1), padded[:, 0], MIXED)
    return (
        np.ascontiguousarray(np.concatenate(boxes)),
        np.concatenate(box_groups).astype(np.int32),
        np.concatenate(box_rows).astype(np.int32),
        np.array(levels, np.int64),
    )


def _in_nodes(corners: np.ndarray, absent: int) -> np.ndarray:
    """Corners (C, D) of boxes by node: (C / 16, 16, D), the last one repeated `absent` times."""
    return np.pad(corners, [(0, absent), (0, 0)], mode="edge").reshape(-1, WIDTH, corners.shape[1])
