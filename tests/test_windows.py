"""Windows of an image: what is in them, and where it is in the image."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from handclr_cli.footage.frames import Hand
from handclr_cli.footage.windows import look_in, tile_boxes, whole_image, with_border
from handclr_cli.hand.square import Box

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 255, (48, 64, 3), dtype=np.uint8)


def corners(image: np.ndarray) -> list[Hand]:
    """A right hand whose points are on the marks (pixels of 255, 0, 255) of an image."""
    rows, columns = np.nonzero((image == (255, 0, 255)).all(axis=-1))
    points = np.stack([columns, rows], axis=1) + 0.5
    return [Hand(points, "right", 0.9, np.ones((21, 3)))] if len(points) else []


def marked(points: list[tuple[int, int]], size: tuple[int, int] = (64, 48)) -> np.ndarray:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for x, y in points:
        image[y, x] = 255, 0, 255
    return image


BOXES: list[Box] = [(0, 0, 64, 48), (10, 5, 40, 35), (-20, -10, 84, 58), (20, 10, 90, 80)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_points_are_those_of_the_image(box: Box, mirrored: bool) -> None:
    places = [(25, 12), (38, 14), (31, 33)]
    [hand] = look_in(marked(places), box, corners, mirrored=mirrored)
    found = sorted(map(tuple, hand.keypoints.tolist()))
    assert found == sorted((x + 0.5, y + 0.5) for x, y in places)
    assert hand.side == ("left" if mirrored else "right")
    assert hand.world is not None
    assert hand.world[0].tolist() == ([-1, 1, 1] if mirrored else [1, 1, 1])


def test_a_window_beyond_the_image_repeats_its_edges() -> None:
    seen: list[np.ndarray] = []

    def find(image: np.ndarray) -> list[Hand]:
        seen.append(image)
        return []

    look_in(IMAGE, with_border(IMAGE, 0.25), find)
    assert np.array_equal(seen[0], np.pad(IMAGE, ((16, 16), (16, 16), (0, 0)), mode="edge"))
    look_in(IMAGE, whole_image(IMAGE), find, mirrored=True)
    assert np.array_equal(seen[1], IMAGE[:, ::-1])
    look_in(IMAGE, (50, 40, 70, 60), find)
    assert np.array_equal(seen[2][:8, :14], IMAGE[40:, 50:])
    assert np.array_equal(seen[2][8:, 14:], np.broadcast_to(IMAGE[47, 63], (12, 6, 3)))


def test_a_large_window_is_shrunk_and_its_points_are_not() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    image[100:140, 200:260] = 255
    seen: list[np.ndarray] = []

    def find(picture: np.ndarray) -> list[Hand]:
        seen.append(picture)
        rows, columns = np.nonzero(picture[..., 0] > 127)
        low, high = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
        return [Hand(np.array([low, high], float), "left", 1.0)]

    [hand] = look_in(image, with_border(image, 0.5), find, largest=320)
    assert max(seen[0].shape) in (319, 320, 321)
    assert hand.keypoints == pytest.approx(np.array([[200, 100], [260, 140]]), abs=2)


def test_what_is_found_beyond_the_image_is_left_out() -> None:
    image = marked([(63, 20)])
    assert len(look_in(image, with_border(image, 0.5), corners)) == 0, "the edge goes on"
    assert look_in(image, (100, 100, 120, 120), corners) == []


SIZES = [(1, 1), (1, 300), (300, 2), (64, 64), (160, 90), (97, 211), (299, 300)]


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_tiles_cover_the_image(width: int, height: int, share: float) -> None:
    squares = list(tile_boxes(width, height, share, 1 / 3))
    side = round(share * min(width, height))
    if side < 1 or side == width == height:
        assert not squares
        return
    covered = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in squares:
        assert x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height
        assert x1 - x0 == y1 - y0 == side
        covered[y0:y1, x0:x1] = True
    assert covered.all()
    starts = sorted({x0 for x0, _, _, _ in squares})
    assert all(after - before <= side * 2 / 3 + 1 for before, after in pairwise(starts))


def test_the_tiles_of_a_film() -> None:
    assert len(list(tile_boxes(640, 480, 0.6, 1 / 3))) == 6
    assert list(tile_boxes(640, 480, 1.0, 1 / 3)) == [(0, 0, 480, 480), (160, 0, 640, 480)]
    assert list(tile_boxes(480, 480, 1.0, 1 / 3)) == []
