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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", choices=WORLDS, default="lab")
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--moments", type=int, default=3, help="pictures of each scene")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="draw the frames")
    parser.add_argument("--columns", type=int, default=20, help="of the sheet")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, tiles, seconds = [], [], 0.0
    with Landmarker(model_file(None, print), 2, 0.5) as landmarker:
        for index in range(arguments.scenes):
            scene = Scene(
                WORLDS[arguments.world],
                arguments.seed,
                index,
                (480, 360),
                frames=arguments.moments,
                fps=1.0,
            )
            for moment in range(arguments.moments):
                begin = time.perf_counter()
                shot = scene.shoot(moment)
                seconds += time.perf_counter() - begin
                found = landmarker.find(shot.image)
                rows += [score(shot, hand, found) for hand in shot.hands]
                tiles.append(tile(shot, rows[-len(shot.hands) :], f"{index}/{moment}"))
    hit = np.array([row["found"] for row in rows])
    error = np.array([row["error"] for row in rows])[hit]
    print(
        json.dumps(
            {
                "world": arguments.world,
                "frames": arguments.scenes * arguments.moments,
                "hands": len(rows),
                "detected": round(float(hit.mean()), 4),
                "median_error_of_palm": round(float(np.median(error)), 4),
                "p90_error_of_palm": round(float(np.percentile(error, 90)), 4),
                "handedness_agrees": round(
                    float(np.mean([row["side"] for row in rows if row["found"]])), 4
                ),
                "seconds_per_frame": round(seconds / (arguments.scenes * arguments.moments), 3),
            }
        )
    )
    if arguments.sheet:
        write_png(arguments.sheet, grid_sheet(tiles, arguments.columns))


def score(shot: Shot, hand: HandTruth, found: list[Hand]) -> dict[str, float | bool]:
    """Compare one true hand with the nearest detection."""
    truth = project(hand.keypoints3d, shot.intrinsics)
    palm = (
        np.linalg.norm(hand.keypoints3d[9] - hand.keypoints3d[0])
        * shot.intrinsics[0, 0]
        / hand.keypoints3d[:, 2].mean()
    )
    errors = [float(np.linalg.norm(one.keypoints - truth, axis=1).mean() / palm) for one in found]
    if not errors or min(errors) > 0.5:
        return {"found": False, "error": np.nan, "side": False}
    best = int(np.argmin(errors))
    return {"found": True, "error": errors[best], "side": found[best].side == hand.side}


def tile(shot: Shot, rows: list[dict[str, float | bool]], name: str) -> Tile:
    """A small picture with what came of its hands."""
    words = [
        f"{row['error']:.2f}" + ("" if row["side"] else " side") if row["found"] else "MISSED"
        for row in rows
    ]
    return Tile(cv2.resize(shot.image, (160, 120)), f"{name} {', '.join(words)}")


if __name__ == "__main__":
    main()
