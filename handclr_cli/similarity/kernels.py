"""The compiled inner loops of the tree: to put poses in order, and to walk it for each query."""

from __future__ import annotations

import numpy as np
from numba import njit

WIDTH = 16
MIXED, ABSENT = -1, -2
_STACK = 512
# A tuple's length is known when the loops are compiled: 8 or 16 distances then run abreast.
Axes = tuple[int, ...]
# float32 distances err by less than (D + 2) 2^-24 of their size, 3e-6 at 42 axes; squares below
# 1e-38 lose more.
_SLACK, _TINY = 1e-5, 1e-36


@njit(nogil=True, cache=True)
def spatial_order(points: np.ndarray) -> np.ndarray:
    """Rows (N,) int64 of (N, D) float32 points: each aligned run of 16, of 256, ... is compact.

    Runs are halved at the median of their widest axis, the first half always a whole number of
    subtrees.
    """
    order = np.arange(len(points))
    keys = np.empty(len(points), np.float32)
    pending = np.empty((128, 2), np.int64)
    pending[0, 0], pending[0, 1] = 0, len(points)
    count = 1
    while count > 0:
        count -= 1
        begin, end = pending[count]
        if end - begin <= WIDTH:
            continue
        unit = WIDTH
        while unit * WIDTH < end - begin:
            unit *= WIDTH
        middle = begin + unit * (((end - begin + unit - 1) // unit + 1) // 2)
        axis = _widest_axis(points, order, begin, end)
        if axis < 0:  # equal poses stay together by video
            order[begin:end].sort()
            continue
        for place in range(begin, end):
            keys[place] = points[order[place], axis]
        _split(keys, order, begin, end, middle)
        pending[count, 0], pending[count, 1] = middle, end
        pending[count + 1, 0], pending[count + 1, 1] = begin, middle
        count += 2
    return order


@njit(nogil=True, cache=True)
def _widest_axis(points: np.ndarray, order: np.ndarray, begin: int, end: int) -> int:
    """The axis along which the points are spread most, -1 where they are all equal."""
    low, high = points[order[begin]].copy(), points[order[begin]].copy()
    for place in range(begin + 1, end):
        for axis in range(points.shape[1]):
            value = points[order[place], axis]
            low[axis] = min(low[axis], value)
            high[axis] = max(high[axis], value)
    axis = int(np.argmax(high - low))
    return axis if high[axis] > low[axis] else -1


@njit(nogil=True, cache=True)
def _split(keys: np.ndarray, order: np.ndarray, begin: int, end: int, middle: int) -> None:
    """Move the smaller keys before `middle`: Hoare's selection, pivots by a fixed sequence."""
    left, right, state = begin, end - 1, np.uint64(1)
    while left < right:
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        pivot = keys[left + np.int64((state >> np.uint64(33)) % np.uint64(right - left + 1))]
        up, down = left, right
        while up <= down:
            while keys[up] < pivot:
                up += 1
            while keys[down] > pivot:
                down -= 1
            if up <= down:
                keys[up], keys[down] = keys[down], keys[up]
                order[up], order[down] = order[down], order[up]
                up += 1
                down -= 1
        if middle <= down:
            right = down
        elif middle >= up:
            left = up
        else:
            return


@njit(nogil=True, cache=True)
def _enter(
    rows: np.ndarray,
    squares: np.ndarray,
    groups: np.ndarray,
    distinct: bool,
    row: int,
    squared: float,
    group: int,
) -> None:
    """Put a candidate, better than the last, into its place; `distinct`: for that of its group."""
    place = len(rows) - 1
    if distinct:
        for at in range(len(rows)):
            if groups[at] == group:
                if squares[at] < squared or (squares[at] == squared and rows[at] < row):
                    return
                place = at
                break
    while place > 0 and (
        squares[place - 1] > squared or (squares[place - 1] == squared and rows[place - 1] > row)
    ):
        rows[place], squares[place], groups[place] = (
            rows[place - 1],
            squares[place - 1],
            groups[place - 1],
        )
        place -= 1
    rows[place], squares[place], groups[place] = row, squared, group


@njit(nogil=True, cache=True)
def _beaten(squares: np.ndarray, groups: np.ndarray, group: int, distance: float) -> bool:
    """Whether a group has its place already, by a pose nearer than a box of its other poses."""
    for at in range(len(groups)):
        if groups[at] == group:
            return distance > squares[at] * (1 + _SLACK) + _TINY
    return False


@njit(nogil=True, cache=True, fastmath=True)
def _least(values: np.ndarray) -> float:
    """The least of 16: most nodes hold nothing near enough, and one comparison says so."""
    least = values[0]
    for lane in range(1, WIDTH):
        least = min(least, values[lane])
    return least


@njit(nogil=True, cache=True, fastmath={"contract"})
def _block_distances(
    blocks: np.ndarray, node: int, query: np.ndarray, out: np.ndarray, axes: Axes
) -> None:
    for lane in range(WIDTH):
        total = np.float32(0)
        for axis in range(len(axes)):
            apart = blocks[node, axis, lane] - query[axis]
            total += apart * apart
        out[lane] = total


@njit(nogil=True, cache=True, fastmath={"contract"})
def _box_distances(
    boxes: np.ndarray, node: int, query: np.ndarray, out: np.ndarray, axes: Axes
) -> None:
    for lane in range(WIDTH):
        total = np.float32(0)
        for axis in range(len(axes)):
            value = query[axis]
            apart = max(
                max(boxes[node, 0, axis, lane] - value, value - boxes[node, 1, axis, lane]),
                np.float32(0),
            )
            total += apart * apart
        out[lane] = total


# The two below decide: no fused operations, axis by axis, as neighbours.squared_distance does it.
@njit(nogil=True, cache=True)
def _exact_distance(
    blocks: np.ndarray, node: int, lane: int, query: np.ndarray, axes: Axes
) -> float:
    total = 0.0
    for axis in range(len(axes)):
        apart = np.float64(query[axis]) - np.float64(blocks[node, axis, lane])
        total += apart * apart
    return total


@njit(nogil=True, cache=True)
def _exact_bound(boxes: np.ndarray, node: int, lane: int, query: np.ndarray, axes: Axes) -> float:
    total = 0.0
    for axis in range(len(axes)):
        value = np.float64(query[axis])
        apart = max(
            np.float64(boxes[node, 0, axis, lane]) - value,
            value - np.float64(boxes[node, 1, axis, lane]),
            0.0,
        )
        total += apart * apart
    return total


@njit(nogil=True, cache=True)
def search_tree(  # noqa: C901, PLR0912, PLR0914, PLR0915 - a numerical kernel, one loop
    queries: np.ndarray,
    query_groups: np.ndarray,
    blocks: np.ndarray,
    block_groups: np.ndarray,
    block_rows: np.ndarray,
    boxes: np.ndarray,
    box_groups: np.ndarray,
    box_rows: np.ndarray,
    levels: np.ndarray,
    found_rows: np.ndarray,
    found_squares: np.ndarray,
    found_groups: np.ndarray,
    distinct: bool,
    axes: Axes,
) -> None:
    """Improve the arrays of Neighbours for each query by the poses of a tree; see Tree for how.

    Queries are (Q, D) float32 with groups (Q,) int32; `blocks` (L, D, 16) are the poses of the
    leaves, with groups and rows (L, 16) int32; `boxes` (B, 2, D, 16) those of the nodes' children,
    with groups and lowest rows (B, 16); `levels` the number of each level's first node, from the
    leaves' parents up. `axes` is a tuple of D zeros.
    """
    last = found_rows.shape[1] - 1
    distances = np.empty(WIDTH, np.float32)
    stack_distance = np.empty(_STACK, np.float32)
    stack_node, stack_level = np.empty(_STACK, np.int64), np.empty(_STACK, np.int64)
    for number in range(len(queries)):
        query, own = queries[number], query_groups[number]
        rows, squares, groups = found_rows[number], found_squares[number], found_groups[number]
        bound = np.float32(squares[last] * (1 + _SLACK) + _TINY)
        stack_distance[0], stack_node[0], stack_level[0] = 0, 0, len(levels)
        count = 1
        while count > 0:
            count -= 1
            if stack_distance[count] > bound:
                continue
            node, level = stack_node[count], stack_level[count]
            if level == 0:
                _block_distances(blocks, node, query, distances, axes)
                if _least(distances) > bound:
                    continue
                for lane in range(WIDTH):
                    group = block_groups[node, lane]
                    if distances[lane] <= bound and group != own and group != ABSENT:
                        row = block_rows[node, lane]
                        squared = _exact_distance(blocks, node, lane, query, axes)
                        if squared < squares[last] or (
                            squared == squares[last] and row < rows[last]
                        ):
                            _enter(rows, squares, groups, distinct, row, squared, group)
                            bound = np.float32(squares[last] * (1 + _SLACK) + _TINY)
                continue
            box = levels[level - 1] + node
            _box_distances(boxes, box, query, distances, axes)
            if _least(distances) > bound:
                continue
            near, base = np.float32(squares[last] * (1 - _SLACK)), count
            for lane in range(WIDTH):
                distance, group = distances[lane], box_groups[box, lane]
                if distance > bound or group == own:
                    continue
                if group == ABSENT or (
                    distinct and group >= 0 and _beaten(squares, groups, group, distance)
                ):
                    continue
                if distance >= near:  # as far as the last one found: only a lower row may enter
                    squared = _exact_bound(boxes, box, lane, query, axes)
                    if squared > squares[last] or (
                        squared == squares[last] and box_rows[box, lane] > rows[last]
                    ):
                        continue
                place = count
                while place > base and stack_distance[place - 1] <= distance:
                    stack_distance[place] = stack_distance[place - 1]
                    stack_node[place], stack_level[place] = (
                        stack_node[place - 1],
                        stack_level[place - 1],
                    )
                    place -= 1
                stack_distance[place], stack_node[place] = distance, node * WIDTH + lane
                stack_level[place] = level - 1
                count += 1
