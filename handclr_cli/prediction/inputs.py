"""What the inputs of `handclr predict` are: footage, or shards of crops."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence

from ..contract.errors import UsageError
from ..contract.inputs import BRACES, STDIN, URL
from ..contract.kinds import other_kind

_TAR = ".tar"


def are_footage(inputs: Sequence[str]) -> bool:
    """Whether inputs are footage; else they are shards, as nothing and a pipe are.

    A folder is what is in it, a file is a shard by its suffix or its first bytes. Raises UsageError
    where there is nothing to read, or both kinds are named.
    """
    if not inputs:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError("no input: name footage or shards, or pipe shards in")
        return False
    kinds = {name: _is_footage(name) for name in _named(inputs)}
    if len(set(kinds.values())) > 1:
        first = {kind: name for name, kind in reversed(kinds.items())}
        both = f"{first[True]} is footage, {first[False]} a shard of crops"
        raise UsageError(f"{both}; name one of the two kinds")
    return True in kinds.values()


def _named(inputs: Sequence[str]) -> Iterator[str]:
    for name in inputs:
        if os.path.lexists(name) or not glob.has_magic(name) or BRACES.search(name):
            yield name
        else:
            yield from sorted(glob.glob(name, recursive=True)) or [name]


def _is_footage(name: str) -> bool:
    if name == STDIN or URL.match(name) or name.endswith(_TAR):
        return False
    if os.path.isdir(name):
        return _is_folder_of_footage(name)
    if os.path.exists(name) and not os.path.isfile(name):  # a pipe
        return False
    return not _is_tar(name)


def _is_folder_of_footage(folder: str) -> bool:
    """Whether a folder holds footage; raises UsageError where it holds shards beside it."""
    from ..footage.finding import find_footage

    try:
        there = [name for name in os.listdir(folder) if name.endswith(_TAR) and name[0] != "."]
    except OSError:  # which is named where it is read
        return True
    if not there:
        return True
    try:
        find_footage([folder])
    except UsageError:
        return False
    shards = os.path.join(folder, f"*{_TAR}")
    both = "holds shards of crops and footage"
    raise UsageError(f"{folder} {both}; name the shards, {shards}, or the footage")


def _is_tar(name: str) -> bool:
    try:
        return os.path.getsize(name) > 0 and not other_kind(name, "tar")
    except OSError:  # which is named where it is read
        return False
