"""Pinhole cameras: projection, and the cameras of crops."""

from __future__ import annotations

import numpy as np
import pytest

from handclr_cli.hand.camera import assumed_camera, crop_camera, project, source_camera


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_project_is_the_pinhole_formula(rng: np.random.Generator) -> None:
    points = rng.normal(0, 0.1, (5, 3)) + [0, 0, 1]
    camera = np.array([[500.0, 0, 112], [0, 400, 100], [0, 0, 1]])
    for (x, y, z), found in zip(points, project(points, camera), strict=True):
        np.testing.assert_allclose(found, [500 * x / z + 112, 400 * y / z + 100])


def test_a_crop_sees_what_the_picture_sees(rng: np.random.Generator) -> None:
    points = rng.normal(0, 0.1, (9, 3)) + [0, 0, 1]
    camera, box = assumed_camera(640, 480, 60), (100, 50, 340, 290)
    assert camera[0, 0] == pytest.approx(320 / np.tan(np.pi / 6))
    in_crop = (project(points, camera) - box[:2]) * 224 / 240
    np.testing.assert_allclose(project(points, crop_camera(camera, box, 224)), in_crop, atol=1e-9)
    mirrored = project(points * [-1, 1, 1], crop_camera(camera, box, 224, flip=True))
    np.testing.assert_allclose(mirrored, [224, 0] + in_crop * [-1, 1], atol=1e-9)


@pytest.mark.parametrize("flip", [False, True])
def test_the_camera_of_the_picture_is_found_again(flip: bool) -> None:
    camera, box = assumed_camera(640, 480, 60), (100, 50, 340, 290)
    crop = crop_camera(camera, box, 224, flip)
    np.testing.assert_allclose(source_camera(crop, box, 224, flip), camera, atol=1e-9)
