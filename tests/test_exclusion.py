"""Which videos make no pairs with each other: by a pattern on keys, by a field of the
JSON, joined.
"""

from __future__ import annotations

import numpy as np
import pytest
from shard_helpers import crop

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.fields import INFO, encode_object
from handclr_cli.contract.naming import is_field
from handclr_cli.contract.sample import Sample
from handclr_cli.similarity.exclusion import by_field, by_key, joined

KEYS = [
    b"p1-a_00000000_r",
    b"p1-b_00000000_r",
    b"p2-a_00000000_r",
    b"other_00000000_r",
    b"p2-a_00000001_r",
]
VIDEOS = [0, 1, 2, 3, 2]


def groups(pattern: str, keys: list[bytes] = KEYS, videos: list[int] = VIDEOS) -> list[int]:
    return joined(max(videos) + 1, by_key(pattern, keys, videos)).tolist()


def test_names_of_fields_and_patterns() -> None:
    assert all(map(is_field, ("subject", "_id", "Recording2")))
    assert not any(map(is_field, ("p\\d", "(subject)", "2nd", "a-b", "^x", "", "a b")))


def test_a_pattern_without_a_group_is_compared_whole() -> None:
    assert groups("p.-") == [0, 0, 2, 3]
    assert groups("-[ab]_") == [0, 1, 0, 3]


def test_a_pattern_with_groups_is_compared_by_the_first() -> None:
    assert groups("p.-(.)_(0+)") == [0, 1, 0, 3]
    assert groups("(p)(.)") == [0, 0, 0, 3]


def test_a_pattern_that_joins_everything() -> None:
    assert groups("_r$") == [0, 0, 0, 0]
    assert groups("") == [0, 0, 0, 0]


def test_a_video_with_two_values_joins_them() -> None:
    keys = [b"a_x", b"b_y", b"c_x", b"c_y", b"d_z"]
    assert groups("[xyz]$", keys, [0, 1, 2, 2, 3]) == [0, 0, 0, 3]


def test_a_group_that_takes_no_part_says_nothing_of_the_key() -> None:
    """Of two alternatives only the first has the group: keys that match by the second are of no
    known person.
    """
    assert groups("p(.)-|other") == [0, 0, 2, 3]
    keys = [b"unknown-a", b"unknown-b", b"p1-a", b"p1-b"]
    assert groups("p(.)-|unknown", keys, [0, 1, 2, 3]) == [0, 1, 2, 2]


def test_a_group_that_never_takes_part_is_found_in_no_key() -> None:
    with pytest.raises(HandclrError, match="found in no key"):
        by_key("other|p(x)?", KEYS, VIDEOS)


def test_bytes_that_are_no_text() -> None:
    assert groups("^.", [b"\xff\xfe_1", b"\xff\xfd_1", b"a"], [0, 1, 2]) == [0, 0, 2]


def test_videos_that_a_pattern_misses_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    by_key("^p1", KEYS, VIDEOS)
    missed = len(set(VIDEOS)) - len(
        {v for k, v in zip(KEYS, VIDEOS, strict=True) if k[:2] == b"p1"}
    )
    assert f"{missed} videos whose keys do not have ^p1: kept apart" in capsys.readouterr().err


def test_patterns_of_no_use() -> None:
    with pytest.raises(UsageError, match=r"exclude_by: not a regular expression: "):
        by_key("(", KEYS, VIDEOS)
    with pytest.raises(HandclrError, match=r"exclude_by: found in no key, such as p1-a_00000000_r"):
        by_key("zzz+", KEYS, VIDEOS)


def sample(video: str, frame: int = 0, **info: object) -> Sample:
    return crop(video, frame, members={INFO.suffix: encode_object({"video": video, **info})})


NAMES = {b"attic": 0, b"barn": 1, b"cellar": 2, b"dock": 3}


def test_a_field_of_the_json() -> None:
    samples = [
        sample("attic", subject="ann"),
        sample("barn", subject="bob"),
        sample("cellar", subject="ann"),
    ]
    assert joined(4, by_field("subject", samples, NAMES)).tolist() == [0, 1, 0, 3]


def test_values_of_any_kind_and_none() -> None:
    samples = [
        sample("attic", take=3),
        sample("barn", take=3),
        sample("cellar", take=None),
        sample("dock", take=None),
    ]
    assert joined(4, by_field("take", samples, NAMES)).tolist() == [0, 0, 2, 3]
    nested = [sample(name, take=[1, {"a": 2}]) for name in ("attic", "dock")]
    assert joined(4, by_field("take", nested, NAMES)).tolist() == [0, 1, 2, 0]


def test_a_video_with_several_subjects_joins_theirs() -> None:
    samples = [
        sample("attic", 0, subject="a"),
        sample("attic", 1, subject="b"),
        sample("barn", subject="b"),
    ]
    samples.append(sample("cellar", subject="a"))
    assert joined(4, by_field("subject", samples, NAMES)).tolist() == [0, 0, 0, 3]


def test_samples_without_a_json_and_videos_elsewhere() -> None:
    bare = Sample("barn_00000000_r", {"raw": b"x"})
    samples = [bare, sample("attic", subject="a"), sample("elsewhere", subject="a")]
    assert joined(4, by_field("subject", samples, NAMES)).tolist() == [0, 1, 2, 3]


def test_videos_are_known_by_number_where_their_names_are_not() -> None:
    theirs = [Sample(f"x/{n}", {"json": encode_object({"subject": "a"})}) for n in range(3)]
    samples = [*theirs, sample("dock", subject="a")]
    assert joined(4, by_field("subject", samples, NAMES, [0, 2, -1, -1])).tolist() == [0, 1, 0, 0]


def test_fields_of_no_use() -> None:
    with pytest.raises(
        HandclrError,
        match="exclude_by: no crop of these videos has this field; they have take, video",
    ):
        by_field("subject", [sample("attic", take=1)], NAMES)
    with pytest.raises(
        HandclrError,
        match="exclude_by: no crop of these videos has this field; are these their shards",
    ):
        by_field("subject", [sample("elsewhere", subject="a")], NAMES)


def test_joined_through_others() -> None:
    assert joined(6, [(4, 2), (5, 4), (0, 3)]).tolist() == [0, 1, 2, 0, 2, 2]
    assert joined(3, []).tolist() == [0, 1, 2]
    assert joined(2, [(1, 1), (0, 1), (1, 0), (0, 1)]).tolist() == [0, 0]
    assert joined(5, [(0, 1)]).dtype == np.int32


def test_groups_are_named_by_their_lowest_number() -> None:
    rng = np.random.default_rng(0)
    together = rng.integers(0, 300, (200, 2)).tolist()
    found = joined(300, [(one, other) for one, other in together])
    parent = list(range(300))
    for _ in range(300):
        for one, other in together:
            parent[one] = parent[other] = min(parent[one], parent[other])
    assert found.tolist() == parent
