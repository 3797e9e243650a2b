"""How well MediaPipe finds synthetic hands: detection rate, keypoint error, handedness, and the
cost of a frame.

    python tests/benchmarks/synthetic_hands.py --world lab

Each of --scenes scenes (a person in a place) is photographed --moments times. A hand counts as
found where a detection lies on it (mean distance of the keypoints below half a palm); errors are of
the found ones, over the length of the palm (wrist to middle finger's base) seen without
foreshortening.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import torch

from handclr_cli.footage.frames import Hand
from handclr_cli.footage.landmarker import Landmarker
from handclr_cli.footage.model_file import model_file
from handclr_cli.hand.camera import project
from handclr_cli.report.sheets import Tile, grid_sheet, write_png
from handclr_cli.synth.scenes import Scene
from handclr_cli.synth.shot import HandTruth, Shot
from handclr_cli.synth.worlds import WORLDS


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    rows, tiles, seconds = [], [], 0.0
    world, length = WORLDS[arguments.world], {"frames": arguments.moments, "fps": 1.0}
    with Landmarker(model_file(None, print), 2, 0.5) as landmarker:
        for index, moment in product(range(arguments.scenes), range(arguments.moments)):
            if moment == 0:
                scene = Scene(world, arguments.seed, index, (480, 360), **length)
            begin = time.perf_counter()
            shot = scene.shoot(moment)
            seconds += time.perf_counter() - begin
            found = landmarker.find(shot.image)
            rows += [score(shot, hand, found) for hand in shot.hands]
            tiles.append(tile(shot, rows[-len(shot.hands) :], f"{index}/{moment}"))
    frames = arguments.scenes * arguments.moments
    told = {"world": arguments.world, "frames": frames, **summary(rows)}
    print(json.dumps(told | {"seconds_per_frame": round(seconds / frames, 3)}))
    if arguments.sheet:
        write_png(arguments.sheet, grid_sheet(tiles, arguments.columns))


def summary(rows: list[dict[str, float | bool]]) -> dict[str, float]:
    """Shares of all hands, and errors of those found."""
    hit = np.array([row["found"] for row in rows])
    error = np.array([row["error"] for row in rows])[hit]
    agrees = np.array([row["side"] for row in rows])[hit]
    return {
        "hands": len(rows),
        "detected": round(float(hit.mean()), 4),
        "median_error_of_palm": round(float(np.median(error)), 4),
        "p90_error_of_palm": round(float(np.percentile(error, 90)), 4),
        "handedness_agrees": round(float(np.mean(agrees)), 4),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", choices=WORLDS, default="lab")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--moments", type=int, default=3, help="pictures of each scene")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="draw the frames")
    parser.add_argument("--columns", type=int, default=20, help="of the sheet")
    return parser.parse_args()


def score(shot: Shot, hand: HandTruth, found: list[Hand]) -> dict[str, float | bool]:
    """Compare one true hand with the nearest detection."""
    truth = project(hand.keypoints3d, shot.intrinsics)
    palm = palm_px(shot, hand)
    errors = [float(np.linalg.norm(one.keypoints - truth, axis=1).mean() / palm) for one in found]
    if not errors or min(errors) > 0.5:
        return {"found": False, "error": np.nan, "side": False}
    best = int(np.argmin(errors))
    return {"found": True, "error": errors[best], "side": found[best].side == hand.side}


def palm_px(shot: Shot, hand: HandTruth) -> float:
    """The palm's length in pixels, seen without foreshortening."""
    length = np.linalg.norm(hand.keypoints3d[9] - hand.keypoints3d[0])
    return float(length * shot.intrinsics[0, 0] / hand.keypoints3d[:, 2].mean())


def tile(shot: Shot, rows: list[dict[str, float | bool]], name: str) -> Tile:
    """A small picture with what came of its hands."""
    words = []
    for row in rows:
        found = f"{row['error']:.2f}{'' if row['side'] else ' side'}"
        words.append(found if row["found"] else "MISSED")
    return Tile(cv2.resize(shot.image, (160, 120)), f"{name} {', '.join(words)}")


if __name__ == "__main__":
    main()
