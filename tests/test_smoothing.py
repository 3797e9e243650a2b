"""Movements filtered over time, and which hands are filtered together."""

from __future__ import annotations

import numpy as np
import pytest
from posed_helpers import crop_of, hands_of

from handclr_cli.hand.camera import project
from handclr_cli.hand.placement import Cut, placed
from handclr_cli.hand.smoothing import smooth
from handclr_cli.prediction.crops import Crop, columns_of
from handclr_cli.prediction.smoothing import smoothed

FPS = 30.0


def moments(count: int, fps: float = FPS) -> np.ndarray:
    return np.arange(count) / fps


def test_what_does_not_move_stays() -> None:
    still = np.full((40, 21, 3), 0.3)
    np.testing.assert_allclose(smooth(still, moments(40)), still, atol=1e-12)


@pytest.mark.parametrize("degree", [1, 2])
def test_a_steady_movement_is_kept_without_lag(degree: int) -> None:
    times = moments(40)
    path = 0.1 + 0.5 * times[:, None] ** degree * np.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(smooth(path, times), path, atol=1e-12)


def test_noise_goes_down_by_two_fifths_and_a_quick_movement_stays() -> None:
    rng = np.random.default_rng(0)
    times = moments(90)
    path = 0.1 * np.sin(2 * np.pi * 1.5 * times)[:, None]
    noise = rng.normal(0, 0.01, path.shape)
    found = smooth(path + noise, times)
    assert np.abs(smooth(path, times) - path).max() < 0.1 * 0.06
    assert np.std(found - smooth(path, times)) < 0.6 * np.std(noise)
    shake = [np.std(np.diff(values, 2, axis=0)) for values in (found, path + noise)]
    assert shake[0] < 0.4 * shake[1]


def test_a_long_gap_separates_and_a_short_one_does_not() -> None:
    times = moments(60)
    jump = np.where(times < 1.0, 0.0, 1.0)[:, None]
    kept = (times < 0.9) | (times > 1.2)
    np.testing.assert_allclose(smooth(jump[kept], times[kept]), jump[kept], atol=1e-12)
    line = times[:, None] * np.ones(3)
    holes = np.setdiff1d(np.arange(60), [10, 11, 30])
    np.testing.assert_allclose(smooth(line[holes], times[holes]), line[holes], atol=1e-12)


def test_uneven_times_and_repeated_ones() -> None:
    rng = np.random.default_rng(0)
    times = np.sort(moments(50) + rng.uniform(0, 0.02, 50))
    line = times[:, None] * np.ones(3)
    np.testing.assert_allclose(smooth(line, times), line, atol=1e-9)
    times[7] = times[6]
    assert np.isfinite(smooth(line, times)).all()
    assert np.isfinite(smooth(line, np.zeros(50))).all()


def test_times_that_hardly_differ_are_one() -> None:
    times = [0.5]
    for _ in range(19):
        times.append(float(np.nextafter(times[-1], 1.0)))
    values = np.random.default_rng(0).normal(size=(20, 3))
    np.testing.assert_array_equal(smooth(values, np.array(times)), values)


def test_very_uneven_times_need_no_more_room() -> None:
    """Rounded stamps, or those of a damaged shard."""
    burst = np.arange(10) * 1e-12
    times = np.concatenate([burst, 0.2 + burst, 0.4 + burst])
    still = np.full((30, 3), 0.3)
    np.testing.assert_allclose(smooth(still, times), still, atol=1e-9)


@pytest.mark.parametrize(("count", "fps"), [(1, 30.0), (2, 30.0), (4, 30.0), (40, 5.0), (0, 30.0)])
def test_too_few_to_filter_stay_as_they_are(count: int, fps: float) -> None:
    values = np.random.default_rng(0).normal(size=(count, 21, 3))
    np.testing.assert_array_equal(smooth(values, moments(count, fps)), values)


def test_ten_a_second_are_filtered() -> None:
    values = np.random.default_rng(0).normal(size=(40, 3))
    assert np.std(smooth(values, moments(40, 10.0))) < 0.8 * np.std(values)


def run(crops: list[Crop], seed: int = 0) -> tuple[np.ndarray, ...]:
    """Noisy hands of crops before and after the filter."""
    rng = np.random.default_rng(seed)
    xyz, uv = rng.normal(0, 0.02, (len(crops), 21, 3)), rng.uniform(0.3, 0.7, (len(crops), 21, 2))
    columns = columns_of(crops)
    order = [columns[name] for name in ("track", "video", "frame", "time_s")]
    return xyz, uv, *smoothed(xyz, uv, [crop.cut for crop in crops], *order)


def film(video: str, hand: str, track: int | None, count: int = 20) -> list[Crop]:
    times = moments(count).tolist()
    return [
        crop_of(number, video, hand, track=track, time_s=time) for number, time in enumerate(times)
    ]


def test_tracks_are_filtered_apart_whatever_the_order_of_the_rows() -> None:
    alone = film("a.mp4", "right", 4)
    others = [*film("b.mp4", "right", 4), *film("a.mp4", "left", 9)]
    rows = np.random.default_rng(1).permutation(60)
    mixed = [(alone + others)[row] for row in rows]
    rng = np.random.default_rng(0)
    xyz, uv = rng.normal(size=(60, 21, 3)), rng.uniform(size=(60, 21, 2))

    def through(crops: list[Crop], xyz: np.ndarray, uv: np.ndarray) -> tuple[np.ndarray, ...]:
        columns = columns_of(crops)
        order = [columns[name] for name in ("track", "video", "frame", "time_s")]
        return smoothed(xyz, uv, [crop.cut for crop in crops], *order)

    found = through(mixed, xyz[rows], uv[rows])
    expected = through(alone, xyz[:20], uv[:20])
    back = np.argsort(rows)
    for values, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(values[back][:20], wanted, atol=1e-12)


def test_hands_of_no_track_stay_as_they_are() -> None:
    xyz, uv, found, seen = run(film("a.mp4", "right", None))
    np.testing.assert_allclose(found, xyz)
    np.testing.assert_allclose(seen, uv, atol=1e-12)


def test_images_are_filtered_by_their_numbers() -> None:
    crops = [crop_of(number, track=3, time_s=np.nan) for number in range(20)]
    xyz, _, found, _ = run(crops)
    assert np.std(found) < 0.7 * np.std(xyz)


@pytest.mark.parametrize("unknown", [[], [3, 4, 11]])
def test_times_that_fall_or_are_missing_here_and_there(unknown: list[int]) -> None:
    crops = film("a.mp4", "right", 4)
    crops[7] = crops[7]._replace(time_s=0.01)
    for row in unknown:
        crops[row] = crops[row]._replace(time_s=np.nan)
    xyz, _, found, _ = run(crops)
    assert np.isfinite(found).all() and np.std(found) < 0.7 * np.std(xyz)


def moved(crop: Crop, x: int, y: int) -> Crop:
    """The crop cut elsewhere in the same source."""
    cut = crop.cut
    box = (cut.box[0] + x, cut.box[1] + y, cut.box[2] + x, cut.box[3] + y)
    camera = cut.camera.copy()
    camera[:2, 2] -= (-x if cut.flipped else x, y)
    return crop._replace(cut=Cut(cut.side, box, cut.flipped, camera, cut.known))


@pytest.mark.parametrize("hand", ["left", "right"])
def test_points_are_filtered_in_the_source(hand: str) -> None:
    """A still hand whose crops move stays where it is, and 3D falls on 2D as before."""
    crops = film("a.mp4", hand, 2)
    still = hands_of(crops[:1]).placed
    crops = [moved(crop, 7 * (row % 3), -5 * (row % 2)) for row, crop in enumerate(crops)]
    cuts = [crop.cut for crop in crops]
    there = still.keypoints3d[0].astype(np.float64)
    xyz = np.repeat((there - there[:1])[None], 20, axis=0)
    uv = np.stack([project(there, cut.camera) / 224 for cut in cuts])
    columns = columns_of(crops)
    order = [columns[name] for name in ("track", "video", "frame", "time_s")]
    found = placed(*smoothed(xyz, uv, cuts, *order), cuts)
    np.testing.assert_allclose(found.source2d - still.source2d, 0, atol=1e-2)
    np.testing.assert_allclose(found.source3d - still.source3d, 0, atol=1e-3)
    np.testing.assert_allclose(project(found.source3d, found.camera), found.source2d, atol=0.05)
