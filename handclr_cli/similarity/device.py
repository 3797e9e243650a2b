"""Exact search on a graphics card: float32 says where to look, float64 decides, bounds prove it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..contract.errors import HandclrError
from .neighbours import EmbeddedPoses, Fallback, Neighbours, Searcher

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 256
QUERIES = 8192
MEMORY = 6 << 30
# A score has 4 bytes, and 2 more where the own group is looked for. A candidate has its
# coordinates, its distance and the terms of it, its row and group, and whether it is left out.
_SCORE_BYTES, _CANDIDATE_BYTES = 6, 64
_NO_ROW = np.iinfo(np.int32).max
_ROUNDING, _UNDERFLOW, _FARTHEST = 2.0**-24, 2.0**-126, 2.0**60
_UP, _DOUBLE_UP, _DOUBLE_DOWN = 1 + 2.0**-20, 1 + 2.0**-40, 1 - 2.0**-40


class DeviceTiles:
    """A pool on a torch device; agrees with the other exact engines to the last bit.

    Scores |y|^2 - 2xy of centred poses come from one float32 matrix product a tile. Of every 256
    columns of the pool only the least score is kept, and of these, for each query, the K + 7 least
    (4 K + 8 if `distinct`). The distances in those blocks are computed in float64, axis by axis as
    `squared_distance` does. An answer is proven where its K-th distance is below whatever the
    rounding of the scores lets hide in the blocks given up. Queries without a proof are answered by
    the searcher that `exact` makes.

    `first_row` is the number of the pool's first row in the answers. On the device the pool takes
    about 8 D + 12 bytes a pose, and the work about `memory` bytes beside it, never less than a
    query against a few blocks needs. Raises HandclrError where there is no such device.
    """

    def __init__(
        self,
        pool: EmbeddedPoses,
        first_row: int,
        device: str,
        exact: Callable[[], Searcher],
        memory: int = MEMORY,
    ) -> None:
        import torch

        if device.startswith("cuda") and not torch.cuda.is_available():
            why = "needs CUDA, and there is none here; take exact-cpu"
            raise HandclrError(why, setting="engine")
        self.pool, self.first_row, self.memory = pool, first_row, memory
        self.fallback = Fallback(exact)
        self._shelf = _Shelf(pool, device)

    def search(
        self, queries: EmbeddedPoses, found: Neighbours, on_rows: Callable[[int], None]
    ) -> None:
        """Improve `found` by the poses of this pool; ties go to the lower row.

        Waits for the device once a chunk.
        """
        # So that the queries' own groups lie in few tiles.
        order = np.argsort(queries.group, kind="stable")
        still_open = [np.zeros(0, np.int64)]
        step = max(1, min(QUERIES, self.memory // 2 // (_SCORE_BYTES * BLOCK)))
        for start in range(0, len(order), step):
            rows = order[start : start + step]
            part = found.take(rows)
            proven = self._answer(queries.take(rows), part)
            found.put(rows[proven], part.take(proven))
            still_open.append(rows[~proven])
            on_rows(int(proven.sum()))
        self.fallback.search(np.sort(np.concatenate(still_open)), queries, found, on_rows)

    def _answer(self, queries: EmbeddedPoses, found: Neighbours) -> np.ndarray:
        """Improve `found`; returns where the answer is proven, bool (Q,)."""
        with full_float32(self._shelf.device.type):
            answer = self._ask(queries, found.row.shape[1], found.distinct).cpu().numpy()
        best = answer.shape[1] // 2 - 1
        squared, row, bound = answer[:, :best], answer[:, best:-2].astype(np.int64), answer[:, -2]
        asked, place = np.nonzero(np.isfinite(squared))
        row = row[asked, place]
        found.offer(asked, row + self.first_row, squared[asked, place], self.pool.group[row])
        # A distance below its bound means that the device computes with fewer digits than the
        # bounds are made for.
        honest = bool(answer[:, -1].all())
        return honest & ((found.squared[:, -1] * _DOUBLE_UP < bound) | np.isposinf(bound))

    def _ask(self, queries: EmbeddedPoses, top_k: int, distinct: bool) -> Tensor:
        """`_Shelf.decide` for these queries, in parts that fit into the memory."""
        import torch

        shelf, half = self._shelf, self.memory // 2
        kept = min(4 * top_k + 8 if distinct else top_k + 7, shelf.blocks)
        ready, own = shelf.prepare(queries), shelf.columns_of(queries.group)
        least, block = shelf.least_blocks(ready, own, kept + 1, half // _SCORE_BYTES)
        bytes_a_query = kept * BLOCK * (4 * queries.embedding.shape[1] + _CANDIDATE_BYTES)
        best = min(top_k, kept * BLOCK)
        parts = _slices(len(queries.group), max(1, half // bytes_a_query))
        decided = []
        for at in parts:
            decided.append(shelf.decide(ready.take(at), least[at], block[at], best, distinct))
        return torch.cat(decided)


class _Queries(NamedTuple):
    """Queries on the device.

    `left` (Q, D + 1) are scaled poses and 1, `norm` (Q,) their lengths, infinite beyond reach,
    `squared` (Q,) float64 their squared lengths, `given` (Q, D) the poses as they are, and `group`
    (Q,).
    """

    left: Tensor
    norm: Tensor
    squared: Tensor
    given: Tensor
    group: Tensor

    def take(self, rows: slice) -> _Queries:
        return _Queries(*(part[rows] for part in self))


class _Own(NamedTuple):
    """The columns of each query's own group, from `begin` (Q,) to before `end` (Q,).

    All of them are from `first` to `last`.
    """

    begin: Tensor
    end: Tensor
    first: int
    last: int


class _Shelf:
    """A pool on a device, sorted by group, in blocks of 256 columns; the last has empty columns.

    Poses are centred, against cancellation, and scaled by a power of two to at most 1 an axis,
    against underflow. The score of x and y computed in float32 errs by at most (D + 8) 2^-24
    (2|x||y| + |y|^2): D + 1 products and sums in any order, their rounded factors, and the bound's
    own rounding.
    """

    def __init__(self, pool: EmbeddedPoses, device: str) -> None:
        import torch

        self.device = torch.device(device)
        order = np.argsort(pool.group, kind="stable")
        self.groups = pool.group[order]
        points = pool.embedding[order].astype(np.float64)
        count, axes = points.shape
        # The median: a mean would be far from all but a few wild poses.
        self.centre = np.median(points, axis=0) if count else np.zeros(axes)
        points -= self.centre
        self.scale = float(np.ldexp(1.0, -int(np.frexp(np.abs(points).max(initial=0.0))[1])))
        points *= self.scale
        squares = (points**2).sum(axis=1)
        self.blocks = max(1, -(-count // BLOCK))
        nobody = (0, self.blocks * BLOCK - count)
        columns = np.concatenate([-2 * points, squares[:, None]], axis=1).astype(np.float32)
        columns = np.pad(columns, [nobody, (0, 0)])
        columns[count:, -1] = np.inf
        longest = np.sqrt(np.pad(squares, nobody).reshape(-1, BLOCK).max(axis=1)) * _UP
        share, tiny = (axes + 8) * _ROUNDING * _UP, 8 * (axes + 1) * _UNDERFLOW
        given = np.pad(pool.embedding[order], [nobody, (0, 0)]).reshape(-1, BLOCK, axes)
        self.columns = self._send(columns)
        self.slack_a_length = self._send((2 * share * longest + tiny).astype(np.float32))
        self.slack = self._send((share * longest**2 + tiny).astype(np.float32))
        self.given = self._send(given.transpose(0, 2, 1))
        self.row = self._send(np.pad(order, nobody).astype(np.int32).reshape(-1, BLOCK))
        group = np.pad(self.groups, nobody, constant_values=-1).astype(np.int32)
        self.group = self._send(group.reshape(-1, BLOCK))

    def _send(self, array: np.ndarray) -> Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def prepare(self, queries: EmbeddedPoses) -> _Queries:
        """Queries, centred and scaled as the pool is."""
        points = (queries.embedding.astype(np.float64) - self.centre) * self.scale
        squared = (points**2).sum(axis=1)
        norm = np.sqrt(squared) * _UP
        with np.errstate(over="ignore"):
            left = np.concatenate([points, np.ones_like(points[:, :1])], axis=1).astype(np.float32)
        return _Queries(
            self._send(left),
            self._send(np.where(norm > _FARTHEST, np.inf, norm).astype(np.float32)),
            self._send(squared),
            self._send(queries.embedding),
            self._send(queries.group),
        )

    def columns_of(self, group: np.ndarray) -> _Own:
        """Where the columns of the groups of queries (Q,) are."""
        begin, end = (np.searchsorted(self.groups, group, side) for side in ("left", "right"))
        return _Own(self._send(begin), self._send(end), int(begin.min()), int(end.max()))

    def least_blocks(
        self, queries: _Queries, own: _Own, kept: int, scores: int
    ) -> tuple[Tensor, Tensor]:
        """The blocks with the least bounds on their scores: bounds ascending, and the blocks.

        Both (Q, kept), the bounds float32, infinite where there is no block or all of it is of the
        query's own group. Computes at most `scores` at once.
        """
        import torch

        count = len(queries.left)
        least = torch.full((count, kept), torch.inf, device=self.device)
        block = torch.zeros((count, kept), dtype=torch.int64, device=self.device)
        for tile in _slices(self.blocks, max(1, scores // count // BLOCK)):
            tile_scores = queries.left @ self.columns[tile.start * BLOCK : tile.stop * BLOCK].T
            _hide_own(tile_scores, tile.start * BLOCK, own)
            bounds = tile_scores.view(count, -1, BLOCK).amin(dim=2)
            bounds -= queries.norm[:, None] * self.slack_a_length[tile] + self.slack[tile]
            bounds.nan_to_num_(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
            here = torch.arange(tile.start, tile.start + bounds.shape[1], device=self.device)
            both = torch.cat([least, bounds], dim=1)
            least, place = both.topk(kept, dim=1, largest=False, sorted=True)
            block = torch.cat([block, here.expand(count, -1)], dim=1).gather(1, place)
        return least, block

    def decide(
        self, queries: _Queries, least: Tensor, block: Tensor, best: int, distinct: bool
    ) -> Tensor:
        """The `best` nearest poses of all blocks but the last, which is the first one given up.

        Returns float64 (Q, 2 best + 2): squared distances, infinite where there is none, rows, a
        bound on the squared distance of any pose elsewhere, and 1 where all bounds held in the
        blocks looked through, else 0.
        """
        import torch

        bound = (least.double() + queries.squared[:, None] * _DOUBLE_DOWN) / self.scale**2
        block, looked_at = block[:, :-1], least[:, :-1] < torch.inf
        row, group = self.row[block], self.group[block]
        squared = self._squared_distances(queries.given, block)
        nobody = (group == queries.group[:, None, None]) | (group < 0) | ~looked_at[:, :, None]
        squared.masked_fill_(nobody, torch.inf)
        honest = (squared.amin(dim=2) * _DOUBLE_UP >= bound[:, :-1]).all(dim=1, keepdim=True)
        each = group.flatten(1) if distinct else None
        squared, row = _nearest(squared.flatten(1), row.flatten(1), each, best)
        return torch.cat([squared, row.double(), bound[:, -1:], honest.double()], dim=1)

    def _squared_distances(self, given: Tensor, block: Tensor) -> Tensor:
        """Float64 (Q, B, 256) from poses (Q, D) to those of blocks (Q, B).

        Summed in the order of `squared_distance`.
        """
        import torch

        poses = self.given[block]
        total = torch.zeros((*block.shape, BLOCK), dtype=torch.float64, device=self.device)
        for axis in range(given.shape[1]):
            apart = given[:, axis, None, None].double() - poses[:, :, axis].double()
            total += apart * apart
        return total


@contextmanager
def full_float32(device_type: str) -> Iterator[None]:
    """Within this, matrix products of float32 are computed in float32, and without gradients.

    TF32, bfloat16 and autocast have too few digits for the bounds. What the process had set before
    is set again at the end. Torch before 2.9 has one setting for all devices.
    """
    import torch

    backends: list[Any] = [
        torch.backends.cuda.matmul,
        getattr(torch.backends.mkldnn, "matmul", None),
    ]
    settings = [backend for backend in backends if hasattr(backend, "fp32_precision")]
    before = [setting.fp32_precision for setting in settings]
    of_all = "" if settings else torch.get_float32_matmul_precision()
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        if of_all:
            torch.set_float32_matmul_precision("highest")
        with torch.autocast(device_type, enabled=False), torch.inference_mode():
            yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value
        if of_all:
            torch.set_float32_matmul_precision(of_all)


def _hide_own(scores: Tensor, first: int, own: _Own) -> None:
    """Make scores (Q, T) of columns from `first` on infinite where they are of the own group."""
    import torch

    begin, end = max(own.first - first, 0), min(own.last - first, scores.shape[1])
    if begin >= end:
        return
    column = torch.arange(first + begin, first + end, device=scores.device)
    hidden = column >= own.begin[:, None]
    hidden &= column < own.end[:, None]
    scores[:, begin:end].masked_fill_(hidden, torch.inf)


def _nearest(
    squared: Tensor, row: Tensor, group: Tensor | None, best: int
) -> tuple[Tensor, Tensor]:
    """The `best` nearest of candidates (Q, C), one of each group if these are given.

    Returns squared distances (Q, best) and rows (Q, best), of equal distances the lower row;
    overwrites `squared`. To look for the nearest `best` times takes a card less time than to sort
    thousands of candidates.
    """
    import torch

    nearest, chosen = [], []
    for _ in range(best):
        nearest.append(squared.amin(dim=1, keepdim=True))
        chosen.append(row.masked_fill(squared > nearest[-1], _NO_ROW).amin(dim=1, keepdim=True))
        taken = row == chosen[-1]
        if group is not None:
            taken = group == group.masked_fill(~taken, -1).amax(dim=1, keepdim=True)
        squared.masked_fill_(taken, torch.inf)
    return torch.cat(nearest, dim=1), torch.cat(chosen, dim=1)


def _slices(count: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
