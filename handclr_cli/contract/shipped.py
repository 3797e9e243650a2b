"""The model that comes with handclr, and the word that stands for it."""

from __future__ import annotations

from pathlib import Path

# What is named for the model that comes with handclr, or for its encoder.
SHIPPED = "handclr"
_FILE = Path(__file__).resolve().parent.parent / "weights" / "hand.pt"


def weights_file(name: str) -> str:
    """The path of weights: of those that come with handclr where `name` is SHIPPED, else `name`."""
    return str(_FILE) if name == SHIPPED else name
