"""Tracks: hands of neighbouring looks are one hand, of one side, as far as there is reason to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import drawn_pair, unpack
from drawn_hand import write_video
from films import film, number_in

from handclr_cli.contract.sample import KEY
from handclr_cli.footage import extraction, tracks, video
from handclr_cli.footage.extract_job import ExtractSettings, run_extract
from handclr_cli.footage.extraction import CropSettings, Extraction, Skipped
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Hand, Piece, Sampling
from handclr_cli.footage.tracks import Look, tracked

POSE = np.random.default_rng(0).uniform(0, 100, (21, 2))
PIXELS = np.zeros((2, 2, 3), np.uint8)


def hand(side: str, x: float = 0.0, score: float = 0.9, pose: np.ndarray = POSE) -> Hand:
    return Hand(pose + (x, 0.0), side, score)


def looks(hands: Iterable[Sequence[Hand]], fps: float | None = 10.0, first: int = 0) -> list[Look]:
    """One look after the other, `fps` of them a second, or images that say no time."""
    return [
        Look(number, None if fps is None else number / fps, (640, 480), list(found), [PIXELS] * 9)
        for number, found in enumerate(hands, first)
    ]


def none(pixels: np.ndarray) -> None:
    """The opinion of a crop in which nothing is found."""


def followed(found: Iterable[Sequence[Hand]], fps: float | None = 10.0) -> list[list[Hand]]:
    return [look.hands for look in tracked(looks(found, fps), none)]


def tracks_of(found: list[list[Hand]]) -> list[list[int | None]]:
    return [[each.track for each in hands] for hands in found]


def test_a_hand_that_changes_sides_for_a_look_keeps_its_own() -> None:
    found = followed([[hand("left" if n == 3 else "right", 5 * n)] for n in range(8)])
    assert [hands[0].side for hands in found] == ["right"] * 8
    assert tracks_of(found) == [[0]] * 8
    # Seven looks say 0.8 for it, one says 0.8 against it.
    assert [hands[0].side_score for hands in found] == pytest.approx([(1 + 0.8 * 6 / 8) / 2] * 8)
    # All else stays as it was found.
    assert found[3][0].score == 0.9 and (found[3][0].keypoints == POSE + (15, 0)).all()


def test_one_sure_look_outweighs_two_unsure_ones() -> None:
    sides = [hand("left", score=0.99), hand("right", score=0.6), hand("right", score=0.6)]
    found = followed([[each] for each in sides])
    assert [hands[0].side for hands in found] == ["left"] * 3
    assert found[0][0].side_score == pytest.approx((1 + (0.98 - 0.4) / 3) / 2)


def test_two_hands_that_cross_stay_two() -> None:
    """They pass each other 30 pixels apart, and each is once taken for the other one."""
    curled = POSE[::-1] * (0.9, 1.0)
    seen = []
    for n in range(11):
        right, left = hand("right", 40 * n), hand("left", 400 - 40 * n, pose=curled + (0, 30))
        if n == 8:
            right, left = hand("left", 40 * n), hand("right", 400 - 40 * n, pose=curled + (0, 30))
        seen.append([right, left] if n % 2 else [left, right])
    found = followed(seen, fps=15.0)
    for n, hands in enumerate(found):
        first, second = hands if n % 2 else hands[::-1]
        assert (first.side, second.side) == ("right", "left")
        assert first.keypoints[0, 0] == POSE[0, 0] + 40 * n
    assert {frozenset(numbers) for numbers in tracks_of(found)} == {frozenset({0, 10**8})}


def test_a_hand_that_is_missed_in_two_looks_is_the_same() -> None:
    right = hand("right")
    assert tracks_of(followed([[right], [], [], [right]])) == [[0], [], [], [0]]
    assert tracks_of(followed([[right], [], [], [right]], fps=1.0)) == [[0], [], [], [3]]


def test_a_hand_that_comes_where_the_other_one_left_is_not_the_same() -> None:
    """Half a second later, more than half a hand away, surely of the other side; one of its side
    would be the same.
    """
    step = 0.6 * np.ptp(POSE, axis=0).max()
    for side, number in (("right", 8), ("left", 0)):
        before, after = hand("left", score=0.99), hand(side, step, score=0.99)
        found = followed([*[[before]] * 4, *[[]] * 4, *[[after]] * 2])
        assert tracks_of(found)[-2:] == [[number]] * 2
        assert {hands[0].side for hands in found[-2:]} == {side}


def test_two_far_links_do_not_win_over_a_near_one() -> None:
    """One hand left and another came, both within reach of the one that stayed."""
    found = followed(
        [[hand("right", 0), hand("right", 60)], [hand("right", 61), hand("right", 130)]]
    )
    assert tracks_of(found) == [[0, 10**8], [10**8, 1]]


@pytest.mark.parametrize("fps", [1.0, None])
def test_the_less_is_known_of_time_the_less_a_hand_may_move(fps: float | None) -> None:
    size = np.ptp(POSE, axis=0).max()
    still = followed([[hand("right")], [hand("right", 0.05 * size)]], fps)
    assert tracks_of(still) == [[0], [0]]
    moved = followed([[hand("right")], [hand("right", 0.9 * size)]], fps)
    assert tracks_of(moved) == [[0], [1]]


def test_unrelated_photographs_are_not_joined() -> None:
    """All hands in the middle, of one size, as photographs of hands are."""
    rng = np.random.default_rng(1)
    poses = rng.normal(0, 25, (100, 21, 2))
    assert tracks_of(followed([[hand("right", pose=pose)] for pose in poses], fps=None)) == [
        [n] for n in range(100)
    ]


def test_opinions_of_the_crops_count_as_much_as_all_looks() -> None:
    asked = []

    def opinion(pixels: np.ndarray) -> float:
        asked.append(pixels)
        return -0.9

    seen = looks([[hand("right", score=0.9)]] * 8)
    for n, look in enumerate(seen):
        look.pixels = [PIXELS + n]
    found = [look.hands[0] for look in tracked(seen, opinion)]
    assert {each.side for each in found} == {"left"}
    assert [each.side_score for each in found] == pytest.approx([(1 + 0.05) / 2] * 8)
    assert len(asked) == tracks.OPINIONS
    assert asked[0][0, 0, 0] == 0 and asked[-1][0, 0, 0] == 7


def test_a_long_track_is_decided_on_its_way() -> None:
    """Its first looks decide, and few wait for them."""
    read = 0

    def counted() -> Iterator[Look]:
        nonlocal read
        for look in looks([[hand("right" if n < 300 else "left")] for n in range(310)], fps=30.0):
            read += 1
            yield look

    waiting = []
    sides = []
    for count, look in enumerate(tracked(counted(), none)):
        waiting.append(read - count)
        sides.append(look.hands[0].side)
        assert look.number == count and look.hands[0].track == 0
    assert max(waiting) == tracks.LONGEST and set(sides) == {"right"}


def test_a_track_ends_where_the_side_proves_another() -> None:
    """Another hand in its place, behind a cut of the film."""
    found = followed([[hand("right" if n < 100 else "left")] for n in range(200)], fps=30.0)
    sides = [hands[0].side for hands in found]
    change = sides.index("left")
    assert 100 < change < 150 and sides[change:] == ["left"] * (200 - change)
    assert {number for numbers in tracks_of(found) for number in numbers} == {0, change}


def test_order_is_kept_and_what_is_no_look_passes_through() -> None:
    seen: list[Look | str] = []
    for number, look in enumerate(looks([[hand("right")], [], [hand("left", 900)]] * 4)):
        seen += [look, f"skipped {number}"]
    assert list(tracked(seen, none)) == seen
    assert list(tracked(iter(["nothing"]), none)) == ["nothing"]
    assert list(tracked(iter([]), none)) == []


def test_numbers_are_those_of_first_frames_and_unique_in_a_video() -> None:
    """Also where it is read in two pieces, which know nothing of each other."""
    rng = np.random.default_rng(2)
    seen = [
        [hand("right", 1000 * place) for place in rng.permutation(6)[: rng.integers(0, 6)]]
        for _ in range(60)
    ]
    pieces = looks(seen[:30]), looks(seen[30:], first=30)
    numbers = []
    for piece in pieces:
        rows = [each.track for look in tracked(piece, none) for each in look.hands]
        numbers.append(set(rows))
        assert min(rows) >= piece[0].number
    assert not numbers[0] & numbers[1]
    assert {number % 10**8 for number in numbers[1]} <= set(range(30, 60))


# In extract


class Scripted:
    """Finds a right hand in every numbered picture, and takes it for a left one in the fifth."""

    def __init__(self, *settings: Any) -> None:
        pass

    def find(self, image: np.ndarray) -> list[Hand]:
        if image.shape[0] == image.shape[1]:  # a crop
            return []
        number = number_in(image)
        pose = POSE * 0.1 + (40 + number, 10)
        return [Hand(pose, "left" if number == 5 else "right", 0.9)]


@pytest.fixture
def numbered_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Piece:
    monkeypatch.setattr(extraction, "Landmarker", Scripted)
    (footage,) = find_footage([str(film(tmp_path / "film.mkv", 12, 10, "-c:v", "ffv1"))])
    (piece,) = video.pieces(footage, Sampling(every=1))
    return piece


def crops_of(piece: Piece, joined: bool) -> list[tuple[str, dict[str, Any], Any, Any]]:
    settings = CropSettings(size=32, keypoints=True)
    found = []
    for crops in Extraction(settings, Path("model"), tracks=joined)(piece):
        assert not isinstance(crops, Skipped)
        found += [(crop.key, crop.info, crop.image, crop.keypoints2d) for crop in crops]
    return found


def test_key_mirror_image_and_keypoints_are_those_of_the_side_of_the_track(
    numbered_film: Piece,
) -> None:
    plain, joined = crops_of(numbered_film, False), crops_of(numbered_film, True)
    assert [info["frame"] for _, info, *_ in joined] == list(range(12))
    for number, (before, after) in enumerate(zip(plain, joined, strict=True)):
        assert KEY.fullmatch(after[0])["hand"] == "r" and after[1]["hand"] == "right"
        assert after[1] | before[1] == after[1] | {
            "hand": "left" if number == 5 else "right",
            "flipped": number == 5,
        }
        assert (after[1]["flipped"], after[1]["track"]) == (False, 0)
        assert after[1]["side_score"] == round((1 + 0.8 * 10 / 12) / 2, 4)
        assert not before[1].keys() & {"track", "side_score"}
        mirrored = before[2][:, ::-1] if number == 5 else before[2]
        assert np.abs(mirrored.astype(int) - after[2]).max() <= 8  # of two JPEGs
        turned = before[3] * (-1, 1) + (32, 0) if number == 5 else before[3]
        np.testing.assert_allclose(turned, after[3], atol=1e-4)


@pytest.mark.slow
@pytest.mark.landmarker
def test_bytes_do_not_depend_on_the_processes_and_tracks_end_with_a_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "SLICE_S", 1.0)
    pictures = [np.roll(drawn_pair(0)[0], 2 * number, axis=1) for number in range(16)]
    source = write_video(tmp_path / "film.mp4", pictures, 8)
    made = []
    for workers in (1, 2):
        output = tmp_path / f"{workers}.tar"
        run_extract(
            ExtractSettings(footage=[str(source)], output=str(output), fps=4, workers=workers)
        )
        made.append(output.read_bytes())
    assert made[0] == made[1]
    infos = [json.loads(members["json"]) for members in unpack(made[0]).values()]
    assert len(infos) == 16
    numbers: dict[int, list[float]] = {}
    for info in infos:
        numbers.setdefault(info["track"], []).append(info["time_s"])
    # Two hands in each slice.
    assert len(numbers) == 2 * len(video.pieces(find_footage([str(source)])[0], Sampling(fps=4)))
    assert max(max(times) - min(times) for times in numbers.values()) <= 1.0
