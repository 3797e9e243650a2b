"""Find the footage that the crops of shards came from, and which of its frames were looked at."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from ..contract.errors import UsageError
from ..contract.fields import legible
from ..contract.provenance import Provenance, after
from .finding import find_footage
from .frames import Footage, Sampling
from .kinds import may_hold_footage

# So many folders are looked into below the current one: a home folder may have millions.
_MOST_FOLDERS = 5_000


def sampling_of(origins: Iterable[Provenance]) -> Sampling:
    """The sampling of `handclr extract` in the history of shards.

    Every frame where it is not the same for all, or where a file of boxes said which frames.
    """
    found = set()
    for past in _extractions(origins):
        if "detections" in past:
            return Sampling(every=1)
        found.add((past["arguments"].get("fps"), past["arguments"].get("every")))
    if len(found) != 1:
        return Sampling(every=1)
    fps, every = found.pop()
    return Sampling(float(fps or Sampling.fps), every)


def find_sources(
    videos: Sequence[str], origins: Iterable[Provenance], named: Sequence[str]
) -> dict[str, Footage]:
    """Find the footage of each video that crops name in their JSON.

    In `named` (files, folders, wildcards) the file name must be the same, and the footage whose
    path shares the most last parts with the video's name is taken; where one footage is named and
    there is one video, it is taken whatever its name. Where nothing is named, paths that end with
    the whole name are looked for from the current folder on. Raises UsageError where there is none,
    or two fit equally well.
    """
    candidates = find_footage(named) if named else list(_lying_here(videos, origins))
    if named and len(videos) == len(candidates) == 1:
        return {videos[0]: candidates[0]}
    by_last: dict[str, list[Footage]] = {}
    for footage in candidates:
        by_last.setdefault(_path_parts(footage)[-1], []).append(footage)
    found: dict[str, Footage] = {}
    taken: dict[Path, str] = {}
    # Longer names first: a shorter one may fit what they leave.
    for video in sorted(videos, key=lambda name: -len(_parts(name))):
        found[video] = _footage_of(video, by_last.get(_parts(video)[-1], []), taken, bool(named))
        taken[found[video].files[0]] = video
    return {video: found[video] for video in videos}


def _footage_of(
    video: str, candidates: Sequence[Footage], taken: Mapping[Path, str], named: bool
) -> Footage:
    parts = _parts(video)
    # Footage that was not named must fit whole: other videos may have the same file name.
    longest = 1 if named else len(parts)
    best: list[Footage] = []
    for footage in candidates:
        shared = _common_tail(parts, _path_parts(footage))
        if shared >= longest:
            best = [*best, footage] if shared == longest else [footage]
            longest = shared
    free = [footage for footage in best if footage.files[0] not in taken]
    if len(free) == 1:
        return free[0]
    if free:
        both = f"{free[0].files[0]} and {free[1].files[0]} may both be {video}"
        raise UsageError(f"{both}; name one of them", setting="footage")
    if best and longest == len(parts):
        return best[0]
    if best:
        both = f"{taken[best[0].files[0]]} and {video}"
        raise UsageError(
            f"{best[0].files[0]} may be both {both}; name the other", setting="footage"
        )
    if named:
        raise UsageError(f"there is no footage {video} in it", setting="footage")
    why = f"there is no footage {video} from this folder on"
    raise UsageError(f"{why}; name it, or its folder, as the footage", setting="footage")


def _lying_here(videos: Sequence[str], origins: Iterable[Provenance]) -> Iterator[Footage]:
    read = [str(name) for past in _extractions(origins) for name in past.get("inputs", [])]
    for video in videos:
        parts = _parts(video)
        read += ["/".join(parts[at:]) for at in range(len(parts))]
    there = [path for path in dict.fromkeys(read) if _lies_below(path)]
    there += _below({_parts(video)[-1] for video in videos})
    seen: set[str] = set()
    for path in there:
        try:
            found = find_footage([path])
        except UsageError:  # a folder of something else
            continue
        for footage in found:
            place = os.path.realpath(footage.files[0])
            if place not in seen:
                seen.add(place)
                yield footage


def _below(names: Collection[str]) -> Iterator[str]:
    """The paths of files and folders with these names below the current folder, nearest first."""
    waiting = deque([""])
    for _ in range(_MOST_FOLDERS):
        if not waiting:
            return
        folder = waiting.popleft()
        try:
            entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            path = os.path.join(folder, entry.name)
            if legible(entry.name) in names:
                yield path
            if entry.is_dir(follow_symlinks=False) and may_hold_footage(entry.name):
                waiting.append(path)


def _lies_below(name: str) -> bool:
    """Whether a name, which a shard gives, is that of something below the current folder."""
    parts = PurePath(name).parts
    return bool(parts) and not os.path.isabs(name) and ".." not in parts and os.path.exists(name)


def _extractions(origins: Iterable[Provenance]) -> Iterator[Provenance]:
    for past in after({}, origins)["history"]:
        if past.get("stage") == "extract" and isinstance(past.get("arguments"), dict):
            yield past


def _path_parts(footage: Footage) -> Sequence[str]:
    """The parts of the path of a file, or of the folder of several images."""
    first = Path(os.path.abspath(footage.files[0]))
    path = first if first.name == _parts(footage.name)[-1] else first.parent
    return [legible(part) for part in path.parts]


def _common_tail(first: Sequence[str], second: Sequence[str]) -> int:
    pairs = zip(reversed(first), reversed(second), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _parts(name: str) -> list[str]:
    return name.split("/")
