"""Keys: what a sample and its video are called."""

from __future__ import annotations

import re
from pathlib import PurePath

import pytest

from handclr_cli.contract.fields import encode_object
from handclr_cli.contract.sample import KEY, Sample, sample_key, video_id, video_ids, video_names

SAFE = re.compile(r"[A-Za-z0-9_-]+")


def test_keys() -> None:
    assert sample_key("kitchen-1a2b3c4d", 7, "left") == "kitchen-1a2b3c4d_00000007_l"
    assert sample_key("kitchen-1a2b3c4d", 123456789, "right", 2) == "kitchen-1a2b3c4d_123456789_r2"


@pytest.mark.parametrize(
    ("hand", "number"), [("left", 0), ("right", 0), ("right", 1), ("left", 12)]
)
def test_a_key_tells_its_video(hand: str, number: int) -> None:
    match = KEY.fullmatch(sample_key("a_b-1", 42, hand, number))
    assert match is not None
    assert match.groupdict() == {
        "video": "a_b-1",
        "frame": "00000042",
        "hand": hand[0],
        "number": str(number) if number else "",
    }


@pytest.mark.parametrize(
    "name",
    [
        "videos/kitchen.mp4",
        "a b/c d.mp4",
        "küche/größe.mov",
        "日本語.mp4",
        "a.b.c/d.e.f.mp4",
        "x" * 300,
        "...",
        "",
        "-",
        "\udcff.mp4",
    ],
)
def test_video_ids_are_safe_in_a_tar(name: str) -> None:
    key = sample_key(video_id(name), 1, "right")
    assert SAFE.fullmatch(key)
    assert len(key) < 100  # no long-name header
    assert video_id(name) == video_id(name)


def test_video_ids_are_what_they_were() -> None:
    """Keys are in people's files: they may not change from one version or machine to the next."""
    assert video_id("videos/kitchen.mp4") == "kitchen-0697da59"


def test_videos_of_one_name_do_not_collide() -> None:
    names = ["a/take 1.mp4", "b/take 1.mp4", "a/take-1.mp4", "a/take 1.avi", "a/Take 1.mp4"]
    assert len({video_id(name) for name in names}) == len(names)


def test_digests_that_collide_are_longer() -> None:
    unlucky = ["cam35444/video.mp4", "cam73094/video.mp4"]
    assert len({video_id(name) for name in unlucky}) == 1
    first, lucky, second = video_ids([unlucky[0], "cam1/video.mp4", unlucky[1]])
    assert lucky == video_id("cam1/video.mp4") and first != second
    assert first.startswith(video_id(unlucky[0])) and len(first) == len(lucky) + 8


def names(*paths: str) -> list[str]:
    return video_names([PurePath(path) for path in paths])


def test_names_are_the_last_two_parts() -> None:
    assert names("/data/set/a.mp4") == ["set/a.mp4"]
    assert names("a.mp4") == ["a.mp4"]
    assert names("/data/set/a.mp4", "/data/set/b.mp4") == ["set/a.mp4", "set/b.mp4"]


def test_names_grow_until_they_differ() -> None:
    paths = ["/data/one/set/a.mp4", "/data/two/set/a.mp4", "/data/two/set/b.mp4"]
    assert names(*paths) == ["one/set/a.mp4", "two/set/a.mp4", "set/b.mp4"]
    assert names("/x/d/e/a.mp4", "/y/d/e/a.mp4") == ["x/d/e/a.mp4", "y/d/e/a.mp4"]


def test_names_do_not_depend_on_the_order() -> None:
    paths = ["/data/one/set/a.mp4", "/data/two/set/a.mp4", "set/a.mp4", "/data/two/set/b.mp4"]
    there = dict(zip(paths, names(*paths), strict=True))
    back = dict(zip(paths[::-1], names(*paths[::-1]), strict=True))
    assert there == back
    assert len(set(there.values())) == len(paths)


def test_the_video_of_a_sample() -> None:
    """The JSON's word, else the key's; a sample of unknown origin is not a video of its own."""
    info = {"json": encode_object({"video": "set/küche.mp4"})}
    assert Sample("a-1_00000001_r", info).video == "set/küche.mp4"
    assert Sample("a-1_00000001_r", {"json": encode_object({"frame": 1})}).video == "a-1"
    assert Sample("a-1_00000001_r", {}).video == "a-1"
    assert Sample("anything", {}).named_video is None
