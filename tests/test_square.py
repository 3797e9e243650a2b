"""Square crops: what `cut` does to an image is what `to_crop` says, and nothing is ever
stretched.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from handclr_cli.hand.square import cut, square_box, to_crop, to_source

BOXES = [
    (20, 10, 120, 110),
    (0, 0, 97, 97),
    (-30, 40, 70, 140),
    (60, -25, 180, 95),
    (90, 70, 290, 270),
    (-9, -9, 300, 300),
]


def blob_picture(at: tuple[float, float], size: tuple[int, int] = (160, 200)) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    spot = 255 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 3.0**2))
    return np.repeat(spot[..., None], 3, axis=2).round().astype(np.uint8)


def middle(image: np.ndarray) -> np.ndarray:
    """The centre of mass, pixel centres at .5."""
    weights = image[..., 0].astype(float)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [32, 100, 224])
@pytest.mark.parametrize("box", BOXES)
def test_blob_is_where_to_crop_says(box: tuple[int, int, int, int], size: int, flip: bool) -> None:
    inside = np.array([max(box[0], 0) + 35.25, max(box[1], 0) + 40.5])
    crop = cut(blob_picture(tuple(inside)), box, size, flip)
    assert crop.shape == (size, size, 3) and crop.dtype == np.uint8 and crop.flags["C_CONTIGUOUS"]
    np.testing.assert_allclose(middle(crop), to_crop(inside, box, size, flip), atol=0.15)


def test_flip_mirrors_the_crop() -> None:
    image = np.random.default_rng(0).integers(0, 255, (160, 200, 3)).astype(np.uint8)
    for box in BOXES:
        np.testing.assert_array_equal(
            cut(image, box, 64, True), cut(image, box, 64, False)[:, ::-1]
        )


def test_crop_at_full_size_is_the_picture() -> None:
    image = np.random.default_rng(0).integers(0, 255, (160, 200, 3)).astype(np.uint8)
    np.testing.assert_array_equal(cut(image, (30, 20, 94, 84), 64, False), image[20:84, 30:94])


@pytest.mark.parametrize("centre", [(0, 80), (200, 80), (100, 0), (100, 160), (0, 0), (195, 155)])
def test_circle_at_the_border_stays_a_circle(centre: tuple[int, int]) -> None:
    """What of the circle lies in the picture has its radius in every direction; the rest
    is black.
    """
    image = np.full((160, 200, 3), 90, np.uint8)
    cv2.circle(image, centre, 40, (255, 255, 255), -1)
    box = (centre[0] - 60, centre[1] - 60, centre[0] + 60, centre[1] + 60)
    crop = cut(image, box, 240, False)
    y, x = np.mgrid[:240, :240] + 0.5
    source = to_source(np.stack([x, y], axis=-1), box, 240, False)
    within = ((source > 1) & (source < (199, 159))).all(axis=-1)
    beyond = ((source < -1) | (source > (201, 161))).any(axis=-1)
    radius = np.hypot(x - 120, y - 120) / 2
    assert (crop[within & (radius < 38)] == 255).all()
    assert (crop[within & (radius > 42.5)] == 90).all()
    assert beyond.any() and not crop[beyond].any()


def test_box_beside_the_picture_is_black() -> None:
    image = np.full((160, 200, 3), 200, np.uint8)
    for box in ((300, 0, 350, 50), (-80, -80, -10, -10), (0, 160, 20, 180), (-50, 20, 0, 70)):
        assert not cut(image, box, 32, True).any()


@pytest.mark.parametrize("flip", [False, True])
def test_maps_are_inverse(flip: bool) -> None:
    points = np.random.default_rng(0).uniform(-50, 250, (7, 21, 2))
    before = points.copy()
    for box in BOXES:
        for size in (32, 224):
            crop = to_crop(points, box, size, flip)
            np.testing.assert_allclose(to_source(crop, box, size, flip), points, atol=1e-9)
            np.testing.assert_allclose(
                to_crop(to_source(points, box, size, flip), box, size, flip), points, atol=1e-9
            )
    np.testing.assert_array_equal(points, before)


def test_corners_of_the_box_are_corners_of_the_crop() -> None:
    corners = np.array([(20, 10), (120, 110)])
    np.testing.assert_allclose(
        to_crop(corners, (20, 10, 120, 110), 224, False), [(0, 0), (224, 224)], atol=1e-9
    )
    np.testing.assert_allclose(
        to_crop(corners, (20, 10, 120, 110), 224, True), [(224, 0), (0, 224)], atol=1e-9
    )


@pytest.mark.parametrize("margin", [1.0, 1.5, 3.0])
def test_square_box_is_square_and_centred(margin: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        points = rng.uniform(-20, 400, 2) + rng.uniform(0, 1, (21, 2)) * rng.uniform(5, 300, 2)
        x0, y0, x1, y1 = box = square_box(points, margin)
        assert all(type(value) is int for value in box)
        assert x1 - x0 == y1 - y0
        assert abs((x1 - x0) - margin * np.ptp(points, axis=0).max()) <= 0.5
        middle_of_hand = (points.min(axis=0) + points.max(axis=0)) / 2
        np.testing.assert_allclose([(x0 + x1) / 2, (y0 + y1) / 2], middle_of_hand, atol=0.51)


def test_square_box_of_one_point_is_not_empty() -> None:
    x0, y0, x1, y1 = square_box(np.full((21, 2), 7.0), 1.5)
    assert x1 - x0 == y1 - y0 == 2 and cut(
        np.zeros((9, 9, 3), np.uint8), (x0, y0, x1, y1), 16, False
    ).shape == (
        16,
        16,
        3,
    )
