"""The footage under the paths that a user names."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..console import printable
from ..contract.errors import UsageError
from ..contract.sample import video_ids, video_names
from .frames import Footage
from .kinds import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Group,
    LeftOut,
    may_hold_footage,
    without_previews,
)


def find_footage(
    arguments: Sequence[str], note: Callable[[str], None] | None = None
) -> list[Footage]:
    """List the footage under files, folders and wildcards, folders recursively and in sorted order.

    A file named by the user is taken whatever its suffix; in folders, suffixes decide. A folder's
    images are one sequence, an image named on its own is one of a single frame. A file with several
    names, by symbolic or hard links, is taken once, under the first; a copy is footage of its own.
    What cannot be read (a folder that cannot be listed, a broken link, a pipe) is listed too, so
    that reading it names the reason. Hidden files and folders are passed over; images and previews
    that only show a film beside them, and files of kinds that are not read, are left out, and
    `note` is given a line about each kind of these. Raises UsageError for a path that does not
    exist, or where a folder holds no footage.
    """
    distinct: dict[object, Group] = {}
    left = LeftOut()
    for argument in arguments:
        for group in _groups(argument, left):
            distinct.setdefault(_identity(group[0]), group)
    groups = without_previews(list(distinct.values()), left)
    if note:
        for line in left.notes():
            note(line)
    names = video_names([Path(os.path.abspath(path)) for path, _, _ in groups])
    named = zip(names, video_ids(names), groups, strict=True)
    return [Footage(name, head, files, is_video) for name, head, (_, files, is_video) in named]


def _identity(path: Path) -> object:
    """The same for all names of one file."""
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    # Only for these: some network file systems invent the numbers of files.
    linked = status.st_nlink > 1 and not os.path.isdir(path)
    return (status.st_dev, status.st_ino) if linked else os.path.realpath(path)


def _groups(argument: str, left: LeftOut) -> list[Group]:
    path = Path(argument)
    if os.path.isdir(path):
        found = list(_walk(path, left))
        if not found:
            others = "".join(f"; {note}" for note in left.notes())
            raise UsageError(f"{printable(argument)}: no videos or images in this folder{others}")
        return found
    # Broken links too: the wildcards below would find them again for ever.
    if os.path.lexists(path):
        return [(path, (path,), path.suffix.lower() not in IMAGE_SUFFIXES)]
    matches = sorted(glob.glob(argument, recursive=True))
    if not matches:
        raise UsageError(f"{printable(argument)}: no such file or folder")
    return [group for match in matches for group in _groups(match, left)]


def _walk(folder: Path, left: LeftOut) -> Iterator[Group]:
    unlisted: list[Path] = []
    seen: set[str] = set()

    def note(error: OSError) -> None:
        unlisted.append(Path(error.filename))

    for root, folders, names in os.walk(folder, followlinks=True, onerror=note):
        # A link to a folder further up would list the tree again and again.
        if (real := os.path.realpath(root)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(filter(may_hold_footage, folders))
        files = [Path(root, name) for name in sorted(names) if not name.startswith(".")]
        left.see(files)
        images = tuple(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES)
        if images:
            yield Path(root), images, False
        for file in files:
            if file.suffix.lower() in VIDEO_SUFFIXES:
                yield file, (file,), True
    for path in unlisted:
        yield path, (path,), True
