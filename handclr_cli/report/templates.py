"""Jinja templates that lie beside the code that fills them in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def templates_of(folder: Path, finalize: Callable[[Any], Any] | None = None) -> Environment:
    """The templates of a folder: what is put in is escaped, and what is missing is an error.

    `finalize` is called with each value before it is put in.
    """
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize,
    )
