"""What a camera does to a picture: blur, exposure, white balance, noise, tone and compression."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ..contract.errors import HandclrError

# Rec. 601: luma, and what a step of Cr and of Cb does to red, green and blue; neither changes luma.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_CHROMA = np.array([[1.0, -0.299 / 0.587, 0.0], [0.0, -0.114 / 0.587, 1.0]], dtype=np.float32)
# Of the luma noise's deviation.
_CHROMA_NOISE = 0.5
_LEVELS = 4096
# Shorter motion than this moves no value of an 8-bit picture by a whole step.
_STILL_PX = 1e-3


@dataclass(frozen=True)
class Sensor:
    """A camera with its settings, the same for all frames of a video; the defaults change nothing.

    exposure: factor on the light. white_balance: factors on red, green and blue. gamma: exponent of
    the tone curve. contrast: 0 none, 1 a full S-curve, negative flattens. saturation: factor on the
    chroma. read_noise, shot_noise: standard deviation of the luma noise at black, and what it grows
    by with the root of the value, both in units of white. grain: sigma of the noise's spatial
    correlation, px. blur_sigma: defocus, px. vignette: part of the light that the corners lose.
    jpeg_quality: 1 to 100, or None for no compression.
    """

    exposure: float = 1.0
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0
    contrast: float = 0.0
    saturation: float = 1.0
    read_noise: float = 0.0
    shot_noise: float = 0.0
    grain: float = 0.0
    blur_sigma: float = 0.0
    vignette: float = 0.0
    jpeg_quality: int | None = None


def lab_sensor(rng: np.random.Generator) -> Sensor:
    """Draw a good camera on a tripod under steady light."""
    return Sensor(
        exposure=float(2 ** rng.uniform(-0.12, 0.12)),
        white_balance=_white_balance(rng, 0.015),
        gamma=float(rng.uniform(0.95, 1.05)),
        contrast=float(rng.uniform(0.0, 0.15)),
        saturation=float(rng.uniform(0.95, 1.05)),
        read_noise=float(rng.uniform(0.001, 0.004)),
        shot_noise=float(rng.uniform(0.002, 0.008)),
        grain=0.4,
        blur_sigma=float(rng.uniform(0.0, 0.4)),
        vignette=float(rng.uniform(0.0, 0.08)),
        jpeg_quality=int(rng.integers(90, 98)),
    )


def wild_sensor(rng: np.random.Generator) -> Sensor:
    """Draw any camera in any light in which people can see a hand: phones, webcams, old film."""
    dark = rng.random() ** 4
    return Sensor(
        exposure=float(2 ** np.clip(rng.normal(-0.05, 0.25), -0.5, 0.25)),
        white_balance=_white_balance(rng, 0.07),
        gamma=float(np.exp(np.clip(rng.normal(-0.03, 0.1), -0.2, 0.12))),
        contrast=float(rng.uniform(-0.2, 0.45)),
        # Now and then a camera without colour.
        saturation=0.0 if rng.random() < 0.02 else float(rng.uniform(0.55, 1.4)),
        read_noise=float(0.001 + 0.008 * dark),
        shot_noise=float(0.003 + 0.02 * dark),
        grain=float(rng.uniform(0.3, 1.0)),
        blur_sigma=float(1.1 * rng.random() ** 2),
        vignette=float(0.4 * rng.random() ** 2),
        jpeg_quality=int(rng.integers(35, 97)),
    )


def develop(
    image: np.ndarray,
    sensor: Sensor,
    rng: np.random.Generator,
    motion: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Turn light, (H, W, 3) float32 RGB in 0..1, into a picture, (H, W, 3) uint8 RGB.

    `motion` (dx, dy): how far the picture moves while the shutter is open, px, centred on the
    picture as given, so that what is in it stays where it is. The same `rng` state gives the same
    bytes. Raises HandclrError on an image of another shape.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise HandclrError(f"expected a picture of shape (H, W, 3), found {image.shape}")
    light: np.ndarray = np.ascontiguousarray(image, dtype=np.float32)
    if math.hypot(*motion) > _STILL_PX:
        light = cv2.filter2D(light, -1, motion_kernel(*motion), borderType=cv2.BORDER_REPLICATE)
    if sensor.blur_sigma > 0:
        light = cv2.GaussianBlur(light, (0, 0), sensor.blur_sigma, borderType=cv2.BORDER_REPLICATE)
    light = cv2.transform(light, _colour_matrix(sensor))
    if sensor.vignette > 0:
        light *= _falloff(light.shape[1], light.shape[0], sensor.vignette)
    np.clip(light, 0, 1, out=light)
    if sensor.read_noise > 0 or sensor.shot_noise > 0:
        _add_noise(light, sensor, rng)
    picture = _tone(light, sensor)
    return picture if sensor.jpeg_quality is None else _compress(picture, sensor.jpeg_quality)


def motion_kernel(dx: float, dy: float) -> np.ndarray:
    """Return the (odd, odd) float32 kernel of an even motion by (dx, dy) px, centred; it sums to 1.

    It is the mean of the picture's bilinear interpolations along the segment: lengths and
    directions need not be whole pixels.
    """
    reach_x, reach_y = math.ceil(abs(dx) / 2), math.ceil(abs(dy) / 2)
    count = 16 * (max(reach_x, reach_y) + 1)
    along = (np.arange(count) + 0.5) / count - 0.5
    x, y = along * dx + reach_x, along * dy + reach_y
    columns = np.maximum(0, 1 - np.abs(x[:, None] - np.arange(2 * reach_x + 1)))
    rows = np.maximum(0, 1 - np.abs(y[:, None] - np.arange(2 * reach_y + 1)))
    return (rows.T @ columns / count).astype(np.float32)


def _white_balance(rng: np.random.Generator, spread: float) -> tuple[float, float, float]:
    """Draw factors on red, green and blue: mostly warm to cool, a little green to magenta.

    They keep the luma of grey.
    """
    warm, green = rng.normal(0, spread, 2).clip(-2 * spread, 2 * spread) * (1.0, 0.35)
    factors = np.exp([warm, green, -warm])
    red, green, blue = (factors / (factors @ _LUMA)).tolist()
    return red, green, blue


def _colour_matrix(sensor: Sensor) -> np.ndarray:
    """Return the (3, 3) matrix of exposure, white balance and then saturation."""
    saturate = sensor.saturation * np.eye(3) + (1 - sensor.saturation) * _LUMA
    return (saturate @ np.diag(sensor.white_balance) * sensor.exposure).astype(np.float32)


def _falloff(width: int, height: int, vignette: float) -> np.ndarray:
    """The light left at each pixel, (H, W, 1) float32: 1 in the middle, 1 - vignette in corners."""
    x = np.linspace(-1, 1, width, dtype=np.float32) if width > 1 else np.zeros(1, np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32) if height > 1 else np.zeros(1, np.float32)
    return (1 - vignette / 2 * (x[None, :] ** 2 + y[:, None] ** 2))[..., None]


def _add_noise(light: np.ndarray, sensor: Sensor, rng: np.random.Generator) -> None:
    """Add noise in place: luma noise at full resolution, softer chroma noise at half of it.

    Video codecs leave such noise.
    """
    height, width = light.shape[:2]
    luma = _unit_noise(rng, (height, width), sensor.grain)
    half = ((height + 1) // 2, (width + 1) // 2)
    fields = [_unit_noise(rng, half, sensor.grain) for _ in range(2)]
    chroma = np.stack(fields, axis=-1) @ (_CHROMA_NOISE * _CHROMA)
    noise: np.ndarray = cv2.resize(chroma, (width, height), interpolation=cv2.INTER_LINEAR)
    noise += luma[..., None]
    deviation: np.ndarray = cv2.transform(light, _LUMA[None])
    deviation *= sensor.shot_noise**2
    deviation += sensor.read_noise**2
    noise *= np.sqrt(deviation)[..., None]
    light += noise


def _unit_noise(rng: np.random.Generator, shape: tuple[int, int], grain: float) -> np.ndarray:
    """Draw normal noise (H, W) float32 of variance 1, blurred with sigma `grain` px."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    if grain <= 0:
        return noise
    kernel: np.ndarray = cv2.getGaussianKernel(2 * math.ceil(3 * grain) + 1, grain, cv2.CV_32F)
    kernel /= np.linalg.norm(kernel)
    return cv2.sepFilter2D(noise, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)


def _tone(light: np.ndarray, sensor: Sensor) -> np.ndarray:
    """Read light out at 12 bits and give back the tone curve's 8-bit values."""
    value = np.linspace(0, 1, _LEVELS) ** sensor.gamma
    value += sensor.contrast * (value * value * (3 - 2 * value) - value)
    curve = np.rint(255 * value.clip(0, 1)).astype(np.uint8)
    level = np.clip(light, 0, 1)
    level *= _LEVELS - 1
    level += 0.5
    return curve[level.astype(np.uint16)]


def _compress(picture: np.ndarray, quality: int) -> np.ndarray:
    """Encode an RGB uint8 picture as JPEG and decode it again."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded: np.ndarray = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
