"""What the pose model is to learn: the truth of a batch, in reference bones and input pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..hand.joints import FINGERS, REFERENCE_BONE

_NO_LENGTH = 1e-6


class PoseTruth(NamedTuple):
    """Truth of N square inputs of `size` px.

    uv (N, 21, 2) input px with pixel centres at .5; location (N, 21, 3) from the wrist, in
    reference bones; delta (N, 21, 3) unit vectors from the parents, 0 for the wrist; all float32.
    valid (N, 21) bool: the joint has 3D labels, which are 0 where not; visible: it has 2D labels
    and lies within the view; delta_valid: its parent has 3D labels too.
    """

    uv: Tensor
    location: Tensor
    delta: Tensor
    valid: Tensor
    visible: Tensor
    delta_valid: Tensor
    size: int

    def only(self, chosen: Tensor) -> PoseTruth:
        """The truth of which only the samples `chosen`, bool (N,), count."""
        each = chosen[:, None]
        return self._replace(
            valid=self.valid & each,
            visible=self.visible & each,
            delta_valid=self.delta_valid & each,
        )


def pose_truth(
    keypoints2d: Tensor,
    keypoints3d: Tensor,
    size: int,
    valid: Tensor | None = None,
    posed: Tensor | None = None,
) -> PoseTruth:
    """Make the truth of square inputs of side `size` px.

    keypoints2d (N, 21, 2) input px, keypoints3d (N, 21, 3) metres, valid (N, 21) bool (all, where
    None; wrist and middle knuckle in any case); posed (N,) bool says which samples have 3D labels
    at all (all, where None).
    """
    if valid is None:
        valid = torch.ones(keypoints2d.shape[:2], dtype=torch.bool, device=keypoints2d.device)
    uv = torch.where(valid[..., None], keypoints2d.float(), 0)
    visible = valid & ((uv >= 0) & (uv < size)).all(dim=2)
    if posed is not None:
        valid = valid & posed[:, None]
    labelled = valid[..., None]
    joints = keypoints3d.float()
    root, tip = joints[:, REFERENCE_BONE[0]], joints[:, REFERENCE_BONE[1]]
    bone = (tip - root).norm(dim=1).clamp(min=_NO_LENGTH)[:, None, None]
    location = torch.where(labelled, (joints - root[:, None]) / bone, 0)
    delta_valid = valid & of_parents(valid)
    delta = location - of_parents(location)
    delta = delta / delta.norm(dim=2, keepdim=True).clamp(min=_NO_LENGTH)
    delta = torch.where(delta_valid[..., None], delta, 0)
    return PoseTruth(uv, location, delta, valid, visible, delta_valid, size)


def of_parents(values: Tensor) -> Tensor:
    """The value of each joint's parent, the wrist's own for the wrist: (N, 21, ...) in and out."""
    # Slices, not an index of joints, which would be copied to the device, and waited for, in each
    # step.
    wrist, fingers = values[:, :1], values[:, 1:].unflatten(1, (len(FINGERS), -1))
    bases = wrist[:, :, None].expand_as(fingers[:, :, :1])
    return torch.cat([wrist, torch.cat([bases, fingers[:, :, :-1]], dim=2).flatten(1, 2)], dim=1)
