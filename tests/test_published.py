"""The augmentation of the published code: its ranges, its quirks, and what it records."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from handclr_cli.learning.augmentation import Geometry, View
from handclr_cli.learning.losses import undo_geometry
from handclr_cli.learning.published import PublishedView, published_view

SIDE, SIZE = 224, 128
REACH = 40.0


class Drawn:
    """Stands for a generator: angle, margin, jitter x and y, hue, saturation, value, its offset,
    all in [0, 1].
    """

    def __init__(self, *values: float) -> None:
        self.values = np.array(values)

    def uniform(self, size: int) -> np.ndarray:
        assert size == len(self.values)
        return self.values


# No rotation, margin 1.2501, and colours kept but for 5 grey levels.
STILL = (0.5, 0.3501 / 0.6, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0)


def hand(x: float = 112, y: float = 108) -> np.ndarray:
    """Keypoints about a whole centre, the farthest of them 40 px from it."""
    points = np.random.default_rng(7).uniform(-1, 1, size=(21, 2))
    points -= points.mean(axis=0)
    return (REACH / np.hypot(*points.T).max() * points + (x + 1e-3, y + 1e-3)).astype(np.float32)


def texture() -> np.ndarray:
    return np.random.default_rng(8).integers(0, 256, size=(SIDE, SIDE, 3), dtype=np.uint8)


def view_of(keypoints: np.ndarray, rng: Any, geometric: bool = True) -> PublishedView:
    return published_view(texture(), keypoints, SIZE, rng, geometric)


@pytest.mark.slow
def test_types_and_ranges() -> None:
    views = [view_of(hand(), np.random.default_rng(seed)) for seed in range(300)]
    for view in views:
        assert view.image.shape == (SIZE, SIZE, 3) and view.image.dtype == np.uint8
        assert view.keypoints2d.shape == (21, 2) and view.keypoints2d.dtype == np.float32
    angles = [view.angle_deg for view in views]
    assert all(angle == int(angle) for angle in angles)
    # OpenCV's angle is rounded down, to -45..44, and has the other sign here.
    assert -44 <= min(angles) < -40 and 40 < max(angles) <= 45
    jitter = SIZE * np.array([view.translation for view in views])
    # The crop moves right and down only, so the hand moves left and up only, by whole pixels.
    assert set(jitter[:, 0]) == set(jitter[:, 1]) == set(range(-14, 1))


@pytest.mark.parametrize(
    ("u", "angle"), [(0.0, 45), (0.4999, 1), (0.5, 0), (0.75, -22), (0.9999, -44)]
)
def test_the_angle_is_rounded_down(u: float, angle: int) -> None:
    assert view_of(hand(), Drawn(u, *STILL[1:])).angle_deg == angle


def test_margins() -> None:
    """Half the crop's side is the reach of the hand times a margin, in whole pixels."""
    for u, margin in ((0.0, 0.9), (0.5, 1.2), (1.0, 1.5)):
        view = view_of(hand(), Drawn(0.5, u, *STILL[2:]))
        scale = np.ptp(view.keypoints2d, axis=0) / np.ptp(hand(), axis=0)
        np.testing.assert_allclose(scale, SIZE / (2 * (REACH * margin // 1)), rtol=0.03)
        side = SIZE / scale
        np.testing.assert_allclose(side, 2 * np.round(side / 2), atol=1e-3)


def test_the_jitters_units_are_mixed_as_published() -> None:
    """Ten pixels of jitter in a crop of 100 move the hand by a tenth of the view, and are recorded
    as 10/128.
    """
    still = view_of(hand(), Drawn(*STILL))
    assert still.translation == (0.0, 0.0) and still.angle_deg == 0
    moved = view_of(hand(), Drawn(*STILL[:2], 10.5 / 15, 5.5 / 15, *STILL[4:]))
    assert moved.translation == (-10 / 128, -5 / 128)
    np.testing.assert_allclose(
        (moved.keypoints2d - still.keypoints2d) / SIZE, [[-0.10, -0.05]] * 21, atol=1e-5
    )


def test_a_crop_beyond_the_left_or_top_border_starts_there_and_stays_square() -> None:
    keypoints = hand(30, 108)
    view = view_of(keypoints, Drawn(*STILL[:2], 10.5 / 15, *STILL[3:]))
    # 30 - 50 + 10 is clamped to 0: the hand is 20 px left of where it would be without jitter or
    # clamp.
    assert view.translation == (-20 / 128, 0.0)
    np.testing.assert_allclose(view.keypoints2d, (keypoints - (0, 58)) * 1.28, atol=1e-4)


def test_a_crop_cut_at_the_right_or_bottom_border_is_stretched() -> None:
    keypoints = hand(200, 108)
    view = view_of(keypoints, Drawn(*STILL))
    assert view.translation == (0.0, 0.0)
    width = SIDE - 150
    np.testing.assert_allclose(
        view.keypoints2d, (keypoints - (150, 58)) * (SIZE / width, 1.28), atol=1e-4
    )
    plain = cv2.resize(texture()[58:158, 150:], (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(
        int
    )
    # The value keeps its factor of 1 and gains 5.
    np.testing.assert_allclose(
        view.image.max(axis=2), np.minimum(plain.max(axis=2) + 5, 255), atol=1
    )


@pytest.mark.parametrize("geometric", [True, False])
def test_keypoints_move_with_the_picture(geometric: bool) -> None:
    at = np.arange(SIDE) + 0.5
    seen = 0
    for seed in range(25):
        keypoints = hand(112 + seed, 130 - seed)
        x, y = keypoints[seed % 21]
        spot = 255 * np.exp(-((at - x) ** 2 + (at[:, None] - y) ** 2) / (2 * 2.5**2))
        image = np.repeat(spot.astype(np.uint8)[..., None], 3, axis=2)
        view = published_view(image, keypoints, SIZE, np.random.default_rng(seed), geometric)
        target = view.keypoints2d[seed % 21]
        if np.abs(target - SIZE / 2).max() > SIZE / 2 - 14:
            continue
        seen += 1
        weight = view.image.max(axis=2).astype(float)
        weight -= weight.min()
        to = np.arange(SIZE) + 0.5
        found = np.array([(weight * to).sum(), (weight * to[:, None]).sum()]) / weight.sum()
        # Where it turns, the published code takes keypoints for pixel indices: half a pixel of the
        # crop.
        assert np.abs(found - target).max() < (1.1 if geometric else 0.2)
    assert seen > 8


def test_undoing_is_the_published_arithmetic() -> None:
    """For each sample: x += (-jitter / side) * extent, then OpenCV's rotation by minus its angle
    about the mean.
    """
    views = [
        view_of(hand(100 + seed, 60 + 8 * seed), np.random.default_rng(seed)) for seed in range(12)
    ]
    z = torch.randn(12, 128, generator=torch.Generator().manual_seed(0))
    as_views = [
        View(SIZE, angle_deg=view.angle_deg, translation=view.translation) for view in views
    ]
    undone = undo_geometry(z, Geometry.of(as_views), "extent").reshape(12, 64, 2).numpy()
    for view, latent, out in zip(views, z.reshape(12, 64, 2).double().numpy(), undone, strict=True):
        jitter = np.array(view.translation) * SIZE
        opencv_angle = -view.angle_deg
        points = latent + (-jitter / SIZE) * (latent.max(axis=0) - latent.min(axis=0))
        matrix = cv2.getRotationMatrix2D(points.mean(axis=0).tolist(), -opencv_angle, 1.0)
        np.testing.assert_allclose(out, points @ matrix[:, :2].T + matrix[:, 2], atol=1e-5)


def test_undoing_turns_the_views_keypoints_back_and_moves_them_the_right_way() -> None:
    keypoints = hand()
    for seed in range(10):
        view = view_of(keypoints, np.random.default_rng(seed))
        z = torch.from_numpy(view.keypoints2d.reshape(1, 42))
        as_view = View(SIZE, angle_deg=view.angle_deg, translation=view.translation)
        undone = undo_geometry(z, Geometry.of([as_view]), "extent").reshape(21, 2).numpy()
        shape, original = undone - undone.mean(axis=0), keypoints - keypoints.mean(axis=0)
        np.testing.assert_allclose(
            shape / np.linalg.norm(shape), original / np.linalg.norm(original), atol=1e-5
        )
        shift = undone.mean(axis=0) - view.keypoints2d.mean(axis=0)
        expected = -np.array(view.translation) * np.ptp(view.keypoints2d, axis=0)
        np.testing.assert_allclose(shift, expected, atol=1e-3)
        assert (shift > -1e-3).all()


def test_hue_shrinks_in_the_hsv_of_swapped_channels() -> None:
    """Red is taken for blue (hue 120 of OpenCV's 180) and its hue halved to 60: green."""
    red = np.full((SIDE, SIDE, 3), (200, 60, 60), dtype=np.uint8)
    for u, colour in ((1.0, (205, 61, 61)), (0.4975 / 0.99, (61, 205, 61)), (0.0, (61, 61, 205))):
        view = published_view(red, hand(), SIZE, Drawn(*STILL[:4], u, *STILL[5:]), False)
        np.testing.assert_allclose(view.image[64, 64], colour, atol=5)


def test_saturation_and_value() -> None:
    red = np.full((SIDE, SIDE, 3), (200, 60, 60), dtype=np.uint8)
    bounds = {}
    for u in (0.0, 1.0):
        view = published_view(red, hand(), SIZE, Drawn(*STILL[:5], u, u, u), False)
        bounds[u] = view.image[64, 64].astype(int)
    # Value 200 * 0.5 + 5 without colour, and 200 + 20 with the saturation it had.
    np.testing.assert_allclose(bounds[0.0], 105, atol=2)
    np.testing.assert_allclose(bounds[1.0], (220, 66, 66), atol=2)
    white = np.full((SIDE, SIDE, 3), 250, dtype=np.uint8)
    clipped = published_view(white, hand(), SIZE, Drawn(*STILL[:6], 1.0, 1.0), False)
    assert (clipped.image == 255).all()


def test_one_seed_gives_one_view_and_the_image_is_kept() -> None:
    image, keypoints = texture(), hand()
    rngs = [np.random.default_rng(5) for _ in range(3)]
    first = published_view(image, keypoints, SIZE, rngs[0])
    again = published_view(image, keypoints, SIZE, rngs[1])
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.keypoints2d, again.keypoints2d)
    assert first[2:] == again[2:]
    np.testing.assert_array_equal(image, texture())
    np.testing.assert_array_equal(keypoints, hand())
    published_view(image, keypoints, SIZE, rngs[2], geometric=False)
    assert rngs[0].uniform() == rngs[2].uniform()


def test_without_geometry_only_the_jitter_moves_the_hand() -> None:
    views = [view_of(hand(), np.random.default_rng(seed), geometric=False) for seed in range(5)]
    for view in views:
        assert view.angle_deg == 0.0
        jitter = -np.array(view.translation) * SIZE
        assert (jitter == jitter.astype(int)).all() and jitter.min() >= 0
        np.testing.assert_allclose(view.keypoints2d, (hand() - (62, 58) - jitter) * 1.28, atol=1e-4)
    assert not np.array_equal(views[0].image, views[1].image)


@pytest.mark.parametrize("x", [-1e6, -300, 0, 223.9, 224, 260, 1e6])
@pytest.mark.parametrize("y", [-300, 112, 300])
def test_hostile_keypoints_give_a_view(x: float, y: float) -> None:
    for keypoints in (hand(x, y), np.full((21, 2), (x, y))):
        for seed, geometric in ((0, False), (1, True), (2, True)):
            view = view_of(keypoints, np.random.default_rng(seed), geometric)
            assert view.image.shape == (SIZE, SIZE, 3)
            assert np.isfinite(view.keypoints2d).all() and all(map(math.isfinite, view.translation))


def test_a_crop_with_nothing_in_it_moves_back_to_where_it_fits() -> None:
    keypoints = hand(400, 108)
    view = view_of(keypoints, Drawn(*STILL))
    np.testing.assert_allclose(view.keypoints2d, (keypoints - (SIDE - 100, 58)) * 1.28, atol=1e-3)
    assert view.translation == ((350 - 124) / 128, 0.0)
    point = np.full((21, 2), (50.0, 60.0))
    pixel = view_of(point, Drawn(*STILL))
    assert (pixel.image == pixel.image[0, 0]).all()
    np.testing.assert_array_equal(pixel.keypoints2d, 0)
