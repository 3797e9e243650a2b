"""Which files a command reads and writes; no output may be an input, or replace another kind."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple, NoReturn

from .errors import UsageError
from .inputs import BRACES, STDIN, URL, identities, in_range, is_there, is_url, local_name
from .kinds import other_kind
from .numbering import is_numbered, shard_name, shards_of
from .remote import COMMAND
from .stores import is_store

Identities = set[object]


@dataclass(frozen=True)
class Reads:
    """Marks an option that names what is read: files, patterns, folders, URLs, -.

    `suffix` is that of the files that a folder stands for. `deep`: a folder stands for all that is
    below it. Completion offers `words`, which name no file, and the files whose names end with one
    of `ends`, / for folders; without them, with `suffix`.
    """

    suffix: str | None = None
    deep: bool = False
    ends: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Writes:
    """Marks an option that names what is written: a file of `kind`, one of `kinds.KINDS`.

    `files`, each with its kind, are written into the folder that is named; of a `whole` folder
    anything may be. With `once` a file that is there is read, and not replaced.
    """

    kind: str = ""
    files: tuple[tuple[str, str], ...] = ()
    whole: bool = False
    once: bool = False


@dataclass(frozen=True)
class Word:
    """Marks an option of text that names no file; completion offers `words`."""

    words: tuple[str, ...] = ()


class Read(NamedTuple):
    """A name that is read, the setting that has it, and its mark."""

    setting: str
    name: str
    mark: Reads


class Written(NamedTuple):
    """A name that is written, the setting that has it, and its mark."""

    setting: str
    name: str
    mark: Writes

    def files(self) -> list[str]:
        """The files that may be written to, as far as they are known; those of a set, if there."""
        if self.mark.whole:
            with contextlib.suppress(OSError):
                return [entry.path for entry in os.scandir(self.name)]
            return []
        if self.mark.files:
            return [os.path.join(self.name, file) for file, _ in self.mark.files]
        if self.numbered:
            with contextlib.suppress(UsageError):
                return [path for _, path in shards_of(self.name)]
            return []
        return [self.name]

    @property
    def numbered(self) -> bool:
        """Whether it is a pattern of numbered shards."""
        return self.mark.kind == "tar" and is_numbered(self.name)


def refuse_conflicts(reads: Sequence[Read], writes: Sequence[Written]) -> None:
    """Raise UsageError where an output is an input, another output, or a file of another kind.

    Files are compared, not names: links, and other ways to a file, are seen.
    """
    there = [each for each in writes if each.mark.once and is_there(each.name)]
    reads = [*reads, *(Read(each.setting, each.name, Reads()) for each in there)]
    reads = [read._replace(name=local_name(read.name)) for read in reads]
    writes = [each for each in writes if each not in there]
    _refuse_twins(writes)
    taken: Identities | None = None
    for each in writes:
        files = each.files()
        if (each.mark.whole or each.mark.files) and is_url(each.name):
            _refuse(each, each.name, "is no folder of this machine; name one")
        if each.mark.whole:
            _refuse_inside(each, reads)
        if own := identities(files, standard=1):
            taken = identities(_all_read(reads)) if taken is None else taken
            in_store = {file for file in files if _is_object_read(file, reads)}
            if own & taken or in_store or _lies_in_what_is_read(each, reads):
                hit = (
                    file
                    for file in files
                    if file in in_store or identities([file], standard=1) & taken
                )
                _refuse(
                    each, next(hit, files[0]), "is an input of this command; name another output"
                )
        if not (each.numbered or each.mark.whole):
            kinds = [kind for _, kind in each.mark.files] or [each.mark.kind]
            for file, kind in zip(files, kinds, strict=True):
                if why := other_kind(file, kind):
                    _refuse(each, file, why)


def _refuse(written: Written, file: str, why: str) -> NoReturn:
    """Raise UsageError; the option with its value names the file, unless that is one of several."""
    named = "" if file == written.name else f"{file} "
    raise UsageError(f"{named}{why}", setting=written.setting)


def _all_read(reads: Iterable[Read]) -> Iterator[str]:
    """All files that are read, one by one, but for folders that are read in depth."""
    for read in reads:
        for name in _named(read.name):
            if read.mark.suffix is not None and os.path.isdir(name):
                suffix = read.mark.suffix
                with contextlib.suppress(OSError):
                    yield from (
                        entry.path for entry in os.scandir(name) if entry.name.endswith(suffix)
                    )
            else:
                yield name


def _named(name: str) -> list[str]:
    """What a pattern stands for."""
    if os.path.exists(name) or name == STDIN or name.startswith(COMMAND):
        return [name]
    ranged = in_range(name) if BRACES.search(name) else [name]
    wild = glob.has_magic(name) and not is_url(name)
    return [match for one in ranged for match in (glob.glob(one) if wild else [one])]


def _is_object_read(file: str, reads: Iterable[Read]) -> bool:
    """Whether an object is one of those that a prefix or the wildcards of a store stand for."""
    if not is_store(file):
        return False
    for read in reads:
        for name in _named(read.name):
            if name.endswith("/"):
                name += f"*{read.mark.suffix or ''}"
            parts, pattern = file.split("/"), name.split("/")
            if "**" in pattern:
                parts, pattern = [file], [name]
            if len(parts) == len(pattern) and all(map(fnmatchcase, parts, pattern)):
                return True
    return False


def _lies_in_what_is_read(written: Written, reads: Iterable[Read]) -> bool:
    """Whether a file that is there lies in a folder that is read in depth.

    None of these holds tars, and the films that we replace are our own.
    """
    if written.mark.kind in ("tar", "film") or written.mark.whole:
        return False
    folders = [read.name for read in reads if read.mark.deep and os.path.isdir(read.name)]
    there = [file for file in written.files() if os.path.isfile(file)]
    return any(_inside(file, folder) for folder in folders for file in there)


def _refuse_inside(written: Written, reads: Iterable[Read]) -> None:
    """Raise UsageError where an input lies in a folder that is written to, however it is named."""
    for read in reads:
        for name in _named(read.name):
            if name == STDIN or URL.match(name) or not os.path.exists(name):
                continue
            if _inside(name, written.name):
                why = f"{name} is an input and lies in this folder, which is written to"
                raise UsageError(f"{why}; name another folder", setting=written.setting)


def _inside(name: str, folder: str) -> bool:
    """Whether a file lies in a folder, or a link to it does."""
    folder = os.path.realpath(folder)
    place, base = os.path.split(os.path.abspath(name))
    inner = (os.path.realpath(name), os.path.join(os.path.realpath(place), base))
    return any(os.path.commonpath([each, folder]) == folder for each in inner)


def _refuse_twins(writes: Sequence[Written]) -> None:
    """Raise UsageError where two outputs are one file."""
    taken: set[object] = set()
    files = [each for each in writes if not each.mark.whole]
    sets = [each for each in files if each.numbered]
    for each in files:
        own: set[object] = set(identities(each.files(), standard=1))
        own |= {os.path.realpath(name) for name in each.files() if not _is_stream(name)}
        beside = (other for other in sets if other is not each)
        if own & taken or any(_in_set(other, each) for other in beside):
            raise UsageError(f"{each.name}: the same file is given for two outputs")
        taken |= own


def _is_stream(name: str) -> bool:
    """Whether two outputs may go to the same place, as to /dev/null."""
    return name == STDIN or (os.path.exists(name) and not os.path.isfile(name))


def _in_set(pattern: Written, other: Written) -> bool:
    """Whether an output would be one of the numbered shards of another."""
    if not pattern.numbered:
        return False
    folder = os.path.realpath(os.path.dirname(pattern.name))
    if other.numbered:
        same = os.path.basename(pattern.name) == os.path.basename(other.name)
        return same and os.path.realpath(os.path.dirname(other.name)) == folder
    with contextlib.suppress(UsageError):
        name = shard_name(pattern.name)
        for file in other.files():
            if os.path.realpath(os.path.dirname(file)) == folder:
                return name.fullmatch(os.path.basename(file)) is not None
    return False
