"""The augmentation T, with its parameters kept so that it can be undone.

Convention: a point p of the crop (units of the crop's side, [0, 1], x right, y down) lands in the
view at

    p' = c + (1/scale) R(angle) (p - c) + translation

with c = (0.5, 0.5) and R(a) = [[cos a, -sin a], [sin a, cos a]], so that a positive angle turns x
towards y (clockwise on the screen) and a positive translation moves the hand right and down. Pixel
centres are at .5: pixel i of an image of side S covers p from i/S to (i+1)/S.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Image = npt.NDArray[np.uint8]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LUMA = np.array([0.299, 0.587, 0.114])
# RGB to luma and two chroma axes (YIQ): turning the chroma plane changes the hue and leaves the
# luma alone.
TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
FROM_YIQ = np.linalg.inv(TO_YIQ)


@dataclass(frozen=True)
class AugmentationConfig:
    """The ranges that views are drawn from.

    size: side of the view, px. rotation: +- degrees. scale: range of the fraction of the crop's
    side that the view shows (above 1 adds a black border). translation: +- fraction of the view's
    side. brightness, contrast, saturation: the factor is 1 +- this. hue: +- turns. blur_sigma: px
    of the view. `geometric=False` keeps the crop as it is.

    >>> import numpy as np, handclr_cli as handclr
    >>> colours = handclr.AugmentationConfig(size=64, geometric=False)
    >>> view = handclr.draw_view(colours, np.random.default_rng(0))
    >>> view.size, view.angle_deg, view.scale
    (64, 0.0, 1.0)
    """

    size: int = 128
    rotation: float = 45.0
    scale: tuple[float, float] = (0.6, 1.0)
    translation: float = 0.07
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    geometric: bool = True


@dataclass(frozen=True)
class View:
    """One drawn augmentation; the defaults change the size only. `blur_sigma` 0 is no blur.

    >>> import handclr_cli as handclr
    >>> handclr.View(size=64, angle_deg=90, scale=0.5).matrix().round(6).tolist()
    [[0.0, -2.0, 1.5], [2.0, 0.0, -0.5]]
    """

    size: int
    angle_deg: float = 0.0
    scale: float = 1.0
    translation: tuple[float, float] = (0.0, 0.0)
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    blur_sigma: float = 0.0

    def matrix(self) -> npt.NDArray[np.float64]:
        """The affine map from crop to view in units of their sides, (2, 3)."""
        angle = math.radians(self.angle_deg)
        cos, sin = math.cos(angle) / self.scale, math.sin(angle) / self.scale
        linear = np.array([[cos, -sin], [sin, cos]])
        offset = 0.5 - linear @ (0.5, 0.5) + np.array(self.translation)
        return np.column_stack([linear, offset])


class Geometry(NamedTuple):
    """The geometry of N views: angle (N,) radians, scale (N,), translation (N, 2) view sides.

    >>> import handclr_cli as handclr
    >>> views = [handclr.View(64, angle_deg=90), handclr.View(64, scale=0.5)]
    >>> geometry = handclr.Geometry.of(views)
    >>> geometry.scale.tolist(), tuple(geometry.translation.shape)
    ([1.0, 0.5], (2, 2))
    """

    angle: Tensor
    scale: Tensor
    translation: Tensor

    @classmethod
    def of(cls, views: Sequence[View]) -> Geometry:
        """Stack the parameters of views, float32 on the CPU."""
        angles = [math.radians(view.angle_deg) for view in views]
        scales = [view.scale for view in views]
        translations = [view.translation for view in views]
        return cls(
            torch.tensor(angles, dtype=torch.float32),
            torch.tensor(scales, dtype=torch.float32),
            torch.tensor(translations, dtype=torch.float32).reshape(-1, 2),
        )

    @classmethod
    def cat(cls, parts: Sequence[Geometry]) -> Geometry:
        """Concatenate along N."""
        return cls(*(torch.cat(fields) for fields in zip(*parts, strict=True)))

    def to(self, device: torch.device | str) -> Geometry:
        """Move to a device."""
        return Geometry(*(field.to(device) for field in self))


class Appearance(NamedTuple):
    """What N views change besides the geometry: float32 (N,) each, in the units of View."""

    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    blur_sigma: Tensor

    @classmethod
    def of(cls, views: Sequence[View]) -> Appearance:
        """Stack the parameters of views, on the CPU."""
        fields = []
        for name in cls._fields:
            values = [getattr(view, name) for view in views]
            fields.append(torch.tensor(values).float())
        return cls(*fields)

    def to(self, device: torch.device | str) -> Appearance:
        """Move to a device."""
        return Appearance(*(field.to(device) for field in self))


def draw_view(config: AugmentationConfig, rng: np.random.Generator) -> View:
    """Draw the parameters of one view; always takes the same number of values from `rng`.

    >>> import numpy as np, handclr_cli as handclr
    >>> ranges = handclr.AugmentationConfig(size=64, rotation=30)
    >>> view = handclr.draw_view(ranges, np.random.default_rng(0))
    >>> view.size, abs(view.angle_deg) <= 30
    (64, True)
    """
    # Unused values are drawn too, so that one seed gives the same colours under all settings.
    u = [float(value) for value in rng.uniform(-1.0, 1.0, size=10)]
    moves, blurs = config.geometric, (u[9] + 1) / 2 < config.blur_probability
    return View(
        size=config.size,
        angle_deg=config.rotation * u[0] if moves else 0.0,
        scale=_between(config.scale, u[1]) if moves else 1.0,
        translation=(config.translation * u[2], config.translation * u[3]) if moves else (0.0, 0.0),
        brightness=1.0 + config.brightness * u[4],
        contrast=1.0 + config.contrast * u[5],
        saturation=1.0 + config.saturation * u[6],
        hue=config.hue * u[7],
        blur_sigma=_between(config.blur_sigma, u[8]) if blurs else 0.0,
    )


def apply_view(view: View, image: Image) -> Image:
    """Make the view of a crop: uint8 RGB (S, S, 3) to (size, size, 3), black outside the crop.

    One warp, then one colour matrix, then the blur; the colour may lift the border from black.

    >>> import numpy as np, handclr_cli as handclr
    >>> crop = np.zeros((224, 224, 3), np.uint8)
    >>> handclr.apply_view(handclr.View(size=64, angle_deg=30, scale=0.8), crop).shape
    (64, 64, 3)
    """
    side = image.shape[1]
    minification = side * view.scale / view.size
    if minification > 2:
        # Bilinear sampling reads 2x2 pixels and would skip the others: average them first.
        side = max(1, round(side / minification))
        smaller = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        image = np.asarray(smaller, dtype=np.uint8)
    matrix = view.matrix()
    linear, offset = matrix[:, :2] * (view.size / side), matrix[:, 2] * view.size
    # OpenCV counts from the centre of the first pixel, which is at .5 here.
    warp = np.column_stack([linear, linear @ (0.5, 0.5) + offset - 0.5])
    # Where nothing is moved, all of the view is inside, also the halves of its outermost pixels.
    moved = view.angle_deg != 0 or view.scale != 1 or any(view.translation)
    out = cv2.warpAffine(
        image,
        warp,
        (view.size, view.size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT if moved else cv2.BORDER_REPLICATE,
    )
    if (view.brightness, view.contrast, view.saturation, view.hue) != (1.0, 1.0, 1.0, 0.0):
        grey = float(LUMA @ cv2.mean(out)[:3])
        out = cv2.transform(out, _colour_matrix(view, grey))
    if view.blur_sigma > 0:
        out = cv2.GaussianBlur(out, (0, 0), view.blur_sigma)
    return np.asarray(out, dtype=np.uint8)


def move_pose(
    view: View, keypoints2d: npt.ArrayLike, keypoints3d: npt.ArrayLike
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Where the joints of a crop are in its view.

    keypoints2d (21, 2) come in crop sides and go out in view px; keypoints3d (21, 3) are in metres,
    camera axes. The pose turns about the optical axis by the view's angle; scale and translation
    move the image only.
    """
    angle = math.radians(view.angle_deg)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    moved = transform_points(view, keypoints2d) * view.size
    turned = np.asarray(keypoints3d, dtype=np.float64) @ turn.T
    return moved.astype(np.float32), turned.astype(np.float32)


def transform_points(view: View, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Where points of the crop land in its view: (..., 2) crop sides in, view sides out.

    >>> import numpy as np, handclr_cli as handclr
    >>> view = handclr.View(size=64, angle_deg=90)
    >>> handclr.transform_points(view, [[1.0, 0.5]]).round(6).tolist()
    [[0.5, 1.0]]
    """
    matrix = view.matrix()
    return np.asarray(points, dtype=np.float64) @ matrix[:, :2].T + matrix[:, 2]


def to_tensor(batch: Tensor) -> Tensor:
    """Normalise as for ImageNet: uint8 (N, H, W, 3) to float32 (N, 3, H, W), on its device."""
    images = batch.permute(0, 3, 1, 2)
    return normalise_(images.to(torch.float32, memory_format=torch.channels_last))


def normalise_(out: Tensor) -> Tensor:
    """Normalise grey levels 0..255 as for ImageNet, in place: (N, 3, H, W) float32; returns it."""
    # Python numbers: a tensor of three would be copied to the device, and waited for, in each step.
    for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
        out[:, channel].mul_(1 / (255 * std)).sub_(mean / std)
    return out


def _between(bounds: tuple[float, float], u: float) -> float:
    """Map u in [-1, 1] onto a range."""
    return bounds[0] + (bounds[1] - bounds[0]) * (u + 1) / 2


def _colour_matrix(view: View, grey: float) -> npt.NDArray[np.float64]:
    """The (3, 4) map of RGB in 0..255 that changes colours; contrast is about the mean grey."""
    turn = 2 * math.pi * view.hue
    cos, sin = view.saturation * math.cos(turn), view.saturation * math.sin(turn)
    chroma = FROM_YIQ @ np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ TO_YIQ
    offset = (1 - view.contrast) * view.brightness * grey
    return np.column_stack([view.contrast * view.brightness * chroma, np.full(3, offset)])
