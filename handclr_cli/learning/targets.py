"""Soft targets of the contrastive loss: how much a view should resemble others, by their poses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# The width of the targets, in median distances of the batch.
SPREAD = 0.15
# The median distance is taken over this many views: sorting all of a large batch takes long.
_SAMPLE = 512


class PoseTargets:
    """Distributions over the 2N views of a batch, by the poses of their crops, for `nt_xent`.

    They have no gradient. poses1, poses2 (N, 21, 2), any float dtype, are the keypoints of the
    crops that the two views of the WHOLE batch were made of, in crop sides. The target of view i is
    the softmax over all j != i of -d_ij^2 / (2 sigma^2), d the Euclidean distance of poses as
    42-vectors. sigma is `spread` times the median d among the first 512 views (the lower one of an
    even number), not counting pairs at distance 0, which show one image; where there are no others,
    all views are alike.
    """

    @torch.no_grad()
    def __init__(self, poses1: Tensor, poses2: Tensor, spread: float = SPREAD) -> None:
        poses = torch.cat([poses1, poses2]).flatten(1).float()
        self._variance = (spread * _median_distance(poses[:_SAMPLE])).double().square()
        # In float64: the product of matrices cancels digits where poses are close, and would be
        # rounded to TF32.
        self._poses = poses.double()
        self._penalties = self._poses.square().sum(dim=1) / 2

    @torch.no_grad()
    def against_all(self, rows: Tensor) -> Tensor:
        """Targets of some views: rows int64 (n,) to float32 (n, 2N), 0 for the view itself."""
        # -d^2 / 2 without the terms that all columns share, which the softmax cancels.
        nearness = torch.addmm(self._penalties, self._poses[rows], self._poses.T, beta=-1)
        nearness.div_(self._variance)
        return nearness.scatter_(1, rows[:, None], float("-inf")).softmax(dim=1).float()


def _median_distance(poses: Tensor) -> Tensor:
    """Median distance of the pairs among poses (n, 42) that are not at 0; infinite without any."""
    distances = F.pdist(poses)
    ordered = distances.masked_fill(distances == 0, float("inf")).sort().values
    middle = ((distances > 0).sum() - 1).clamp(min=0) // 2
    # Not by indexing with the scalar itself, which waits for the device.
    return ordered.index_select(0, middle[None]).squeeze(0)
