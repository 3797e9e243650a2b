"""The contrastive loss, measures of its latents, and the undoing of geometry in latent space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ..contract.errors import HandclrError
from .targets import PoseTargets
from .weighting import PoseWeights

if TYPE_CHECKING:  # it imports OpenCV, which the loss does not need
    from .augmentation import Geometry

# With more logits than this the loss goes over chunks of rows, which is then faster too.
_MOST_LOGITS = 2048**2
_CHUNK = 256


class Contrast(NamedTuple):
    """A contrastive loss, and the share of rows whose positive is the most similar; scalars."""

    loss: Tensor
    top1: Tensor


def nt_xent(
    z1: Tensor,
    z2: Tensor,
    ids1: Tensor | None = None,
    ids2: Tensor | None = None,
    *,
    temperature: float = 0.5,
    own: slice | None = None,
    weights: PoseWeights | None = None,
    targets: PoseTargets | None = None,
    chunk: int | None = None,
) -> Contrast:
    """NT-Xent (paper, Eq. 1; SimCLR), with SiMHand's weights or with soft targets if given.

    z1, z2 (N, D), any float dtype, are the latents of the WHOLE batch, normalised here in float32;
    row i of one is the positive of row i of the other. ids1, ids2 (N,) int64 say which image each
    row shows; without them, every row shows an image of its own. The denominator of a row is its
    positive and all other rows, except those that show the row's own image or its positive's: they
    are copies, not negatives. `weights` multiply the similarities, the positive's differently in
    numerator and denominator, as published. With `targets`, which do not go with weights, the loss
    of a row is the cross entropy of its targets and the softmax of its similarities with all other
    rows, copies too.

    `own` is the part of the N pairs whose 2n rows are averaged, so that the mean over ranks with
    equal parts is the loss of the whole batch. Large batches, and all where `chunk` is given, go
    over that many rows at a time in memory O(chunk * 2N + 2N * D), and are differentiable once.

    loss and top1 are float32 scalars. top1, which has no gradient, compares the (weighted)
    similarity of the positive with those of the rows that show another image, whatever the targets;
    a tie counts. Raises HandclrError where shapes differ, or only one of ids1 and ids2 is given.

    >>> nt_xent(torch.eye(4)[:2], torch.eye(4)[:2], temperature=1.0).top1
    tensor(1.)
    """
    if z1.shape != z2.shape or z1.ndim != 2:
        shapes = f"{tuple(z1.shape)} and {tuple(z2.shape)}"
        raise HandclrError(f"latents of two views are both (N, D), not {shapes}")
    if weights is not None and targets is not None:
        raise HandclrError("weights and soft targets do not go together; leave out one of the two")
    n = len(z1)
    # Under autocast the product of all pairs would be rounded to half precision before the softmax.
    with torch.autocast(device_type=z1.device.type, enabled=False):
        z = F.normalize(torch.cat([z1, z2]).float(), dim=1)
        rows = torch.arange(2 * n, device=z.device).view(2, n)[:, own or slice(None)].flatten()
        setting = _Setting(_ids(z, ids1, ids2), temperature, weights, targets)
        if chunk is None and len(rows) * len(z) <= _MOST_LOGITS:
            block = _block(z, rows, setting)
            loss, hits = block.loss, block.hits
        else:
            loss, hits = _Chunked.apply(z, rows, setting, chunk or _CHUNK)
    return Contrast(loss / len(rows), hits / len(rows))


def _ids(z: Tensor, ids1: Tensor | None, ids2: Tensor | None) -> Tensor:
    """Which image each of the rows (2N, D) shows, int64 (2N,)."""
    if ids1 is None and ids2 is None:
        return torch.arange(len(z), device=z.device)
    if ids1 is None or ids2 is None or len(ids1) != len(ids2) or 2 * len(ids1) != len(z):
        raise HandclrError(f"ids1 and ids2 are both (N,) for N = {len(z) // 2} pairs, or not given")
    return torch.cat([ids1, ids2])


class _Setting(NamedTuple):
    """What the logits depend on besides the latents; ids (2N,) int64."""

    ids: Tensor
    temperature: float
    weights: PoseWeights | None
    targets: PoseTargets | None


class _Block:
    """Some rows (n,) of the loss against all 2N columns; `loss` and `hits` are sums over them."""

    def __init__(self, z: Tensor, rows: Tensor, setting: _Setting) -> None:
        ids, self._temperature, weights, _ = setting
        partner = (rows + len(z) // 2) % len(z)
        self._positive = partner[:, None]
        logits = (z[rows] / self._temperature) @ z.T
        target = (z[rows] * z[partner]).sum(dim=1, keepdim=True) / self._temperature
        self._weights, self._target_weights = None, torch.ones_like(target)
        if weights is not None:
            self._weights = weights.against_all(rows)
            self._target_weights = weights.positive[rows % len(weights.positive), None]
            logits = logits * self._weights
        self._logits = logits.masked_fill_(_copies(ids, rows, self._positive), float("-inf"))
        self._normaliser = self._logits.logsumexp(dim=1, keepdim=True)
        self.loss = (self._normaliser - target * self._target_weights).sum()
        self.hits = _hits(self._logits, self._positive)

    def slopes(self) -> Tensor:
        """Gradient of `loss` with respect to the similarities (n, 2N); overwrites the logits."""
        slopes = self._logits.sub_(self._normaliser).exp_()
        if self._weights is not None:
            slopes.mul_(self._weights)
        return slopes.scatter_add_(1, self._positive, -self._target_weights).div_(self._temperature)


class _SoftBlock:
    """The same for soft targets."""

    def __init__(self, z: Tensor, rows: Tensor, setting: _Setting) -> None:
        ids, self._temperature, _, targets = setting
        assert targets is not None
        positive = ((rows + len(z) // 2) % len(z))[:, None]
        self._targets = targets.against_all(rows)
        logits = (z[rows] / self._temperature) @ z.T
        masked = logits.detach().masked_fill(_copies(ids, rows, positive), float("-inf"))
        self.hits = _hits(masked, positive)
        # Before the row itself is masked: its target of 0 times -inf would be NaN.
        wanted = (logits * self._targets).sum(dim=1, keepdim=True)
        self._logits = logits.scatter_(1, rows[:, None], float("-inf"))
        self._normaliser = self._logits.logsumexp(dim=1, keepdim=True)
        self.loss = (self._normaliser - wanted).sum()

    def slopes(self) -> Tensor:
        similar = self._logits.sub_(self._normaliser).exp_()
        return similar.sub_(self._targets).div_(self._temperature)


def _block(z: Tensor, rows: Tensor, setting: _Setting) -> _Block | _SoftBlock:
    return _Block(z, rows, setting) if setting.targets is None else _SoftBlock(z, rows, setting)


def _copies(ids: Tensor, rows: Tensor, positive: Tensor) -> Tensor:
    """Which columns show the image of a row or of its positive (n, 1): bool (n, 2N).

    The row itself is among them, its positive is not.
    """
    copies = (ids[rows, None] == ids) | (ids[positive] == ids)
    return copies.scatter_(1, positive, False).scatter_(1, rows[:, None], True)


def _hits(logits: Tensor, positive: Tensor) -> Tensor:
    """How many rows (n, 2N) are nowhere greater than at their positive (n, 1)."""
    return (logits.gather(1, positive) >= logits.amax(dim=1, keepdim=True)).sum()


class _Chunked(torch.autograd.Function):
    """Loss and hits summed over the rows.

    The gradient is made in the forward pass, so that the logits of a chunk need not be kept.
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, rows: Tensor, setting: _Setting, chunk: int
    ) -> tuple[Tensor, Tensor]:
        gradient = torch.zeros_like(z)
        loss, hits = z.new_zeros(()), rows.new_zeros(())
        for part in rows.split(chunk):
            block = _block(z, part, setting)
            loss += block.loss
            hits += block.hits
            if ctx.needs_input_grad[0]:
                slopes = block.slopes()
                # A similarity depends on the latents of its row and of its column.
                gradient.addmm_(slopes.T, z[part]).index_add_(0, part, slopes @ z)
                del slopes
            # Otherwise both this block and the next would be in memory.
            del block
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(hits)
        return loss, hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return scale * gradient, None, None, None


@torch.no_grad()
def alignment_uniformity(z1: Tensor, z2: Tensor, limit: int = 512) -> tuple[Tensor, Tensor]:
    """Alignment and uniformity of normalised latents (Wang & Isola 2020), without gradient.

    Both are float32 scalars. z1, z2 (N, D), any float dtype. Alignment is the mean squared distance
    of the positives, row i of one and of the other; uniformity the log of the mean of exp(-2 d^2)
    over the pairs of the first `limit` rows of z1 (NaN where there is only one).
    """
    first, second = F.normalize(z1.float(), dim=1), F.normalize(z2.float(), dim=1)
    alignment = (first - second).square().sum(dim=1).mean()
    return alignment, F.pdist(first[:limit]).square().mul(-2).exp().mean().log()


def undo_geometry(
    z: Tensor, transform: Geometry, unit: Literal["extent", "crop"] = "extent"
) -> Tensor:
    """Undo each view's geometric transform on its latent read as points (PeCLR; HandCLR's T^-1).

    z (N, 2K) holds K points (x, y); transform has the angle (N,) radians, scale (N,) and
    translation (N, 2) of each view; returns (N, 2K) float32. "extent" (PeCLR): translation counts
    in units of the sample's own range per axis, rotation is about the mean of its points, both
    detached, and scale stays because the normalisation that follows cancels it. "crop": points are
    in units of the crop side, and the exact inverse of `augmentation.View` (translation, rotation
    and scale about (0.5, 0.5)) is applied. Raises HandclrError for other shapes or units.

    >>> from handclr_cli.learning.augmentation import Geometry
    >>> turn = Geometry(torch.tensor([0.5]), torch.tensor([1.0]), torch.zeros(1, 2))
    >>> undo_geometry(torch.tensor([[1.0, 1.0, 2.0, 2.0]]), turn).shape
    torch.Size([1, 4])
    """
    if z.ndim != 2 or z.shape[1] % 2:
        raise HandclrError(f"latents are read as points (x, y): (N, 2K), not {tuple(z.shape)}")
    if len(transform.angle) != len(z):
        raise HandclrError(f"{len(transform.angle)} transforms for {len(z)} latents")
    if unit not in ("extent", "crop"):
        raise HandclrError(f"geometry is undone in units of extent or crop, not {unit}")
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
