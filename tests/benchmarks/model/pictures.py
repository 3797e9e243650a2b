r"""The best, median and worst hands of a model on a labelled set, from the front and from the side.

    handclr synth labelled --world wild --count 500 --seed 77 -o wild.tar
    python tests/benchmarks/model/pictures.py wild.tar --sheet docs/model.png

Of each hand two tiles: the crop with the predicted joints, and beside it the hand from the side,
the predicted one in colours on the true one in grey, after root and bone alignment. The caption is
the error after it, in mm.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from handclr_cli.contract.fields import INTRINSICS
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import read_npz
from handclr_cli.hand.alignment import bone_scaled, joint_errors_mm, root_relative
from handclr_cli.hand.camera import project
from handclr_cli.report.sheets import TILE, Tile, add_skeleton, grid_sheet, write_png

GREY = (150, 150, 150)
# Metres across a side view.
ACROSS = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labelled", help="one tar")
    parser.add_argument("--model", default="handclr")
    parser.add_argument("--each", type=int, default=4, help="hands of each kind")
    parser.add_argument("--sheet", required=True)
    options = parser.parse_args()
    arrays = evaluated(options.labelled, options.model)
    index, tiles = ShardIndex([options.labelled]), []
    rows = {key: row for row, key in enumerate(index.keys)}
    hands, truth = arrays["keypoints3d"], arrays["truth3d"]
    errors = joint_errors_mm(hands, truth, "root+bone").mean(axis=1)
    for at in best_median_worst(errors, options.each):
        sample = index[rows[arrays["key"][at].decode()]]
        points = project(hands[at].astype(np.float64), sample.read(INTRINSICS))
        tiles.append(Tile(sample.image, f"{errors[at]:.0f} mm", points))
        tiles.append(Tile(side_view(hands[at], truth[at])))
    write_png(options.sheet, grid_sheet(tiles, 2 * options.each))


def evaluated(labelled: str, model: str) -> dict[str, np.ndarray]:
    """The arrays that evaluate writes."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.npz"
        words = ["evaluate", labelled, "--model", model, "-q", "-o", str(output)]
        subprocess.run([sys.executable, "-m", "handclr_cli", *words], check=True, stdout=sys.stderr)
        return read_npz(str(output), "predictions")[0]


def best_median_worst(errors: np.ndarray, count: int) -> list[int]:
    order = np.argsort(errors)
    middle = (len(order) - count) // 2
    chosen: list[int] = [*order[:count], *order[middle : middle + count], *order[-count:]]
    return chosen


def side_view(hand: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A hand (21, 3) on the true one, seen from the side: depth to the right, down as it is."""
    canvas = np.full((2 * TILE, 2 * TILE, 3), 255, np.uint8)
    right = root_relative(truth.astype(np.float64))
    scaled = bone_scaled(root_relative(hand.astype(np.float64))[None], right[None])[0]
    middle = right[:, [2, 1]].mean(axis=0)
    for pose, width, colour in ((right, 5, GREY), (scaled, 2, None)):
        points = (pose[:, [2, 1]] - middle) * (2 * TILE / ACROSS) + TILE
        add_skeleton(canvas, points, 1.0, width, colour)
    return cv2.resize(canvas, (TILE, TILE), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    main()
