"""The camera does what its settings say, nothing else, and the same each time."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest

from handclr_cli.contract.errors import HandclrError
from handclr_cli.synth.sensor import Sensor, develop, lab_sensor, motion_kernel, wild_sensor


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scene(height: int = 72, width: int = 96) -> np.ndarray:
    return cv2.resize(
        rng(1).random((9, 12, 3), dtype=np.float32), (width, height), interpolation=cv2.INTER_LINEAR
    )


def flat(value: float, side: int = 256) -> np.ndarray:
    return np.full((side, side, 3), value, np.float32)


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (72, 96)])
def test_the_defaults_change_nothing(size: tuple[int, int]) -> None:
    image = scene(*size)
    kept = image.copy()
    developed = develop(image, Sensor(), rng())
    assert developed.dtype == np.uint8 and developed.shape == image.shape
    assert np.abs(developed / 255 - image).max() < 1 / 255
    assert np.array_equal(image, kept)


@pytest.mark.parametrize("draw", [lab_sensor, wild_sensor])
@pytest.mark.parametrize("size", [(1, 1), (5, 300), (72, 97)])
def test_any_camera_takes_any_picture_the_same_each_time(draw, size: tuple[int, int]) -> None:
    for seed in range(6):
        sensor = draw(rng(seed))
        assert sensor == draw(rng(seed)) != draw(rng(seed + 1))
        first, second = (develop(scene(*size), sensor, rng(seed), (3.3, -1.2)) for _ in range(2))
        assert first.shape == (*size, 3) and first.dtype == np.uint8
        assert np.array_equal(first, second)


def test_other_noise_with_another_seed() -> None:
    sensor = Sensor(read_noise=0.02)
    assert not np.array_equal(develop(scene(), sensor, rng(0)), develop(scene(), sensor, rng(1)))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (0, 8, 3)])
def test_what_is_no_rgb_picture_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(HandclrError, match="shape"):
        develop(np.zeros(shape, np.float32), Sensor(), rng())


@pytest.mark.parametrize("length", [0.25, 0.8, 1.0, 2.5, 3.0, 7.3, 15.9])
@pytest.mark.parametrize("direction", [(1, 0), (0, 1), (-1, 0)])
def test_a_motion_kernel_is_as_long_as_the_motion(
    length: float, direction: tuple[int, int]
) -> None:
    kernel = motion_kernel(length * direction[0], length * direction[1])
    along = kernel.sum(axis=0 if direction[0] else 1)
    at = np.arange(len(along)) - len(along) // 2
    assert kernel.sum() == pytest.approx(1) and (kernel >= 0).all()
    assert along @ at == pytest.approx(0, abs=1e-5)
    # An even motion is on average a quarter of its length from its middle.
    assert along @ np.abs(at) == pytest.approx(length / 4, rel=1e-3)


def test_a_slanted_motion_kernel_lies_along_the_motion() -> None:
    kernel = motion_kernel(8.0, 6.0)
    y, x = np.indices(kernel.shape) - np.array(kernel.shape)[:, None, None] // 2
    spread = np.array([[(kernel * a * b).sum() for b in (x, y)] for a in (x, y)])
    values, axes = np.linalg.eigh(spread)
    assert abs(axes[:, 1] @ (0.8, 0.6)) == pytest.approx(1, abs=2e-3)
    assert math.sqrt(12 * values[1]) == pytest.approx(10, rel=0.03)
    assert values[0] < 0.25


def test_motion_smears_a_dot_and_leaves_it_in_place() -> None:
    image = np.zeros((41, 41, 3), np.float32)
    image[20, 20] = 1
    assert np.array_equal(develop(image, Sensor(), rng(), (0, 0)), (255 * image).astype(np.uint8))
    row = develop(image, Sensor(), rng(), (10, 0))[20, :, 0].astype(float)
    assert row[15:26].sum() == pytest.approx(255, abs=6) and row[:15].sum() == row[26:].sum() == 0
    assert row @ np.arange(41) / row.sum() == pytest.approx(20, abs=0.1)


def test_noise_is_as_strong_as_it_says() -> None:
    for value, read, shot, grain in [
        (0.5, 0.02, 0.0, 0.0),
        (0.5, 0.0, 0.04, 0.8),
        (0.2, 0.03, 0.04, 0.5),
    ]:
        sensor = Sensor(read_noise=read, shot_noise=shot, grain=grain)
        luma = develop(flat(value), sensor, rng()) / 255.0 @ (0.299, 0.587, 0.114)
        assert luma.mean() == pytest.approx(value, abs=0.002)
        assert luma.std() == pytest.approx(math.hypot(read, shot * math.sqrt(value)), rel=0.05)


def test_grain_correlates_neighbours() -> None:
    def correlation(grain: float) -> float:
        luma = develop(flat(0.5), Sensor(read_noise=0.03, grain=grain), rng()) @ (
            0.299,
            0.587,
            0.114,
        )
        return float(np.corrcoef(luma[:, :-1].ravel(), luma[:, 1:].ravel())[0, 1])

    assert abs(correlation(0)) < 0.02
    assert 0.5 < correlation(0.8) < 0.8


def test_exposure_white_balance_saturation_and_vignette() -> None:
    bright = develop(flat(0.25, 8), Sensor(exposure=2.0, white_balance=(1.2, 1.0, 0.8)), rng())
    assert bright[0, 0].tolist() == [153, 128, 102]
    grey = develop(scene(), Sensor(saturation=0.0), rng())
    assert (grey.max(axis=-1) - grey.min(axis=-1)).max() <= 1
    dim = develop(flat(0.8, 65), Sensor(vignette=0.5), rng())
    assert dim[32, 32, 0] == 204 and dim[0, 0, 0] == dim[-1, -1, 0] == 102


def test_the_tone_curve() -> None:
    assert develop(flat(0.5, 4), Sensor(gamma=2.0), rng())[0, 0, 0] == 64
    assert develop(flat(0.25, 4), Sensor(contrast=1.0), rng())[0, 0, 0] == round(255 * 0.15625)
    assert develop(flat(0.5, 4), Sensor(contrast=1.0), rng())[0, 0, 0] == 128


def test_defocus_and_compression_lose_detail() -> None:
    image = rng().random((64, 64, 3), dtype=np.float32)
    sharp = develop(image, Sensor(), rng()).astype(float)
    assert develop(image, Sensor(blur_sigma=1.5), rng()).std() < sharp.std() / 2
    loss = [
        np.abs(develop(image, Sensor(jpeg_quality=q), rng()) - sharp).mean() for q in (95, 60, 20)
    ]
    assert 0 < loss[0] < loss[1] < loss[2]


@pytest.mark.slow
def test_a_hand_stays_visible_in_every_wild_camera() -> None:
    """Dark skin on a mid-grey wall and light skin on a white one: the step between them stands out
    of the noise.
    """
    for seed in range(300):
        sensor = replace(wild_sensor(rng(seed)), vignette=0.0)
        for skin, wall in [((0.30, 0.19, 0.14), 0.5), ((0.85, 0.68, 0.58), 0.95)]:
            image = flat(wall, 64)
            image[:, :32] = skin
            luma = develop(image, sensor, rng(seed)) @ (0.299, 0.587, 0.114)
            noise = max(luma[:, :26].std(), luma[:, 38:].std())
            assert luma[:, 38:].mean() - luma[:, :26].mean() > max(12.0, 2 * noise), sensor
            assert 15 < luma[:, :26].mean() < 240, sensor
