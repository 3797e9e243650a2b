"""Decoded frames as a player shows them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from handclr_cli.footage.pixels import upright

ONE = 1 << 16
STORED = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def matrix(a: float, b: float, c: float, d: float) -> np.ndarray:
    """As in ISO 14496-12: x' = a x + c y, y' = b x + d y, in 16.16."""
    return np.int32([[a * ONE, b * ONE, 0], [c * ONE, d * ONE, 0], [0, 0, 1 << 30]])


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(("right", "down"), [*itertools.product([1, -1], repeat=2)])
def test_each_pixel_goes_where_the_matrix_says(swapped: bool, right: int, down: int) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    axes = np.array([[0, right], [down, 0]] if swapped else [[right, 0], [0, down]])
    shown = upright(stored, matrix(*axes.T.ravel()))
    y, x = np.indices(stored.shape[:2])
    places = np.stack([x, y], axis=-1) @ axes.T
    places -= places.min(axis=(0, 1))
    expected = np.zeros_like(shown)
    expected[places[..., 1], places[..., 0]] = stored
    np.testing.assert_array_equal(shown, expected)
    assert shown.flags.c_contiguous


def test_scale_is_left_out() -> None:
    np.testing.assert_array_equal(upright(STORED, matrix(-2, 0, 0, 0.5)), STORED[:, ::-1])


@pytest.mark.parametrize("nothing", [(0, 0, 0, 0), (1, 0, 0, 0), (1, 1, 1, 1)])
def test_a_matrix_that_shows_nothing_is_not_applied(nothing: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(upright(STORED, matrix(*nothing)), STORED)


def test_any_other_angle() -> None:
    """Turned by 30 degrees clockwise: what was on the right is lower, and all of it is there."""
    stored = np.zeros((40, 80, 3), np.uint8)
    stored[16:24, 70:78] = 255
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    shown = upright(stored, matrix(cos, sin, -sin, cos))
    assert shown.shape[:2] == (round(40 * cos + 80 * sin), round(80 * cos + 40 * sin))
    y, x = np.argwhere(shown[..., 0] > 127).mean(axis=0)
    assert (x, y) == pytest.approx((74 * cos - 20 * sin + 40 * sin, 74 * sin + 20 * cos), abs=1)
    assert (shown[..., 0] > 127).sum() == pytest.approx(64, rel=0.2)
