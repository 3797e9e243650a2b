r"""How often `handclr extract` takes a hand for the other one: with tracks, and by each look alone.

    python tests/benchmarks/sides.py --footage videos/ --fps 5 30 --synthetic wild/ --every 1 6 \
        --sheet flips.png --json sides.json

flip     a pair of crops of two neighbouring sampled frames, those with the largest overlap, 0.3
         (intersection over union of their boxes) or more, each crop once, whose hands are not of
         one side. The sheet shows both crops of each that is left.
wrong    a crop whose hand is not of the side of the true hand that overlaps it most; of synthetic
         footage, every N-th frame of it.
kept     of the crops with a `side_score` of so much or more: the shares of all those of the right
         side and of all those of the wrong one, and the share of wrong ones among them.
seconds  what the command takes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from footage_crops import Place, handclr, linked
from footage_truth import of_synthetic

from handclr_cli.contract.index import ShardIndex
from handclr_cli.hand.square import Box
from handclr_cli.report.sheets import Tile, grid_sheet, write_png

EDGES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0)
SHOWN = 60
Row = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A crop as its JSON tells it; `row` in its shard."""

    row: int
    place: Place
    time_s: float
    side: str
    box: Box
    side_score: float


def main() -> None:
    arguments = parse()
    result: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        for fps in arguments.fps if arguments.footage else ():
            for how in ("no-tracks", "tracks"):
                shard = work / f"footage-{fps:g}-{how}.tar"
                row = extracted(arguments.footage, ("--fps", fps), how, shard, arguments.workers)
                pairs = list(neighbours(seen(shard), fps))
                flips = [(one, other) for one, other in pairs if one.side != other.side]
                row |= {"pairs": len(pairs), "flips": len(flips)}
                row["per_1000"] = round(1000 * len(flips) / max(1, len(pairs)), 1)
                result[f"footage at {fps:g} fps, {how}"] = row
                if how == "tracks" and arguments.sheet:
                    draw(shard, flips, arguments.sheet.with_stem(f"{arguments.sheet.stem}-{fps:g}"))
        for every in arguments.every if arguments.synthetic else ():
            for how in ("no-tracks", "tracks"):
                shard = work / f"synthetic-{every}-{how}.tar"
                sampling = ("--every", every)
                row = extracted([arguments.synthetic], sampling, how, shard, arguments.workers)
                row |= of_labelled(arguments.synthetic, every, seen(shard))
                result[f"synthetic, every {every}, {how}"] = row
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def extracted(
    footage: Sequence[Path], sampling: Sequence[object], how: str, shard: Path, workers: int
) -> Row:
    """Run extract, where that is not done yet."""
    if shard.exists():
        return {}
    begin = time.perf_counter()
    handclr("extract", *footage, *sampling, f"--{how}", "--workers", workers, "-q", "-o", shard)
    return {"seconds": round(time.perf_counter() - begin, 1)}


def seen(shard: Path) -> list[Seen]:
    return [
        Seen(
            row,
            (sample.info["video"], sample.info["frame"]),
            sample.info["time_s"],
            sample.info["hand"],
            tuple(sample.info["box"]),
            sample.info.get("side_score", sample.info["score"]),
        )
        for row, sample in enumerate(ShardIndex([str(shard)]))
    ]


def neighbours(crops: Sequence[Seen], fps: float) -> Iterator[tuple[Seen, Seen]]:
    """Pairs of crops of one hand in neighbouring sampled frames."""
    frames = defaultdict(list)
    for crop in crops:
        frames[crop.place].append(crop)
    places = sorted(frames)
    for before, after in pairwise(places):
        first, second = frames[before], frames[after]
        # Frames without a hand have no crop; where the film has fewer frames, none lies between.
        near = second[0].time_s - first[0].time_s < 1.5 * max(1 / fps, least_step(first, second))
        if before[0] == after[0] and near:
            yield from linked(first, second)


def least_step(first: Sequence[Seen], second: Sequence[Seen]) -> float:
    """Seconds a frame, of two frames of one film, told by their numbers."""
    frames = second[0].place[1] - first[0].place[1]
    return (second[0].time_s - first[0].time_s) / max(frames, 1)


def of_labelled(root: Path, every: int, crops: Sequence[Seen]) -> Row:
    frames = defaultdict(list)
    for crop in crops:
        frames[crop.place].append(crop)
    found = []
    for place, hands in of_synthetic(root).hands.items():
        if place[1] % every == 0:
            found += list(linked(hands, frames[place]))
    right = np.array([hand.side == crop.side for hand, crop in found])
    score = np.array([crop.side_score for _, crop in found])
    bins = np.digitize(score, EDGES[1:-1])
    return {
        "hands": len(right),
        "wrong": round(float(1 - right.mean()), 4),
        "wrong_by_side_score": {
            f"{low:g} to {high:g}": [int((~right)[bins == row].sum()), int((bins == row).sum())]
            for row, (low, high) in enumerate(pairwise(EDGES))
        },
        "kept": {f"{edge:g}": kept(right, score >= edge) for edge in EDGES[1:-1]},
    }


def kept(right: np.ndarray, chosen: np.ndarray) -> Row:
    return {
        "of_right": round(float(chosen[right].mean()), 4),
        "of_wrong": round(float(chosen[~right].mean()), 4) if not right.all() else None,
        "wrong_among_them": round(float(1 - right[chosen].mean()), 4),
    }


def draw(shard: Path, flips: Sequence[tuple[Seen, Seen]], path: Path) -> None:
    """The two crops of each flip one beside the other."""
    index, tiles = ShardIndex([str(shard)]), []
    for pair in flips[:SHOWN]:
        for crop in pair:
            words = f"{crop.place[0].rpartition('/')[2]} {crop.place[1]}"
            tiles.append(Tile(index[crop.row].image, f"{words}\n{crop.side} {crop.side_score:.2f}"))
    if tiles:
        write_png(path, grid_sheet(tiles, 10))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--footage", type=Path, nargs="*", help="videos, or folders of them")
    parser.add_argument("--fps", type=float, nargs="*", default=[5.0])
    parser.add_argument("--synthetic", type=Path, help="made by handclr synth footage")
    parser.add_argument("--every", type=int, nargs="*", default=[1], help="of synthetic footage")
    parser.add_argument("--work", type=Path, help="keep what the commands write, and go on from it")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sheet", type=Path, help="flips that are left, PNG")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
