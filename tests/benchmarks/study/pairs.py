r"""What makes a mined pair good: one choice at a time changed from the paper's, measured by the
true hands.

    handclr synth footage wild/ --videos 250 --frames 24 --fps 6 --width 384 --height 288
    handclr extract wild/ --fps 6 --look once --no-tracks --with-keypoints -o frame.tar
    handclr keypoints frame.tar -o hands.tar
    handclr extract wild/ --fps 6 --look once | handclr keypoints -o mended.tar
    python tests/benchmarks/study/pairs.py hands.tar --frame frame.tar --mended mended.tar \
        --truth wild/truth --run runs/pairs

3D is the root-aligned distance of a crop to its positive in mm, as `mine --truth` has it; 2D that
of their true keypoints in shares of the crop's side. A crop's truth is the hand whose square
overlaps its own most, as the crop shows it: a left hand taken for a right one is a left one. Crops
without truth are left out of the pool too, so that all variants are asked about the same crops;
where one leaves some without a positive, it is measured on the others. "Best" is the least 3D
distance there is between these crops and any of another video. Intervals are 95 % of the difference
to the paper's setting, by bootstrap of the videos. Pools that are parts of the videos are all
searched, and averaged.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pairs_crops import Crops, read_crops, write_sets

from handclr_cli.contract.npz import read_npz, write_npz
from handclr_cli.evaluation.intervals import PERCENTILES, resampled_means
from handclr_cli.report.curves import save_figure
from handclr_cli.similarity.quality import PairQuality, pair_distance_mm, pair_quality

MEASURES = ("mm", "sides", "embedding", "apart")
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#8c8c8c"


@dataclass(frozen=True)
class Variant:
    """What is changed of the paper's setting: the keypoints, options of `pca` and `mine`, what is
    done with pairs.

    `parts`: the pool is one of so many parts of the videos. `kept`: only this share of the pairs,
    those with the least `by`: the distance of the embeddings, or how far the keypoints found in
    frame and crop are apart in the worse crop.
    """

    factor: str
    name: str
    keypoints: str = "crop"
    pca: tuple[object, ...] = ()
    mine: tuple[object, ...] = ()
    parts: int = 1
    kept: float = 1.0
    by: str = "embedding"

    @property
    def needs(self) -> tuple[str, ...]:
        """The kinds of keypoints that are needed."""
        return (self.keypoints, "frame") if self.by == "apart" else (self.keypoints,)


PAPER = Variant("paper", "the paper's setting")
FINER = ("--normalize", "root-scale", "--dim", 28)
DEEP = ("--keypoints", "both")
KEPT = (0.25, 0.5, 0.75, 0.9)
LEAST = (0.8, 0.9)


def variants() -> Iterator[Variant]:
    """All that is tried, factor by factor."""
    yield Variant("keypoints", "found in the frame", "frame")
    yield Variant("keypoints", "the true ones", "truth")
    for name in ("root", "root-scale", "box"):
        yield Variant("normalisation", name, pca=("--normalize", name))
    yield Variant("normalisation", "root, turned upright", "turned")
    scaled = ("--normalize", "root-scale")
    yield Variant("normalisation", "root-scale, turned upright", "turned", scaled)
    for count in (2, 4, 8, 20, 28, 42):
        yield Variant("dimensions", str(count), pca=("--dim", count))
    for count in (4, 16, 64):
        yield Variant("positive", f"any of the nearest {count}", mine=("--top-k", count))
    distinct = ("--top-k", 16, "--distinct-videos")
    yield Variant("positive", "any of the nearest 16 videos", mine=distinct)
    for kept in KEPT:
        yield Variant("ceiling", f"the nearest {kept:.0%}", kept=kept)
    for kept in KEPT:
        yield Variant("frame and crop agree", f"the {kept:.0%} most alike", kept=kept, by="apart")
    yield Variant("rules", "--symmetric", mine=("--symmetric",))
    yield Variant("rules", "--near-duplicates exclude", mine=("--near-duplicates", "exclude"))
    for parts in (8, 4, 2):
        yield Variant("pool", f"1/{parts} of the videos", parts=parts)
    yield Variant("depth", "world landmarks", pca=("--keypoints", "world"))
    for count in (14, 28, 42):
        yield Variant("depth", f"both, {count} dimensions", pca=(*DEEP, "--dim", count))
    yield Variant("depth", "both, found in the frame, 28", "frame", DEEP)
    yield Variant("sides", "by track", "mended")
    for least in LEAST:
        yield Variant(
            "sides", f"by track, at least {least}", "mended", mine=("--min-side-score", least)
        )
    yield Variant("sides", "all of them right", "right")
    yield Variant("depth and sides", "both, 28, sides by track", "mended", DEEP)
    sure = ("--min-side-score", LEAST[0])
    yield Variant("depth and sides", f"the same, at least {LEAST[0]}", "mended", DEEP, sure)
    yield Variant("depth and sides", "both, 28, all sides right", "right", DEEP)
    yield Variant("together", "root-scale, 28 dimensions", pca=FINER)
    yield Variant("together", "found in the frame, 28 dimensions", "frame", ("--dim", 28))
    yield Variant("together", "found in the frame, root-scale, 28", "frame", FINER)
    yield Variant("together", "the same, the nearest 50%", "frame", FINER, kept=0.5)
    yield Variant("together", "the same, the 90% most alike", "frame", FINER, kept=0.9, by="apart")
    yield Variant("together", "the true ones, root-scale, 28", "truth", FINER)


def chosen(only: Collection[str] | None, kinds: Set[str]) -> Iterator[Variant]:
    """The variants of some factors, or all, for which there are the kinds of keypoints."""
    for variant in variants():
        if (not only or variant.factor in only) and kinds >= set(variant.needs):
            yield variant


def main() -> None:
    arguments = parse()
    run = arguments.run
    run.mkdir(parents=True, exist_ok=True)
    counts, crops, rows = write_sets(arguments), read_crops(run), []
    paper, limits = measured(PAPER, crops, run), {}
    for variant in (PAPER, *chosen(arguments.only, crops.mirrored.keys())):
        kind = variant.keypoints if crops.mirrored[variant.keypoints].any() else PAPER.keypoints
        if kind not in limits:
            limits[kind] = limits_of(kind, crops)
        best = limits[kind].best_mm
        rows.append(row_of(variant, measured(variant, crops, run), paper, best, crops.video))
    about = {
        **counts,
        "videos": len(np.unique(crops.video)),
        "random_mm": float(limits[PAPER.keypoints].random_mm.mean()),
    }
    (run / "pairs.json").write_text(json.dumps({**about, "variants": rows}, indent=2) + "\n")
    print(tables(about, rows))
    draw(about, rows, run / "pairs.png")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "hands", help="crops with the keypoints found in them: of extract | keypoints"
    )
    parser.add_argument("--frame", help="the same crops with the keypoints found in the frame")
    parser.add_argument("--mended", help="crops of the same squares, their sides by track")
    parser.add_argument(
        "--truth", required=True, help="shards with the true hands, of synth footage"
    )
    parser.add_argument("--only", nargs="*", help="factors to measure, such as depth and sides")
    parser.add_argument(
        "--run", type=Path, default=Path("runs/pairs"), help="keep everything here; go on from it"
    )
    return parser.parse_args()


def pairs_of(variant: Variant, crops: Crops, run: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mine a variant, in each part of the videos: rows of the crops (N, k), -1 where none, and
    distances (N, k).
    """
    pose, found = run / f"{slug('pose', variant.keypoints, *variant.pca)}.npz", []
    handclr("pca", run / f"{variant.keypoints}.tar", *variant.pca, output=pose)
    for part in range(variant.parts):
        against = ("--against", part_of(pose, part, variant.parts)) if variant.parts > 1 else ()
        output = run / f"{slug('pairs', pose.stem, *variant.mine, part, variant.parts)}.npz"
        handclr("mine", pose, *variant.mine, *against, output=output)
        arrays, _ = read_npz(str(output), "pairs")
        own, target = (
            np.array([crops.row[key] for key in arrays.get(name, arrays["key"]).tolist()])
            for name in ("key", "target")
        )
        shape = len(crops.video), arrays["positive"].shape[1]
        positive, distance = np.full(shape, -1), np.full(shape, np.inf)
        positive[own] = np.where(arrays["positive"] < 0, -1, target[arrays["positive"]])
        distance[own] = arrays["distance"]
        found.append((positive, distance))
    return found


def limits_of(kind: str, crops: Crops) -> PairQuality:
    """Random and best pairs of all crops, as a kind shows them."""
    every, (joints, _) = np.arange(len(crops.video)), crops.seen_as(kind)
    # Of another video, half the crops away.
    positive = np.roll(every, len(every) // 2)
    return pair_quality(joints, crops.video, every, positive, queries=len(every))


def part_of(pose: Path, part: int, parts: int) -> Path:
    """The poses of every so many of the videos, which are in the order of a lot."""
    path = pose.with_name(f"{slug(pose.stem, part, parts)}.npz")
    if not path.exists():
        arrays, record = read_npz(str(pose), "pose")
        number = np.random.default_rng(0).permutation(len(arrays["video"]))[arrays["video_id"]]
        names = ("key", "video_id", "embedding")
        chosen = {name: arrays[name][number % parts == part] for name in names}
        write_npz(str(path), "pose", {**arrays, **chosen}, record or {})
    return path


def slug(*words: object) -> str:
    return "-".join(str(word).strip("-") for word in words)


def handclr(*words: object, output: Path) -> None:
    """Run a command that writes a file, where that is not there."""
    if not output.exists():
        line = [sys.executable, "-m", "handclr_cli", *map(str, words), "-o", str(output), "-q"]
        if subprocess.run(line).returncode not in (0, 3):  # 3: some crops have no positive
            raise SystemExit(f"failed: {' '.join(line)}")


def measured(variant: Variant, crops: Crops, run: Path) -> np.ndarray:
    """Each crop's MEASURES, the mean over its positives: (4, N), NaN where it has none, or none
    that is kept.
    """
    seen = crops.seen_as(variant.keypoints)
    values = [
        distances(crops, seen, positive, embedding)
        for mined in pairs_of(variant, crops, run)
        for positive, embedding in zip(mined[0].T, mined[1].T, strict=True)
    ]
    with np.errstate(invalid="ignore"):
        found = np.nansum(values, axis=0) / np.isfinite(values).sum(axis=0)
    if variant.kept < 1:
        by = found[MEASURES.index(variant.by)]
        found[:, by > np.nanquantile(by, variant.kept)] = np.nan
    return found


def distances(
    crops: Crops,
    seen: tuple[np.ndarray, np.ndarray],
    positive: np.ndarray,
    embedding: np.ndarray,
) -> np.ndarray:
    true_joints, true_points = seen
    joints = pair_distance_mm(true_joints, true_joints[positive])
    points = np.linalg.norm(true_points - true_points[positive], axis=2).mean(axis=1)
    apart = np.maximum(crops.apart, crops.apart[positive])
    return np.where(positive < 0, np.nan, np.stack([joints, points, embedding, apart]))


def row_of(
    variant: Variant, found: np.ndarray, paper: np.ndarray, best: np.ndarray, video: np.ndarray
) -> dict[str, Any]:
    has = np.isfinite(found[0])
    row = {
        "factor": variant.factor,
        "name": variant.name,
        "kept": float(has.mean()),
        "best": float(best[has].mean()),
    }
    for name, one, other in zip(MEASURES[:2], found[:2], paper[:2], strict=True):
        row |= {name: float(np.nanmean(one)), f"{name}_difference": difference(one, other, video)}
    return row


def difference(values: np.ndarray, reference: np.ndarray, units: np.ndarray) -> list[float]:
    """The mean of values (N,) less that of their reference, NaN left out, and its 95 % interval
    over units (N,).
    """
    means = []
    for one in (values, reference):
        there = np.isfinite(one)[:, None]
        means.append(resampled_means(np.nan_to_num(one)[:, None], there, units))
    interval = np.percentile(means[0] - means[1], PERCENTILES)
    return [float(np.nanmean(values) - np.nanmean(reference)), *interval.tolist()]


def tables(about: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """A markdown table of each factor, the paper's setting first in all."""
    counts = f"{about['crops']:,} crops of {about['videos']} videos"
    counts += f", {about['without_truth']} without truth left out"
    lines = [f"{counts}; 3D distance of a random pair {about['random_mm']:.1f} mm"]
    for factor, group in groupby(rows[1:], key=lambda row: row["factor"]):
        lines.append(f"\n| {factor} | 3D, mm | to the paper's | 2D, sides | kept | best, mm |")
        lines += ["|---|--:|--:|--:|--:|--:|", *(line_of(row) for row in (rows[0], *group))]
    return "\n".join(lines)


def line_of(row: dict[str, Any]) -> str:
    middle, low, high = row["mm_difference"]
    change = "" if row["factor"] == PAPER.factor else f"{middle:+.1f} [{low:+.1f}, {high:+.1f}]"
    numbers = f"{row['sides']:.3f} | {row['kept']:.0%} | {row['best']:.1f}"
    return f"| {row['name']} | {row['mm']:.1f} | {change} | {numbers} |"


def draw(about: dict[str, Any], rows: list[dict[str, Any]], path: Path) -> None:
    """The difference of each variant to the paper's setting, factor by factor."""
    figure = Figure(figsize=(7.2, 0.2 * len(rows) + 2), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    beside = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8}
    place, ticks = 0.0, []
    for factor, group in groupby(rows[1:], key=lambda row: row["factor"]):
        axes.text(0.01, place, factor, weight="bold", **beside)
        for row in group:
            place += 1
            middle, low, high = row["mm_difference"]
            colour = BLUE if high < 0 else ORANGE if low > 0 else GREY
            all_kept = row["kept"] > 0.995
            axes.plot((low, high), (place, place), color=colour, linewidth=1.6)
            inside = {"markerfacecolor": colour if all_kept else "white"}
            axes.plot(middle, place, "o", color=colour, markersize=5, **inside)
            share = "" if all_kept else f" of {row['kept']:.0%}"
            axes.text(1.01, place, f"{row['mm']:.1f} mm{share}", **beside)
            ticks.append((place, row["name"]))
        place += 1.5
    axes.set_yticks(*zip(*ticks, strict=True), fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(place - 0.7, -0.8)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right", "left"]].set_visible(False)
    label = "change of the 3D distance to the positive, mm, with the 95 % interval over videos"
    axes.set_xlabel(label, fontsize=9)
    known = (rows[0]["mm"], about["random_mm"], rows[0]["best"])
    title = "The paper's setting {:.1f} mm; a random pair {:.1f}, the best {:.1f}"
    axes.set_title(title.format(*known), fontsize=9)
    save_figure(figure, path)


if __name__ == "__main__":
    main()
