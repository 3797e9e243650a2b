"""A drawn hand that MediaPipe's landmarker finds: the repository holds no picture of a real one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

# A right hand seen from its back, in centimetres: x right, y up, thumb on the left; joints as
# MediaPipe places them.
WRIST = (0.0, 1.6)
THUMB = np.array([(-2.8, 3.1, -0.4), (-4.5, 4.9, -1.0), (-6.3, 6.9, -1.5), (-7.6, 9.2, -2.0)])
KNUCKLES = np.array([(-2.7, 9.0), (-0.6, 9.4), (1.4, 8.8), (3.2, 7.7)])
BONES = np.array([(4.3, 2.5, 2.1), (4.8, 2.9, 2.2), (4.4, 2.7, 2.2), (3.4, 2.0, 1.9)])
FAN = np.radians([-8.0, -1.0, 6.0, 14.0])
BEND = np.array([0.5, 1.0, 0.7])
RADII = np.array([(1.5, 1.15, 0.95, 0.8), *([(1.0, 0.92, 0.82, 0.7)] * 3), (0.9, 0.78, 0.68, 0.58)])
EXTRA = np.array(
    [(0, -30, 0), (0, 0.5, 0), (-1.9, 3.2, 0), (2.0, 3.0, 0)]
)  # elbow, wrist, balls of thumb and hand
SKIN, SHADOW, BACKGROUND = np.array([(233, 182, 152), (120, 62, 45), (92, 104, 112)], float)


def hand_joints(
    centre=(320, 250), scale=16.0, angle=0.0, spread=1.0, curl=0.0, mirrored=False
) -> np.ndarray:
    """The 21 joints, float64 (21, 3): pixels, x right, y down, z towards the viewer; MediaPipe's
    order.
    """
    joints = np.zeros((21, 3))
    joints[0, :2], joints[1:5] = WRIST, THUMB
    for finger in range(4):
        bends = np.cumsum(BEND * curl)
        turn = FAN[finger] * spread
        steps = np.column_stack(
            [np.cos(bends) * np.sin(turn), np.cos(bends) * np.cos(turn), -np.sin(bends)]
        )
        base = np.array([*KNUCKLES[finger], 0.0])
        joints[5 + 4 * finger : 9 + 4 * finger] = (
            base,
            *(base + np.cumsum(steps * BONES[finger, :, None], axis=0)),
        )
    return _place(joints, centre, scale, angle, mirrored)


def draw_hand(
    size=(480, 640),
    centre=(320, 250),
    scale=16.0,
    angle=0.0,
    spread=1.0,
    curl=0.0,
    mirrored=False,
    seed=0,
) -> np.ndarray:
    """Draw an open right hand from its back, or a left one if `mirrored`; uint8 (H, W, 3) RGB.

    size: (height, width); centre: pixel of the middle of the hand; scale: pixels per centimetre;
    angle: degrees counter-clockwise; spread: 1 is relaxed; curl: radians at the middle joints;
    seed: of the background.
    """
    joints = hand_joints(centre, scale, angle, spread, curl, mirrored)
    elbow, wrist, thenar, ball = _place(EXTRA, centre, scale, angle, mirrored)
    fingers = joints[1:].reshape(5, 4, 3)
    cones = [
        (elbow, wrist, 3.6, 2.5),
        (thenar, fingers[0, 1], 1.9, 1.2),
        (ball, fingers[4, 0], 1.9, 1.15),
    ]
    cones += [(wrist, finger[0], 2.0, 1.1) for finger in fingers[1:]]
    cones += [(fingers[i, 0], fingers[i + 1, 0], 1.1, 1.1) for i in range(1, 4)]
    heights = [
        _blend([_height(size, a, b, r * scale, s * scale) for a, b, r, s in cones], 0.25 * scale)
    ]
    ink = np.zeros(size, np.float32)
    for finger, radii in zip(fingers, RADII * scale, strict=True):
        bones = zip(finger[:-1], finger[1:], radii[:-1], radii[1:], strict=True)
        heights.append(_blend([_height(size, *bone) for bone in bones], 0.06 * scale))
        x, y = finger[3, :2] - finger[1, :2]
        for joint, radius in zip(finger[1:3, :2], radii[1:3], strict=True):  # creases
            ends = [
                joint + side * 0.8 * radius / np.hypot(x, y) * np.array([-y, x]) for side in (-1, 1)
            ]
            cv2.line(ink, *np.int32(ends).tolist(), 0.35, max(1, round(scale * 0.12)), cv2.LINE_AA)
        nail = np.int32(radii[3] * np.array([0.75, 0.5])).tolist()
        cv2.ellipse(
            ink,
            np.int32(finger[3, :2]).tolist(),
            nail,
            np.degrees(np.arctan2(y, x)),
            0,
            360,
            -0.18,
            -1,
        )
    return _shade(np.max(heights, axis=0), cv2.GaussianBlur(ink, (0, 0), scale * 0.07), scale, seed)


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float, fourcc: str = "mp4v") -> Path:
    """Write RGB frames as a video: mp4v in .mp4, MJPG in .avi."""
    frames = list(frames)
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*fourcc), fps, frames[0].shape[1::-1]
    )
    assert writer.isOpened(), path
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    return path


def _place(points, centre, scale, angle, mirrored) -> np.ndarray:
    local = np.asarray(points, float) * (-1 if mirrored else 1, 1, 1) - (0, 8.5, 0)
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    turned = local[:, :2] @ np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([turned * (scale, -scale) + centre, local[:, 2] * scale])


def _height(size, start, end, first, last) -> np.ndarray:
    """The height over the picture of a cone with round ends, -1e3 beside it."""
    reach = max(first, last) + 1
    low = np.clip(np.minimum(start, end)[:2] - reach, 0, size[::-1]).astype(int)
    high = np.clip(np.maximum(start, end)[:2] + reach, 0, size[::-1]).astype(int)
    y, x = np.ogrid[low[1] : high[1], low[0] : high[0]]
    x, y = x + 0.5 - start[0], y + 0.5 - start[1]
    along = (end - start)[:2]
    t = np.clip((x * along[0] + y * along[1]) / max(along @ along, 1e-6), 0, 1)
    square = (first + t * (last - first)) ** 2 - (x - t * along[0]) ** 2 - (y - t * along[1]) ** 2
    height = np.full(size, -1e3, np.float32)
    surface = start[2] + t * (end[2] - start[2]) + np.sqrt(np.maximum(square, 0))
    height[low[1] : high[1], low[0] : high[0]] = np.where(square > 0, surface, -1e3)
    return height


def _blend(heights, soft) -> np.ndarray:
    return soft * np.logaddexp.reduce(np.stack(heights) / soft)


def _shade(height, ink, scale, seed) -> np.ndarray:
    rng = np.random.default_rng(seed)
    texture = rng.normal(0, 3, (*height.shape, 1))
    for spots, contrast in ((3, 7), (9, 4)):
        coarse = rng.normal(0, contrast, (spots, spots, 3))
        texture = texture + cv2.resize(coarse, height.shape[::-1], interpolation=cv2.INTER_CUBIC)
    mask = height > -500
    dy, dx = np.gradient(cv2.GaussianBlur(np.where(mask, height, 0), (0, 0), 0.1 * scale))
    light = (0.35 * dx - 0.45 * dy + 1.0) / np.sqrt(dx**2 + dy**2 + 1) / 1.15
    skin = SHADOW + (SKIN - SHADOW) * np.clip(0.25 + 0.8 * light - ink, 0, 1)[..., None]
    cover = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)[..., None]
    return (
        ((BACKGROUND + texture) * (1 - cover) + skin * cover).clip(0, 255).round().astype(np.uint8)
    )
