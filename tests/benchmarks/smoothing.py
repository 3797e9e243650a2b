r"""What filtering tracks over time does to the hands of `handclr predict`, on film with truth.

    handclr synth footage smooth30 --videos 10 --frames 75 --fps 30 --width 384 --height 288 \
        --seed 11
    handclr synth footage smooth12 --videos 15 --frames 60 --fps 12 --width 384 --height 288 \
        --seed 7
    python tests/benchmarks/smoothing.py smooth30 smooth12

Each line is a filter of MediaPipe's poses and pixels before the hands are placed by the true
camera, or, where it says so, of the placed hands. Over all hands of tracks of five frames and more
that were found, with 95 % intervals over the videos:

pose     mean distance of the joints, mm, after moving the wrists together and scaling the bone
wrist    mean distance of the wrist in the camera's frame, mm
2D       mean error in pixels of the frame
jitter   mean length of the second difference in time of a joint's error, over three successive
         frames, mm
lag      by how many ms the truth has to be late to fit the wrist's path best, 2D; median of tracks
in sigma share of hands whose wrist's depth is off by less than their `depth_sigma`
kept     of the amplitude of movements back and forth 2.5 and 5 times a second, a quarter of a
         hand to each side; 2.5 is how often the hand nods in the sign "yes" of a real film
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handclr_cli.contract.fields import INTRINSICS
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.inputs import expand_inputs
from handclr_cli.contract.sample import Sample
from handclr_cli.evaluation.intervals import PERCENTILES, resampled_means
from handclr_cli.hand.alignment import bone_scaled, root_relative
from handclr_cli.hand.camera import crop_camera, project, source_camera
from handclr_cli.hand.joints import WRIST
from handclr_cli.hand.placement import GIVEN, Cut, cut_of, placed
from handclr_cli.hand.smoothing import WINDOW_S, smooth
from handclr_cli.hand.square import to_crop, to_source

# Takes values in lengths of the hand, and their times.
Filter = Callable[[np.ndarray, np.ndarray], np.ndarray]
LEAST = 5
HAND_M = 0.1
WINDOWS = (0.17, 0.23, 0.3, 0.37, 0.5, 0.7)
EUROS = [(least, beta) for least in (0.5, 1.0, 2.0) for beta in (0.0, 0.3, 1.0, 3.0)]


@dataclass(frozen=True)
class Hands:
    """Found hands, N rows, those of each track in the order of the frames in `tracks`."""

    xyz: np.ndarray
    points: np.ndarray
    cuts: list[Cut]
    video: np.ndarray
    frame: np.ndarray
    times: np.ndarray
    tracks: list[np.ndarray]


@dataclass(frozen=True)
class Truth:
    """In the source: joints (N, 21, 3) metres, and (N, 21, 2) pixels."""

    joints: np.ndarray
    points: np.ndarray


def main() -> None:
    arguments = parse()
    for folder in arguments.footage:
        report(folder, chosen(everything=arguments.all))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("footage", nargs="+", type=Path)
    parser.add_argument("--all", action="store_true", help="All windows and parameters.")
    return parser.parse_args()


def chosen(*, everything: bool) -> dict[str, tuple[Filter, bool]]:
    """Filters by name, and whether they come after placing."""
    filters = {
        "as predicted": (unfiltered, False),
        "1 euro": (one_euro(1.0, 1.0), False),
        "1 euro, both ways": (one_euro(1.0, 1.0, both_ways=True), False),
        "Savitzky-Golay": (savitzky_golay(WINDOW_S), False),
    }
    if everything:
        filters["Savitzky-Golay, after placing"] = (savitzky_golay(WINDOW_S), True)
        for window in WINDOWS:
            filters[f"Savitzky-Golay, {window} s"] = (savitzky_golay(window), False)
        for least, beta in EUROS:
            name = f"1 euro, {least} Hz, {beta}"
            filters[name] = (one_euro(least, beta), False)
            filters[f"{name}, both ways"] = (one_euro(least, beta, both_ways=True), False)
    return filters


def extracted(footage: Path) -> Iterator[Sample]:
    with tempfile.TemporaryDirectory() as place:
        shard = Path(place) / "hands.tar"
        command = [sys.executable, "-m", "handclr_cli", "extract", footage, "-o", shard, "-q"]
        subprocess.run([*command, "--every", "1", "--with-keypoints"], check=True)
        yield from ShardIndex([str(shard)])


def hands_of(samples: Sequence[Sample], cuts: list[Cut]) -> Hands:
    points = []
    for sample, cut in zip(samples, cuts, strict=True):
        points.append(to_source(sample.keypoints2d, cut.box, cut.side, cut.flipped))
    tracks: dict[tuple[str, int], list[int]] = {}
    frames = np.array([sample.info["frame"] for sample in samples])
    for row in np.argsort(frames, kind="stable").tolist():
        tracks.setdefault((samples[row].video, samples[row].info["track"]), []).append(row)
    return Hands(
        np.array([sample.world3d for sample in samples], np.float64),
        np.array(points),
        cuts,
        np.array([sample.video for sample in samples]),
        frames,
        np.array([sample.info["time_s"] for sample in samples]),
        [np.array(rows) for rows in tracks.values() if len(rows) >= LEAST],
    )


def with_truth(folder: Path) -> tuple[Hands, Truth]:
    """Find the hands in the footage of a folder and match them with their truth."""
    labelled = {}
    for sample in ShardIndex(expand_inputs([str(folder / "truth")])):
        labelled[sample.info["video"], sample.info["frame"], sample.hand] = sample
    samples, cuts, joints, points = [], [], [], []
    for sample in extracted(folder):
        real = labelled.get((sample.info["video"], sample.info["frame"], sample.hand))
        if real is None:
            continue
        lens, there = real.read(INTRINSICS).astype(np.float64), cut_of(real, 60.0)
        camera = source_camera(lens, there.box, there.side, there.flipped)
        cut = cut_of(sample, 60.0)
        own = crop_camera(camera, cut.box, cut.side, cut.flipped)
        cuts.append(Cut(cut.side, cut.box, cut.flipped, own, GIVEN))
        samples.append(sample)
        mirror = np.array([-1.0 if there.flipped else 1.0, 1.0, 1.0])
        joints.append(real.keypoints3d * mirror)
        points.append(project(joints[-1], camera))
    return hands_of(samples, cuts), Truth(np.array(joints), np.array(points))


def filtered(hands: Hands, values: np.ndarray, length: np.ndarray, apply: Filter) -> np.ndarray:
    """Values (N, 21, C) filtered track by track; `length` (N,) is that of a hand in their unit."""
    values = values.copy()
    for rows in hands.tracks:
        unit = np.median(length[rows])
        values[rows] = unit * apply(values[rows] / unit, hands.times[rows])
    return values


def put(hands: Hands, apply: Filter, *, behind: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place hands, filtered before or behind; 3D and 2D of the source, and `depth_sigma`."""
    metres, pixels = np.full(len(hands.xyz), HAND_M), np.ptp(hands.points, axis=1).max(axis=1)
    first = unfiltered if behind else apply
    xyz, points = (
        filtered(hands, hands.xyz, metres, first),
        filtered(hands, hands.points, pixels, first),
    )
    uv = []
    for at, cut in zip(points, hands.cuts, strict=True):
        uv.append(to_crop(at, cut.box, 1, cut.flipped))
    found = placed(xyz, np.array(uv), hands.cuts)
    joints, points = found.source3d.astype(np.float64), found.source2d.astype(np.float64)
    if behind:
        joints = filtered(hands, joints, metres, apply)
        points = filtered(hands, points, pixels, apply)
    return joints, points, found.depth_sigma


def unfiltered(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Nothing is done."""
    return values


def savitzky_golay(window_s: float) -> Filter:
    """The filter of the product with a window."""
    return lambda values, times: smooth(values, times, window_s)


def one_euro(least_hz: float, beta: float, *, both_ways: bool = False) -> Filter:
    """The 1 euro filter (Casiez, Roussel, Vogel, CHI 2012); `both_ways`: the mean of both."""

    def share(cutoff: np.ndarray | float, step: float) -> np.ndarray | float:
        return 1 / (1 + 1 / (2 * np.pi * cutoff * step))

    def forwards(values: np.ndarray, times: np.ndarray) -> np.ndarray:
        found = np.empty_like(values)
        level, speed = values[0], np.zeros_like(values[0])
        found[0] = level
        for row in range(1, len(values)):
            step = max(times[row] - times[row - 1], 1e-6)
            slow = share(1.0, step)
            speed = slow * (values[row] - values[row - 1]) / step + (1 - slow) * speed
            new = share(least_hz + beta * np.abs(speed), step)
            level = new * values[row] + (1 - new) * level
            found[row] = level
        return found

    def back_and_forth(values: np.ndarray, times: np.ndarray) -> np.ndarray:
        back = forwards(values[::-1], times[-1] - times[::-1])[::-1]
        return (forwards(values, times) + back) / 2

    return back_and_forth if both_ways else forwards


def jitter(hands: Hands, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths (M, 21) of second differences of errors (N, 21, 3), and their videos."""
    found, videos = [], []
    for rows in hands.tracks:
        step = np.diff(hands.frame[rows])
        near = (step[1:] == 1) & (step[:-1] == 1)
        found.append(np.linalg.norm(np.diff(errors[rows], 2, axis=0)[near], axis=-1))
        videos.append(hands.video[rows][2:][near])
    return np.concatenate(found), np.concatenate(videos)


def lag_ms(hands: Hands, points: np.ndarray, truth: np.ndarray) -> float:
    """As the head says; only of tracks whose wrist moves by 20 pixels and more."""
    shifts = np.linspace(-0.2, 0.2, 161)
    found = []
    for rows in hands.tracks:
        times, own, real = hands.times[rows], points[rows, WRIST], truth[rows, WRIST]
        inside = (times > times[0] + shifts[-1]) & (times < times[-1] - shifts[-1])
        if inside.sum() < LEAST or np.ptp(real, axis=0).max() < 20:
            continue
        offs = []
        for shift in shifts:
            late = [np.interp(times[inside] - shift, times, real[:, axis]) for axis in (0, 1)]
            off = own[inside] - np.stack(late, axis=-1)
            offs.append(np.square(off - off.mean(axis=0)).sum())
        found.append(shifts[int(np.argmin(offs))])
    return 1000 * float(np.median(found)) if found else float("nan")


def kept_share(apply: Filter, hz: float, fps: float) -> float:
    """As the head says, at a frame rate."""
    times = np.arange(round(8 * fps)) / fps
    waves = np.stack([np.sin(2 * np.pi * hz * times), np.cos(2 * np.pi * hz * times)])
    found = apply(waves[0, :, None] / 4, times)[:, 0]
    whole = len(times) // 2
    return float(np.linalg.norm(waves[:, -whole:] @ found[-whole:]) * 4 / (whole / 2))


def with_interval(values: np.ndarray, videos: np.ndarray) -> str:
    """The mean of values (M, J) and its interval over the videos."""
    means = resampled_means(values, np.ones(values.shape, bool), videos)
    low, high = np.percentile(means, PERCENTILES).tolist()
    return f"{values.mean():.1f} [{low:.1f}, {high:.1f}]"


def report(folder: Path, filters: dict[str, tuple[Filter, bool]]) -> None:
    hands, truth = with_truth(folder)
    kept = np.concatenate(hands.tracks)
    videos, there = hands.video[kept], truth.joints[kept]
    print(f"\n{folder}: {len(kept)} hands in {len(hands.tracks)} tracks\n")
    fps = 1 / np.median([np.median(np.diff(hands.times[rows])) for rows in hands.tracks])
    print("| filter | pose | wrist | 2D | jitter | lag | in sigma | kept |")
    print("|---" + "|--:" * 7 + "|")
    for name, (apply, behind) in filters.items():
        joints, points, sigma = put(hands, apply, behind=behind)
        own, real = root_relative(joints[kept]), root_relative(there)
        off = 1000 * np.linalg.norm(joints[kept] - there, axis=-1)
        cells = [
            with_interval(1000 * np.linalg.norm(bone_scaled(own, real) - real, axis=-1), videos),
            with_interval(off[:, [WRIST]], videos),
            with_interval(np.linalg.norm((points - truth.points)[kept], axis=-1), videos),
            with_interval(*jitter(hands, 1000 * (joints - truth.joints))),
            f"{lag_ms(hands, points, truth.points):.0f}",
            f"{(np.abs(joints - truth.joints)[kept, WRIST, 2] < sigma[kept]).mean():.0%}",
            " ".join(f"{kept_share(apply, hz, fps):.0%}" for hz in (2.5, 5.0)),
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
