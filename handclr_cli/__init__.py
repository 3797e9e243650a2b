"""handclr: from raw footage of hands to a pre-trained encoder and a 3D hand pose model."""

from .version import __version__ as __version__
