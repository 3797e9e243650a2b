"""The picture, the points and the recorded parameters of a view agree."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from handclr_cli.learning.augmentation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Appearance,
    AugmentationConfig,
    Geometry,
    View,
    apply_view,
    draw_view,
    move_pose,
    to_tensor,
    transform_points,
)

PLAIN: dict[str, Any] = {
    "brightness": 0.0,
    "contrast": 0.0,
    "saturation": 0.0,
    "hue": 0.0,
    "blur_probability": 0.0,
}


def dot(side: int, point: np.ndarray, sigma: float) -> np.ndarray:
    """A bright spot whose centre is at a point in units of the image's side, pixel
    centres at .5.
    """
    grid = (np.arange(side) + 0.5) / side
    spot = np.exp(
        -((grid[None, :] - point[0]) ** 2 + (grid[:, None] - point[1]) ** 2)
        / (2 * (sigma / side) ** 2)
    )
    return np.repeat((255 * spot).astype(np.uint8)[..., None], 3, axis=2)


def centroid(image: np.ndarray) -> np.ndarray:
    weight = image.astype(float).sum(axis=2)
    at = np.arange(len(image)) + 0.5
    return np.array([(weight * at[None, :]).sum(), (weight * at[:, None]).sum()]) / weight.sum()


@pytest.mark.parametrize(("side", "size"), [(224, 128), (96, 64), (64, 128), (512, 64)])
@pytest.mark.slow
def test_a_dot_lands_where_its_point_does(side: int, size: int) -> None:
    rng = np.random.default_rng(side)
    config = AugmentationConfig(size=size, rotation=180, scale=(0.5, 1.3), translation=0.2, **PLAIN)
    seen = 0
    while seen < 60:
        view, point = draw_view(config, rng), rng.uniform(0.1, 0.9, size=2)
        expected = transform_points(view, point) * size
        sigma = 1.5 * max(1.0, side / size)
        if np.abs(expected - size / 2).max() > size / 2 - 12:
            continue
        seen += 1
        image = apply_view(view, dot(side, point, sigma))
        assert image.shape == (size, size, 3) and image.dtype == np.uint8
        assert np.abs(centroid(image) - expected).max() < 0.3


def test_the_documented_signs() -> None:
    quarter = View(size=64, angle_deg=90)
    np.testing.assert_allclose(transform_points(quarter, [1.0, 0.5]), [0.5, 1.0], atol=1e-12)
    np.testing.assert_allclose(transform_points(View(64, scale=0.5), [0.75, 0.5]), [1.0, 0.5])
    moved = transform_points(View(64, angle_deg=30, translation=(0.1, -0.2)), [0.5, 0.5])
    np.testing.assert_allclose(moved, [0.6, 0.3])


def test_the_identity_view_is_the_image() -> None:
    image = np.random.default_rng(0).integers(0, 256, size=(32, 32, 3), dtype=np.uint8)
    before = image.copy()
    np.testing.assert_array_equal(apply_view(View(size=32), image), image)
    changed = apply_view(
        View(size=32, angle_deg=20, brightness=1.3, hue=0.1, blur_sigma=1.0), image
    )
    assert not np.array_equal(changed, image)
    np.testing.assert_array_equal(image, before)


def test_outside_the_crop_is_black() -> None:
    image = np.full((32, 32, 3), 200, dtype=np.uint8)
    out = apply_view(View(size=32, scale=2.0), image)
    assert (out[:7] == 0).all() and (out[10:22, 10:22] == 200).all()


@pytest.mark.parametrize("side", [16, 24, 64, 200])
def test_a_view_of_another_size_is_dark_at_no_border(side: int) -> None:
    flat = np.full((side, side, 3), 200, np.uint8)
    assert (apply_view(View(64), flat) == 200).all()
    assert apply_view(View(64, translation=(0.1, 0.0)), flat).min() == 0


def test_views_are_reproducible_and_within_range() -> None:
    config = AugmentationConfig()
    views = [draw_view(config, np.random.default_rng([4, i])) for i in range(300)]
    assert views == [draw_view(config, np.random.default_rng([4, i])) for i in range(300)]
    assert len(set(views)) == 300
    for values, bound in (
        ([v.angle_deg for v in views], 45.0),
        ([v.translation[0] for v in views], 0.07),
        ([v.translation[1] for v in views], 0.07),
        ([v.hue for v in views], 0.1),
    ):
        assert -bound <= min(values) < -0.9 * bound and 0.9 * bound < max(values) <= bound
    assert all(0.6 <= v.scale <= 1.0 for v in views)
    assert 0.4 < np.mean([v.blur_sigma > 0 for v in views]) < 0.6
    still = draw_view(AugmentationConfig(geometric=False), np.random.default_rng([4, 0]))
    assert (still.angle_deg, still.scale, still.translation) == (0.0, 1.0, (0.0, 0.0))
    assert (still.hue, still.blur_sigma) == (views[0].hue, views[0].blur_sigma)


def test_colours() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(90, 160, size=(16, 16, 3), dtype=np.uint8)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(float)
    darker = apply_view(View(16, brightness=0.5), image)
    np.testing.assert_allclose(darker, image / 2, atol=1)
    flat = apply_view(View(16, contrast=0.0), image)
    np.testing.assert_allclose(flat, grey.mean(), atol=1.5)
    dull = apply_view(View(16, saturation=0.0), image)
    np.testing.assert_allclose(dull, np.repeat(grey[..., None], 3, axis=2), atol=1.5)
    for hue in (-0.1, 0.1):
        turned = apply_view(View(16, hue=hue), image)
        np.testing.assert_allclose(cv2.cvtColor(turned, cv2.COLOR_RGB2GRAY), grey, atol=2)
        assert np.abs(turned.astype(int) - image).max() > 10
    red = np.full((8, 8, 3), (200, 60, 60), dtype=np.uint8)
    third = apply_view(View(8, hue=1 / 3), red)[0, 0]
    assert sorted(
        {int(third.argmax()), int(apply_view(View(8, hue=-1 / 3), red)[0, 0].argmax())}
    ) == [
        1,
        2,
    ]


def test_geometry_collects_and_joins() -> None:
    views = [View(64, angle_deg=90, scale=0.5, translation=(0.1, -0.1)), View(64)]
    both = Geometry.cat([Geometry.of(views), Geometry.of(views[:1])]).to("cpu")
    assert both.angle.tolist() == pytest.approx([math.pi / 2, 0, math.pi / 2])
    assert both.scale.tolist() == [0.5, 1.0, 0.5]
    assert both.translation.shape == (3, 2) and Geometry.of([]).translation.shape == (0, 2)


def test_appearance_collects() -> None:
    views = [
        View(64, brightness=0.7, contrast=1.2, saturation=0.8, hue=-0.1, blur_sigma=1.5),
        View(64),
    ]
    both = Appearance.of(views).to("cpu")
    assert all(field.dtype == torch.float32 for field in both)
    expected = [[0.7, 1.0], [1.2, 1.0], [0.8, 1.0], [-0.1, 0.0], [1.5, 0.0]]
    np.testing.assert_allclose(torch.stack(tuple(both)), expected, rtol=1e-6)
    assert all(field.shape == (0,) and field.dtype == torch.float32 for field in Appearance.of([]))


def test_to_tensor() -> None:
    batch = np.random.default_rng(0).integers(0, 256, size=(2, 4, 5, 3), dtype=np.uint8)
    out = to_tensor(torch.from_numpy(batch))
    expected = ((batch / 255 - IMAGENET_MEAN) / IMAGENET_STD).transpose(0, 3, 1, 2)
    assert out.shape == (2, 3, 4, 5) and out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-5)


def test_move_pose_keeps_picture_and_pose_together() -> None:
    """With a weak perspective camera, projecting the turned pose gives the turned keypoints."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        view = draw_view(AugmentationConfig(size=64, rotation=90, **PLAIN), rng)
        keypoints3d = rng.normal(scale=0.05, size=(21, 3)).astype(np.float32)
        keypoints2d = (112 + 600 * keypoints3d[:, :2]).astype(np.float32)
        moved, turned = move_pose(view, keypoints2d / 224, keypoints3d)
        assert moved.dtype == turned.dtype == np.float32
        np.testing.assert_allclose(turned[:, 2], keypoints3d[:, 2], rtol=1e-6)
        focal = 600 * 64 / (224 * view.scale)
        projected = (0.5 + np.array(view.translation)) * 64 + focal * turned[:, :2]
        np.testing.assert_allclose(moved, projected, atol=1e-3)
