"""handclr: from raw footage of hands to a pre-trained encoder and a 3D hand pose model."""

__version__ = "0.1.0"
