"""The rasteriser finds at every pixel centre what a ray through it meets first, one pixel and
triangle at a time.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from handclr_cli.synth.raster import Fragments, rasterize

FOCAL = 30.0
# Pixels this near to an edge, or surfaces this near to each other, are decided by rounding.
EDGE, GAP = 1e-4, 1e-4


def camera(height: int, width: int) -> np.ndarray:
    return np.array([[FOCAL, 0, width / 2], [0, FOCAL, height / 2], [0, 0, 1]])


def on_screen(corners: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Pixels and depth (V, 3) of points (V, 3) in the camera frame."""
    pixels = corners @ camera(height, width).T
    return torch.tensor(
        np.column_stack([pixels[:, :2] / pixels[:, 2:], corners[:, 2]]), dtype=torch.float32
    )


def random_triangles(count: int, seed: int, size: float = 0.5) -> np.ndarray:
    """Corners (N, 3, 3) in the camera frame; some reach beyond the picture, half show
    their backs.
    """
    rng = np.random.default_rng(seed)
    middles = rng.uniform([-0.6, -0.6, 0.7], [0.6, 0.6, 2.0], (count, 3))
    return middles[:, None] + rng.normal(0, size / 2, (count, 3, 3)) * [1, 1, 0.6]


def trace(corners: np.ndarray, height: int, width: int) -> tuple[np.ndarray, ...]:
    """By ray and plane in the camera frame: face (H, W), weights (H, W, 3), depth (H, W), and
    whether it is certain.
    """
    face = np.full((height, width), -1)
    weights, depth = np.zeros((height, width, 3)), np.full((height, width), np.inf)
    certain = np.ones((height, width), bool)
    row, column = np.mgrid[:height, :width] + 0.5
    rays = (
        np.stack([column, row, np.ones_like(row)], axis=-1) @ np.linalg.inv(camera(height, width)).T
    )
    for number, triangle in enumerate(corners):
        normal = np.cross(triangle[1] - triangle[0], triangle[2] - triangle[0])
        if normal @ triangle[0] >= 0 or triangle[:, 2].min() <= 0.02:
            continue
        share = rays @ np.linalg.inv(triangle)
        margin = share.min(axis=-1) / np.abs(share).max(axis=-1)
        here = 1 / share.sum(axis=-1)
        certain &= (margin < -EDGE) | ((margin > EDGE) & (np.abs(here - depth) > GAP))
        nearer = (margin >= 0) & (here < depth)
        face[nearer], depth[nearer] = number, here[nearer]
        weights[nearer] = (share * here[..., None])[nearer]
    return face, weights, depth, certain


def as_pictures(seen: Fragments, height: int, width: int) -> tuple[np.ndarray, ...]:
    face = np.full(height * width, -1)
    weights, depth = np.zeros((height * width, 3)), np.full(height * width, np.inf)
    face[seen.pixel], weights[seen.pixel], depth[seen.pixel] = seen.face, seen.weights, seen.depth
    return (
        face.reshape(height, width),
        weights.reshape(height, width, 3),
        depth.reshape(height, width),
    )


def draw(corners: np.ndarray, height: int, width: int) -> Fragments:
    points = on_screen(corners.reshape(-1, 3), height, width)
    return rasterize(points[None], torch.arange(len(points)).reshape(-1, 3), height, width)


@pytest.mark.parametrize(("count", "size"), [(40, 0.5), (600, 0.1), (25, 1.5), (3000, 0.03)])
@pytest.mark.slow
def test_agrees_with_rays(count: int, size: float) -> None:
    height, width = 48, 61
    corners = random_triangles(count, count, size)
    face, weights, depth, certain = trace(corners, height, width)
    assert certain.mean() > 0.97 and len(np.unique(face)) > 8
    seen_face, seen_weights, seen_depth = as_pictures(draw(corners, height, width), height, width)
    np.testing.assert_array_equal(seen_face[certain], face[certain])
    shown = certain & (face >= 0)
    np.testing.assert_allclose(seen_weights[shown], weights[shown], atol=2e-4)
    np.testing.assert_allclose(seen_depth[shown], depth[shown], rtol=2e-4)


def test_fragments_give_back_the_point_that_is_seen() -> None:
    height, width = 40, 50
    corners = random_triangles(15, 3)
    seen = draw(corners, height, width)
    faces = torch.arange(45).reshape(-1, 3)
    points = seen.blend(torch.tensor(corners.reshape(-1, 3), dtype=torch.float32), faces).numpy()
    pixels = points @ camera(height, width).T
    pixels = pixels[:, :2] / pixels[:, 2:]
    place = seen.pixel.numpy()
    np.testing.assert_allclose(
        pixels, np.stack([place % width, place // width], axis=1) + 0.5, atol=2e-3
    )
    np.testing.assert_allclose(points[:, 2], seen.depth.numpy(), rtol=1e-4)
    np.testing.assert_allclose(seen.weights.sum(dim=1).numpy(), 1, atol=1e-5)
    assert (np.diff(place) > 0).all()


def test_pictures_of_a_batch_do_not_touch() -> None:
    height, width = 20, 24
    faces = torch.arange(30).reshape(-1, 3)
    points = torch.stack(
        [on_screen(random_triangles(10, seed).reshape(-1, 3), height, width) for seed in range(3)]
    )
    together = rasterize(points, faces, height, width)
    colours = torch.rand(3, 30, 2, generator=torch.Generator().manual_seed(0))
    for number in range(3):
        alone, own = (
            rasterize(points[number : number + 1], faces, height, width),
            together.image == number,
        )
        assert torch.equal(together.pixel[own] - number * height * width, alone.pixel)
        assert torch.equal(together.face[own], alone.face) and torch.equal(
            together.depth[own], alone.depth
        )
        blended = together.blend(colours, faces)[own]
        assert torch.equal(blended, alone.blend(colours[number], faces))


def square(depth: float, low: float, high: float) -> list[list[float]]:
    return [[low, low, depth], [low, high, depth], [high, high, depth], [high, low, depth]]


def test_the_nearest_wins_whatever_the_order() -> None:
    points = torch.tensor([square(2.0, 0, 8) + square(1.0, 2, 6)])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    depth = as_pictures(rasterize(points, faces, 8, 8), 8, 8)[2]
    expected = np.full((8, 8), 2.0)
    expected[2:6, 2:6] = 1.0
    np.testing.assert_allclose(depth, expected, rtol=1e-6)
    np.testing.assert_allclose(
        as_pictures(rasterize(points, faces.flip(0), 8, 8), 8, 8)[2], expected, rtol=1e-6
    )


def test_a_tie_goes_to_the_lower_number() -> None:
    points = torch.tensor([square(1.0, 0, 8)])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 2, 3]])
    assert set(rasterize(points, faces, 8, 8).face.tolist()) == {0, 1}


def test_neighbours_leave_no_gap() -> None:
    """A grid of triangles over the whole picture, and beyond it, covers every pixel."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(-3, 53, 15), np.linspace(-3, 43, 12))
    grid = np.stack([x, y], axis=-1)
    grid[1:-1, 1:-1] += rng.uniform(-1, 1, grid[1:-1, 1:-1].shape)
    points = torch.tensor(
        np.dstack([grid, rng.uniform(0.5, 0.6, x.shape)]).reshape(1, -1, 3), dtype=torch.float32
    )
    number = np.arange(x.size).reshape(x.shape)
    a, b, c, d = (
        part.ravel()
        for part in (number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:])
    )
    faces = torch.tensor(np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)]))
    assert len(rasterize(points, faces, 40, 50).pixel) == 40 * 50
    assert len(rasterize(points, faces.flip(1), 40, 50).pixel) == 0, "backs are not seen"


def test_a_triangle_much_larger_than_the_picture() -> None:
    points = torch.tensor([[[-4000.0, -4000, 1], [-4000, 9000, 1], [9000, -4000, 1]]])
    seen = rasterize(points, torch.tensor([[0, 1, 2]]), 9, 7)
    assert torch.equal(seen.pixel, torch.arange(63))


def test_what_is_nearer_than_the_near_plane_is_dropped() -> None:
    face = torch.tensor([[0, 1, 2], [0, 2, 3]])
    for depth, count in ((0.021, 64), (0.02, 0), (0.0, 0), (-1.0, 0)):
        assert len(rasterize(torch.tensor([square(depth, 0, 8)]), face, 8, 8).pixel) == count
    behind = torch.tensor([square(1.0, 0, 8)])
    behind[0, 0, 2] = -0.5
    assert len(rasterize(behind, face, 8, 8).pixel) == 0, "one corner behind the camera is enough"


@pytest.mark.parametrize("shift", [(9, 0), (-9, 0), (0, 9), (0, -9), (8, 0), (0, -8)])
def test_nothing_beside_the_picture(shift: tuple[int, int]) -> None:
    points = torch.tensor([square(1.0, 0, 8)]) + torch.tensor([*shift, 0.0])
    assert len(rasterize(points, torch.tensor([[0, 1, 2], [0, 2, 3]]), 8, 8).pixel) == 0


@pytest.mark.parametrize(
    ("batch", "vertices", "faces"), [(0, 3, 1), (2, 0, 0), (2, 3, 0), (2, 3, 1)]
)
def test_nothing_to_see(batch: int, vertices: int, faces: int) -> None:
    """No pictures, no mesh, or one without area."""
    seen = rasterize(torch.ones(batch, vertices, 3), torch.zeros(faces, 3, dtype=torch.int64), 8, 8)
    assert len(seen.pixel) == len(seen.depth) == len(seen.face) == 0 and seen.weights.shape == (
        0,
        3,
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_sees_the_same() -> None:
    height, width = 200, 240
    points = torch.stack(
        [
            on_screen(random_triangles(500, seed, 0.2).reshape(-1, 3), height, width)
            for seed in (0, 1)
        ]
    )
    faces = torch.arange(1500).reshape(-1, 3)
    here, there = (
        rasterize(points, faces, height, width),
        rasterize(points.cuda(), faces.cuda(), height, width),
    )
    pictures = [
        torch.full((2 * height * width,), -1).scatter(0, seen.pixel.cpu(), seen.face.cpu())
        for seen in (here, there)
    ]
    assert (pictures[0] != pictures[1]).float().mean() < 1e-4
