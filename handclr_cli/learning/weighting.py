"""SiMHand's adaptive weights: how much a pair counts in the contrastive loss, by its poses."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

# The published lambdas belong to distances in pixels of a view of this side.
VIEW_SIDE = 128.0

# This many rows stay in a CPU's cache over the passes of `_distances`: two to four times as fast as
# with 512.
_TILE = 64


class _Falloff:
    """The weight of a distance, fitted to the least, greatest and mean distance of a batch."""

    def __init__(
        self, form: str, steepness: float, least: Tensor, greatest: Tensor, mean: Tensor
    ) -> None:
        self.linear = form == "linear"
        self.origin = least if self.linear else mean
        span = greatest - least
        # Where all are equally far apart, an infinite width gives all the weight 1.
        self.width = span.masked_fill(span == 0, float("inf")) if self.linear else 1 / steepness

    def __call__(self, distance: Tensor) -> Tensor:
        fall = (distance - self.origin) / self.width
        return 1 - fall if self.linear else torch.sigmoid(-fall)


class PoseWeights:
    """Weights of the pairs among the 2N views of a batch, for `nt_xent`.

    They have no gradient. joints1, joints2 (N, 21, 2), any float dtype, are the joints of the two
    views of the WHOLE batch, in view sides. The distance d of two poses is the mean over the joints
    of their Euclidean distances, in 128ths of the side. `form` says how a weight falls with d:
    "linear" (SiMHand's default) from 1 at the least d to 0 at the greatest, 1 everywhere where all
    d are equal; "sigmoid" as 1 / (1 + exp(lambda (d - mean d))), where the default lambdas are the
    first of SiMHand's (positives 5, 2.5, 1; negatives 0.05, 0.01, 0.005). Least, greatest and mean
    are over the N positives for `positive`, float32 (N,), and over all 2N x 2N pairs, those of a
    view with itself included, for `against_all`.
    """

    @torch.no_grad()
    def __init__(
        self,
        joints1: Tensor,
        joints2: Tensor,
        form: Literal["linear", "sigmoid"] = "linear",
        lambda_positive: float = 5.0,
        lambda_negative: float = 0.05,
    ) -> None:
        first, second = VIEW_SIDE * joints1.float(), VIEW_SIDE * joints2.float()
        d = torch.linalg.vector_norm(first - second, dim=2).mean(dim=1)
        self.positive = _Falloff(form, lambda_positive, d.amin(), d.amax(), d.mean())(d)
        # (21, 2, 2N): one coordinate of one joint lies together.
        self._joints = torch.cat([first, second]).permute(1, 2, 0).contiguous()
        rows = torch.arange(2 * len(d), device=d.device)
        least, greatest, mean = [], [], []
        for tile in rows.split(_TILE):
            d = self._distances(tile)
            least.append(d.amin())
            greatest.append(d.amax())
            mean.append(d.mean(dim=1))
        bounds = torch.stack(least).amin(), torch.stack(greatest).amax()
        self._falloff = _Falloff(form, lambda_negative, *bounds, torch.cat(mean).mean())

    @torch.no_grad()
    def against_all(self, rows: Tensor) -> Tensor:
        """Weights of some of the 2N views with all of them: rows int64 (n,) to float32 (n, 2N)."""
        return self._falloff(self._distances(rows))

    def _distances(self, rows: Tensor) -> Tensor:
        """Mean distance of the joints of the given views to those of all: (n, 2N)."""
        distances = self._joints.new_zeros(len(rows), self._joints.shape[2])
        for total, tile in zip(distances.split(_TILE), rows.split(_TILE), strict=True):
            for x, y in self._joints:
                # By differences: the product of matrices that cdist may use cancels digits where
                # poses are close.
                dx, dy = x[tile, None] - x, y[tile, None] - y
                total += dx.square_().addcmul_(dy, dy).sqrt_()
        return distances.div_(len(self._joints))
