r"""Where predicted hands stand, by several estimators: how far off, and how well that is known.

    python tests/benchmarks/placement.py
    handclr import freihand FreiHAND/ --split eval > test.tar
    handclr predict test.tar --model model.pt > predicted.npz
    python tests/benchmarks/placement.py --labelled test.tar --predictions predicted.npz
    handclr keypoints test.tar > detected.tar && python tests/benchmarks/placement.py \
        --labelled test.tar --detected detected.tar

Drawn hands, with errors of the 2D keypoints in pixels of a 224 px crop and of the pose in mm, each
joint alone, in groups, or 2D and 3D together. A cell is the median error of the wrist's depth in mm
and half the distance of its 16 and 84 % quantiles; `fail` is the share that is not in front of the
camera. The last rows are about the standard deviation that `place` gives. With labelled hands, the
same for real predictions, once at the size predicted and once at the true one, and what errors they
have.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from placement_hands import KINDS, SIDE, Hands, hands, predicted
from placement_peers import PEERS, ours, seen

from handclr_cli.contract.fields import INTRINSICS, KEYPOINTS_2D, KEYPOINTS_3D
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import read_npz
from handclr_cli.hand.camera import project
from handclr_cli.hand.joints import REFERENCE_BONE
from handclr_cli.hand.translation import NOISE_2D, place

# Errors in px and mm.
CELLS = [(2, 4), (4, 8), (6, 8), (10, 8), (4, 12), (2, 12), (10, 4), (10, 12), (0, 8), (10, 0)]
PX = NOISE_2D * SIDE
OURS = "errors in both: place"


def main() -> None:
    options = parse()
    if options.labelled:
        real(options)
        return
    rng = np.random.default_rng(options.seed)
    truth = hands(rng, options.count)
    print(f"{options.count} hands, seed {options.seed}; depth error mm, half of 16-84 %\n")
    for kind in KINDS:
        given = [predicted(rng, truth, *cell, kind) for cell in CELLS]
        print(
            f"| errors {kind} | {' | '.join(f'{px} px {mm} mm' for px, mm in CELLS)} | us | fail |"
        )
        print("|---" + "|--:" * (len(CELLS) + 2) + "|")
        for name in (*PEERS, OURS):
            print_row(name, truth, given)
        print_spread(truth, given)


def print_row(name: str, truth: Hands, given: list[tuple[np.ndarray, np.ndarray]]) -> None:
    cells, behind, began = [], [], time.perf_counter()
    moves = [moved(name, *one, truth.cameras, PX) for one in given]
    spent = time.perf_counter() - began
    for move, (poses, _) in zip(moves, given, strict=True):
        low, middle, high = quantiles(1000 * (move[:, 2] - truth.wrist[:, 2]))
        cells.append(f"{middle:+.0f} ±{(high - low) / 2:.0f}")
        behind.append((move[:, 2] + poses[..., 2].min(1) <= 0).mean())
    each = 1e6 * spent / len(given) / len(truth.wrist)
    print(f"| {name} | {' | '.join(cells)} | {each:.0f} | {np.mean(behind):.1%} |")


def print_spread(truth: Hands, given: list[tuple[np.ndarray, np.ndarray]]) -> None:
    rows: dict[str, list[str]] = {"its sigma, mm": [], "within 1": [], "within 2": []}
    for poses, pixels in given:
        move, sigma = place(poses, pixels, truth.cameras, PX)
        off = np.abs(move[:, 2] - truth.wrist[:, 2]) / sigma
        rows["its sigma, mm"].append(f"{1000 * np.median(sigma):.0f}")
        for limit in (1, 2):
            rows[f"within {limit}"].append(f"{(off < limit).mean():.0%}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} | | |")
    print()


def moved(
    name: str, poses: np.ndarray, pixels: np.ndarray, cameras: np.ndarray, px: float
) -> np.ndarray:
    if name == OURS:
        return ours(poses, pixels, cameras, px)
    return PEERS[name](seen(poses, pixels, cameras, px))


def quantiles(values: np.ndarray) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, (16, 50, 84)).tolist()
    return low, middle, high


def real(options: argparse.Namespace) -> None:
    """Measure predictions of labelled hands, or a detector's 2D keypoints alone."""
    labelled = ShardIndex([str(options.labelled)])
    if options.detected:
        detected = ShardIndex([str(options.detected)])
        keys = [key for key in detected.keys if key in labelled]
        found = [detected[detected.row(key)].read(KEYPOINTS_2D) for key in keys]
        truth = labels(labelled, keys)
        print_errors("2D", np.array(found) - truth.pixels, "px")
        return
    arrays, _ = read_npz(str(options.predictions), "predictions")
    truth = labels(labelled, [key.decode() for key in arrays["key"].tolist()])
    poses = arrays["keypoints3d"] - arrays["keypoints3d"][:, :1].astype(np.float64)
    pixels = arrays["keypoints2d"].astype(np.float64)
    print_errors("2D", pixels - truth.pixels, "px")
    print_errors("3D", 1000 * (poses - truth.relative), "mm")
    size = bone_of(truth.relative) / bone_of(poses)
    for words, given in (("as predicted", poses), ("of the true size", poses * size)):
        print(f"\n| {len(pixels)} hands {words} | mm | us | fail |\n|---|--:|--:|--:|")
        for name in (*PEERS, OURS):
            print_row(name, truth, [(given, pixels)])
        print_spread(truth, [(given, pixels)])


def labels(index: ShardIndex, keys: list[str]) -> Hands:
    samples = [index[index.row(key)] for key in keys]
    points = np.array([sample.read(KEYPOINTS_3D) for sample in samples], np.float64)
    cameras = np.array([sample.read(INTRINSICS) for sample in samples], np.float64)
    pixels = np.array([project(*pair) for pair in zip(points, cameras, strict=True)])
    return Hands(points - points[:, :1], points[:, 0], cameras, pixels)


def print_errors(what: str, errors: np.ndarray, unit: str) -> None:
    """The spread of errors about their mean over a hand, and how many joints err on their own."""
    centred = errors - errors.mean(axis=1, keepdims=True)
    normal = np.median(np.abs(centred)) / 0.6745
    alone = []
    for axis in range(errors.shape[-1]):
        alone.append(21**2 / np.square(np.corrcoef(centred[..., axis].T)).sum())
    joints = ", ".join(f"{count:.1f}" for count in alone)
    print(
        f"{what} errors: {centred.std():.1f} {unit} along an axis ({normal:.1f} by the median), "
        f"as many joints as {joints} on their own along each"
    )


def bone_of(poses: np.ndarray) -> np.ndarray:
    start, end = REFERENCE_BONE
    return np.linalg.norm(poses[:, [end]] - poses[:, [start]], axis=2, keepdims=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000, help="Hands to draw.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labelled", type=Path, help="Labelled hands, as of import.")
    parser.add_argument("--predictions", type=Path, help="Of predict, of the labelled hands.")
    parser.add_argument("--detected", type=Path, help="Of keypoints, of the labelled hands.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
