"""How fast footage is decoded beside a plain OpenCV loop, with one process and with two.

    python tests/benchmarks/decoding.py videos/ --fps 5 --rounds 5

opencv: cv2.VideoCapture.grab on every frame, .retrieve and cvtColor on the sampled ones, on one
thread. handclr: read_frames, on its one thread. In turn, over the same videos; a rate is of frames
decoded, by the processor's time and by the clock, and a share that of handclr over opencv in the
same round.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from multiprocessing import get_context
from statistics import median

from handclr_cli.footage.decoding import read_header
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Sampling
from handclr_cli.footage.video import read_frames

Task = tuple[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("footage", nargs="+", type=str)
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    videos = [item for item in find_footage(options.footage) if item.is_video]
    tasks = [(str(item.files[0]), options.fps) for item in videos]
    frames = sum(read_header(item.files[0]).frames for item in videos)
    print(f"{len(tasks)} videos, at least {frames:,} frames")
    for processes in (1, 2):
        rates = [turn(tasks, processes) for _ in range(options.rounds)]
        for clock in ("processor", "wall"):
            print(told(processes, clock, rates))


def turn(tasks: list[Task], processes: int) -> dict[str, float]:
    """The rates of both, by both clocks."""
    found = {}
    for name, read in (("opencv", with_opencv), ("handclr", with_handclr)):
        with get_context("spawn").Pool(processes) as pool:
            pool.map(read, tasks[:processes], 1)
            begin = time.perf_counter()
            done = pool.map(read, tasks, 1)
            wall = time.perf_counter() - begin
        frames, seconds = map(sum, zip(*done, strict=True))
        found[f"{name} processor"] = frames / seconds
        found[f"{name} wall"] = frames / wall
    return found


def told(processes: int, clock: str, rates: list[dict[str, float]]) -> str:
    ours = [rate[f"handclr {clock}"] for rate in rates]
    theirs = [rate[f"opencv {clock}"] for rate in rates]
    shares = [one / other for one, other in zip(ours, theirs, strict=True)]
    rounds = ", ".join(f"{share:.2f}" for share in shares)
    both = f"opencv {median(theirs):,.0f}/s, handclr {median(ours):,.0f}/s"
    return f"{processes} processes, {clock}: {both}, {median(shares):.3f} of it ({rounds})"


def with_opencv(task: Task) -> tuple[int, float]:
    """Decode a video; how many frames it has, and the processor's seconds."""
    import cv2

    def read(path: str, fps: float) -> int:
        capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        count, tick = 0, -1
        while capture.grab():
            count += 1
            now = int(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 * fps + 1e-6)
            if now > tick:
                tick = now
                cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
        return count

    return timed(read, task)


def with_handclr(task: Task) -> tuple[int, float]:
    """Decode a video; how many frames it has, and the processor's seconds."""
    from handclr_cli.footage.roll import Roll

    def read(path: str, fps: float) -> int:
        counts = [0]
        forward = Roll.forward

        def counted(roll: Roll) -> bool:
            more = forward(roll)
            counts[0] = max(counts[0], roll.count + 1)
            return more

        Roll.forward = counted  # type: ignore[method-assign]
        try:
            (footage,) = find_footage([path])
            for _ in read_frames(footage, Sampling(fps=fps), lambda error: None):
                pass
        finally:
            Roll.forward = forward  # type: ignore[method-assign]
        return counts[0]

    return timed(read, task)


def timed(read: Callable[[str, float], int], task: Task) -> tuple[int, float]:
    begin = time.process_time()
    count = read(*task)
    return count, time.process_time() - begin


if __name__ == "__main__":
    main()
