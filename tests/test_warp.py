"""The batched augmentation makes the pictures that the one by one makes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from handclr_cli.learning import warp as warp_module
from handclr_cli.learning.augmentation import (
    IMAGENET_STD,
    Appearance,
    AugmentationConfig,
    Geometry,
    View,
    apply_view,
    draw_view,
    to_tensor,
    transform_points,
)
from handclr_cli.learning.warp import MAX_SIGMA, colour, gaussian_blur, render_views, warp

STILL = AugmentationConfig(
    size=64,
    geometric=False,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    blur_probability=0.0,
)


def smooth_image(side: int, rng: np.random.Generator) -> np.ndarray:
    noise = cv2.GaussianBlur(rng.normal(size=(side, side, 3)), (0, 0), 2.0)
    return np.clip(128 + 55 * noise / noise.std(), 0, 255).astype(np.uint8)


def rendered(views: list[View], images: np.ndarray) -> Tensor:
    return render_views(
        torch.from_numpy(images), Geometry.of(views), Appearance.of(views), views[0].size
    )


def grey_levels(difference: Tensor) -> Tensor:
    return (difference * 255 * torch.tensor(IMAGENET_STD)[:, None, None]).abs()


@pytest.mark.parametrize("side", [64, 107, 40])
@pytest.mark.parametrize(
    "config",
    [
        replace(STILL, geometric=True, rotation=180.0, scale=(0.5, 1.2), translation=0.3),
        replace(STILL, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.5),
        replace(STILL, blur_probability=1.0),
        AugmentationConfig(size=64),
    ],
    ids=["geometry", "colour", "blur", "all"],
)
@pytest.mark.slow
def test_the_views_are_those_made_one_by_one(config: AugmentationConfig, side: int) -> None:
    rng = np.random.default_rng(side)
    views = [draw_view(config, rng) for _ in range(100)]
    images = np.stack([smooth_image(side, rng) for _ in views])
    one_by_one = np.stack(
        [apply_view(view, image) for view, image in zip(views, images, strict=True)]
    )
    out = rendered(views, images)
    assert out.shape == (100, 3, 64, 64) and out.dtype == torch.float32
    difference = grey_levels(out - to_tensor(torch.from_numpy(one_by_one)))
    assert difference.mean() < 0.4
    assert difference.mean(dim=(1, 2, 3)).max() < 0.6
    assert difference.max() < 4


def test_the_identity_view_is_the_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(3, 32, 32, 3), dtype=np.uint8)
    before = images.copy()
    difference = grey_levels(
        rendered([View(size=32)] * 3, images) - to_tensor(torch.from_numpy(images))
    )
    assert difference.max() < 5e-3
    np.testing.assert_array_equal(images, before)


def spot_at(x: float, y: float, side: int, sigma: float) -> np.ndarray:
    """A picture (side, side, 3) of a light at x, y in sides, sigma in pixels."""
    at = (np.arange(side) + 0.5) / side
    away = (at[None, :] - x) ** 2 + (at[:, None] - y) ** 2
    spot = 255 * np.exp(-away / (2 * (sigma / side) ** 2))
    return np.repeat(spot.astype(np.uint8)[..., None], 3, axis=2)


def test_dots_land_where_their_points_do() -> None:
    rng = np.random.default_rng(1)
    size, views, expected, images = 64, [], [], []
    config = replace(STILL, geometric=True, rotation=180.0, scale=(0.6, 1.1), translation=0.2)
    while len(views) < 60:
        view = draw_view(config, rng)
        point = rng.uniform(0.1, 0.9, size=2)
        target = transform_points(view, point) * size
        if np.abs(target - size / 2).max() <= size / 2 - 12:
            images.append(spot_at(*point, side=107, sigma=2.5))
            views.append(view)
            expected.append(target)
    weight = warp(torch.from_numpy(np.stack(images)), Geometry.of(views), size).sum(dim=1).numpy()
    to = np.arange(size) + 0.5
    found = np.stack([(weight * to).sum((1, 2)), (weight * to[:, None]).sum((1, 2))], axis=1)
    assert np.abs(found / weight.sum((1, 2))[:, None] - np.array(expected)).max() < 0.2


def test_outside_the_crop_is_black() -> None:
    images = torch.full((1, 32, 32, 3), 200, dtype=torch.uint8)
    out = warp(images, Geometry.of([View(32, scale=2.0)]), 32)
    assert (
        (out[..., :7] == 0).all()
        and (out[..., :7, :] == 0).all()
        and (out[..., 10:22, 10:22] == 200).all()
    )


def test_a_view_does_not_depend_on_its_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warp_module, "_PIECE", 4)
    rng = np.random.default_rng(2)
    views = [draw_view(AugmentationConfig(size=16), rng) for _ in range(11)]
    images = rng.integers(0, 256, size=(11, 30, 30, 3), dtype=np.uint8)
    together = rendered(views, images)
    for n in range(11):
        assert (together[n] - rendered([views[n]], images[n : n + 1])[0]).abs().max() < 1e-5
    empty = render_views(torch.from_numpy(images[:0]), Geometry.of([]), Appearance.of([]), 16)
    assert empty.shape == (0, 3, 16, 16)


def test_blurring_by_nothing_changes_nothing_beside_blurred_company() -> None:
    images = 255 * torch.rand(3, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    out = gaussian_blur(images, torch.tensor([0.0, 1.5, 0.0]))
    assert torch.equal(out[0], images[0]) and torch.equal(out[2], images[2])
    assert (out[1] - images[1]).abs().max() > 10


def test_the_blur_is_opencvs_for_8_bit_images() -> None:
    """A bright pixel in the middle and one at the border: kernel, its radius, and the mirrored
    border.
    """
    sigmas = [0.1, 0.3, 0.5, 0.7, 1.0, 1.3, 1.6, 1.9, MAX_SIGMA]
    image = np.zeros((25, 31, 3), np.uint8)
    image[12, 15] = image[0, 2] = image[24, 29] = 255
    batch = torch.from_numpy(image).permute(2, 0, 1).float().repeat(len(sigmas), 1, 1, 1)
    out = gaussian_blur(batch, torch.tensor(sigmas))
    for blurred, sigma in zip(out, sigmas, strict=True):
        side = round(6 * sigma + 1) | 1
        kernel = cv2.getGaussianKernel(side, sigma)
        exact = cv2.sepFilter2D(
            image.astype(np.float32), -1, kernel, kernel, borderType=cv2.BORDER_REFLECT_101
        )
        np.testing.assert_allclose(blurred.permute(1, 2, 0), exact, atol=1e-3)
        np.testing.assert_allclose(
            blurred.permute(1, 2, 0), cv2.GaussianBlur(image, (0, 0), sigma), atol=1.5
        )


def test_grey_levels_stay_in_range_before_the_blur() -> None:
    images = 255 * torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    out = colour(
        images, Appearance.of([View(8, brightness=3.0), View(8, saturation=9.0, contrast=4.0)])
    )
    assert out.min() == 0 and out.max() == 255


def test_autocast_does_not_round_the_pictures() -> None:
    rng = np.random.default_rng(3)
    views = [draw_view(AugmentationConfig(size=16), rng) for _ in range(4)]
    images = rng.integers(0, 256, size=(4, 20, 20, 3), dtype=np.uint8)
    plain = rendered(views, images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rendered(views, images), plain)


@pytest.mark.slow
def test_no_step_needs_a_value_on_the_host() -> None:
    """Tensors without values can be worked on, so no step asks for one."""
    views = [View(16, blur_sigma=1.0), View(16, angle_deg=5.0)]
    images = torch.zeros(2, 20, 20, 3, dtype=torch.uint8, device="meta")
    out = render_views(images, Geometry.of(views).to("meta"), Appearance.of(views).to("meta"), 16)
    assert out.shape == (2, 3, 16, 16) and out.device.type == "meta"
