"""How fast `handclr predict` goes through every frame of a video, beside a plain loop.

    python tests/benchmarks/predicting.py clip.mp4 --rounds 2

The loop decodes each frame by OpenCV and gives it to MediaPipe's hand landmarker, which pads it to
a square and looks once; it follows nothing, and writes nothing. `predict` runs in this process, as
one of its workers does, with the landmarker's own 3D: it decodes, looks as its option says, follows
the hands, places them in space and writes a CSV. Both make a landmarker of their own. Frames a
second by the clock, hands, and the ratio of predict's speed to the loop's by the clock and by the
processor's time; the rounds go by turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2

from handclr_cli import console
from handclr_cli.footage.landmarker import Landmarker
from handclr_cli.footage.model_file import model_file
from handclr_cli.prediction.predict_job import run_predict
from handclr_cli.prediction.settings import PredictSettings

LOOKS = ("once", "border", "tiles")


class Pass(NamedTuple):
    """One pass over a video: frames, hands, seconds by the clock and by the processor's time."""

    frames: int
    hands: int
    clock_s: float
    processor_s: float


def timed(work: Callable[[], tuple[int, int]]) -> Pass:
    """Time one pass."""
    clock, processor = time.monotonic(), time.process_time()
    frames, hands = work()
    return Pass(frames, hands, time.monotonic() - clock, time.process_time() - processor)


def plain_loop(video: Path) -> tuple[int, int]:
    """Look once at each frame."""
    frames = hands = 0
    capture = cv2.VideoCapture(str(video))
    with Landmarker(model_file(None, print)) as landmarker:
        while (read := capture.read())[0]:
            hands += len(landmarker.find(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)))
            frames += 1
    return frames, hands


def predict(video: Path, look: str) -> tuple[int, int]:
    """Go through all frames as the command does."""
    with tempfile.TemporaryDirectory() as place:
        settings = PredictSettings(
            inputs=[str(video)],
            model="mediapipe",
            output=f"{place}/poses.csv",
            look=look,  # type: ignore[arg-type]
            workers=0,
        )
        done = run_predict(settings)
    assert done.pace is not None
    return done.pace.frames, done.hands.total()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    console.State.quiet = True
    console.silence_native_libraries()
    cv2.setNumThreads(1)
    for video in arguments.videos:
        plain_loop(video)
        print(f"{video.name}: {'':12s} frames hands frames/s   clock processor", flush=True)
        for _ in range(arguments.rounds):
            loop = timed(lambda: plain_loop(video))  # noqa: B023 - called at once
            _print("plain loop", loop, loop)
            for look in LOOKS:
                _print(look, timed(lambda: predict(video, look)), loop)  # noqa: B023


def _print(name: str, own: Pass, loop: Pass) -> None:
    ratios = loop.clock_s / own.clock_s, loop.processor_s / own.processor_s
    speed = own.frames / own.clock_s
    print(
        f"  {name:20s} {own.frames:6d} {own.hands:5d} {speed:8.1f} "
        f"{ratios[0]:7.2f} {ratios[1]:9.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
