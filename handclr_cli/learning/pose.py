"""The 3D hand pose network: an encoder and a head on its features."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..contract.errors import HandclrError
from .encoder import Encoder, seeded
from .heads import ENCODER_STRIDE, HEADS


class PoseNet(nn.Module):
    """Encoder and head ("detnet", "softargmax" or "regress"), whose weights are drawn from `seed`.

    Input (N, 3, H, W) ImageNet-normalised RGB as in pre-training, H and W multiples of 32. Lengths
    are in units of the reference bone, wrist to middle knuckle.
    """

    def __init__(self, encoder: Encoder, seed: int = 0, head: str = "detnet") -> None:
        super().__init__()
        if head not in HEADS:
            raise HandclrError(f"unknown head {head!r}: choose one of {', '.join(HEADS)}")
        self.encoder, self.kind = encoder, head
        with seeded(seed):
            self.head = HEADS[head](encoder.channels)

    def forward(self, images: Tensor) -> Any:
        """The head's outputs, for its loss."""
        height, width = images.shape[-2:]
        if height % ENCODER_STRIDE or width % ENCODER_STRIDE:
            raise HandclrError(
                f"the pose model takes sides that are multiples of 32, not {width}x{height}: set"
                " --size"
            )
        return self.head(self.encoder.features(images))

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The pose, float32: xyz (N, 21, 3) from the wrist in reference bones, uv (N, 21, 2) input
        pixels (x, y).
        """
        # Not by way of __call__, which training may have compiled for its batches.
        return self.head.read(self.forward(images))
