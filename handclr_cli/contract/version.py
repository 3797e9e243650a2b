"""The version of handclr, by itself so that everything may name it."""

__version__ = "0.2.0"
