"""Convolutions over small maps as products of matrices, for a CPU: those of a ResNet's last stages
on small images.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Where oneDNN's gradients are slow: at 2 x 2 positions 20 times as slow as this, at 8 x 8 three
# times as fast.
_MOST_POSITIONS = 16


class PatchConv2d(nn.Conv2d):
    """A convolution that multiplies patches by its weights where its output has at most 16
    positions.

    (N, C, H, W) to (N, O, H', W') as in `nn.Conv2d`, but for rounding. It takes the place of one
    that has neither groups nor dilation, and pads by zeros.
    """

    def forward(self, input: Tensor) -> Tensor:
        places = self._places(input.shape[2:])
        if self.kernel_size == (1, 1) or places.shape[:2].numel() > _MOST_POSITIONS:
            return super().forward(input)
        top, left = self._margins()
        padded = F.pad(input.permute(0, 2, 3, 1), (0, 0, left, left, top, top)).flatten(1, 2)
        patches = padded.index_select(1, places.flatten()).view(len(input), *places.shape[:2], -1)
        return F.linear(patches, self.weight.permute(0, 2, 3, 1).flatten(1), self.bias).permute(
            0, 3, 1, 2
        )

    def _places(self, sides: torch.Size) -> Tensor:
        """Where in the padded map each position's patch lies: int64 (H', W', kernel height, kernel
        width).
        """
        height, width = (
            side + 2 * margin for side, margin in zip(sides, self._margins(), strict=True)
        )
        places = torch.arange(height * width).view(height, width)
        for axis in (0, 1):
            places = places.unfold(axis, self.kernel_size[axis], self.stride[axis])
        return places

    def _margins(self) -> tuple[int, int]:
        assert not isinstance(self.padding, str)
        height, width = self.padding
        return height, width


def use_patches(model: nn.Module) -> None:
    """Let the convolutions of a model be PatchConv2d where they can; parameters and their names
    stay.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and _replaceable(module):
            module.__class__ = PatchConv2d


def _replaceable(conv: nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    return plain and not isinstance(conv.padding, str)
