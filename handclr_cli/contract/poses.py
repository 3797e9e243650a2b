"""Pose files as one table; embeddings are read only where they are searched."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from .errors import HandclrError
from .inputs import display_name
from .npz import read_npz, repeated_key
from .provenance import Provenance

AXES = ("components", "mean", "explained_variance_ratio", "world_scale")
SURENESS = "side_score"
GRAPH = ("hnsw_base", "hnsw_links", "hnsw_levels")


class PoseTable:
    """The rows of pose files made with the same axes, one file after another.

    `names` gives each video its number, `video` (N,) int32 holds the number of each row's video,
    `axes` the arrays of the basis, `origins` the files' provenance. A table `like` another one has
    its axes and shares its numbers. Rows whose `side_score` is below `min_side_score` are left out,
    `left_out` of them. Arrays are read from the files when they are asked for; what comes from a
    pipe is kept. Raises HandclrError where a file has other axes or videos that it does not name,
    or where there are no rows.
    """

    def __init__(
        self,
        sources: Sequence[str],
        like: PoseTable | None = None,
        min_side_score: float = 0.0,
    ) -> None:
        self.sources = list(sources)
        self.left_out = 0
        self._least = min_side_score
        # Of the files that have rows to leave out, which are kept.
        self._sure: dict[str, np.ndarray] = {}
        self.names: dict[bytes, int] = like.names if like else {}
        self.origins: list[Provenance | None] = []
        self._kept: dict[str, tuple[dict[str, np.ndarray], Provenance | None]] = {}
        self._sizes: list[int] = []
        self.axes: dict[str, np.ndarray] = like.axes if like else {}
        self._like = like
        self.video = np.concatenate([self._videos(source) for source in self.sources])
        if not len(self.video):
            if self.left_out:
                why = f"leaves none of the {self.left_out:,} poses of {self.name}; ask for less"
                raise HandclrError(why, setting="min_side_score")
            raise HandclrError(f"{self.name}: no poses to mine")

    def __len__(self) -> int:
        return len(self.video)

    @property
    def name(self) -> str:
        """The table in messages."""
        more = f" and {len(self.sources) - 1:,} more" if len(self.sources) > 1 else ""
        return display_name(self.sources[0]) + more

    def keys(self) -> np.ndarray:
        """Keys of all rows, bytes (N,)."""
        return np.concatenate([self._rows(source, "key") for source in self.sources])

    def arrays(self) -> dict[str, np.ndarray]:
        """All rows as the arrays of one pose file."""
        used, video_id = np.unique(self.video, return_inverse=True)
        return {
            "key": self.keys(),
            "video": np.array(list(self.names), bytes)[used],
            "video_id": video_id.astype(np.int32),
            "embedding": self.embedding(),
            **self.axes,
            **self._side_scores(),
        }

    def graph(self) -> dict[str, np.ndarray] | None:
        """The arrays of the index, where this is one file that has it, and no row is left out."""
        if len(self.sources) > 1 or self.left_out:
            return None
        arrays = self._read(self.sources[0], *GRAPH)
        if not set(GRAPH) <= arrays.keys():
            return None
        return {name: arrays[name] for name in GRAPH}

    def batches(self, limit: int) -> list[list[str]]:
        """The files in runs of at most `limit` rows; a larger file is a run of its own."""
        runs: list[list[str]] = [[]]
        count = 0
        for source, rows in zip(self.sources, self._sizes, strict=True):
            if runs[-1] and count + rows > limit:
                runs.append([])
                count = 0
            runs[-1].append(source)
            count += rows
        return runs

    def embedding(self, sources: Sequence[str] | None = None) -> np.ndarray:
        """Embeddings float32 (N, D) of all rows, or of those of some files.

        Raises HandclrError where one is not finite.
        """
        return np.concatenate([self._embedding(source) for source in sources or self.sources])

    def _embedding(self, source: str) -> np.ndarray:
        embedding = self._rows(source, "embedding")
        if not np.isfinite(embedding).all():
            raise HandclrError(
                f"{display_name(source)}: array 'embedding' holds values that are not finite"
            )
        return embedding

    def _side_scores(self) -> dict[str, np.ndarray]:
        """The array of side scores, where one of the files has it."""
        scores, known = [], False
        for source in self.sources:
            arrays = self._read(source, SURENESS, "video_id")
            known |= SURENESS in arrays
            scores.append(self._kept_of(source, _side_score(arrays)))
        return {SURENESS: np.concatenate(scores)} if known else {}

    def _videos(self, source: str) -> np.ndarray:
        """Video numbers of a file's rows; checks that the file may join the table."""
        arrays, origin = self._load(source, "video", "video_id", SURENESS, *AXES)
        name = display_name(source)
        axes = {axis: arrays[axis] for axis in AXES if axis in arrays}
        if not self.axes:
            self.axes = axes
        elif not _same_axes(axes, self.axes):
            first = display_name((self._like or self).sources[0])
            raise HandclrError(
                f"{name}: made with other axes than {first}, so that distances between them mean "
                f"nothing; make it by handclr pca with {first} as the basis"
            )
        local = arrays["video_id"]
        if local.size and not 0 <= local.min() <= local.max() < len(arrays["video"]):
            raise HandclrError(f"{name}: array 'video_id' has rows that are not in 'video'")
        self.origins.append(origin)
        sure = _side_score(arrays) >= self._least
        if not sure.all():
            self._sure[source] = sure
            self.left_out += int((~sure).sum())
            local = local[sure]
        self._sizes.append(len(local))
        numbers = []
        for video in arrays["video"].tolist():
            numbers.append(self.names.setdefault(video, len(self.names)))
        return np.array(numbers, np.int32)[local]

    def _rows(self, source: str, name: str) -> np.ndarray:
        """An array of a file that has a row for each pose, of the poses that are not left out."""
        return self._kept_of(source, self._read(source, name, "video_id", "components")[name])

    def _kept_of(self, source: str, rows: np.ndarray) -> np.ndarray:
        return rows[self._sure[source]] if source in self._sure else rows

    def _read(self, source: str, *only: str) -> dict[str, np.ndarray]:
        return self._load(source, *only)[0]

    def _load(self, source: str, *only: str) -> tuple[dict[str, np.ndarray], Provenance | None]:
        """Some arrays of a file and its provenance; a source that is no file is kept whole."""
        if os.path.isfile(source):
            return read_npz(source, "pose", only)
        if source not in self._kept:
            self._kept[source] = read_npz(source, "pose")
        return self._kept[source]


def _side_score(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """How sure the sides of a file's rows are; where it says nothing, they are."""
    return arrays.get(SURENESS, np.ones(len(arrays["video_id"])))


def _same_axes(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    compared = ("components", "mean", "world_scale")
    nothing = np.zeros(0)
    return all(
        np.array_equal(first.get(axis, nothing), second.get(axis, nothing)) for axis in compared
    )


def _unrepeated(table: PoseTable) -> np.ndarray:
    keys = table.keys()
    twice = repeated_key(keys)
    if twice is not None:
        key = twice.decode("utf-8", "replace")
        raise HandclrError(f"{table.name}: key {key} appears twice; is a file named twice?")
    return keys


def all_rows(queries: PoseTable, pool: PoseTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All rows of a pool, followed by those of queries that are not in it.

    Returns their keys bytes (R,), the numbers of their videos (R,), and which rows the queries are
    (Q,). Raises HandclrError where a key comes twice in the pool, or among the queries.
    """
    keys = _unrepeated(pool)
    if queries is pool:
        return keys, pool.video, np.arange(len(pool))
    return (
        np.concatenate([keys, _unrepeated(queries)]),
        np.concatenate([pool.video, queries.video]),
        len(pool) + np.arange(len(queries)),
    )
