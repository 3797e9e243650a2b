"""How synthetic hands move: possible poses, and smooth tracks of pose, orientation and place.

Key poses in which capsules around the bones run through each other are refused. All randomness
comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ..contract.errors import UsageError
from .skeleton import LIMITS, average_build, clip_angles, pose_bones, rotation
from .vocabulary import GRASPS, VOCABULARY, HeldObject, held_object

__all__ = [
    "GRASPS",
    "VOCABULARY",
    "HeldObject",
    "collision_depth",
    "draw_grasp",
    "held_object",
    "orientation_track",
    "pose_track",
    "position_track",
    "random_pose",
]

# Metres. Flesh yields by TOLERANCE at a key pose; on the way to one, PASSING is let through.
TOLERANCE, PASSING = 0.004, 0.007
_RADII = np.array(
    [
        [0.0115, 0.0105, 0.0090, 0.0080],
        [0.0100, 0.0092, 0.0082, 0.0075],
        [0.0100, 0.0094, 0.0084, 0.0076],
        [0.0096, 0.0090, 0.0080, 0.0073],
        [0.0088, 0.0080, 0.0072, 0.0066],
    ]
)
# Metacarpals of index to pinky: their ends at the wrist, and how far below the knuckles' axes the
# palm's flesh is.
_CARPUS = np.array(
    [
        [-0.010, 0.012, -0.004],
        [-0.003, 0.012, -0.004],
        [0.006, 0.012, -0.005],
        [0.014, 0.012, -0.006],
    ]
)
_BELOW_KNUCKLES = np.array([0.0, -0.004, -0.004])
_START_RADII = np.append(_RADII[:, :3], np.full(4, 0.0120))
_END_RADII = np.append(_RADII[:, 1:], np.full(4, 0.0115))
# Capsules: three for each finger, then the four of the palm. A finger's first bone grows out of the
# palm.
_PAIRS = np.array(
    [
        (a, b)
        for a in range(15)
        for b in range(a + 1, 19)
        if (a // 3 != b // 3 if b < 15 else a % 3 > 0)
    ]
).T

_VOCABULARY = np.radians(np.stack(list(VOCABULARY.values())))
_VIA = np.radians(np.stack([VOCABULARY[name] for name in ("relaxed", "open", "five-spread")]))
# Degrees of variation: the thumb, the other fingers, the wrist. DIP follows PIP.
_NOISE = np.radians([5, 4, 7, 8, *(6, 3, 8, 3) * 4, 0, 0])
_DIP, _PIP = np.arange(7, 20, 4), np.arange(6, 20, 4)
_DIP_PER_PIP = 0.64
_JOINT_SPEED, _TURN_SPEED, _MOVE_SPEED = 11.0, 2.5, 0.5  # rad/s, rad/s, m/s
_PEAK_OVER_MEAN = 1.875  # of the speed of a minimum-jerk movement
_LAG = 0.15  # The last finger to start a movement starts after this part of it.
_GROUPS = np.append(np.repeat(np.arange(5), 4), [5, 5])
_BATCH, _BATCHES = 4, 8


def collision_depth(angles: np.ndarray) -> np.ndarray:
    """How deep the fingers of the average build run through each other or the palm.

    `angles` (T, 22) radians. Returns (T,) metres, 0 where nothing touches. Capsules get thinner
    towards the tips.
    """
    build = average_build()
    joints = pose_bones(build, angles)[1]
    fingers = joints[:, 1:].reshape(-1, 5, 4, 3)
    palm = (len(joints), 4, 3)
    starts = np.concatenate(
        [fingers[:, :, :3].reshape(-1, 15, 3), np.broadcast_to(_CARPUS, palm)], axis=1
    )
    knuckles = np.broadcast_to(build.bases[1:] + _BELOW_KNUCKLES, palm)
    ends = np.concatenate([fingers[:, :, 1:].reshape(-1, 15, 3), knuckles], axis=1)
    first, second = _PAIRS
    along, other, distance = _nearest(
        starts[:, first], ends[:, first], starts[:, second], ends[:, second]
    )
    slope = _END_RADII - _START_RADII
    reach = _START_RADII[first] + slope[first] * along
    reach = reach + _START_RADII[second] + slope[second] * other
    return np.maximum(reach - distance, 0).max(axis=1)


def random_pose(rng: np.random.Generator) -> np.ndarray:
    """A pose (22,) in radians: near a vocabulary pose, between two of them, or free within limits.

    Poses in which fingers run through each other or the palm are drawn again; after a bounded
    number of tries the best of them moves towards the nearest pose of the vocabulary until it is
    possible.
    """
    for _ in range(_BATCHES):
        drafts = clip_angles(np.stack([_draft(rng) for _ in range(_BATCH)]))
        depth = collision_depth(drafts)
        if (depth <= TOLERANCE).any():
            return drafts[np.argmax(depth <= TOLERANCE)]
    draft = drafts[np.argmin(depth)]
    nearest = _VOCABULARY[np.argmin(np.abs(_VOCABULARY - draft)[:, :20].sum(axis=1))].copy()
    nearest[20:] = draft[20:]
    path = draft + np.linspace(0, 1, 9)[1:, None] * (nearest - draft)
    return path[np.argmax(collision_depth(path) <= TOLERANCE)]


def draw_grasp(rng: np.random.Generator) -> str:
    """The name of a pose that holds an object."""
    return GRASPS[rng.integers(len(GRASPS))]


def pose_track(
    rng: np.random.Generator, frames: int, fps: float, grasp: str | None = None
) -> np.ndarray:
    """A movement through vocabulary poses and free ones, with holds and a slight tremor.

    Returns (frames, 22) radians within the limits. With `grasp`, a name of the vocabulary, that
    pose is kept with small variations, the wrist moving freely. UsageError for a name that is not
    there.
    """
    if grasp is not None and grasp not in VOCABULARY:
        raise UsageError(f"{grasp}: no such pose; choose from {', '.join(VOCABULARY)}")
    if frames == 1:
        return (_key(rng, grasp) if grasp else random_pose(rng))[None]
    span = frames / fps
    poses, starts, moves = [_key(rng, grasp)], [], []
    clock = -rng.uniform(0, 1)
    while clock < span:
        goal = _key(rng, grasp)
        for pose in [*_detour(poses[-1], goal), goal]:
            fastest = _PEAK_OVER_MEAN * np.abs(pose - poses[-1]).max() / (_JOINT_SPEED * (1 - _LAG))
            starts.append(clock)
            moves.append(max(rng.uniform(0.3, 1.2), fastest))
            poses.append(pose)
            clock += moves[-1]
        clock += rng.uniform(0.1, 0.8)
    times = np.arange(frames) / fps
    leg = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, None)
    lag = rng.uniform(0, _LAG, (len(starts), 6))[leg]
    phase = ((times - np.array(starts)[leg]) / np.array(moves)[leg])[:, None]
    share = _minimum_jerk(np.clip((phase - lag) / (1 - _LAG), 0, 1))[:, _GROUPS]
    keys = np.stack(poses)
    return clip_angles(keys[leg] + share * (keys[leg + 1] - keys[leg]) + _tremor(rng, times))


def orientation_track(
    rng: np.random.Generator, frames: int, fps: float, spread: float
) -> np.ndarray:
    """How a hand turns before a camera: rotations (frames, 3, 3), hand frame to camera frame.

    The camera frame has x right, y down, z forward. `spread` 0: fingers up, palm or back within
    about 35 degrees of facing the camera. `spread` 1: nearly all views, few of them along the
    forearm; half with the fingers up, the others at any in-plane angle. `spread` 2: all views, more
    of them along the forearm, at any in-plane angle. Palm and back are equally likely.
    """

    def draw(before: np.ndarray | None) -> np.ndarray:
        view = _view(rng, spread)
        if before is None:
            return view
        step = (view - before + np.pi) % (2 * np.pi) - np.pi
        if rng.random() < 0.3 * spread:
            return before + step
        # Stays on its side: palm and back are half a turn apart.
        step[0] = (step[0] + np.pi / 2) % np.pi - np.pi / 2
        return before + rng.uniform(0.2, 0.6) * step

    azimuth, elevation, roll = _wander(rng, frames, fps, draw, _TURN_SPEED).T
    facing = np.diag([1.0, -1.0, -1.0])
    return rotation(2, roll) @ rotation(0, elevation) @ facing @ rotation(1, -azimuth)


def position_track(
    rng: np.random.Generator, frames: int, fps: float, extent: np.ndarray
) -> np.ndarray:
    """A smooth track (frames, 3) in a box of sides `extent` (3,) metres around zero."""
    half = np.asarray(extent, np.float64) / 2
    return _wander(rng, frames, fps, lambda _: rng.uniform(-half, half), _MOVE_SPEED)


def _nearest(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where segments ab and cd (..., 3) are nearest: the shares along them, and the distance."""
    u, v, w = b - a, d - c, a - c
    uu, vv, uv = (u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1)
    uw, vw = (u * w).sum(-1), (v * w).sum(-1)
    share = np.clip((uv * vw - uw * vv) / np.maximum(uu * vv - uv * uv, 1e-14), 0, 1)
    other = np.clip((uv * share + vw) / vv, 0, 1)
    share = np.clip((uv * other - uw) / uu, 0, 1)
    return share, other, np.linalg.norm(w + share[..., None] * u - other[..., None] * v, axis=-1)


def _draft(rng: np.random.Generator) -> np.ndarray:
    kind = rng.random()
    if kind < 0.4:
        pose = _VOCABULARY[rng.integers(len(_VOCABULARY))].copy()
    elif kind < 0.7:
        one, two = _VOCABULARY[rng.integers(len(_VOCABULARY), size=2)]
        # Either all fingers are equally far on the way, or each takes after one of the poses.
        shares = np.full(6, rng.random()) if rng.random() < 0.6 else rng.beta(0.4, 0.4, 6)
        pose = one + shares[_GROUPS] * (two - one)
    else:
        pose = _free(rng)
    noise = rng.normal(0, _NOISE) * rng.uniform(0.2, 1.3)
    noise[_DIP] += _DIP_PER_PIP * noise[_PIP]
    pose = pose + noise
    # Tendons tie middle and ring to their neighbours: neither knuckle straightens far on its own.
    for knuckle in (8, 12):
        pose[knuckle] = max(pose[knuckle], min(pose[knuckle - 4], pose[knuckle + 4]) - 0.8)
    return _turn_wrist(rng, pose)


def _free(rng: np.random.Generator) -> np.ndarray:
    """A pose with freely drawn fingers: neighbours alike, DIP after PIP, less spread if bent."""
    curl = np.clip(rng.random() + np.cumsum(rng.normal(0, 0.16, 4)), 0, 1)
    curl = np.where(rng.random(4) < 0.15, rng.random(4), curl)
    knuckle = np.clip(curl + rng.normal(0, 0.25, 4), 0, 1)
    fan = np.array([1.0, 0.2, -0.5, -1.0]) * rng.uniform(-1, 1) + rng.normal(0, 0.3, 4)
    low, high = LIMITS[:20].reshape(5, 4, 2).transpose(2, 0, 1)
    pose = np.zeros((5, 4))
    thumb = rng.beta(1.6, 1.6, 4)
    thumb[3] = (thumb[2] + thumb[3]) / 2
    pose[0] = low[0] + thumb * (high[0] - low[0])
    pose[1:, 0] = np.radians(-12) + knuckle * np.radians(97)
    bent = np.clip(pose[1:, 0] / np.pi * 2, 0, 1)
    pose[1:, 1] = np.where(fan > 0, fan * high[1:, 1], -fan * low[1:, 1]) * (1 - 0.8 * bent)
    pose[1:, 2] = curl * high[1:, 2]
    pose[1:, 3] = _DIP_PER_PIP * pose[1:, 2]
    return np.append(pose, [0, 0])


def _turn_wrist(rng: np.random.Generator, pose: np.ndarray) -> np.ndarray:
    pose = pose.copy()
    pose[20:] = rng.normal(np.radians([-6, 4]), np.radians([18, 8]))
    return clip_angles(pose)


def _key(rng: np.random.Generator, grasp: str | None) -> np.ndarray:
    if grasp is None:
        if rng.random() < 0.6:
            return random_pose(rng)
        return _turn_wrist(rng, _VOCABULARY[rng.integers(len(_VOCABULARY))])
    variation = np.clip(rng.normal(0, 0.12, 22), -0.25, 0.25) * _NOISE
    return _turn_wrist(rng, np.radians(VOCABULARY[grasp]) + variation)


def _detour(start: np.ndarray, goal: np.ndarray) -> list[np.ndarray]:
    """The pose to pass through where fingers would run through each other on the direct way."""

    def depth(*stops: np.ndarray) -> float:
        ways = [a + share * (b - a) for a, b in pairwise(stops) for share in (0.25, 0.5, 0.75)]
        return float(collision_depth(np.stack(ways)).max())

    direct = depth(start, goal)
    if direct <= PASSING:
        return []
    via = _VIA.copy()
    via[:, 20:] = (start + goal)[20:] / 2
    depths = [depth(start, pose, goal) for pose in via]
    return [via[int(np.argmin(depths))]] if min(depths) < direct else []


def _minimum_jerk(phase: np.ndarray) -> np.ndarray:
    return phase**3 * (10 - 15 * phase + 6 * phase**2)


def _tremor(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Slow drift and fast tremor (T, 22), radians: sines whose size falls with their frequency."""
    rate = rng.uniform(0.3, 5, (5, 22))
    size = np.radians(rng.uniform(0.1, 0.4, (5, 22))) / (1 + rate)
    waves = size * np.sin(2 * np.pi * (rate * times[:, None, None] + rng.random((5, 22))))
    return waves.sum(axis=1)


def _view(rng: np.random.Generator, spread: float) -> np.ndarray:
    """Azimuth about the fingers, elevation above the normal of the palm's plane, and roll.

    At azimuth 0 the back of the hand faces the camera.
    """
    cap, is_all_round = np.radians(30 + 60 * min(spread, 1)), spread > 1
    along = 0.6 if is_all_round else 0.1
    while True:
        height, around = rng.uniform(np.cos(cap), 1), rng.uniform(0, 2 * np.pi)
        x, y = np.sqrt(1 - height**2) * np.array([np.cos(around), np.sin(around)])
        elevation = np.arcsin(y)
        if abs(elevation) < np.radians(55) or rng.random() < along:
            break
    azimuth = np.arctan2(x, height) + np.pi * rng.integers(2)
    if is_all_round:
        return np.array([azimuth, elevation, rng.uniform(-np.pi, np.pi)])
    upright = rng.random() < 0.5
    if upright:
        tilt = rng.normal(0, np.radians(8 + 10 * spread))
    else:
        tilt = rng.uniform(-np.pi, np.pi) * max(spread, 0.08)
    return np.array([azimuth, elevation, tilt])


def _wander(
    rng: np.random.Generator,
    frames: int,
    fps: float,
    draw: Callable[[np.ndarray | None], np.ndarray],
    speed: float,
) -> np.ndarray:
    """A smooth track (frames, D) from key to key, within the range of the keys.

    `draw` makes the next key from the one before.
    """
    keys = [draw(None)]
    keys.append(keys[0])
    # Longer than the kernel reaches: a single frame is a key.
    times = [-1.0, rng.uniform(0.4, 1.0)]
    while times[-1] < frames / fps + 1:
        key = draw(keys[-1])
        times.append(times[-1] + max(rng.uniform(0.6, 2.0), np.abs(key - keys[-1]).max() / speed))
        keys.append(key)
    taps = np.linspace(-0.35, 0.35, 21)
    weights = np.exp(-0.5 * (taps / 0.15) ** 2)
    moments = np.arange(frames)[:, None] / fps + taps
    weights = weights / weights.sum()
    columns = [np.interp(moments, times, column) @ weights for column in np.stack(keys).T]
    return np.stack(columns, axis=1)
