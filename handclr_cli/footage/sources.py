"""Where the crops of a shard came from: the footage, found again, and which of its frames were
looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from ..contract.errors import UsageError
from ..contract.provenance import Provenance, after
from .video import Footage, Sampling, find_footage


def sampling_of(origins: Iterable[Provenance]) -> Sampling:
    """The sampling of `handclr extract` in the history of shards; each frame where there is not one
    for all.
    """
    found = {
        (past["arguments"].get("fps"), past["arguments"].get("every"))
        for past in _extractions(origins)
    }
    if len(found) != 1:
        return Sampling(every=1)
    fps, every = found.pop()
    return Sampling(float(fps or Sampling.fps), every)


def find_sources(
    videos: Sequence[str], origins: Iterable[Provenance], named: Sequence[str]
) -> dict[str, Footage]:
    """Find the footage of each video that crops name in their JSON.

    In `named` (files, folders, globs) the file name must fit, and the footage with the longest
    common tail of path is taken; a single one is that of a single video whatever its name. Where
    nothing is named, what `extract` read and the videos' own names are looked for from the current
    folder on. Raises UsageError where there is none, or two fit alike.
    """
    candidates = find_footage(named) if named else list(_lying_here(videos, origins))
    if named and len(videos) == len(candidates) == 1:
        return {videos[0]: candidates[0]}
    return {video: _footage_of(video, candidates, bool(named)) for video in videos}


def _footage_of(video: str, candidates: Sequence[Footage], named: bool) -> Footage:
    shared = {footage: _common_tail(video, footage.name) for footage in candidates}
    # Nobody has pointed at these: another video of the same file name is not good enough.
    least = {
        footage: 1 if named else min(len(_parts(video)), len(_parts(footage.name)))
        for footage in candidates
    }
    fitting = [footage for footage in candidates if shared[footage] >= least[footage]]
    best = [
        footage for footage in fitting if shared[footage] == max(shared[other] for other in fitting)
    ]
    if not best:
        where = (
            "in --footage"
            if named
            else "from this folder on; name it, or its folder, with --footage"
        )
        raise UsageError(f"--overlay: there is no footage {video} {where}")
    if len(best) > 1:
        raise UsageError(
            f"--footage: {best[0].files[0]} and {best[1].files[0]} may both be {video}; name one of"
            " them"
        )
    return best[0]


def _lying_here(videos: Sequence[str], origins: Iterable[Provenance]) -> Iterator[Footage]:
    read = [str(name) for past in _extractions(origins) for name in past.get("inputs", [])]
    there = [path for path in dict.fromkeys((*read, *videos)) if os.path.exists(path)]
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
