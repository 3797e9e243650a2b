"""Videos that make no pairs with each other: of one person, of one recording, stereo twins, the
same footage.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ..contract.errors import HandclrError, UsageError
from ..contract.sample import Sample

FIELD = re.compile(r"[A-Za-z_]\w*")
Together = list[tuple[int, int]]


def is_field(exclude_by: str) -> bool:
    """Whether --exclude-by names a field of the JSON; everything else is a regular expression."""
    return FIELD.fullmatch(exclude_by) is not None


def by_key(pattern: str, keys: Sequence[bytes], videos: Sequence[int]) -> Together:
    """Pairs of videos in whose keys a pattern finds the same: its first group, or all of it where
    it has none.

    A group that takes no part has found nothing. Raises UsageError where the pattern is none,
    HandclrError where it is found in no key.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--exclude-by {pattern}: not a regular expression: {error}") from error
    found = set()
    for key, video in zip(keys, videos, strict=True):
        match = compiled.search(key.decode("utf-8", "replace"))
        value = match[min(compiled.groups, 1)] if match else None
        if value is not None:
            found.add((video, value))
    if not found:
        raise HandclrError(
            f"--exclude-by {pattern}: found in no key, such as {keys[0].decode('utf-8', 'replace')}"
        )
    return _chains(found)


def by_field(
    field: str,
    samples: Iterable[Sample],
    names: Mapping[bytes, int],
    on_missing: Callable[[int], None] = lambda videos: None,
) -> Together:
    """Pairs of videos whose samples have the same value in a field of their JSON; `names` are the
    videos' numbers.

    Tells `on_missing` how many of these videos have no sample with the field; raises HandclrError
    where all.
    """
    found, others = set(), set[str]()
    for sample in samples:
        video = names.get(sample.video.encode("utf-8", "replace"))
        if video is None:
            continue
        if sample.info.get(field) is None:
            others.update(sample.info)
        else:
            found.add((video, str(sample.info[field])))
    if not found:
        known = (
            f"; they have {', '.join(sorted(others))}" if others else "; are these their shards?"
        )
        raise HandclrError(f"--exclude-by {field}: no crop of these videos has this field{known}")
    if missing := len(names) - len({video for video, _ in found}):
        on_missing(missing)
    return _chains(found)


def joined(count: int, together: Together) -> np.ndarray:
    """Groups int32 (count,) of videos that are joined directly or through others, named by their
    lowest number.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = np.array(together, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    _, lowest = np.unique(component, return_index=True)
    return lowest[component].astype(np.int32)


def _chains(values: set[tuple[int, str]]) -> Together:
    """Each video with the next one that has the same value."""
    ordered = sorted(values, key=lambda pair: (pair[1], pair[0]))
    return [
        (one, other) for (one, value), (other, same) in itertools.pairwise(ordered) if value == same
    ]
