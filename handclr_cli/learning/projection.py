"""The projection head that pre-training puts on the encoder and throws away."""

from __future__ import annotations

from torch import Tensor, nn

from .encoder import seeded


class ProjectionHead(nn.Sequential):
    """Linear, batch norm, ReLU, Linear without bias (SimCLR, PeCLR): (N, channels) -> (N, out).

    The equivariant losses read the `out` numbers as out/2 points (x, y), so it must be even.
    """

    def __init__(self, channels: int, hidden: int = 512, out: int = 128, seed: int = 0) -> None:
        with seeded(seed):
            super().__init__(
                nn.Linear(channels, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(inplace=True),
                nn.Linear(hidden, out, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Project representations: (N, channels) -> (N, out), not normalised."""
        return super().forward(x)
