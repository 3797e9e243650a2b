"""What can be given as input: files, folders, globs, brace ranges, URLs, `-`."""

from __future__ import annotations

import contextlib
import glob
import io
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from .errors import HandclrError, UsageError
from .remote import COMMAND, open_url
from .retries import shown
from .stores import ends_of_object, is_store, listed, matching, open_store

STDIN = "-"
URL = re.compile(r"(pipe:|[a-z][a-z0-9+.-]*://)")
_FILE = "file://"
_START = 1 << 16
_MOST_NAMES, _LONGEST_NUMBER = 1_000_000, 1_000
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def expand_inputs(arguments: Sequence[str], suffix: str = ".tar") -> list[str]:
    """Turn arguments into a list of sources; none and a pipe on standard input mean `-`.

    A folder stands for its sorted files with `suffix`, and so does a prefix in a store, which ends
    with /; `{000..041}` and shell wildcards are expanded here too, so that quoted ones work.
    `file://` is left out. Raises UsageError where nothing is named or matched.
    """
    if not arguments:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("no input: name files or folders, or pipe data in")
        return [STDIN]
    if list(arguments).count(STDIN) > 1:
        raise UsageError("standard input (-) can be read only once")
    return [source for argument in arguments for source in _expand(argument, suffix)]


def _expand(argument: str, suffix: str) -> list[str]:
    if argument == STDIN or argument.startswith(COMMAND):
        return [argument]
    if argument.startswith(_FILE):
        return _expand(local_name(argument), suffix)
    if BRACES.search(argument) and not os.path.exists(argument):
        ranged = in_range(argument)
        if not ranged:
            raise UsageError(f"{shown(argument)}: the range counts down")
        return [source for name in ranged for source in _expand(name, suffix)]
    if URL.match(argument):
        return _in_store(argument, suffix) if is_store(argument) else [argument]
    if os.path.isdir(argument):
        return _in_folder(argument, suffix)
    if not os.path.exists(argument) and glob.has_magic(argument):
        matches = sorted(glob.glob(argument))
        if not matches:
            raise UsageError(f"{argument}: nothing matches")
        return matches
    if not os.path.exists(argument):
        raise UsageError(f"{argument}: no such file or folder")
    return [argument]


def _in_folder(folder: str, suffix: str) -> list[str]:
    names = sorted(name for name in os.listdir(folder) if name.endswith(suffix) and name[0] != ".")
    if not names:
        hint = "; is it footage? handclr extract makes crops of it" if suffix == ".tar" else ""
        raise UsageError(f"{folder}: no {suffix} file in this folder{hint}")
    return [os.path.join(folder, name) for name in names]


def _in_store(url: str, suffix: str) -> list[str]:
    """What a URL of a store stands for: a prefix, wildcards, or the object that it names."""
    if url.endswith("/"):
        if found := listed(url, suffix):
            return found
        raise UsageError(f"{shown(url)}: no {suffix} file below this prefix")
    if glob.has_magic(url) and shown(url) == url:
        if found := matching(url):
            return found
        raise UsageError(f"{url}: nothing matches")
    return [url]


def in_range(pattern: str) -> list[str]:
    """The names that a pattern with a brace range, `{000..041}`, stands for, by its first range.

    There are none where the range counts down. Raises UsageError where it has more names than a
    command could be meant to read.
    """
    match = BRACES.search(pattern)
    assert match
    first, last = match.groups()
    digits = max(len(first), len(last))
    if digits > _LONGEST_NUMBER or int(last) - int(first) >= _MOST_NAMES:
        raise UsageError(f"{shown(pattern)}: a range of more than {_MOST_NAMES:,} names")
    start, end = pattern[: match.start()], pattern[match.end() :]
    return [f"{start}{n:0{len(first)}d}{end}" for n in range(int(first), int(last) + 1)]


def local_name(source: str) -> str:
    """A source without the `file://` that may stand before the name of a file or folder."""
    return source.removeprefix(_FILE)


def is_there(source: str) -> bool:
    """Whether a file, or an object in a store that holds anything, has this name.

    Raises HandclrError where a store does not say.
    """
    if is_store(source):
        return bool(ends_of_object(source, 1, 0)[0])
    return os.path.exists(local_name(source))


def is_url(source: str) -> bool:
    """Whether a source is a URL, or a command, rather than a file, however that is written."""
    return URL.match(source) is not None and not source.startswith(_FILE)


def display_name(source: str) -> str:
    """The name of a source in messages; of a URL what may be seen."""
    return "standard input" if source == STDIN else shown(source)


def identities(names: Iterable[str], standard: int = 0) -> set[object]:
    """What tells the regular files among names apart, however each is named or linked.

    `-` is the open file with the number `standard`, where it is a file; objects in stores are told
    apart by their URLs.
    """
    found = set[object]()
    for name in names:
        if is_store(name):
            found.add(name)
            continue
        with contextlib.suppress(OSError, ValueError):
            about = os.stat(standard if name == STDIN else local_name(name))
            if stat.S_ISREG(about.st_mode):
                found.add((about.st_dev, about.st_ino))
    return found


@contextlib.contextmanager
def reading(source: str) -> Iterator[None]:
    """Name the source where reading it fails in a block: HandclrError for an OSError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise HandclrError(f"cannot read {display_name(source)}: {reason}") from error


def open_source(source: str) -> BinaryIO:
    """Open a source for reading from its start; `open_url` says how URLs are read."""
    if source == STDIN:
        if sys.stdin is None:
            raise HandclrError("standard input is closed; name a file or use a pipe")
        return sys.stdin.buffer
    if is_url(source):
        return open_url(source)
    try:
        return open(local_name(source), "rb")
    except OSError as error:
        raise HandclrError(f"cannot read {source}: {error.strerror}") from error


def open_start(source: str) -> BinaryIO:
    """Open a source of which only the start is read: of an object in a store, little is fetched."""
    return open_store(source, _START) if is_store(source) else open_source(source)


def refuse_missing(setting: str, *sources: str | None) -> None:
    """Raise HandclrError where a named source is no file: before another one is read."""
    for source in sources:
        if not source or source == STDIN or is_url(source):
            continue
        if not os.path.exists(local_name(source)):
            raise HandclrError(f"{source}: no such file", setting=setting)


def open_seekable(source: str) -> BinaryIO:
    """Open a source so that it can be seeked in: pipes and URLs are read whole into memory."""
    if source == STDIN or is_url(source):
        with reading(source), open_source(source) as file:
            return io.BytesIO(file.read())
    file = open_source(source)
    if file.seekable():
        return file
    with file:
        return io.BytesIO(file.read())
