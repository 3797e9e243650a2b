"""Convolutions as products of patches are convolutions: values, gradients, names, and what is left
as it was.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from handclr_cli.learning.encoder import build_encoder
from handclr_cli.learning.patch_conv import PatchConv2d, use_patches

SHAPES = [
    # side, kernel, stride, padding
    (2, 3, 1, 1),
    (4, 3, 1, 1),
    (4, 3, 2, 1),
    (5, 3, 2, 0),
    (7, 5, 2, 2),
    (4, 1, 2, 0),
    (8, 3, 1, 1),
    (3, (3, 2), (2, 1), (1, 0)),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("side", "kernel", "stride", "padding"), SHAPES)
def test_values_and_gradients_are_those_of_a_convolution(
    side, kernel, stride, padding, bias: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(3, 5, kernel, stride, padding, bias=bias).double()
    x = torch.randn(
        2, 3, side, side + 1, dtype=torch.float64, generator=generator, requires_grad=True
    )
    upstream = torch.randn(conv(x).shape, dtype=torch.float64, generator=generator)

    def run() -> list[torch.Tensor]:
        out = conv(x)
        return [out, *torch.autograd.grad(out, [x, *conv.parameters()], upstream)]

    expected = run()
    use_patches(conv)
    assert type(conv) is PatchConv2d
    for ours, theirs in zip(run(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_an_encoder_keeps_its_names_and_features() -> None:
    encoder = build_encoder("resnet18").eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    names = list(encoder.state_dict())
    with torch.no_grad():
        expected = encoder.features(images)
        use_patches(encoder)
        torch.testing.assert_close(encoder.features(images), expected, rtol=1e-4, atol=1e-4)
    assert list(encoder.state_dict()) == names
    assert all(type(module) is not nn.Conv2d for module in encoder.modules())


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 2},
        {"dilation": 2},
        {"padding": "same"},
        {"padding": 1, "padding_mode": "reflect"},
    ],
)
def test_other_convolutions_are_left_alone(options: dict) -> None:
    conv = nn.Conv2d(4, 4, 3, **options)
    use_patches(conv)
    assert type(conv) is nn.Conv2d


def test_large_maps_are_convolved_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = PatchConv2d(3, 4, 3, padding=1)
    called = []
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: called.append(x.shape[-1]) or x)
    for side in (4, 5):
        conv(torch.zeros(1, 3, side, side))
    assert called == [5]
