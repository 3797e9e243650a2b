"""Where hands of known size are: exact on exact data, without bias on noise, with a true spread."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from handclr_cli.hand.camera import project
from handclr_cli.hand.placement import GIVEN, Cut, placed
from handclr_cli.hand.translation import NOISE_2D, place

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

from placement_hands import SIDE, Hands, hands, predicted
from placement_peers import linear, newton, seen

PX = NOISE_2D * SIDE


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def drawn() -> Hands:
    return hands(np.random.default_rng(1), 1500)


def any_hands(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def seen_by(shapes: np.ndarray, where: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    points = shapes + where[:, None]
    return np.stack([project(hand, camera) for hand, camera in zip(points, cameras, strict=True)])


def test_place_inverts_project(rng: np.random.Generator) -> None:
    shapes, where, cameras = any_hands(rng, 500)
    np.testing.assert_allclose(
        place(shapes, seen_by(shapes, where, cameras), cameras, PX).move, where, atol=1e-9
    )
    # Any origin will do: what is added to the hand is what is missing.
    moved = place(shapes + 0.3, seen_by(shapes, where, cameras), cameras, PX).move
    np.testing.assert_allclose(moved, where - 0.3, atol=1e-9)


def test_place_degrades_with_the_noise_and_no_faster(rng: np.random.Generator) -> None:
    shapes, where, cameras = any_hands(rng, 500)
    cameras[:, 0, 0] = cameras[:, 1, 1] = 600
    pixels = seen_by(shapes, where, cameras)
    far = []
    for noise in (0.1, 1.0, 3.0):
        error = place(shapes, pixels + rng.normal(0, noise, pixels.shape), cameras, PX).move - where
        far.append(np.median(np.linalg.norm(error, axis=-1)))
    assert far[0] < 0.002 and far[1] < 0.02 and far[2] < 0.06
    assert far[1] == pytest.approx(10 * far[0], rel=0.3)


def test_a_hand_of_another_size_is_as_much_farther_away(rng: np.random.Generator) -> None:
    shapes, where, cameras = any_hands(rng, 50)
    pixels = seen_by(shapes, where, cameras)
    np.testing.assert_allclose(
        place(1.2 * shapes, pixels, cameras, PX).move, 1.2 * where, atol=1e-9
    )


def test_joints_seen_in_one_point_stay_finite(rng: np.random.Generator) -> None:
    shapes, where, cameras = any_hands(rng, 4)
    pixels = np.repeat(seen_by(shapes, where, cameras)[:, :1], 21, axis=1)
    found, sigma = place(shapes, pixels.astype(np.float32), cameras, PX)
    assert np.isfinite(found).all() and np.abs(found).max() < 1 and np.isinf(sigma).all()


def test_exact_predictions_have_exact_depths_and_no_spread(drawn: Hands) -> None:
    move, sigma = place(drawn.relative, drawn.pixels, drawn.cameras, PX)
    np.testing.assert_allclose(move, drawn.wrist, atol=1e-9)
    assert sigma.max() < 1e-9
    # Whatever errors are expected.
    for px in (1e-6, 1e3):
        moved = place(drawn.relative, drawn.pixels, drawn.cameras, px).move
        np.testing.assert_allclose(moved, drawn.wrist, atol=1e-9)


def depth_errors(drawn: Hands, px: float, mm: float, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Errors of the wrist's depth in mm, and these in standard deviations."""
    poses, pixels = predicted(np.random.default_rng(2), drawn, px, mm, kind)
    move, sigma = place(poses, pixels, drawn.cameras, PX)
    off = move[:, 2] - drawn.wrist[:, 2]
    return 1000 * off, off / sigma


@pytest.mark.parametrize("kind", ["alone", "in groups", "together"])
@pytest.mark.parametrize(
    ("px", "mm", "most"), [(2, 4, 4), (4, 8, 10), (6, 8, 7), (10, 8, 22), (10, 12, 12), (4, 12, 22)]
)
def test_errors_in_both_leave_the_depth_where_it_is(
    drawn: Hands, px: float, mm: float, most: float, kind: str
) -> None:
    assert abs(np.median(depth_errors(drawn, px, mm, kind)[0])) < most


def test_the_pose_or_the_rays_taken_as_exact_are_worse(drawn: Hands) -> None:
    """What place replaces, and the other usual choice, each where it is worst."""
    near = abs(np.median(depth_errors(drawn, 10, 8, "alone")[0]))
    far = abs(np.median(depth_errors(drawn, 2, 8, "alone")[0]))
    for peer, px, sign, ours in ((linear, 10, -1, near), (newton(both=False), 2, 1, far)):
        poses, pixels = predicted(np.random.default_rng(2), drawn, px, 8, "alone")
        found = peer(seen(poses, pixels, drawn.cameras, PX))
        off = sign * 1000 * np.median(found[:, 2] - drawn.wrist[:, 2])
        assert off > 25 and off > 1.8 * ours


@pytest.mark.parametrize("kind", ["in groups", "together"])
@pytest.mark.parametrize(("px", "mm"), [(2, 4), (4, 8), (10, 4), (2, 12), (10, 12)])
def test_the_spread_is_that_of_errors_as_they_are(
    drawn: Hands, px: float, mm: float, kind: str
) -> None:
    off = np.abs(depth_errors(drawn, px, mm, kind)[1])
    assert 0.6 < (off < 1).mean() < 0.76 and 0.9 < (off < 2).mean() < 0.985


def test_joints_that_err_each_alone_are_known_better_than_is_said(drawn: Hands) -> None:
    off = np.abs(depth_errors(drawn, 6, 8, "alone")[1])
    assert (off < 1).mean() > 0.9


def test_a_spread_grows_with_the_errors_and_with_the_distance(drawn: Hands) -> None:
    def sigma(px: float, mm: float) -> np.ndarray:
        poses, pixels = predicted(np.random.default_rng(2), drawn, px, mm)
        return place(poses, pixels, drawn.cameras, PX).depth_sigma

    once, twice = sigma(2, 4), sigma(4, 8)
    assert np.median(twice / once) == pytest.approx(2, rel=0.05)
    far = drawn.wrist[:, 2] > 0.65
    assert np.median(once[far]) > 1.5 * np.median(once[~far])


def test_what_says_nothing_of_the_distance_has_no_finite_spread(rng: np.random.Generator) -> None:
    camera = np.array([[200.0, 0, 32], [0, 200, 32], [0, 0, 1]])
    cut = Cut(64, (0, 0, 64, 64), False, camera, GIVEN)
    shapes, _, _ = any_hands(rng, 4)
    uv = np.full((4, 21, 2), 0.5)
    uv[1] = 0.5 - shapes[1, :, :2]  # behind the camera
    uv[2] = rng.uniform(0, 1, (21, 2))  # no hand at all
    uv[3] = project(shapes[3] + [0, 0, 0.5], camera) / 64
    found = placed(shapes, uv, [cut] * 4)
    assert found.fitted.tolist() == [False, False, False, True]
    assert np.isinf(found.depth_sigma).tolist() == [True, True, True, False]
    assert found.depth_sigma.dtype == np.float32 and found.depth_sigma[3] < 1e-6
    assert np.isfinite(found.keypoints3d).all() and (found.keypoints3d[..., 2] > 0).all()
    # No hand at all still stands somewhere.
    assert found.keypoints3d[:, 0, 2].max() < 100
