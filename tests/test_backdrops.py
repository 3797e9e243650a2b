"""Backdrops are pictures of any size, all different, the same for the same seed; the studio's are
the quiet ones.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from handclr_cli.contract.errors import HandclrError
from handclr_cli.synth.backdrops import lab_backdrop, wild_backdrop

pytestmark = pytest.mark.slow

Backdrop = Callable[[np.random.Generator, int, int], np.ndarray]
BOTH = pytest.mark.parametrize("backdrop", [lab_backdrop, wild_backdrop])


def draws(backdrop: Backdrop, count: int, width: int = 96, height: int = 72) -> np.ndarray:
    return np.stack(
        [backdrop(np.random.default_rng([5, index]), width, height) for index in range(count)]
    )


def edges(pictures: np.ndarray) -> np.ndarray:
    """The mean step from pixel to pixel of each picture."""
    return np.abs(np.diff(pictures, axis=1)).mean(axis=(1, 2, 3)) + np.abs(
        np.diff(pictures, axis=2)
    ).mean(axis=(1, 2, 3))


@BOTH
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 501), (640, 31), (333, 211)])
def test_any_size_is_a_picture(backdrop: Backdrop, size: tuple[int, int]) -> None:
    for seed in range(12):
        picture = backdrop(np.random.default_rng(seed), *size)
        assert picture.shape == (size[1], size[0], 3) and picture.dtype == np.float32
        assert np.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 1


@BOTH
def test_a_large_one(backdrop: Backdrop) -> None:
    assert backdrop(np.random.default_rng(0), 2000, 1100).shape == (1100, 2000, 3)


@BOTH
def test_the_same_seed_is_the_same_picture(backdrop: Backdrop) -> None:
    first = draws(backdrop, 30)
    # Nothing is drawn from OpenCV's own generator.
    cv2.setRNGSeed(99)
    cv2.randu(np.zeros((4, 4), np.uint8), 0, 255)
    assert np.array_equal(first, draws(backdrop, 30))


@BOTH
def test_no_side_may_be_empty(backdrop: Backdrop) -> None:
    with pytest.raises(HandclrError, match="0x48"):
        backdrop(np.random.default_rng(0), 0, 48)


@pytest.mark.parametrize(
    ("backdrop", "typical", "least"), [(lab_backdrop, 0.1, 0.005), (wild_backdrop, 0.2, 0.03)]
)
def test_no_two_are_alike(backdrop: Backdrop, typical: float, least: float) -> None:
    flat = draws(backdrop, 60, 32, 24).reshape(60, -1)
    distance = np.abs(flat[:, None] - flat[None]).mean(axis=-1)[np.triu_indices(60, 1)]
    assert np.median(distance) > typical
    assert distance.min() > least


def test_the_studio_is_quieter_than_the_world() -> None:
    lab, wild = edges(draws(lab_backdrop, 40)), edges(draws(wild_backdrop, 60))
    assert np.median(lab) < np.median(wild) / 3
    assert lab.max() < np.median(wild)


def test_wild_pictures_cover_the_range_of_brightness_and_colour() -> None:
    means = draws(wild_backdrop, 150, 48, 36).mean(axis=(1, 2))
    brightness = means.mean(axis=1)
    assert brightness.min() < 0.12 and brightness.max() > 0.65 and 0.3 < np.median(brightness) < 0.5
    warm = means[:, 0] - means[:, 2]
    assert warm.min() < -0.1 and warm.max() > 0.15


def test_wild_pictures_have_the_spectra_of_photographs() -> None:
    """Amplitude falls as a power of the frequency: -1 to -1.5 in photographs, steeper where they
    are out of focus.
    """
    side, radii = 128, np.array([0.02, 0.04, 0.08, 0.16, 0.32])
    window = np.outer(np.hanning(side), np.hanning(side))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    slopes = []
    for picture in draws(wild_backdrop, 40, side, side).mean(axis=-1):
        power = np.abs(np.fft.fft2((picture - picture.mean()) * window)) ** 2
        rings = [
            np.sqrt(power[(frequency >= low) & (frequency < 1.4 * low)].mean()) for low in radii
        ]
        slopes.append(np.polyfit(np.log(radii), np.log(rings), 1)[0])
    assert -1.9 < np.median(slopes) < -1.0
