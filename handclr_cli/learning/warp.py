"""The augmentation T of a whole batch, on the device that the images are on.

The same views as `augmentation.apply_view` makes one by one, but for its rounding to whole grey
levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .augmentation import (
    FROM_YIQ,
    LUMA,
    TO_YIQ,
    Appearance,
    AugmentationConfig,
    Geometry,
    normalise_,
)

MAX_SIGMA = AugmentationConfig.blur_sigma[1]
_RADIUS = math.floor(3 * MAX_SIGMA + 0.5)
# Images worked on at a time, which limits the memory for intermediate results.
_PIECE = 256
_LUMA = LUMA.tolist()
# RGB to RGB: the luma alone, the chroma plane, and the chroma plane turned by 90 degrees.
_COLOUR_PARTS = [
    (FROM_YIQ @ np.array(part) @ TO_YIQ).tolist()
    for part in (np.diag([1, 0, 0]), np.diag([0, 1, 1]), [[0, 0, 0], [0, 0, -1], [0, 1, 0]])
]


def render_views(images: Tensor, geometry: Geometry, appearance: Appearance, size: int) -> Tensor:
    """Make the views of N crops, normalised as for ImageNet.

    images (N, R, R, 3) uint8 RGB; geometry and appearance of N views, on the same device -> (N, 3,
    size, size) float32. R * scale is at most 2 * size: nothing is averaged before the bilinear
    sampling, which would skip pixels beyond that. size is at least 7 px and blur_sigma at most
    MAX_SIGMA, beyond which the kernel is cut.
    """
    shape = (len(images), 3, size, size)
    layout = torch.channels_last
    out = torch.empty(shape, dtype=torch.float32, device=images.device, memory_format=layout)
    for start in range(0, len(images), _PIECE):
        piece = slice(start, start + _PIECE)
        moved = warp(images[piece], Geometry(*(field[piece] for field in geometry)), size)
        looks = Appearance(*(field[piece] for field in appearance))
        out[piece] = gaussian_blur(colour(moved, looks), looks.blur_sigma)
    return normalise_(out)


def warp(images: Tensor, geometry: Geometry, size: int) -> Tensor:
    """Move N crops, black outside: (N, R, R, 3) uint8 -> (N, 3, size, size) float32 grey levels."""
    # The inverse of View.matrix, in grid_sample's units: -1 to 1 from edge to edge of the picture.
    centres = (torch.arange(size, device=images.device) + 0.5) * (2 / size) - 1
    x = (centres - 2 * geometry.translation[:, :1])[:, None, :]
    y = (centres - 2 * geometry.translation[:, 1:])[:, :, None]
    cos = (geometry.scale * geometry.angle.cos())[:, None, None]
    sin = (geometry.scale * geometry.angle.sin())[:, None, None]
    grid = torch.stack([cos * x + sin * y, cos * y - sin * x], dim=3)
    # Where nothing is moved, all of the view is inside, also the halves of its outermost pixels.
    edge = 1 - 1 / images.shape[1]
    moved = (geometry.angle != 0) | (geometry.scale != 1) | (geometry.translation != 0).any(dim=1)
    grid = torch.where(moved[:, None, None, None], grid, grid.clamp(-edge, edge))
    pixels = images.permute(0, 3, 1, 2).float()
    return F.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False)


def colour(images: Tensor, appearance: Appearance) -> Tensor:
    """Change brightness, contrast, saturation and hue: (N, 3, H, W) float32 in 0..255.

    Contrast is about the mean grey of each image.
    """
    channels = images.unbind(dim=1)
    grey = _mix(_LUMA, images.mean(dim=(2, 3)).unbind(dim=1))
    gain = appearance.brightness * appearance.contrast
    turn = 2 * math.pi * appearance.hue
    along = gain * appearance.saturation * turn.cos()
    across = gain * appearance.saturation * turn.sin()
    offset = (appearance.brightness * (1 - appearance.contrast) * grey)[:, None, None]
    rows = []
    for row in zip(*_COLOUR_PARTS, strict=True):
        factors = []
        for luma, chroma, turned in zip(*row, strict=True):
            factor = gain * luma + along * chroma + across * turned
            factors.append(factor[:, None, None])
        rows.append(_mix(factors, channels) + offset)
    return torch.stack(rows, dim=1).clamp_(0, 255)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image (N, C, H, W) float32 by its own sigma (N,) in px; 0 is no blur.

    Images are mirrored at their border.
    """
    taps = torch.arange(-_RADIUS, _RADIUS + 1, device=images.device)
    width = sigma[:, None]
    # The radius that OpenCV takes for 8 bit images.
    radius = ((6 * width + 1).round() / 2).floor()
    weights = torch.exp(-0.5 * (taps / width.clamp(min=1e-3)) ** 2) * (taps.abs() <= radius)
    weights = (weights / weights.sum(dim=1, keepdim=True))[:, :, None, None, None]
    for axis, margins in ((2, (0, 0, _RADIUS, _RADIUS)), (3, (_RADIUS, _RADIUS, 0, 0))):
        padded = F.pad(images, margins, mode="reflect")
        length = images.shape[axis]
        # Grouped convolution with a kernel for each image is slow on a GPU; adding up shifted
        # copies runs at the speed of the memory.
        images = weights[:, 0] * padded.narrow(axis, 0, length)
        for tap in range(1, len(taps)):
            images.addcmul_(weights[:, tap], padded.narrow(axis, tap, length))
    return images


def _mix(weights: Sequence[Tensor | float], channels: Sequence[Tensor]) -> Tensor:
    # Not a matrix product: that would be rounded under autocast and TF32.
    (r, g, b), (red, green, blue) = weights, channels
    return r * red + g * green + b * blue
