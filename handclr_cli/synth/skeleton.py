"""The bones of a synthetic hand: 21 joints, 22 angles within limits, adults of different build.

The hand frame is a right hand's: x towards the little finger, y towards the fingertips, z out of
the back, the wrist at the origin, metres. Left hands are its mirror image in x.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..hand.joints import FINGERS, JOINT_NAMES

# The angles of a pose, radians: 4 for each finger, then the wrist's.
# Flexion bends towards the palm; abduction leans towards the thumb's side.
ANGLES = tuple(
    f"{finger}_{angle}"
    for finger in FINGERS
    for angle in ("flexion", "abduction", "flexion2", "flexion3")
)
ANGLES += ("wrist_flexion", "wrist_deviation")

# Degrees. For the thumb the three flexions are those of CMC, MCP and IP; for a finger of MCP, PIP
# and DIP.
LIMITS = np.radians(
    [
        *[(-15, 58), (-28, 22), (-12, 55), (-18, 80)],
        *[(-22, 90), (-12, 10), (-3, 108), (-4, 72)],
        *[(-22, 90), (-8, 8), (-3, 110), (-4, 74)],
        *[(-22, 90), (-8, 10), (-3, 112), (-4, 74)],
        *[(-25, 92), (-12, 16), (-3, 108), (-4, 74)],
        *[(-60, 65), (-20, 30)],
    ]
)

# Bones that carry skin. The frame of each has its origin at the joint nearer to the wrist and y
# along the bone.
BONES = ("forearm", "palm") + tuple(
    f"{finger}_{number}" for finger in FINGERS for number in (1, 2, 3)
)
FOREARM, PALM, FIRST_PHALANX = 0, 1, 2
THUMB = 0

# Metacarpal bases and bone lengths near the means of adults (Buryanov and Kotiuk 2010,
# radiographs).
_BASES = np.array(
    [
        [-0.0200, 0.0180, -0.0100],
        [-0.0240, 0.0890, 0.0000],
        [-0.0025, 0.0930, 0.0020],
        [0.0175, 0.0880, 0.0010],
        [0.0350, 0.0770, -0.0035],
    ]
)
_LENGTHS = np.array(
    [
        [0.0460, 0.0325, 0.0250],
        [0.0405, 0.0235, 0.0175],
        [0.0435, 0.0260, 0.0180],
        [0.0400, 0.0250, 0.0180],
        [0.0330, 0.0190, 0.0170],
    ]
)
# A finger's rest frame: spread in the palm's plane, and a roll that lets bent fingers converge.
_SPREAD = np.radians([0.0, 9.0, 1.0, -7.5, -17.0])
_ROLL = np.radians([0.0, -6.0, 0.0, 6.0, 12.0])
_THUMB_Y = np.array([-0.66, 0.69, -0.30])
_THUMB_Z = np.array([-0.60, -0.20, 0.77])
# Where keypoints differ from joints: metres behind the end of the bone, and share of the thumb's
# metacarpal.
_TIP_DEPTH = 0.0030
_CMC_SHARE = 0.25
# Opposition turns the thumb's pad to the fingers.
_THUMB_TWIST = 1.4


@dataclass(frozen=True)
class Build:
    """The build of one person's hand.

    `bases` (5, 3) metres, where thumb CMC and finger MCPs sit; `lengths` (5, 3) metres of the
    phalanges (thumb: metacarpal and two phalanges); `girth` (17, 3), the size of each bone's flesh
    relative to the template, in x and z across the bone and y along it.
    """

    bases: np.ndarray
    lengths: np.ndarray
    girth: np.ndarray


def phalanx(finger: int, number: int) -> int:
    """The row in BONES of a finger's bone `number`, 0 to 2; the thumb's 0 is its metacarpal."""
    return FIRST_PHALANX + 3 * finger + number


def average_build() -> Build:
    """The build of the template."""
    return Build(_BASES.copy(), _LENGTHS.copy(), np.ones((len(BONES), 3)))


def draw_build(rng: np.random.Generator) -> Build:
    """Draw an adult: size, proportions and slenderness, each varied by a few per cent."""
    size = np.clip(rng.normal(1.0, 0.065), 0.84, 1.17)
    palm = size * np.clip(rng.normal(1.0, [0.045, 0.03, 0.05]), 0.88, 1.12)
    slender = np.clip(rng.normal(1.0, 0.07), 0.84, 1.18)
    fingers = size * np.clip(rng.normal(1.0, 0.03), 0.92, 1.08)
    lengths = _LENGTHS * fingers * np.clip(rng.normal(1.0, 0.025, (5, 1)), 0.93, 1.07)
    lengths *= np.clip(rng.normal(1.0, 0.015, (5, 3)), 0.96, 1.04)
    girth = np.ones((len(BONES), 3))
    girth[FOREARM] = size * slender * np.clip(rng.normal(1.0, 0.06), 0.88, 1.15)
    girth[PALM] = palm * np.array([1.0, 1.0, slender])
    across = size * slender * np.clip(rng.normal(1.0, 0.03, 5), 0.92, 1.08)
    for finger in range(5):
        rows = slice(phalanx(finger, 0), phalanx(finger, 3))
        girth[rows, 0] = girth[rows, 2] = across[finger]
        girth[rows, 1] = lengths[finger] / _LENGTHS[finger]
    return Build(_BASES * palm, lengths, girth)


def pose_bones(build: Build, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Forward kinematics: the frames of the bones and the joints, in the hand frame.

    `angles` (T, 22) radians in the order of ANGLES. Returns rigid frames (T, 17, 4, 4) in the order
    of BONES and joints (T, 21, 3) in metres, MediaPipe's order.
    """
    angles = np.atleast_2d(np.asarray(angles, np.float64))
    count = len(angles)
    frames = np.zeros((count, len(BONES), 4, 4))
    frames[:, :, 3, 3] = 1
    joints = np.zeros((count, len(JOINT_NAMES), 3))
    frames[:, PALM, :3, :3] = np.eye(3)
    frames[:, FOREARM, :3, :3] = rotation(2, angles[:, 21]) @ rotation(0, angles[:, 20])
    for finger, chain in enumerate(FINGERS.values()):
        flexion, abduction, second, third = angles[:, 4 * finger : 4 * finger + 4].T
        turn = _rest_frame(finger) @ rotation(2, abduction) @ rotation(0, -flexion)
        if finger == THUMB:
            turn = turn @ rotation(1, -_THUMB_TWIST * flexion)
        place = np.broadcast_to(build.bases[finger], (count, 3))
        for number, bend in enumerate((None, second, third)):
            if bend is not None:
                turn = turn @ rotation(0, -bend)
            row = phalanx(finger, number)
            frames[:, row, :3, :3] = turn
            frames[:, row, :3, 3] = place
            joints[:, chain[number]] = place
            place = place + turn[..., 1] * build.lengths[finger, number]
        joints[:, chain[-1]] = place
    return frames, joints


def keypoints(frames: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """The 21 keypoints (T, 21, 3) that go with bones (T, 17, 4, 4) and joints (T, 21, 3).

    They differ from the joints as landmarks do: a fingertip's lies a little behind the end of the
    bone, the thumb's CMC a little along its metacarpal, where annotators and detectors place them.
    """
    marks = joints.copy()
    for finger, chain in enumerate(FINGERS.values()):
        marks[:, chain[-1]] -= frames[:, phalanx(finger, 2), :3, 1] * _TIP_DEPTH
    cmc, mcp = FINGERS["thumb"][:2]
    marks[:, cmc] += _CMC_SHARE * (joints[:, mcp] - joints[:, cmc])
    return marks


def rest_pose() -> np.ndarray:
    """The flat hand (22) in which the template's surface is made."""
    return np.zeros(len(ANGLES))


def clip_angles(angles: np.ndarray) -> np.ndarray:
    """Bring angles (..., 22) within the anatomical limits."""
    return np.clip(angles, LIMITS[:, 0], LIMITS[:, 1])


def _rest_frame(finger: int) -> np.ndarray:
    if finger != THUMB:
        return rotation(2, _SPREAD[finger]) @ rotation(1, _ROLL[finger])
    y = _THUMB_Y / np.linalg.norm(_THUMB_Y)
    z = _THUMB_Z - y * (_THUMB_Z @ y)
    z /= np.linalg.norm(z)
    return np.stack([np.cross(y, z), y, z], axis=1)


def rotation(axis: int, angle: np.ndarray | float) -> np.ndarray:
    """Rotations (..., 3, 3) about a coordinate axis."""
    angle = np.asarray(angle, np.float64)
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.zeros((*angle.shape, 3, 3))
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix[..., axis, axis] = 1
    matrix[..., first, first] = matrix[..., second, second] = cosine
    matrix[..., first, second], matrix[..., second, first] = -sine, sine
    return matrix
