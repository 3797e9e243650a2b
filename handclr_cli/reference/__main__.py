"""$ python -m handclr_cli.reference docs/commands.md man: write the page and the man pages."""

from __future__ import annotations

import sys
from pathlib import Path

from .manual import manual
from .markdown import markdown
from .tree import pages, read_parser


def write(page: Path, folder: Path) -> None:
    """Write the page and a folder of man pages, without those of commands that are no more."""
    top = read_parser()
    page.write_text(markdown(top), encoding="utf-8")
    for old in folder.glob("handclr*.1"):
        old.unlink()
    for one in pages(top):
        (folder / f"{one.file}.1").write_text(manual(one, top), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
