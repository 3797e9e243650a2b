"""Exact mining beside SciPy, scikit-learn, faiss and hnswlib as people use them: time, memory and
recall by size.

    python tests/benchmarks/mining.py --sizes 50000 200000 --regimes dup mix --full --json mining.json

For each of N poses in R^14 the nearest one of any other video is sought, among three kinds of
poses: dup, mix: videos of 50 to 250 frames, walks about a centre each, variances 0.72^i on turned
axes. In `dup` a quarter of the deviation is the walk's and slow: near-duplicate frames. In `mix`
nine tenths are, and fast: videos interpenetrate. real: --poses dexycb_joints.npz, hands of 499
sequences, projected, boxed, on 14 principal axes. Its 4,490 placeholders are dropped (default hands
at the camera itself, one of them bit-identical 780 times over 50 sequences). The 31,798 others are
repeated up to N, each repetition as videos of its own, all but the first moved by noise of a tenth
of the median distance to the nearest pose of another sequence.

Each contestant is a process of its own with --threads threads; its clock starts after imports and,
for ours, after the compiled code was loaded. Peers know nothing of videos: 2, 8, 32, 128, 512
neighbours are fetched until one is of another video; only faiss IVF (4 sqrt(N) lists, 16 or 64
probed) is told the rows of the query's own. All answer the same sample of queries, ours and the
peer in turn; `all` is build + N times a query. A peer stops after --limit seconds of building, or
of answering in all rounds together, and is judged by what it answered. Recall@1: of another video,
and to the last bit as near as what comparing all pairs in float64 finds; float32 peers may lose a
near tie. Memory is the peak of the process less its peak with the poses loaded and nothing else.
With --full ours answers all N as well, once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import distributions
from importlib.util import find_spec
from itertools import pairwise, product
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np

from handclr_cli.hand.normalise import pose_vectors
from handclr_cli.similarity.embedding import fit
from handclr_cli.similarity.exact import Tiles
from handclr_cli.similarity.neighbours import EmbeddedPoses, Neighbours, Searcher, squared_distance

AXES, SHORTEST, LONGEST = 14, 50, 250
WALKS = {"dup": (0.25, 0.99), "mix": (0.9, 0.9)}
NOISE, LEAST_DEPTH = 0.1, 0.1
RUN, CHUNK = 50, 500
FETCHED = (2, 8, 32, 128, 512)
OURS, ALL_ASKED = "handclr", "handclr, all asked"
PACKAGES = ("numpy", "numba", "scipy", "scikit-learn", "faiss-cpu", "hnswlib")

Told = dict[str, Any]
Answer = Callable[[EmbeddedPoses], np.ndarray]
say = partial(print, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--regimes", nargs="+", choices=[*WALKS, "real"], default=[*WALKS])
    peers = [
        "ckdtree",
        "sklearn",
        "faiss-flat",
        "faiss-ivf",
        "faiss-hnsw",
        "hnswlib",
        "handclr-hnsw",
    ]
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--queries", type=int, default=2000, help="of the sample, in runs of 50 rows"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=120, metavar="SECONDS")
    parser.add_argument("--full", action="store_true", help="ours also answers all N queries")
    parser.add_argument(
        "--poses", type=Path, help="real hands: keypoints3d (N, 21, 3) in metres, sequence (N,)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all numbers")
    options = parser.parse_args()
    if "real" in options.regimes and not options.poses:
        parser.error("--regimes real needs --poses")
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):  # of the contestants, which start later
        os.environ[f"{library}_NUM_THREADS"] = str(options.threads)
    columns = (
        "build s",
        "a query us",
        "all s",
        "/ ours",
        "/ ours, all asked",
        "MB",
        "recall@1",
        "rounds x asked",
    )
    print(
        "| poses | N | contestant |",
        " | ".join(columns),
        "|\n|---|--:|---|" + "--:|" * len(columns),
        flush=True,
    )
    cells: list[Told] = []
    for regime, rows in product(options.regimes, options.sizes):
        cells.append(measure(regime, rows, options))
        print_rows(cells[-1])
        if options.json:
            versions = {one.name: one.version for one in distributions() if one.name in PACKAGES}
            about = {"versions": versions, "cores": os.cpu_count(), "options": vars(options)}
            options.json.write_text(
                json.dumps(about | {"cells": cells}, indent=2, default=str) + "\n"
            )
    for one, other in pairwise(cells):
        if one["regime"] == other["regime"]:
            growth = np.log(ours_total(other) / ours_total(one)) / np.log(
                other["rows"] / one["rows"]
            )
            print(
                f"\n{one['regime']}: from {one['rows']:,} to {other['rows']:,} ours grows as"
                f" N^{growth:.2f}"
            )


def measure(regime: str, rows: int, options: argparse.Namespace) -> Told:
    """Let all contestants answer for one kind and number of poses; gives what each told, round by
    round.
    """
    cell: Told = {"regime": regime, "rows": rows, "told": {}}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "poses.npz"
        with process(make, regime, rows, file, options) as ask:
            say(f"{regime} {rows:,}: made; all pairs of the sample took {ask()['seconds']:.1f} s")
        with process(contest, OURS, file, options) as ask_ours:
            ask_ours()
            cell["told"][OURS] = ours = [ask_ours("sample", np.inf)]
            for name in [
                name for peer in options.peers for name in CONTESTANTS if peer in (name, name[:-3])
            ]:
                if not find_spec(CONTESTANTS[name][0].split(".")[0]):
                    say(f"{name}: skipped, {CONTESTANTS[name][0]} is not installed")
                    continue
                say(f"{regime} {rows:,}: {name}")
                with process(contest, name, file, options) as ask:
                    rounds: list[Told] = cell["told"].setdefault(name, [])
                    left = options.limit if ask() else 0
                    while left > 0 and len(rounds) < options.rounds:
                        ours.append(ask_ours("sample", np.inf))
                        rounds.append(ask("sample", left))
                        rounds[-1]["ratio"] = rounds[-1]["total"] / ours[-1]["total"]
                        left -= rounds[-1]["seconds"]
            if options.full:
                say(f"{regime} {rows:,}: {ALL_ASKED}")
                cell["told"][ALL_ASKED] = [ask_ours("all", np.inf)]
    return cell


@contextmanager
def process(work: Callable[..., None], *arguments: object) -> Iterator[Callable[..., Told]]:
    """A process that does `work`; called, it sends what to answer, if anything, and hears: nothing
    from the dead.
    """
    spawn = get_context("spawn")
    pipe, theirs = spawn.Pipe()
    child = spawn.Process(target=work, args=(*arguments, theirs))
    child.start()
    theirs.close()

    def ask(*what: object) -> Told:
        if what:
            pipe.send(what)
        try:
            return dict(pipe.recv())
        except EOFError:
            child.join()
            if child.exitcode != -signal.SIGALRM:
                raise SystemExit(f"{arguments[0]}: ended with {child.exitcode}") from None
            return {}

    try:
        yield ask
    finally:
        child.kill()
        child.join()


def contest(name: str, file: Path, options: argparse.Namespace, pipe: Connection) -> None:
    """Be a contestant: build, then answer the sample, or all, within a limit, as often as asked."""
    with np.load(file) as arrays:
        poses, sample, truth = (
            EmbeddedPoses(arrays["embedding"], arrays["group"]),
            arrays["sample"],
            arrays["truth"],
        )
    memory = getrusage(RUSAGE_SELF).ru_maxrss
    module, build = CONTESTANTS[name]
    library, ours = import_module(module), name.startswith(OURS)
    if ours:
        build(library, poses.take(sample), options.threads)(poses.take(sample))
    signal.alarm(
        0 if name == OURS else options.limit
    )  # ends the process, in whatever library it is
    start = time.perf_counter()
    answer = build(library, poses, options.threads)
    told = {"build": time.perf_counter() - start}
    signal.alarm(0)
    pipe.send(told)
    while True:
        what, limit = pipe.recv()
        rows = sample if what == "sample" else np.arange(len(poses.group))
        found, seconds = answered(answer, poses, rows, len(rows) if ours else CHUNK, limit)
        told |= {
            "seconds": seconds,
            "asked": len(found),
            "MB": (getrusage(RUSAGE_SELF).ru_maxrss - memory) / 1024,
        }
        told["total"] = told["build"] + seconds / len(found) * len(poses.group)
        found = found if what == "sample" else found[sample]
        asked = sample[: len(found)]
        right = (
            squared_distance(poses.embedding[asked], poses.embedding[found]) == truth[: len(found)]
        )
        right &= (found >= 0) & (poses.group[asked] != poses.group[found])
        pipe.send(told | {"recall": float(right.mean())})


def answered(
    answer: Answer, poses: EmbeddedPoses, rows: np.ndarray, chunk: int, limit: float
) -> tuple[np.ndarray, float]:
    """Answers to the first of the rows, as many as there is time for, and the seconds it took."""
    answers, start = [], time.perf_counter()
    for at in range(0, len(rows), chunk):
        answers.append(answer(poses.take(rows[at : at + chunk])))
        if time.perf_counter() - start > limit:
            break
    return np.concatenate(answers), time.perf_counter() - start


def nearest(searcher: Searcher, queries: EmbeddedPoses) -> Neighbours:
    found = Neighbours.nobody(len(queries.group), 1)
    searcher.search(queries, found, lambda rows: None)
    return found


def make(regime: str, rows: int, file: Path, options: argparse.Namespace, pipe: Connection) -> None:
    """Write the poses, and the squared distances of the sample's answers."""
    random = np.random.default_rng(options.seed)
    poses = (
        real(options.poses, rows, random)
        if regime == "real"
        else walks(rows, *WALKS[regime], random)
    )
    # Runs of rows, spread over all, in random order: who is stopped has answered a fair part.
    starts = random.permutation(np.linspace(0, rows - RUN, options.queries // RUN).astype(np.int64))
    sample, start = (starts[:, None] + np.arange(RUN)).ravel(), time.perf_counter()
    truth = nearest(Tiles(poses), poses.take(sample)).squared[:, 0]
    np.savez(file, **poses._asdict(), sample=sample, truth=truth)
    pipe.send({"seconds": time.perf_counter() - start})


def walks(rows: int, share: float, memory: float, random: np.random.Generator) -> EmbeddedPoses:
    """Ornstein-Uhlenbeck walks: `share` of the deviation is the walk's, `memory` its correlation
    between frames.
    """
    length = random.integers(SHORTEST, LONGEST, rows // SHORTEST + 1, endpoint=True)
    length = length[: np.searchsorted(np.cumsum(length), rows) + 1]
    axes = np.linalg.qr(random.standard_normal((AXES, AXES)))[0] * np.sqrt(0.72 ** np.arange(AXES))
    centre, place = random.standard_normal((2, len(length), AXES))
    frames = np.empty((len(length), LONGEST, AXES), np.float32)
    for frame in range(LONGEST):
        frames[:, frame] = (np.sqrt(1 - share**2) * centre + share * place) @ axes.T
        place = memory * place + np.sqrt(1 - memory**2) * random.standard_normal(place.shape)
    group = np.repeat(np.arange(len(length), dtype=np.int32), length)
    return EmbeddedPoses(frames[np.arange(LONGEST) < length[:, None]][:rows], group[:rows])


def real(path: Path, rows: int, random: np.random.Generator) -> EmbeddedPoses:
    """Real hands, repeated with noise, video after video."""
    with np.load(path) as file:
        hands, sequence = file["keypoints3d"].astype(np.float64), file["sequence"]
    there = hands[:, :, 2].min(axis=1) > LEAST_DEPTH
    names, group = np.unique(sequence[there], return_inverse=True)
    hands, order = hands[there], np.argsort(group, kind="stable")
    vectors = pose_vectors(hands[order, :, :2] / hands[order, :, 2:], np.ones(len(hands)), "box")
    one = EmbeddedPoses(fit([vectors], AXES).embed(vectors), group[order])
    some = nearest(Tiles(one), one.take(random.permutation(len(hands))[:1000]))
    copy, row = np.divmod(np.arange(rows), len(hands))
    noise = (copy > 0) * NOISE * np.sqrt(np.median(some.squared) / AXES)
    moved = one.embedding[row] + noise[:, None] * random.standard_normal((rows, AXES))
    return EmbeddedPoses(
        moved.astype(np.float32), (one.group[row] + copy * len(names)).astype(np.int32)
    )


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
    return growing(
        pool, lambda points, count: tree.kneighbors(points, count, return_distance=False)
    )


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
            return np.asarray(
                index.knn_query(points, count, num_threads=threads)[0].astype(np.int64)
            )
        except RuntimeError:  # for all queries, where one does not reach as many
            parts = np.array_split(points, 2) if len(points) > 1 else []
            return np.concatenate(
                [fetch(part, count) for part in parts] or [np.full((1, count), -1)]
            )

    return growing(pool, fetch)


def ours(library: Any, pool: EmbeddedPoses, threads: int, graph: bool) -> Answer:
    searcher = tree = library.Tree(pool, threads=threads)
    if graph:
        searcher = import_module("handclr_cli.similarity.graph").Graph(
            pool, 0, threads, lambda: tree
        )
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


def ours_total(cell: Told) -> float:
    """Seconds of ours for all queries: measured if all were asked."""
    return float(
        np.median([told["total"] for told in cell["told"].get(ALL_ASKED, cell["told"][OURS])])
    )


def print_rows(cell: Told) -> None:
    """The rows of one kind and number of poses: medians of the rounds."""
    for name, rounds in cell["told"].items():
        start = f"| {cell['regime']} | {cell['rows']:,} | {name} |"
        if not rounds:
            print(start, "build over the limit |")
            continue
        per_query = [told["seconds"] / told["asked"] * 1e6 for told in rounds]
        totals, ratios = (
            [told["total"] for told in rounds],
            [told.get("ratio", 1.0) for told in rounds],
        )
        medians = [
            np.median(per_query),
            np.median(totals),
            np.median(ratios),
            np.median(totals) / ours_total(cell),
        ]
        words = [
            f"{number:,.0f}" if number > 99.9 else f"{number:.3g}"
            for number in [rounds[0]["build"], *medians]
        ]
        last = rounds[-1]
        words += [
            f"{last['MB']:.0f}",
            f"{last['recall']:.4f}",
            f"{len(rounds)} x {last['asked']:,}",
        ]
        print(start, " | ".join(words), "|", flush=True)


if __name__ == "__main__":
    main()
