"""Pinhole cameras: projection and its inverse."""

from __future__ import annotations

import numpy as np
import pytest

from handclr_cli.hand.camera import assumed_camera, crop_camera, place, project


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def hands(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hands from the wrist (N, 21, 3), where they are (N, 3), and cameras (N, 3, 3) of
    all kinds.
    """
    shapes = rng.normal(0, 0.05, (count, 21, 3))
    shapes -= shapes[:, :1]
    where = np.stack([*rng.uniform(-0.2, 0.2, (2, count)), rng.uniform(0.4, 1.5, count)], axis=-1)
    cameras = np.zeros((count, 3, 3))
    cameras[:, 0, 0], cameras[:, 1, 1] = rng.uniform(200, 2000, (2, count))
    cameras[:, :2, 2], cameras[:, 2, 2] = rng.uniform(-500, 500, (count, 2)), 1
    cameras[:, 0, 1] = rng.normal(0, 5, count)
    return shapes, where, cameras


def seen(shapes: np.ndarray, where: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    points = shapes + where[:, None]
    return np.stack([project(hand, camera) for hand, camera in zip(points, cameras, strict=True)])


def test_project_is_the_pinhole_formula(rng: np.random.Generator) -> None:
    points = rng.normal(0, 0.1, (5, 3)) + [0, 0, 1]
    camera = np.array([[500.0, 0, 112], [0, 400, 100], [0, 0, 1]])
    for (x, y, z), found in zip(points, project(points, camera), strict=True):
        np.testing.assert_allclose(found, [500 * x / z + 112, 400 * y / z + 100])


def test_place_inverts_project(rng: np.random.Generator) -> None:
    shapes, where, cameras = hands(rng, 500)
    np.testing.assert_allclose(
        place(shapes, seen(shapes, where, cameras), cameras), where, atol=1e-9
    )
    # Any origin will do: what is added to the hand is what is missing.
    moved = place(shapes + 0.3, seen(shapes, where, cameras), cameras)
    np.testing.assert_allclose(moved, where - 0.3, atol=1e-9)


def test_place_degrades_with_the_noise_and_no_faster(rng: np.random.Generator) -> None:
    shapes, where, cameras = hands(rng, 500)
    cameras[:, 0, 0] = cameras[:, 1, 1] = 600
    pixels = seen(shapes, where, cameras)
    far = []
    for noise in (0.1, 1.0, 3.0):
        error = place(shapes, pixels + rng.normal(0, noise, pixels.shape), cameras) - where
        far.append(np.median(np.linalg.norm(error, axis=-1)))
    assert far[0] < 0.002 and far[1] < 0.02 and far[2] < 0.06
    assert far[1] == pytest.approx(10 * far[0], rel=0.3)


def test_a_hand_of_another_size_is_as_much_farther_away(rng: np.random.Generator) -> None:
    shapes, where, cameras = hands(rng, 50)
    pixels = seen(shapes, where, cameras)
    np.testing.assert_allclose(place(1.2 * shapes, pixels, cameras), 1.2 * where, atol=1e-9)


def test_joints_seen_in_one_point_stay_finite(rng: np.random.Generator) -> None:
    shapes, where, cameras = hands(rng, 4)
    pixels = np.repeat(seen(shapes, where, cameras)[:, :1], 21, axis=1)
    found = place(shapes, pixels.astype(np.float32), cameras)
    assert np.isfinite(found).all() and np.abs(found).max() < 1


def test_a_crop_sees_what_the_picture_sees(rng: np.random.Generator) -> None:
    points = rng.normal(0, 0.1, (9, 3)) + [0, 0, 1]
    camera, box = assumed_camera(640, 480, 60), (100, 50, 340, 290)
    assert camera[0, 0] == pytest.approx(320 / np.tan(np.pi / 6))
    in_crop = (project(points, camera) - box[:2]) * 224 / 240
    np.testing.assert_allclose(project(points, crop_camera(camera, box, 224)), in_crop, atol=1e-9)
    mirrored = project(points * [-1, 1, 1], crop_camera(camera, box, 224, flip=True))
    np.testing.assert_allclose(mirrored, [224, 0] + in_crop * [-1, 1], atol=1e-9)
