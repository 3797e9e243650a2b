"""The job of `handclr mine`: pose files to one file of pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import console
from ..choices import EngineName, NearDuplicates
from ..contract.errors import HandclrError, UsageError
from ..contract.index import ShardIndex
from ..contract.inputs import STDIN, display_name, is_there
from ..contract.naming import is_field
from ..contract.npz import write_npz
from ..contract.numbering import part_of
from ..contract.pairs import PairCrops, Pairs
from ..contract.poses import PoseTable, all_rows
from ..contract.provenance import after, provenance
from ..contract.settings import Settings
from ..work.cores import cores
from .exclusion import Together, by_field, by_key, joined
from .mining import Mined, mine, same_footage
from .pool import HNSW_TOP_K, Engine, Pool, Request, choose_engine, read_graph
from .quality import PairQuality, pair_quality
from .summary import PairSummary, summarise
from .truth import TrueHands, true_hands


@dataclass(frozen=True, kw_only=True)
class MineSettings(Settings):
    """What `run_mine` pairs, and how.

    Raises UsageError where settings contradict each other.
    """

    recorded: ClassVar = (
        "top_k",
        "distinct_videos",
        "max_distance",
        "symmetric",
        "exclude_by",
        "exclude_near_duplicates",
        "part",
        "engine",
    )

    pose: Sequence[str]
    """Pose files of the queries, the crops that get positives; - is standard input."""
    output: str = "-"
    """The NPZ file to write; - is standard output."""
    top_k: int = 1
    """Positives for each query."""
    distinct_videos: bool = False
    """At most one positive of each video, or of the videos that are joined to one group."""
    max_distance: str | float | None = None
    """The greatest distance of a positive, or the share of the queries that keep one, as `50%`."""
    symmetric: bool = False
    """Keep a positive only where both are among each other's."""
    exclude_by: str | None = None
    """What joins videos to groups without pairs: a field of the JSON, or a pattern on keys."""
    near_duplicates: NearDuplicates | None = None
    """Find videos that show the same footage; `exclude` joins them to such a group."""
    against: Sequence[str] = ()
    """Pose files of the pool that positives are chosen from; none: that of the queries."""
    min_side_score: float = 0.0
    """Leave out poses whose side is less sure, by the files' `side_score`, 0 to 1."""
    part: str | None = None
    """Only part I of N of the queries, as `I/N`, counted from 0."""
    engine: EngineName = "auto"
    """How the pool is searched; `choose_engine` says what auto is."""
    index: str | None = None
    """A file with the graph of the pool for hnsw; written where it does not exist."""
    threads: int | None = None
    """CPU threads that search; one for each core where None."""
    shards: Sequence[str] = ()
    """Shards of the crops, read for a field of the JSON, `with_crops` and `truth` only."""
    with_crops: bool = False
    """Look the crops of the pairs up in the shards, to draw them; raises where none is there."""
    truth: Sequence[str] = ()
    """Shards with the true 3D keypoints, by which the pairs are measured; with `shards`, that of a
    crop is found by its square, else by its key."""
    seed: int = 0
    """Of the samples that recall and quality are measured on, and of the graph."""

    def __post_init__(self) -> None:
        if self.field and not self.shards:
            raise UsageError("a field, needs the crops: name their shards", setting="exclude_by")
        if self.against and self.symmetric:
            why = "needs the queries in the pool; name all files as one pool"
            raise UsageError(why, setting="symmetric")
        if self.part is not None and STDIN in self.pose:
            raise UsageError("needs files: each part reads all of them", setting="part")
        if self.part is not None and self.near_duplicates:
            why = "needs all crops in one run, not a part of them"
            raise UsageError(why, setting="near_duplicates")
        self.ceiling()

    @property
    def field(self) -> str | None:
        """The field of the JSON that `exclude_by` names, where it is not a pattern on keys."""
        return self.exclude_by if self.exclude_by and is_field(self.exclude_by) else None

    def ceiling(self) -> tuple[float, float]:
        """The greatest distance, and the share of the queries that keep a positive."""
        if self.max_distance is None:
            return math.inf, 1.0
        asked = str(self.max_distance)
        try:
            value = float(asked.removesuffix("%"))
        except ValueError:
            value = math.nan
        is_share = asked.endswith("%")
        if not (0 < value <= 100 if is_share else value >= 0):
            why = "neither a distance such as 0.3 nor a share of the crops such as 50%"
            raise UsageError(why, setting="max_distance")
        if not is_share:
            return value, 1.0
        if self.part is not None:
            why = "a share needs all crops in one run, not a part of them; a distance does not"
            raise UsageError(why, setting="max_distance")
        return math.inf, value / 100

    def arguments(self) -> dict[str, Any]:
        """The recorded settings; all exact engines write the same bytes and are named alike."""
        farthest, _ = self.ceiling()
        values = {
            **vars(self),
            "max_distance": farthest if math.isfinite(farthest) else self.max_distance,
            "exclude_near_duplicates": self.near_duplicates == "exclude",
            "engine": self.engine.partition("-")[0],
        }
        found = {name: values[name] for name in self.recorded}
        if self.min_side_score > 0:
            found["min_side_score"] = self.min_side_score
        return found


class MineResult(NamedTuple):
    """What `run_mine` found: the pairs, what they are in numbers, and what was asked for beside.

    `engine` is the one that searched, `recall` None where it is exact; `left_to_tree` counts the
    queries that it left to the exact one. `same_footage` lists pairs of videos: the fields of
    `DuplicatePair`, with the names of the videos. It, `truth` and `crops` are None where they were
    not asked for. `queries` and `pool` name the files of both in messages, `left_out` counts their
    poses whose side is not sure enough; `alone` counts the queries to whose video or group all of
    the pool belongs.
    """

    pairs: Pairs
    summary: PairSummary
    engine: str
    recall: float | None
    recall_queries: int
    left_to_tree: int
    same_footage: list[dict[str, Any]] | None
    truth: PairQuality | None
    crops: PairCrops | None
    queries: str
    pool: str
    left_out: int
    alone: int

    def report(self) -> dict[str, Any]:
        """The numbers and their definitions, ready for JSON."""
        return {
            **self.summary.report(),
            "engine": self.engine,
            "recall": self.recall,
            "left_to_tree": self.left_to_tree,
            "doubtful_sides_left_out": self.left_out,
            "near_duplicates": self.same_footage,
            "truth": self.truth.report() if self.truth else None,
        }


def run_mine(settings: MineSettings) -> MineResult:
    """Pair each crop with the nearest poses of other videos, and write the pairs (paper, Eq. 1).

    Raises HandclrError where files do not fit each other or lack what they are read for, UsageError
    where the engine cannot do what is asked of it.

    >>> import handclr_cli as handclr
    >>> done = handclr.run_mine(handclr.MineSettings(pose=["pose.npz"], output="pairs.npz"))
    >>> done.pairs.positive.shape, done.summary.without_positive
    ((48, 1), 0)
    """
    farthest, share = settings.ceiling()
    rows = _Rows.read(settings)
    needed = settings.with_crops or settings.field or (settings.truth and settings.shards)
    index = ShardIndex(settings.shards) if needed else None
    crops = None
    if index is not None and settings.with_crops:
        crops = _find_crops(index, rows, settings.shards)
    hands = true_hands(settings.truth, rows.key, index) if settings.truth else None
    together = _excluded(settings, rows, index)
    searched = _open_pool(settings, rows)
    twins = same_footage(rows.queries, searched) if settings.near_duplicates else None
    if twins and settings.near_duplicates == "exclude":
        together += [(twin.first, twin.second) for twin in twins]
    groups = joined(len(rows.queries.names), together)
    if (groups != searched.groups).any():
        searched = searched.regrouped(groups)
    request = Request(settings.top_k, settings.distinct_videos, farthest)
    mined = mine(rows.queries, rows.span, searched, request, settings.symmetric, settings.seed)
    mined = mined.nearest(share)
    pairs = rows.pairs(mined)
    _write(pairs, rows, replace(settings, engine=searched.engine.name))
    return MineResult(
        pairs=pairs,
        summary=rows.summary(pairs),
        engine=searched.engine.name,
        recall=mined.recall,
        recall_queries=mined.recall_queries,
        left_to_tree=mined.left_to_tree,
        same_footage=None if twins is None else [twin.report(rows.videos) for twin in twins],
        truth=None if hands is None else _quality(hands, groups, rows, mined, settings.seed),
        crops=crops,
        queries=rows.queries.name,
        pool=rows.pool.name,
        left_out=rows.left_out,
        alone=rows.alone(groups),
    )


class _Rows(NamedTuple):
    """The rows of the pool, and behind them those of queries that are not in it.

    `key` bytes (R,) and `video` (R,) are their keys and the numbers of their videos, `query` (Q,)
    the rows of all queries, of which those in `span` get positives.
    """

    queries: PoseTable
    pool: PoseTable
    span: slice
    key: np.ndarray
    video: np.ndarray
    query: np.ndarray

    @classmethod
    def read(cls, settings: MineSettings) -> _Rows:
        """Read what the pose files say, all but their embeddings."""
        least = settings.min_side_score
        queries = pool = PoseTable(settings.pose, min_side_score=least)
        if settings.against:
            pool = PoseTable(settings.against, like=queries, min_side_score=least)
        span = part_of(settings.part, len(queries))
        return cls(queries, pool, span, *all_rows(queries, pool))

    @property
    def asked(self) -> np.ndarray:
        """The rows of the queries that get positives."""
        return self.query[self.span]

    @property
    def videos(self) -> list[str]:
        """The names of all videos, by their numbers."""
        return [name.decode("utf-8", "replace") for name in self.queries.names]

    @property
    def left_out(self) -> int:
        """Poses of queries and pool that are not in the rows."""
        elsewhere = self.pool.left_out if self.pool is not self.queries else 0
        return self.queries.left_out + elsewhere

    def alone(self, groups: np.ndarray) -> int:
        """How many of the queries are of one group with all of the pool; `groups` as in Pool."""
        in_pool = np.unique(groups[self.pool.video])
        return int((groups[self.video[self.asked]] == in_pool).sum()) if len(in_pool) == 1 else 0

    def videos_in(self, index: ShardIndex) -> list[int]:
        """The numbers of the videos of all samples of an index, -1 for those not in the rows."""
        place = index.rows_of(self.key)
        found = np.full(len(index), -1)
        found[place[place >= 0]] = self.video[place >= 0]
        return found.tolist()

    def pairs(self, mined: Mined) -> Pairs:
        """The queries that were asked about, the pool, and the positives."""
        asked, size = self.asked, len(self.pool)
        key, video = self.key, self.video
        positives = mined.positive, mined.distance
        return Pairs(key[asked], video[asked], key[:size], video[:size], *positives)

    def summary(self, pairs: Pairs) -> PairSummary:
        """The pairs in numbers."""
        asked = self.asked if self.queries is self.pool else None
        return summarise(pairs.positive, pairs.distance, asked, pairs.video, len(self.pool))


def _find_crops(index: ShardIndex, rows: _Rows, shards: Sequence[str]) -> PairCrops:
    """Where the crops of the rows are; raises where none of the queries or of the pool is there."""
    place = index.rows_of(rows.key)
    target_place = place[: len(rows.pool)]
    if (place[rows.query] < 0).all() or (target_place < 0).all():
        why = f"the crops are not in {display_name(shards[0])}; name the shards of all"
        raise HandclrError(why, setting="shards")
    return PairCrops(index, place[rows.asked], target_place)


def _open_pool(settings: MineSettings, rows: _Rows) -> Pool:
    """The pool made ready for its engine, each video a group; its graph is written where asked."""
    path, pool = settings.index, rows.pool
    graph = read_graph(path, settings.engine, rows.queries, pool)
    queries = rows.span.stop - rows.span.start
    name = choose_engine(settings.engine, len(pool), queries, bool(path or graph))
    if name == "hnsw" and settings.top_k > HNSW_TOP_K:
        why = f"hnsw finds at most {HNSW_TOP_K} positives; take the engine exact-cpu for more"
        raise UsageError(why, setting="top_k")
    engine = Engine(name, settings.threads or cores(), seed=settings.seed)
    groups = np.arange(len(pool.names), dtype=np.int32)
    progress = partial(console.progress, unit="crops")
    opened = Pool(pool, groups, engine, progress, graph, path or pool.name)
    if path and not is_there(path):
        inputs = settings.against or settings.pose
        record = provenance("mine", {"engine": "hnsw"}, inputs, seed=settings.seed)
        arrays = {**pool.arrays(), **(opened.graph() or {})}
        write_npz(path, "pose", arrays, after(record, pool.origins))
    return opened


def _excluded(settings: MineSettings, rows: _Rows, index: ShardIndex | None) -> Together:
    """Pairs of videos that are of one group, by what the user names."""
    if settings.field and index is not None:
        return by_field(settings.field, index, rows.queries.names, rows.videos_in(index))
    if settings.exclude_by is not None:
        return by_key(settings.exclude_by, rows.key.tolist(), rows.video.tolist())
    return []


def _write(pairs: Pairs, rows: _Rows, settings: MineSettings) -> None:
    origins = rows.queries.origins + (rows.pool.origins if settings.against else [])
    seed = settings.seed if settings.engine == "hnsw" else None
    inputs = [*settings.pose, *settings.against]
    record = provenance("mine", settings.arguments(), inputs, seed=seed)
    arrays = pairs.arrays(elsewhere=bool(settings.against) or settings.part is not None)
    write_npz(settings.output, "pairs", arrays, after(record, origins))


def _quality(
    hands: TrueHands, groups: np.ndarray, rows: _Rows, mined: Mined, seed: int
) -> PairQuality:
    """The pairs measured by the true hands of all rows; `groups` are those of the videos."""
    nearest, size, joints = mined.positive[:, 0], len(rows.pool), hands.keypoints3d
    measured = pair_quality(joints, groups[rows.video], rows.asked, nearest, size, seed=seed)
    return replace(measured, joined=hands.joined)
