"""Find the footage that the crops of shards came from, and which of its frames were looked at."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath

from ..contract.errors import UsageError
from ..contract.provenance import Provenance, after
from .finding import find_footage
from .frames import Footage, Sampling


def sampling_of(origins: Iterable[Provenance]) -> Sampling:
    """The sampling of `handclr extract` in the history of shards.

    Every frame where it is not the same for all.
    """
    found = set()
    for past in _extractions(origins):
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
    there is one video, it is taken whatever its name. Where nothing is named, what `extract` read
    and the videos' own names, whole or their last parts, are looked for from the current folder on.
    Raises UsageError where there is none, or two fit equally well.
    """
    candidates = find_footage(named) if named else list(_lying_here(videos, origins))
    if named and len(videos) == len(candidates) == 1:
        return {videos[0]: candidates[0]}
    return {video: _footage_of(video, candidates, bool(named)) for video in videos}


def _footage_of(video: str, candidates: Sequence[Footage], named: bool) -> Footage:
    best: list[Footage] = []
    longest = 0
    for footage in candidates:
        shared = _common_tail(video, footage.name)
        # Footage that was not named must fit whole: other videos may have the same file name.
        least = 1 if named else min(len(_parts(video)), len(_parts(footage.name)))
        if shared >= max(least, longest):
            best = [*best, footage] if shared == longest else [footage]
            longest = shared
    if len(best) > 1:
        both = f"{best[0].files[0]} and {best[1].files[0]} may both be {video}"
        raise UsageError(f"{both}; name one of them", setting="footage")
    if best:
        return best[0]
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


def _lies_below(name: str) -> bool:
    """Whether a name, which a shard gives, is that of something below the current folder."""
    parts = PurePath(name).parts
    return bool(parts) and not os.path.isabs(name) and ".." not in parts and os.path.exists(name)


def _extractions(origins: Iterable[Provenance]) -> Iterator[Provenance]:
    for past in after({}, origins)["history"]:
        if past.get("stage") == "extract" and isinstance(past.get("arguments"), dict):
            yield past


def _common_tail(first: str, second: str) -> int:
    count = 0
    for left, right in zip(reversed(_parts(first)), reversed(_parts(second)), strict=False):
        if left != right:
            break
        count += 1
    return count


def _parts(name: str) -> list[str]:
    return name.split("/")
