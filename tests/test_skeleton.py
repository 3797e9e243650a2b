"""The skeleton is an adult's in any pose: bones keep their lengths, fingers bend to the side they
should.
"""

from __future__ import annotations

import numpy as np
import pytest

from handclr_cli.synth.skeleton import (
    ANGLES,
    BONES,
    FOREARM,
    LIMITS,
    PALM,
    average_build,
    clip_angles,
    draw_build,
    keypoints,
    pose_bones,
    rest_pose,
    rotation,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def any_poses(count: int, seed: int = 0) -> np.ndarray:
    return rng(seed).uniform(LIMITS[:, 0], LIMITS[:, 1], (count, len(ANGLES)))


def with_angle(name: str, degrees: float) -> np.ndarray:
    pose = rest_pose()
    pose[ANGLES.index(name)] = np.radians(degrees)
    return pose


def test_limits_are_those_of_a_hand() -> None:
    assert len(ANGLES) == len(set(ANGLES)) == 22 and LIMITS.shape == (22, 2) and len(BONES) == 17
    assert (
        (LIMITS[:, 0] < 0).all()
        and (LIMITS[:, 1] > 0).all()
        and np.abs(LIMITS).max() < np.radians(120)
    )
    wild = rng().normal(0, 3, (4, 7, 22))
    clipped = clip_angles(wild)
    assert clipped.shape == wild.shape
    assert (clipped >= LIMITS[:, 0]).all() and (clipped <= LIMITS[:, 1]).all()
    inside = any_poses(20)
    np.testing.assert_array_equal(clip_angles(inside), inside)


def test_bones_keep_their_lengths_in_any_pose() -> None:
    for seed in range(10):
        build = draw_build(rng(seed))
        frames, joints = pose_bones(build, any_poses(30, seed))
        assert frames.shape == (30, 17, 4, 4) and joints.shape == (30, 21, 3)
        assert not joints[:, 0].any()
        fingers = joints[:, 1:].reshape(30, 5, 4, 3)
        lengths = np.linalg.norm(np.diff(fingers, axis=2), axis=-1)
        np.testing.assert_allclose(
            lengths, np.broadcast_to(build.lengths, lengths.shape), atol=1e-12
        )
        np.testing.assert_array_equal(fingers[:, :, 0], np.broadcast_to(build.bases, (30, 5, 3)))


def test_frames_are_rigid_and_lie_along_the_bones() -> None:
    frames, joints = pose_bones(average_build(), any_poses(50))
    turns = frames[..., :3, :3]
    np.testing.assert_allclose(
        turns @ turns.swapaxes(-1, -2), np.broadcast_to(np.eye(3), turns.shape), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-12)
    for bone in range(2, 17):
        finger, number = divmod(bone - 2, 3)
        first = 1 + 4 * finger + number
        along = (joints[:, first + 1] - joints[:, first]) / average_build().lengths[finger, number]
        np.testing.assert_allclose(frames[:, bone, :3, 1], along, atol=1e-9)
        np.testing.assert_array_equal(frames[:, bone, :3, 3], joints[:, first])
    np.testing.assert_array_equal(frames[:, PALM], np.broadcast_to(np.eye(4), (50, 4, 4)))
    assert not frames[:, FOREARM, :3, 3].any()


def test_angles_bend_to_the_side_they_are_named_for() -> None:
    rest = pose_bones(average_build(), rest_pose())[1][0]
    for number, finger in enumerate(("index", "middle", "ring", "pinky"), start=1):
        base, tip = 1 + 4 * number, 4 + 4 * number
        for angle, still in (("flexion", base), ("flexion2", base + 1), ("flexion3", base + 2)):
            bent = pose_bones(average_build(), with_angle(f"{finger}_{angle}", 60))[1][0]
            assert bent[tip, 2] < rest[tip, 2] - 0.008, "towards the palm"
            np.testing.assert_allclose(bent[: still + 1], rest[: still + 1], atol=1e-12)
            np.testing.assert_allclose(bent[tip + 1 :], rest[tip + 1 :], atol=1e-12)
        aside = pose_bones(average_build(), with_angle(f"{finger}_abduction", 10))[1][0]
        assert aside[tip, 0] < rest[tip, 0] - 0.005, "towards the thumb"
    opposed = pose_bones(average_build(), with_angle("thumb_flexion", 50))[1][0]
    assert opposed[4, 2] < rest[4, 2] and np.linalg.norm(opposed[4] - rest[17]) < np.linalg.norm(
        rest[4] - rest[17]
    )


def test_one_pose_and_many_agree() -> None:
    poses, build = any_poses(5), draw_build(rng(1))
    frames, joints = pose_bones(build, poses)
    for row, pose in enumerate(poses):
        alone = pose_bones(build, pose)
        np.testing.assert_allclose(alone[0][0], frames[row], atol=1e-15)
        np.testing.assert_allclose(alone[1][0], joints[row], atol=1e-15)


def test_keypoints_leave_the_joints_only_where_landmarks_do() -> None:
    frames, joints = pose_bones(average_build(), any_poses(40))
    before = joints.copy()
    marks = keypoints(frames, joints)
    np.testing.assert_array_equal(joints, before)
    apart = np.linalg.norm(marks - joints, axis=-1)
    moved = [1, 4, 8, 12, 16, 20]
    assert not np.delete(apart, moved, axis=1).any()
    assert (apart[:, moved] > 0.002).all() and (apart[:, moved] < 0.015).all()
    for joint in moved:
        # They stay on the bone: no farther from either end than the bone is long.
        low = joint if joint == 1 else joint - 1
        ends = joints[:, low], joints[:, low + 1]
        split = sum(np.linalg.norm(marks[:, joint] - end, axis=-1) for end in ends)
        np.testing.assert_allclose(split, np.linalg.norm(ends[1] - ends[0], axis=-1), atol=1e-9)


@pytest.mark.slow
def test_builds_are_those_of_adults() -> None:
    builds = [draw_build(rng(seed)) for seed in range(800)]
    for build in builds:
        assert (build.lengths > 0.012).all() and (build.lengths < 0.060).all()
        assert (build.girth > 0.6).all() and (build.girth < 1.6).all()
        # The order that every hand has: proximal, middle, distal.
        assert (np.diff(build.lengths, axis=1) < 0).all()
    length = np.array([np.linalg.norm(build.bases[2]) + build.lengths[2].sum() for build in builds])
    breadth = np.array([np.linalg.norm(build.bases[1] - build.bases[4]) for build in builds])
    # Hand length of adults, 1st percentile of women to 99th of men, is about 0.155 to 0.215 m.
    assert (
        0.14 < length.min() < 0.165
        and 0.195 < length.max() < 0.225
        and 0.175 < np.median(length) < 0.190
    )
    assert length.std() > 0.008 and breadth.min() > 0.04 and breadth.max() < 0.08
    shape = length / breadth
    assert shape.std() / shape.mean() > 0.02, "proportions differ, not only sizes"


def test_the_same_seed_is_the_same_person() -> None:
    first, again, other = draw_build(rng(7)), draw_build(rng(7)), draw_build(rng(8))
    for name in ("bases", "lengths", "girth"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert (getattr(first, name) != getattr(other, name)).any()


def test_rotations_turn_right_handed() -> None:
    for axis in range(3):
        first, second = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
        np.testing.assert_allclose(rotation(axis, np.pi / 2) @ first, second, atol=1e-12)
    assert rotation(0, np.zeros((2, 3))).shape == (2, 3, 3, 3)
