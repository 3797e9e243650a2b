"""How fast extract and keypoints are beside plain loops, and how much memory they take.

    python tests/benchmarks/extraction.py speed videos/ --fps 5 --copies 3 --rounds 3
    python tests/benchmarks/extraction.py memory --hours 2

speed: frames a second over the same frames, in turn, each a command of its own that is timed from
start to end. one: a loop of cv2.VideoCapture.grab, .retrieve of the sampled frames and
HandLandmarker.detect, in one process with the threads that OpenCV takes; it neither crops nor
writes. several: as many of these at once as there are workers, each on one thread, each over all
the footage; their sum is the limit. cropping: the same, and each loop cuts the hands out and
encodes them, which is work that extract cannot leave out. Likewise for keypoints: the loop decodes
crops and looks for hands with the same padding. `copies` of the footage make starting up, the same
for all, a small part.

memory: resident megabytes of the command and of each of its processes, every two seconds, over one
long video.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

HANDCLR = [sys.executable, "-m", "handclr_cli"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["speed", "memory", "loop", "keypoint-loop"])
    parser.add_argument("footage", nargs="*", type=Path)
    parser.add_argument("--fps", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--stages", nargs="+", choices=["extract", "keypoints"], default=["extract", "keypoints"]
    )
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--crops", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write all numbers")
    options = parser.parse_args()
    run = {
        "speed": speed,
        "memory": memory,
        "loop": loop,
        "keypoint-loop": keypoint_loop,
    }
    with tempfile.TemporaryDirectory() as folder:
        found = run[options.what](options, Path(folder))
    if options.json and found is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def speed(options: argparse.Namespace, folder: Path) -> dict[str, dict[str, list[float]]]:
    """Time the contestants in turn."""
    footage = copies(options.footage, options.copies, folder / "footage")
    crops = folder / "crops.tar"
    # One look, as the loop takes; looks.py has the other ways.
    how = ["--fps", options.fps, "--look", "once", "--no-tracks", "--workers", options.workers]
    ours = ["extract", footage, *how, "-q", "-o"]
    seconds([*HANDCLR, *ours, crops])
    keypoints = ["keypoints", crops, "--workers", options.workers, "-q", "-o"]
    plain = [sys.executable, __file__, "--fps", options.fps]
    stages = {
        "extract": ([*HANDCLR, *ours, folder / "again.tar"], [*plain, "loop", footage]),
        "keypoints": (
            [*HANDCLR, *keypoints, folder / "hands.tar"],
            [*plain, "keypoint-loop", crops],
        ),
    }
    told: dict[str, dict[str, list[float]]] = {}
    for stage in options.stages:
        command, peer = stages[stage]
        told[stage] = rates = {"one": [], "several": [], "cropping": [], "handclr": []}
        if stage != "extract":
            del rates["cropping"]
        for number in range(options.rounds):
            items = round_of(stage, command, peer, options.workers, rates)
            told_now = ", ".join(f"{name} {values[-1]:.1f}/s" for name, values in rates.items())
            print(f"{stage}, round {number + 1}: {told_now}", file=sys.stderr, flush=True)
        print_shares(f"{stage}, {items:,} items", rates)
    return told


def round_of(
    stage: str,
    command: Sequence[object],
    peer: Sequence[object],
    workers: int,
    rates: dict[str, list[float]],
) -> int:
    """Let each contestant have its turn, and note its rate; gives how many items there are."""
    begin = time.perf_counter()
    line = list(map(str, peer))
    items = int(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    rates["one"].append(items / (time.perf_counter() - begin))
    together = seconds([*peer, "--threads", 1], workers)
    rates["several"].append(workers * items / together)
    if stage == "extract":
        together = seconds([*peer, "--threads", 1, "--crops"], workers)
        rates["cropping"].append(workers * items / together)
    rates["handclr"].append(items / seconds(command))
    return items


def print_shares(title: str, rates: dict[str, list[float]]) -> None:
    ours = rates["handclr"]
    for name, theirs in rates.items():
        if name != "handclr":
            shares = [one / other for one, other in zip(ours, theirs, strict=True)]
            rounds = ", ".join(f"{share:.2f}" for share in shares)
            both = f"{name} {median(theirs):.1f}/s, handclr {median(ours):.1f}/s"
            print(f"{title}: {both}, {median(shares):.2f} of it ({rounds})", flush=True)


def seconds(command: Sequence[object], times: int = 1) -> float:
    """Wall time of a command, or of several of it at once."""
    begin = time.perf_counter()
    started = [
        subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL) for _ in range(times)
    ]
    if any(process.wait() not in (0, 3) for process in started):
        sys.exit(f"{command} failed")
    return time.perf_counter() - begin


def copies(footage: Sequence[Path], count: int, folder: Path) -> Path:
    """The footage several times, as files of their own: what is a link to the same file is read
    once.
    """
    for number in range(count):
        for path in footage:
            target = folder / str(number) / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
    return folder


def loop(options: argparse.Namespace, folder: Path) -> None:
    """What people write; prints how many frames it has looked at."""
    import cv2
    from mediapipe import Image, ImageFormat

    from handclr_cli.footage.finding import find_footage

    if options.threads:
        cv2.setNumThreads(options.threads)
    looked = 0
    with detector() as landmarker:
        for item in find_footage([str(path) for path in options.footage]):
            threads = [cv2.CAP_PROP_N_THREADS, options.threads] if options.threads else []
            capture = cv2.VideoCapture(str(item.files[0]), cv2.CAP_FFMPEG, threads)
            tick = -1
            while capture.grab():
                now = int(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000 * options.fps + 1e-6)
                if now > tick:
                    tick = now
                    image = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
                    found = landmarker.detect(Image(image_format=ImageFormat.SRGB, data=image))
                    if options.crops:
                        crops_of(image, found)
                    looked += 1
    print(looked)


def crops_of(image, found):  # type: ignore[no-untyped-def]
    """The hands of a frame as JPEG bytes, cut as extract cuts them."""
    from handclr_cli.contract.fields import encode_image
    from handclr_cli.hand.square import cut, square_box

    height, width = image.shape[:2]
    for marks, sides in zip(found.hand_landmarks, found.handedness, strict=True):
        points = np.array([(mark.x, mark.y) for mark in marks]) * (width, height)
        encode_image(cut(image, square_box(points, 1.5), 224, sides[0].category_name == "Left"))


def detector():  # type: ignore[no-untyped-def]
    """MediaPipe's landmarker as extract sets it."""
    from mediapipe.tasks.python import BaseOptions, vision

    from handclr_cli.footage.model_file import model_file

    base = BaseOptions(model_asset_path=str(model_file(None, print)))
    return vision.HandLandmarker.create_from_options(
        vision.HandLandmarkerOptions(base_options=base, num_hands=2)
    )


def keypoint_loop(options: argparse.Namespace, folder: Path) -> None:
    """Decode crops one by one and look for a hand with every padding; prints how many crops there
    were.
    """
    import cv2

    from handclr_cli.contract.shards import read_samples
    from handclr_cli.footage.keypoints import find_keypoints
    from handclr_cli.footage.landmarker import Landmarker
    from handclr_cli.footage.model_file import model_file

    if options.threads:
        cv2.setNumThreads(options.threads)
    looked = 0
    with Landmarker(model_file(None, print)) as landmarker:
        for sample in read_samples([str(options.footage[0])]):
            find_keypoints(sample.image, landmarker)
            looked += 1
    print(looked)


def memory(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Megabytes of every process over one long video of moving hands."""
    film = folder / "long.mp4"
    write_long(film, options.footage, options.hours)
    how = ["--fps", options.fps, "--workers", options.workers, "-o", folder / "crops.tar"]
    process = subprocess.Popen(list(map(str, [*HANDCLR, "extract", film, *how])))
    sampled: dict[str, list[float]] = {}
    while process.poll() is None:
        for pid in (process.pid, *children(process.pid)):
            if megabytes := resident(pid):
                name = "command" if pid == process.pid else f"worker {pid}"
                sampled.setdefault(name, []).append(megabytes)
        time.sleep(2)
    for name, values in sampled.items():
        if len(values) > 20:
            half = len(values) // 2
            most = f"first half at most {max(values[5:half]):.0f} MB"
            print(f"{name}: {len(values)} samples, {most}, second {max(values[half:]):.0f} MB")
    return sampled


def write_long(film: Path, footage: Sequence[Path], hours: float) -> None:
    """A long film: short ones repeated without decoding, or a moving test picture where none is
    named.
    """
    import imageio_ffmpeg

    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    source = ["-f", "lavfi", "-i", "testsrc2=s=320x240:r=10"]
    coded = ["-c:v", "libx264", "-preset", "ultrafast"]
    if footage:
        source = ["-stream_loop", "-1", "-i", str(footage[0])]
        coded = ["-c", "copy", "-an"]
    command = [ffmpeg, "-v", "error", *source, "-t", str(3600 * hours), *coded, str(film)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def children(pid: int) -> list[int]:
    """The processes that a process has started, except helpers that take next to nothing."""
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, IndexError):
        return 0.0


if __name__ == "__main__":
    main()
