"""Convolutions over small maps as products of matrices, for a CPU.

The last stages of a ResNet have such maps where its images are small.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Up to here oneDNN's gradients are slower: at 2 x 2 positions they take 20 times as long as ours,
# at 8 x 8 a third.
_MOST_POSITIONS = 16


class PatchConv2d(nn.Conv2d):
    """A convolution as a product of patches and weights, where its output is small.

    (N, C, H, W) to (N, O, H', W') as in `nn.Conv2d`, but for rounding; H' W' of at most 16 counts
    as small. Without groups or dilation, padded by zeros.
    """

    def forward(self, input: Tensor) -> Tensor:
        places = self._places(input.shape[2:])
        if self.kernel_size == (1, 1) or places.shape[:2].numel() > _MOST_POSITIONS:
            return super().forward(input)
        top, left = self._margins()
        padded = F.pad(input.permute(0, 2, 3, 1), (0, 0, left, left, top, top)).flatten(1, 2)
        patches = padded.index_select(1, places.flatten()).view(len(input), *places.shape[:2], -1)
        weight = self.weight.permute(0, 2, 3, 1).flatten(1)
        return F.linear(patches, weight, self.bias).permute(0, 3, 1, 2)

    def _places(self, sides: torch.Size) -> Tensor:
        """Where in the padded map each position's patch lies.

        int64 (H', W', kernel height, kernel width).
        """
        top, left = self._margins()
        height, width = sides[0] + 2 * top, sides[1] + 2 * left
        places = torch.arange(height * width).view(height, width)
        for axis in (0, 1):
            places = places.unfold(axis, self.kernel_size[axis], self.stride[axis])
        return places

    def _margins(self) -> tuple[int, int]:
        assert not isinstance(self.padding, str)
        height, width = self.padding
        return height, width


def use_patches(model: nn.Module) -> None:
    """Turn the convolutions of a model into PatchConv2d where they can be."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _replaceable(module):
            # In place: parameters and their names stay, and so does what refers to the module.
            module.__class__ = PatchConv2d


def _replaceable(conv: nn.Conv2d) -> bool:
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    return plain and not isinstance(conv.padding, str)
