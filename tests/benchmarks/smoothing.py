"""What filtering tracks over time does to the hands of `handclr predict`, on film with truth.

    handclr synth footage smooth30 --frames 75 --fps 30 --videos 10 --width 384 --height 288 \\
        --seed 11
    handclr synth footage smooth12 --frames 60 --fps 12 --videos 15 --width 384 --height 288 \\
        --seed 7
    python tests/benchmarks/smoothing.py smooth30 smooth12

Each line is a filter, fitted to poses and pixels before the hands are placed, or, where it says so,
to the placed hands. In mm, over all hands of tracks of five frames and more that were found:

* pose: mean distance of the joints after moving the wrists together and scaling the reference bone;
* depth: median distance of the wrist's depth from the truth; 2D: mean error in pixels;
* jitter: root mean square, over joints and frames, of the second difference in time of the error,
  median over the tracks: of the placed joints, and of the joints from the wrist;
* lag: by how many ms the truth has to be delayed to fit the wrist's 2D path best, median of tracks.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handclr_cli.contract.fields import INTRINSICS
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.inputs import expand_inputs
from handclr_cli.contract.sample import Sample
from handclr_cli.hand.alignment import bone_scaled, root_relative
from handclr_cli.hand.camera import crop_camera, project, source_camera
from handclr_cli.hand.placement import GIVEN, Cut, placed
from handclr_cli.hand.smoothing import smooth
from handclr_cli.hand.square import to_crop, to_source
from handclr_cli.prediction.crops import Crop, columns_of, read_crop

Filter = Callable[[np.ndarray, np.ndarray], np.ndarray]
LEAST = 5


@dataclass(frozen=True)
class Film:
    """Found hands, N rows in the order of tracks and frames, with their truth in the source."""

    xyz: np.ndarray
    uv: np.ndarray
    cuts: list[Cut]
    times: np.ndarray
    tracks: list[np.ndarray]
    truth: np.ndarray
    truth2d: np.ndarray


def read(folder: Path) -> Film:
    """Find the hands in the footage of a folder and match them with their truth."""
    with tempfile.TemporaryDirectory() as place:
        shard = Path(place) / "hands.tar"
        command = [sys.executable, "-m", "handclr_cli", "extract", folder, "-o", shard, "-q"]
        subprocess.run([*command, "--every", "1", "--with-keypoints"], check=True)
        truth = ShardIndex(expand_inputs([str(folder / "truth")]))
        found = [
            (each, truth[truth.row(each.key)])
            for each in ShardIndex([str(shard)])
            if each.key in truth
        ]
    crops, rows = [], []
    for sample, real in found:
        crop, there, camera = matched(sample, real)
        crops.append(crop)
        rows.append((sample.world3d, sample.keypoints2d / sample.side, there, camera))
    xyz, uv, there, cameras = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    cuts = [crop.cut for crop in crops]
    columns = columns_of(crops)
    tracks = tracks_of(columns)
    return Film(xyz, uv, cuts, columns["time_s"], tracks, there, project(there, cameras))


def matched(sample: Sample, real: Sample) -> tuple[Crop, np.ndarray, np.ndarray]:
    """A crop with the true camera, the true hand (21, 3) in the source, and the source's camera."""
    box, flipped = real.info["box"], real.info["flipped"]
    lens = real.read(INTRINSICS).astype(np.float64)
    camera = source_camera(lens, box, real.side, flipped)
    crop = read_crop(sample, 60.0)
    own = crop_camera(camera, crop.cut.box, crop.cut.side, crop.cut.flipped)
    cut = Cut(crop.cut.side, crop.cut.box, crop.cut.flipped, own, GIVEN)
    return crop._replace(cut=cut), real.keypoints3d * (-1.0 if flipped else 1.0, 1.0, 1.0), camera


def tracks_of(columns: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The rows of each track of LEAST hands and more, in the order of time."""
    names = list(zip(columns["video"].tolist(), columns["track"].tolist(), strict=True))
    tracks = []
    for name in dict.fromkeys(names):
        own = np.array([row for row, each in enumerate(names) if each == name])
        if len(own) >= LEAST:
            tracks.append(own[np.argsort(columns["time_s"][own])])
    return tracks


def before(film: Film, apply: Filter) -> tuple[np.ndarray, np.ndarray]:
    """Filter poses and pixels, then place; 3D and 2D of the source."""
    xyz, uv = film.xyz.copy(), film.uv.copy()
    points = np.array(
        [to_source(at, cut.box, 1, cut.flipped) for at, cut in zip(uv, film.cuts, strict=True)]
    )
    for rows in film.tracks:
        xyz[rows], points[rows] = (
            apply(values[rows], film.times[rows]) for values in (xyz, points)
        )
        for row in rows.tolist():
            cut = film.cuts[row]
            uv[row] = to_crop(points[row], cut.box, 1, cut.flipped)
    found = placed(xyz, uv, film.cuts)
    return found.source3d.astype(np.float64), found.source2d.astype(np.float64)


def behind(film: Film, apply: Filter) -> tuple[np.ndarray, np.ndarray]:
    """Place, then filter the placed joints and their pixels."""
    found = placed(film.xyz, film.uv, film.cuts)
    hands, points = found.source3d.astype(np.float64), found.source2d.astype(np.float64)
    for rows in film.tracks:
        hands[rows] = apply(hands[rows], film.times[rows])
        points[rows] = apply(points[rows], film.times[rows])
    return hands, points


def unfiltered(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Nothing is done."""
    return values


def savitzky_golay(window_s: float) -> Filter:
    """The filter of the product with a window."""
    return lambda values, times: smooth(values, times, window_s)


def one_euro(least_hz: float, beta: float, *, both_ways: bool = False) -> Filter:
    """The 1 euro filter (Casiez, Roussel, Vogel, CHI 2012); `both_ways`: the mean of both."""

    def forwards(values: np.ndarray, times: np.ndarray) -> np.ndarray:
        found = np.empty_like(values)
        level, speed = values[0], np.zeros_like(values[0])
        found[0] = level
        for row in range(1, len(values)):
            step = max(times[row] - times[row - 1], 1e-6)
            slow = 1 / (1 + 1 / (2 * np.pi * 1.0 * step))
            speed = slow * (values[row] - values[row - 1]) / step + (1 - slow) * speed
            cutoff = least_hz + beta * np.abs(speed)
            share = 1 / (1 + 1 / (2 * np.pi * cutoff * step))
            level = share * values[row] + (1 - share) * level
            found[row] = level
        return found

    def back_and_forth(values: np.ndarray, times: np.ndarray) -> np.ndarray:
        back = forwards(values[::-1], times[-1] - times[::-1])[::-1]
        return (forwards(values, times) + back) / 2

    return back_and_forth if both_ways else forwards


def second_difference(errors: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Of neighbouring frames only, (M, ...)."""
    step = np.diff(times)
    even = (step < 1.5 * np.median(step))[1:] & (step < 1.5 * np.median(step))[:-1]
    return np.diff(errors, 2, axis=0)[even]


def jitter_mm(film: Film, errors: np.ndarray) -> float:
    """As the head says; errors (N, 21, 3) metres."""
    found = []
    for rows in film.tracks:
        shake = second_difference(errors[rows], film.times[rows])
        if len(shake):
            found.append(np.sqrt(np.square(shake).sum(axis=-1).mean()))
    return 1000 * float(np.median(found))


def lag_ms(film: Film, points: np.ndarray) -> float:
    """As the head says."""
    shifts = np.linspace(-0.1, 0.1, 81)
    found = []
    for rows in film.tracks:
        times, own, real = film.times[rows], points[rows][:, 0], film.truth2d[rows][:, 0]
        inside = (times > times[0] + 0.1) & (times < times[-1] - 0.1)
        if inside.sum() < LEAST or np.ptp(real, axis=0).max() < 20:
            continue
        offs = []
        for shift in shifts:
            late = [np.interp(times[inside] - shift, times, real[:, axis]) for axis in (0, 1)]
            off = own[inside] - np.stack(late, axis=-1)
            offs.append(np.square(off - off.mean(axis=0)).sum())
        found.append(shifts[int(np.argmin(offs))])
    return 1000 * float(np.median(found)) if found else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--all", action="store_true", help="all windows and parameters")
    arguments = parser.parse_args()
    filters: dict[str, tuple[Filter, bool]] = {
        "as predicted": (unfiltered, False),
        "1 euro, 1 Hz, 0.007/px": (one_euro(1.0, 0.3), False),
        "1 euro, both ways": (one_euro(1.0, 0.3, both_ways=True), False),
        "Savitzky-Golay": (savitzky_golay(0.27), False),
        "Savitzky-Golay, after placing": (savitzky_golay(0.27), True),
    }
    if arguments.all:
        for window in (0.1, 0.17, 0.23, 0.3, 0.37, 0.43, 0.57, 0.77):
            filters[f"Savitzky-Golay, {window} s"] = (savitzky_golay(window), False)
        for least, beta in ((1, 0.03), (1, 1), (2, 0.3), (3, 1), (1, 3), (0.5, 5)):
            filters[f"1 euro, {least} Hz, {beta}"] = (one_euro(least, beta), False)
    for folder in arguments.folders:
        film = read(folder)
        kept = np.concatenate(film.tracks)
        print(f"{folder}: {len(kept)} hands in {len(film.tracks)} tracks")
        print(f"{'':34s} pose  depth    2D  jitter placed / from wrist  lag ms")
        for name, (apply, is_behind) in filters.items():
            hands, points = (behind if is_behind else before)(film, apply)
            truth = root_relative(film.truth[kept])
            pose = np.linalg.norm(bone_scaled(hands[kept], film.truth[kept]) - truth, axis=-1)
            depth = np.abs(hands[kept, 0, 2] - film.truth[kept, 0, 2])
            off = np.linalg.norm(points[kept] - film.truth2d[kept], axis=-1)
            shake = jitter_mm(film, hands - film.truth)
            own = jitter_mm(film, root_relative(hands) - root_relative(film.truth))
            print(
                f"{name:34s} {1000 * pose.mean():4.1f} {1000 * np.median(depth):6.1f} "
                f"{off.mean():5.2f} {shake:13.1f} / {own:10.1f} {lag_ms(film, points):7.0f}"
            )


if __name__ == "__main__":
    main()
