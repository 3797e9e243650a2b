"""Synthetic hands move as hands can: within the limits, smoothly, without fingers running through
anything.
"""

from __future__ import annotations

import time

import numpy as np
import pytest

from handclr_cli.contract.errors import UsageError
from handclr_cli.synth.motion import (
    GRASPS,
    TOLERANCE,
    VOCABULARY,
    collision_depth,
    draw_grasp,
    held_object,
    orientation_track,
    pose_track,
    position_track,
    random_pose,
)
from handclr_cli.synth.skeleton import LIMITS, average_build, draw_build, pose_bones
from handclr_cli.synth.vocabulary import HeldObject

FPS = 30.0


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def joints_of(name: str) -> np.ndarray:
    return pose_bones(average_build(), np.radians(VOCABULARY[name]))[1][0]


def within_limits(angles: np.ndarray) -> bool:
    return bool((angles >= LIMITS[:, 0] - 1e-9).all() and (angles <= LIMITS[:, 1] + 1e-9).all())


@pytest.mark.parametrize("name", VOCABULARY)
def test_key_poses_are_possible(name: str) -> None:
    pose = np.radians(VOCABULARY[name])
    assert pose.shape == (22,) and within_limits(pose)
    assert collision_depth(pose[None])[0] <= TOLERANCE


def test_capsules_that_cross_are_found() -> None:
    crossed = np.radians(VOCABULARY["open"])
    crossed[[5, 9]] = -0.5, 0.5
    assert collision_depth(crossed[None])[0] > 0.008
    through_the_palm = np.radians(VOCABULARY["fist"])
    through_the_palm[4::4][:4] = np.radians(120)
    assert collision_depth(through_the_palm[None])[0] > 0.008


@pytest.mark.parametrize(
    ("name", "tip"), [("ok", 8), ("tip-middle", 12), ("tip-ring", 16), ("tip-pinky", 20)]
)
def test_the_thumb_opposes_each_fingertip(name: str, tip: int) -> None:
    joints = joints_of(name)
    distances = np.linalg.norm(joints[[8, 12, 16, 20]] - joints[4], axis=1)
    assert 0.010 < distances[tip // 4 - 2] < 0.017 and distances.argmin() == tip // 4 - 2


def test_hands_look_like_their_names() -> None:
    fist, spread = joints_of("fist"), joints_of("five-spread")
    # A fist's tips are back at the palm; an open hand's are farthest away.
    assert (fist[8::4, 2] < -0.01).all() and (fist[8::4, 1] < fist[5::4, 1]).all()
    assert (np.linalg.norm(spread[8::4] - spread[5::4], axis=1) > 0.068).all()
    gaps = np.linalg.norm(np.diff(spread[8::4], axis=0), axis=1)
    assert (
        gaps > np.linalg.norm(np.diff(joints_of("together")[8::4], axis=0), axis=1) + 0.008
    ).all()
    point = joints_of("point")
    assert point[8, 1] > point[[12, 16, 20], 1].max() + 0.06


def surface_distance(held: HeldObject, points: np.ndarray) -> np.ndarray:
    """Signed distance (...) of points (..., 3) in the hand frame from an object's surface."""
    local = (points - held.centre) @ held.frame[:3, :3]
    half = held.size / 2
    if held.kind == "sphere":
        return np.linalg.norm(local, axis=-1) - half[0]
    beyond = np.abs(local) - half
    if held.kind != "box":
        beyond = np.stack(
            [np.hypot(local[..., 0], local[..., 2]) - half[0], beyond[..., 1]], axis=-1
        )
    return np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(-1), 0)


@pytest.mark.parametrize("name", GRASPS)
def test_what_is_held_touches_the_hand_and_does_not_run_through_it(name: str) -> None:
    held = held_object(name)
    assert held is not None
    assert np.allclose(held.frame[:3, :3].T @ held.frame[:3, :3], np.eye(3))
    joints = joints_of(name)
    share = np.linspace(0, 1, 15)[:, None]
    bones = [joints[a] + share * (joints[a + 1] - joints[a]) for a in range(1, 20) if a % 4]
    gap = np.array([surface_distance(held, bone).min() for bone in bones]).reshape(5, 3)
    # Flesh is 7 to 11 mm thick around the bones.
    assert gap.min() > 0.0045
    touching = gap.min(axis=1) < 0.0115
    assert touching[1:].any() and (touching[0] or name == "hold-handle")
    metacarpals = joints[[5, 9, 13, 17]] * np.linspace(0.2, 0.95, 12)[:, None, None]
    assert surface_distance(held, metacarpals).min() > 0.009


def test_objects_grow_with_the_hand() -> None:
    assert held_object("open") is None
    plain, same = held_object("hold-can"), held_object("hold-can", average_build())
    assert plain is not None and same is not None and np.allclose(plain.centre, same.centre)
    build = draw_build(rng(3))
    scale = build.bases[2, 1] / average_build().bases[2, 1]
    larger = held_object("hold-can", build)
    assert larger is not None and np.isclose(larger.size[0] / plain.size[0], scale, rtol=0.15)
    assert draw_grasp(rng()) in GRASPS


@pytest.mark.slow
def test_random_poses_are_possible_and_varied() -> None:
    stream = rng(1)
    poses = np.stack([random_pose(stream) for _ in range(200)])
    assert within_limits(poses) and collision_depth(poses).max() <= TOLERANCE
    reached = (np.ptp(poses, axis=0) / np.ptp(LIMITS, axis=1))[:20]
    assert (reached > 0.6).all()
    coupling = np.corrcoef(poses[:, 6], poses[:, 7])[0, 1]
    neighbours = np.corrcoef(poses[:, 10], poses[:, 14])[0, 1]
    assert coupling > 0.9 and neighbours > 0.3


@pytest.mark.parametrize("grasp", [None, "hold-pen"])
def test_pose_tracks_are_smooth(grasp: str | None) -> None:
    for seed in range(4):
        track = pose_track(rng(seed), 300, FPS, grasp)
        assert track.shape == (300, 22) and within_limits(track)
        speed = np.diff(track, axis=0) * FPS
        assert np.abs(speed).max() < 15
        # A jump would be a change of speed that no joint makes within a frame.
        assert np.abs(np.diff(speed, axis=0)).max() < 9
        fine = pose_track(rng(seed), 1200, 4 * FPS, grasp)
        assert np.abs(np.diff(fine, axis=0)).max() < 0.45 * max(
            np.abs(np.diff(track, axis=0)).max(), 0.02
        )


def test_tracks_move_and_rest() -> None:
    track = pose_track(rng(5), 600, FPS)
    speed = np.abs(np.diff(track, axis=0)).max(axis=1) * FPS
    assert (speed < 0.5).mean() > 0.1 and (speed > 1.5).mean() > 0.2
    assert collision_depth(track).max() < 0.016 and (collision_depth(track) > 0.006).mean() < 0.05


@pytest.mark.parametrize("name", GRASPS)
def test_a_grasp_is_kept(name: str) -> None:
    track = pose_track(rng(2), 120, FPS, name)
    assert np.degrees(np.abs(track - np.radians(VOCABULARY[name]))[:, :20]).max() < 6
    assert np.degrees(np.ptp(track[:, 20])) > 3


def test_an_unknown_grasp_is_named() -> None:
    with pytest.raises(UsageError, match="hold-elephant"):
        pose_track(rng(), 3, FPS, "hold-elephant")


def test_a_still_is_a_draw_of_its_own() -> None:
    assert np.array_equal(pose_track(rng(4), 1, FPS)[0], random_pose(rng(4)))
    assert orientation_track(rng(), 1, FPS, 0.5).shape == (1, 3, 3)
    assert pose_track(rng(), 1, FPS, "hold-can").shape == (1, 22)
    assert position_track(rng(), 1, FPS, np.ones(3)).shape == (1, 3)


def test_the_same_generator_gives_the_same_tracks() -> None:
    for make in (
        lambda stream: pose_track(stream, 40, FPS),
        lambda stream: orientation_track(stream, 40, FPS, 0.7),
        lambda stream: position_track(stream, 40, FPS, np.ones(3)),
    ):
        assert np.array_equal(make(rng(8)), make(rng(8))) and not np.array_equal(
            make(rng(8)), make(rng(9))
        )


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_orientations_are_smooth_rotations(spread: float) -> None:
    for seed in range(4):
        track = orientation_track(rng(seed), 300, FPS, spread)
        assert np.allclose(track @ track.transpose(0, 2, 1), np.eye(3)) and np.allclose(
            np.linalg.det(track), 1
        )
        steps = track[1:] @ track[:-1].transpose(0, 2, 1)
        speed = np.arccos(np.clip((np.trace(steps, axis1=1, axis2=2) - 1) / 2, -1, 1)) * FPS
        assert speed.max() < 6
        assert np.abs(np.diff(speed)).max() < 1


@pytest.mark.slow
def test_views_are_spread_as_asked() -> None:
    stream = rng(6)
    narrow = np.concatenate([orientation_track(stream, 1, FPS, 0) for _ in range(400)])
    wide = np.concatenate([orientation_track(stream, 1, FPS, 1) for _ in range(1500)])
    # Rows of the transpose: the camera's forward axis, and up, in the hand frame.
    for views in (narrow, wide):
        assert abs((views[:, 2, 2] < 0).mean() - 0.5) < 0.08
    assert (np.abs(narrow[:, 2, 2]) > np.cos(np.radians(31))).all()
    assert (-narrow[:, 1, 1] > np.cos(np.radians(40))).mean() > 0.97
    assert (np.abs(wide[:, 2, 2]) < 0.5).mean() > 0.3
    along_the_arm = (np.abs(wide[:, 2, 1]) > np.sin(np.radians(60))).mean()
    assert 0 < along_the_arm < 0.04
    upright = (
        -wide[:, 1, 1] / np.hypot(wide[:, 0, 1], wide[:, 1, 1]) > np.cos(np.radians(40))
    ).mean()
    assert 0.5 < upright < 0.75
    assert (wide[:, 1, 1] > 0.5).mean() > 0.1


def test_tracks_with_no_spread_stay_upright() -> None:
    for seed in range(6):
        track = orientation_track(rng(seed), 600, FPS, 0)
        assert (np.abs(track[:, 2, 2]) > np.cos(np.radians(40))).all() and (
            track[:, 1, 1] < -0.7
        ).all()


def test_positions_stay_in_their_box() -> None:
    extent = np.array([0.4, 0.2, 0.0])
    track = position_track(rng(3), 900, FPS, extent)
    assert (np.abs(track) <= extent / 2 + 1e-12).all() and (
        np.ptp(track, axis=0) >= 0.5 * extent
    ).all()
    assert np.abs(np.diff(track, axis=0)).max() * FPS < 0.8


def test_the_cost_is_small() -> None:
    pose_track(rng(), 30, FPS)
    start = time.process_time()
    pose_track(rng(1), 900, FPS)
    orientation_track(rng(1), 900, FPS, 1)
    assert time.process_time() - start < 900 * 0.002
