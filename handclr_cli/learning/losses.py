"""The contrastive loss, and the undoing of an augmentation in the latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from .augmentation import Geometry


def nt_xent(z1: Tensor, z2: Tensor, ids1: Tensor, ids2: Tensor, temperature: float = 0.5) -> Tensor:
    """NT-Xent (SimCLR; the HandCLR loss when the second views are mined positives), a float32 scalar.

    z1, z2 (N, D), any float dtype, normalised here in float32; row i of one is the positive of row i of the
    other. ids1, ids2 (N,) int64 say which image each row shows. The denominator of a row is its positive and
    all other rows, except those that show the row's own image or its positive's: they are copies, not
    negatives.
    """
    # Under autocast the product of all pairs would be rounded to half precision before the softmax.
    with torch.autocast(device_type=z1.device.type, enabled=False):
        z = F.normalize(torch.cat([z1, z2]).float(), dim=1)
        logits = z @ z.T / temperature
    n = len(z1)
    rows = torch.arange(2 * n, device=z.device)
    positive = (rows + n) % (2 * n)
    ids = torch.cat([ids1, ids2])
    copies = (ids[:, None] == ids[None, :]) | (ids[positive][:, None] == ids[None, :])
    copies[rows, positive] = False
    copies[rows, rows] = True
    logits = logits.masked_fill(copies, float("-inf"))
    return (logits.logsumexp(dim=1) - logits[rows, positive]).mean()


@torch.no_grad()
def retrieval_top1(z1: Tensor, z2: Tensor) -> Tensor:
    """Share of the rows of z1 (N, D) whose most similar row of z2 (N, D), by cosine, is their positive."""
    with torch.autocast(device_type=z1.device.type, enabled=False):
        similarity = F.normalize(z1.float(), dim=1) @ F.normalize(z2.float(), dim=1).T
    return (similarity.argmax(dim=1) == torch.arange(len(z1), device=z1.device)).float().mean()


def undo_geometry(z: Tensor, transform: Geometry, unit: Literal["extent", "crop"] = "extent") -> Tensor:
    """Undo each view's geometric transform on its latent read as points (PeCLR; HandCLR's T^-1).

    z (N, 2K) holds K points (x, y); returns (N, 2K) float32. "extent" (PeCLR): translation counts in units of
    the sample's own range per axis, rotation is about the mean of its points, both detached, and scale stays
    because the normalisation that follows cancels it. "crop": points are in units of the crop side, and the
    exact inverse of `augmentation.View` (translation, rotation and scale about (0.5, 0.5)) is applied.
    """
    points = z.float().reshape(len(z), -1, 2)
    translation = transform.translation[:, None, :]
    if unit == "extent":
        detached = points.detach()
        extent = detached.amax(dim=1, keepdim=True) - detached.amin(dim=1, keepdim=True)
        points = points - translation * extent
        centre = points.detach().mean(dim=1, keepdim=True)
        scale = torch.ones_like(transform.scale)
    else:
        points = points - translation
        centre = torch.full_like(points[:, :1], 0.5)
        scale = transform.scale
    cos, sin = (scale * transform.angle.cos())[:, None], (scale * transform.angle.sin())[:, None]
    x, y = (points - centre).unbind(dim=2)
    turned = torch.stack([cos * x + sin * y, cos * y - sin * x], dim=2)
    return (turned + centre).reshape(z.shape)
