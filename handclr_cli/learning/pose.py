"""The 3D hand pose network: an encoder and a head on its features."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..contract.errors import HandclrError
from .encoder import Encoder, seeded
from .guide import Guide
from .heads import HEADS
from .pose_head import ENCODER_STRIDE


class PoseNet(nn.Module):
    """An encoder and a head, one of HEADS, with weights drawn from `seed`.

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

    def forward(self, images: Tensor, guide: Guide | None = None) -> Any:
        """The head's outputs, for its loss; `guide` is for a head that takes one."""
        height, width = images.shape[-2:]
        if height % ENCODER_STRIDE or width % ENCODER_STRIDE:
            wanted = "the pose model takes sides that are multiples of 32"
            raise HandclrError(f"{wanted}, not {width}x{height}; choose another size")
        features = self.encoder.features(images)
        return self.head(features, guide) if self.head.takes_guide else self.head(features)

    def predict(self, images: Tensor, guide: Guide | None = None) -> tuple[Tensor, Tensor]:
        """The pose, float32: xyz (N, 21, 3) in reference bones, uv (N, 21, 2) input pixels (x, y).

        xyz is counted from the wrist, along the axes of the crop's own camera.
        """
        # Not by way of __call__, which training may have compiled for its batches.
        return self.head.read(self.forward(images, guide))
