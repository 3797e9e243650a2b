r"""Exact mining beside SciPy, scikit-learn, faiss and hnswlib as people use them: time, memory and
recall by size.

    python tests/benchmarks/mining.py --sizes 50000 200000 --regimes dup mix --full \
        --json mining.json

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
from itertools import pairwise, product
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any, NamedTuple

import numpy as np
from mining_peers import AXES, CONTESTANTS, OURS, PEERS, Answer, contestants, nearest

from handclr_cli.hand.normalise import pose_vectors
from handclr_cli.similarity.embedding import fit
from handclr_cli.similarity.exact import Tiles
from handclr_cli.similarity.neighbours import EmbeddedPoses, squared_distance

SHORTEST, LONGEST = 50, 250
WALKS = {"dup": (0.25, 0.99), "mix": (0.9, 0.9)}
NOISE, LEAST_DEPTH = 0.1, 0.1
RUN, CHUNK = 50, 500
ALL_ASKED = "handclr, all asked"
COLUMNS = (
    *("build s", "a query us", "all s", "/ ours"),
    *("/ ours, all asked", "MB", "recall@1", "rounds x asked"),
)
PACKAGES = ("numpy", "numba", "scipy", "scikit-learn", "faiss-cpu", "hnswlib")

Told = dict[str, Any]
say = partial(print, file=sys.stderr, flush=True)


def main() -> None:
    options = parse()
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):  # of the contestants, which start later
        os.environ[f"{library}_NUM_THREADS"] = str(options.threads)
    print("| poses | N | contestant |", " | ".join(COLUMNS), "|")
    print("|---|--:|---|" + "--:|" * len(COLUMNS), flush=True)
    cells: list[Told] = []
    for regime, rows in product(options.regimes, options.sizes):
        cells.append(measure(regime, rows, options))
        print_rows(cells[-1])
        if options.json:
            write_json(options, cells)
    for one, other in pairwise(cells):
        if one["regime"] == other["regime"]:
            larger = np.log(other["rows"] / one["rows"])
            growth = np.log(ours_total(other) / ours_total(one)) / larger
            span = f"{one['regime']}: from {one['rows']:,} to {other['rows']:,}"
            print(f"\n{span} ours grows as N^{growth:.2f}")


def write_json(options: argparse.Namespace, cells: list[Told]) -> None:
    versions = {one.name: one.version for one in distributions() if one.name in PACKAGES}
    about = {"versions": versions, "cores": os.cpu_count(), "options": vars(options)}
    options.json.write_text(json.dumps(about | {"cells": cells}, indent=2, default=str) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--regimes", nargs="+", choices=[*WALKS, "real"], default=[*WALKS])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS)
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
    return options


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
            for name in contestants(options.peers):
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


class Task(NamedTuple):
    """Poses, the rows of the queries (Q,), and the squared distances of their answers (Q,)."""

    poses: EmbeddedPoses
    sample: np.ndarray
    truth: np.ndarray

    @classmethod
    def read(cls, file: Path) -> Task:
        with np.load(file) as arrays:
            poses = EmbeddedPoses(arrays["embedding"], arrays["group"])
            return cls(poses, arrays["sample"], arrays["truth"])

    def recall(self, found: np.ndarray) -> float:
        """The share of answers to the first queries that are of another video and right."""
        asked = self.sample[: len(found)]
        squared = squared_distance(self.poses.embedding[asked], self.poses.embedding[found])
        right = squared == self.truth[: len(found)]
        right &= (found >= 0) & (self.poses.group[asked] != self.poses.group[found])
        return float(right.mean())


def contest(name: str, file: Path, options: argparse.Namespace, pipe: Connection) -> None:
    """Be a contestant: build, then answer the sample, or all, within a limit, as often as asked."""
    task = Task.read(file)
    poses = task.poses
    memory = getrusage(RUSAGE_SELF).ru_maxrss
    module, build = CONTESTANTS[name]
    library, ours = import_module(module), name.startswith(OURS)
    if ours:
        build(library, poses.take(task.sample), options.threads)(poses.take(task.sample))
    # Ends the process, in whatever library it is.
    signal.alarm(0 if name == OURS else options.limit)
    start = time.perf_counter()
    answer = build(library, poses, options.threads)
    told = {"build": time.perf_counter() - start}
    signal.alarm(0)
    pipe.send(told)
    while True:
        what, limit = pipe.recv()
        rows = task.sample if what == "sample" else np.arange(len(poses.group))
        found, seconds = answered(answer, poses, rows, len(rows) if ours else CHUNK, limit)
        told |= {"seconds": seconds, "asked": len(found)}
        told["MB"] = (getrusage(RUSAGE_SELF).ru_maxrss - memory) / 1024
        told["total"] = told["build"] + seconds / len(found) * len(poses.group)
        told["recall"] = task.recall(found if what == "sample" else found[task.sample])
        pipe.send(told)


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


def make(regime: str, rows: int, file: Path, options: argparse.Namespace, pipe: Connection) -> None:
    """Write the poses, and the squared distances of the sample's answers."""
    random = np.random.default_rng(options.seed)
    if regime == "real":
        poses = real(options.poses, rows, random)
    else:
        poses = walks(rows, *WALKS[regime], random)
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
    group = (one.group[row] + copy * len(names)).astype(np.int32)
    return EmbeddedPoses(moved.astype(np.float32), group)


def ours_total(cell: Told) -> float:
    """Seconds of ours for all queries: measured if all were asked."""
    rounds = cell["told"].get(ALL_ASKED, cell["told"][OURS])
    return float(np.median([told["total"] for told in rounds]))


def print_rows(cell: Told) -> None:
    """The rows of one kind and number of poses: medians of the rounds."""
    for name, rounds in cell["told"].items():
        start = f"| {cell['regime']} | {cell['rows']:,} | {name} |"
        if not rounds:
            print(start, "build over the limit |")
            continue
        per_query = np.median([told["seconds"] / told["asked"] * 1e6 for told in rounds])
        total = np.median([told["total"] for told in rounds])
        ratio = np.median([told.get("ratio", 1.0) for told in rounds])
        numbers = [rounds[0]["build"], per_query, total, ratio, total / ours_total(cell)]
        words = [f"{number:,.0f}" if number > 99.9 else f"{number:.3g}" for number in numbers]
        last = rounds[-1]
        words += [f"{last['MB']:.0f}", f"{last['recall']:.4f}"]
        words += [f"{len(rounds)} x {last['asked']:,}"]
        print(start, " | ".join(words), "|", flush=True)


if __name__ == "__main__":
    main()
