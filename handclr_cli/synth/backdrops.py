"""What lies behind a synthetic hand: a studio's cloth, or a randomly composed scene."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ..contract.errors import HandclrError
from .painting import Canvas, hsv, noise
from .scenery import draw_scene

# Hue, saturation and value of the cloths and papers that studios hang up.
_CLOTHS = (
    (0.6, 0.03, 0.5),
    (0.6, 0.03, 0.75),
    (0.6, 0.06, 0.28),
    (0.6, 0.55, 0.5),
    (0.38, 0.55, 0.45),
)


def lab_backdrop(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Draw a studio's seamless cloth or paper, sometimes with the edge of a table.

    Returns (height, width, 3) float32 RGB in 0..1. Raises HandclrError where a side is not
    positive.
    """
    _check_size(width, height)
    shade = np.array(_CLOTHS[rng.integers(len(_CLOTHS))]) + rng.normal(0, (0.015, 0.02, 0.04))
    cloth = hsv(*shade)
    light = _light(rng, width, height, 0.18)
    threads = cv2.GaussianBlur(rng.standard_normal((height, width), dtype=np.float32), (0, 0), 0.8)
    light *= (
        1
        + rng.uniform(0.0, 0.02) * threads
        + rng.uniform(0.0, 0.025) * noise(rng, width, height, 0.5)
    )
    picture = light[..., None] * (np.array(cloth, np.float32) / 255)
    if rng.random() < 0.4:
        edge = int(height * rng.uniform(0.6, 0.95))
        table = hsv(rng.choice([0.08, 0.6]), rng.uniform(0, 0.3), rng.uniform(0.2, 0.85))
        picture[edge:] = light[edge:, :, None] * (np.array(table, np.float32) / 255)
        # The studio's lens is focused on the hand, in front of the table's far edge.
        band = slice(max(0, edge - 12), edge + 12)
        picture[band] = cv2.GaussianBlur(picture[band], (0, 0), rng.uniform(0.8, 2.0))
    return np.clip(picture, 0, 1, out=picture)


def wild_backdrop(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Draw a room, a table, a desk, the outdoors, a cloth or something else.

    Returns (height, width, 3) float32 RGB in 0..1. Raises HandclrError where a side is not
    positive.
    """
    _check_size(width, height)
    canvas = Canvas(rng, width, height)
    draw_scene(canvas)
    picture = _focus(canvas)
    gain = np.exp(rng.normal(0.12, 0.27) + rng.normal(0, 0.1, 3))
    value = np.linspace(0, 1, 256)[:, None] ** math.exp(rng.normal(0, 0.25)) * gain
    # A soft shoulder: bright walls keep their texture.
    curve = 0.92 * value / (1 + value**4) ** 0.25 + rng.uniform(0, 0.04)
    graded = cv2.LUT(picture, curve.astype(np.float32).reshape(256, 1, 3))
    light = _light(rng, width, height, rng.uniform(0.05, 0.4))
    if rng.random() < 0.25:
        light *= _window_light(rng, width, height)
    light *= 1 + rng.uniform(0.01, 0.06) * noise(rng, width, height, 1.0)
    graded *= light[..., None]
    return np.clip(graded, 0, 1, out=graded)


def _light(rng: np.random.Generator, width: int, height: int, depth: float) -> np.ndarray:
    """Draw the light on a scene, (height, width) float32 about 1.

    One side is brighter, the corners are darker, and the rest is softly uneven.
    """
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle = rng.uniform(0, 2 * math.pi)
    uneven = rng.normal(0, 0.2 * depth, (2, 3)).astype(np.float32)
    field: np.ndarray = 1 + cv2.resize(uneven, (width, height), interpolation=cv2.INTER_CUBIC)
    field += depth * np.float32(math.cos(angle)) * x + depth * np.float32(math.sin(angle)) * y
    field -= np.float32(rng.uniform(0, depth / 2)) * (x * x + y * y)
    return field


def _window_light(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Draw the light of a window or a lamp, (height, width) float32: slanted bright panes."""
    shade = Canvas(rng, max(1, width // 4), max(1, height // 4))
    slant, pitch = rng.normal(0, 0.5), rng.uniform(0.15, 0.6)
    for left in np.arange(-1.0, shade.w + 1.0, pitch):
        right = left + 0.8 * pitch
        shade.fill(
            [(left, 0), (right, 0), (right + slant, shade.h), (left + slant, shade.h)],
            (255, 255, 255),
        )
    soft = cv2.GaussianBlur(shade.picture[..., 0], (0, 0), 1 + 0.02 * shade.unit)
    dim = rng.uniform(0.5, 0.8)
    table = np.linspace(dim, 1.1, 256).astype(np.float32)
    return cv2.LUT(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR), table)


def _focus(canvas: Canvas) -> np.ndarray:
    """Blur a canvas by its depth of field; in a third of the scenes more towards the top."""
    picture, rng = canvas.picture, canvas.rng
    sigma = canvas.blur * canvas.unit
    if sigma < 0.3:
        return picture
    shrink = max(1, int(sigma / 1.5))
    size = picture.shape[1::-1]
    small = (max(1, size[0] // shrink), max(1, size[1] // shrink))
    blurred = cv2.resize(picture, small, interpolation=cv2.INTER_AREA) if shrink > 1 else picture
    blurred = cv2.GaussianBlur(blurred, (0, 0), sigma / shrink)
    blurred = cv2.resize(blurred, size, interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.67:
        return blurred
    start, end = sorted(rng.uniform(0, 1, 2) * picture.shape[0])
    near = ((np.arange(picture.shape[0]) - start) / (end - start + 1)).clip(0, 1).astype(np.float32)
    weight = np.repeat(near[:, None], picture.shape[1], axis=1)
    return cv2.blendLinear(np.ascontiguousarray(picture), blurred, weight, 1 - weight)


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise HandclrError(
            f"a backdrop of {width}x{height} pixels cannot be drawn; ask for at least 1x1"
        )
