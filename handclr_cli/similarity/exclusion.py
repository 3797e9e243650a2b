"""Videos that make no pairs: of one person or recording, stereo twins, the same footage."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .. import console
from ..contract.errors import HandclrError
from ..contract.naming import KeyPattern
from ..contract.sample import Sample

Together = list[tuple[int, int]]
Values = set[tuple[int, str]]


def by_key(pattern: str, keys: Sequence[bytes], videos: Sequence[int]) -> Together:
    """Pairs of videos in whose keys a pattern finds the same text, as KeyPattern says.

    keys, videos: (N,) each, `videos` by number. Warns of videos in no key of which it is found.
    Raises UsageError where it is no regular expression, HandclrError where it is found in no key.
    """
    compiled, found = KeyPattern.of(pattern, "exclude_by"), set()
    for key, video in zip(keys, videos, strict=True):
        value = compiled.find(key.decode("utf-8", "replace"))
        if value is not None:
            found.add((video, value))
    if not found:
        why = f"found in no key, such as {keys[0].decode('utf-8', 'replace')}"
        raise HandclrError(why, setting="exclude_by")
    _warn_of_missing(len(set(videos)), found, f"whose keys do not have {pattern}")
    return _chains(found)


def by_field(
    field: str,
    samples: Iterable[Sample],
    names: Mapping[bytes, int],
    numbers: Sequence[int] | None = None,
) -> Together:
    """Pairs of videos whose samples have the same value in a field of their JSON.

    `names` are the videos' numbers; `numbers`, where there are any, are those of the samples, -1
    for a sample whose video is told by its name alone. Warns of videos no sample of which has the
    field; raises HandclrError where none has it.
    """
    found, others = set(), set[str]()
    for row, sample in enumerate(samples):
        video = -1 if numbers is None else numbers[row]
        if video < 0:
            video = names.get((sample.named_video or "").encode("utf-8", "replace"), -1)
        if video < 0:
            continue
        if sample.info.get(field) is None:
            others.update(sample.info)
        else:
            found.add((video, str(sample.info[field])))
    if not found:
        known = "are these their shards?"
        if others:
            known = f"they have {', '.join(sorted(others))}"
        why = f"no crop of these videos has this field; {known}"
        raise HandclrError(why, setting="exclude_by")
    _warn_of_missing(len(names), found, f"without the field {field} in the shards")
    return _chains(found)


def joined(count: int, together: Together) -> np.ndarray:
    """Groups int32 (count,) of videos that are joined directly or through others.

    A group is named by its lowest number.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = np.array(together, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    _, lowest = np.unique(component, return_index=True)
    return lowest[component].astype(np.int32)


def _warn_of_missing(videos: int, found: Values, what: str) -> None:
    if missing := videos - len({video for video, _ in found}):
        console.warn(f"{console.plural(missing, 'video')} {what}: kept apart by video only")


def _chains(values: Values) -> Together:
    """Each video with the next one that has the same value."""
    ordered = sorted(values, key=lambda pair: (pair[1], pair[0]))
    pairs = itertools.pairwise(ordered)
    return [(one, other) for (one, value), (other, same) in pairs if value == same]
