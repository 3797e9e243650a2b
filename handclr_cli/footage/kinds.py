"""Which files are footage, by their suffixes and by what lies beside them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..console import printable
from .frames import UnreadableError

VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mkv", ".webm", ".avi", ".divx"),
        *(".mpg", ".mpeg", ".m1v", ".m2v", ".mpv", ".vob", ".mod", ".tod", ".ts", ".m2t", ".mts"),
        *(".m2ts", ".wmv", ".asf", ".flv", ".ogv", ".ogm", ".rm", ".rmvb", ".dv", ".mxf", ".nut"),
        *(".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".ivf", ".y4m", ".mjpeg", ".mjpg"),
        *(".360", ".insv", ".lrv", ".lrf", ".gif"),
    )
)
IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".avif", ".tif", ".tiff"),
        *(".jp2", ".pgm", ".ppm"),
    )
)
# Pictures and films that neither OpenCV nor FFmpeg shows as they are meant.
UNREAD_SUFFIXES = frozenset(
    (
        *(".heic", ".heif", ".hif", ".jxl", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw"),
        *(".sr2", ".raf", ".orf", ".rw2", ".pef", ".srw", ".raw", ".x3f", ".insp", ".exr", ".psd"),
        *(".braw", ".r3d", ".ari", ".arx", ".crm", ".bag", ".svo", ".swf"),
    )
)
# Cameras write them beside their films: a small film (by name, of Insta360's), and a JPEG.
_PREVIEWS, _PREVIEW_OF_360, _THUMBNAIL = (".lrv", ".lrf"), ("lrv_", ".insv"), ".thm"
# Thumbnails of cameras and network drives, and what was thrown away.
_NO_FOOTAGE = frozenset(("thmbnl", "@eadir", "#recycle", "$recycle.bin", "__macosx"))
_OF_FILM = re.compile(r"[-_. ]?(thumb|thumbnail|poster|cover)$")

# What is read of one place: its path, its files, and whether it is a video.
Group = tuple[Path, tuple[Path, ...], bool]


def may_hold_footage(folder: str) -> bool:
    """Whether a folder inside another one is searched, by its name."""
    return not folder.startswith(".") and folder.lower() not in _NO_FOOTAGE


@dataclass
class LeftOut:
    """The files that were found and are not read; `notes` names them, a kind in one line."""

    unread: list[Path] = field(default_factory=list)
    previews: list[Path] = field(default_factory=list)

    def see(self, files: Iterable[Path]) -> None:
        """Take in the files of a folder that are of kinds that are not read."""
        for file in files:
            if (suffix := file.suffix.lower()) == _THUMBNAIL:
                self.previews.append(file)
            elif suffix in UNREAD_SUFFIXES:
                self.unread.append(file)

    def notes(self) -> list[str]:
        """One line for what cannot be read, one for previews and thumbnails of films."""
        found = []
        if unread := list(dict.fromkeys(self.unread)):
            kinds = Counter(file.suffix.lower() for file in unread).most_common()
            told = ", ".join(f"{suffix} {count:,}" for suffix, count in kinds)
            which = f"{_files(len(unread))} of kinds that are not read: {told}"
            found.append(f"{which}; {_escaped(unread[0])} first")
        if previews := list(dict.fromkeys(self.previews)):
            which = f"{_files(len(previews))} left out as previews or thumbnails of films"
            found.append(f"{which}; {_escaped(previews[0])} first")
        return found


def refuse_unread(path: Path) -> None:
    """Raise UnreadableError for a file of a kind of which what can be decoded is not what it shows.

    FFmpeg opens some of them: of a HEIC photograph it gives a tile.
    """
    if path.suffix.lower() in UNREAD_SUFFIXES:
        raise UnreadableError(path, "of a kind that is not read", "convert it to JPEG or MP4")


def without_previews(groups: Sequence[Group], left: LeftOut) -> list[Group]:
    """Drop what only shows again what a film beside it shows, into `left`.

    That is an image with the film's name (`a.jpg`, `a.mp4.jpg` or `a_thumb.jpg` of `a.mp4`, and
    `cover.jpg` of any), and a camera's small preview film, such as .lrv, beside others.
    """
    films: dict[Path, set[str]] = {}
    for _, (file, *_), is_video in groups:
        if is_video and not _is_preview(file):
            films.setdefault(file.parent, {""}).update((file.stem.lower(), file.name.lower()))
    kept: list[Group] = []
    for path, files, is_video in groups:
        shown = {file for file in files if _of_film(file, films.get(file.parent, ()))}
        left.previews += sorted(shown)
        if remaining := tuple(file for file in files if file not in shown):
            kept.append((path, remaining, is_video))
    return kept


def _of_film(file: Path, films: Collection[str]) -> bool:
    if _is_preview(file):
        return bool(films)
    if file.suffix.lower() not in IMAGE_SUFFIXES:
        return False
    stem = file.stem.lower()
    return stem in films or _OF_FILM.sub("", stem) in films


def _is_preview(file: Path) -> bool:
    name, (start, end) = file.name.lower(), _PREVIEW_OF_360
    return name.endswith(_PREVIEWS) or (name.startswith(start) and name.endswith(end))


def _files(count: int) -> str:
    return f"{count:,} file{'s' if count > 1 else ''}"


def _escaped(path: Path) -> str:
    return printable(str(path))
