"""Images in the natural order of their names, with the numbers that the names say."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import pytest
from films import number_in, numbered

from handclr_cli.contract.sample import KEY, LAST_FRAME, sample_key
from handclr_cli.footage import plan, video
from handclr_cli.footage.detections import read_detections
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Sampling
from handclr_cli.footage.naming import image_number
from handclr_cli.footage.naming import numbered as in_order
from handclr_cli.footage.path_match import find_by_tail
from handclr_cli.footage.video import pieces, read_frames

STAMPS = [
    "1680000000023456789",
    "1680000000923456789",
    "1680000001013456789",
    "1680000001023456788",
    "1680000009999999999",
    "1680000010000000000",
]
PHOTOS = [f"photo ({number})" for number in range(1, 13)]
FRAMES = [f"frame_{number:06d}" for number in (0, 30, 60, 123, 99_999)]
# Names in the right order, and the numbers of the frames.
ORDERS: dict[str, tuple[list[str], list[int]]] = {
    "frames": (FRAMES, [0, 30, 60, 123, 99_999]),
    "frames without zeros": (["f1", "f2", "f10", "f100"], [1, 2, 10, 100]),
    "ten digits": (["0000000002", "0000000010"], [2, 10]),
    "the largest": (["a99999998", "a99999999"], [99_999_998, LAST_FRAME]),
    "one too large": (["a99999999", "a100000000"], [0, 1]),
    "nanoseconds": (STAMPS, [0, 1, 2, 3, 4, 5]),
    "seconds.nanoseconds": ([f"{each[:10]}.{each[10:]}" for each in STAMPS], [0, 1, 2, 3, 4, 5]),
    "seconds of one second": (["1680000000.000000001", "1680000000.000000020"], [0, 1]),
    "seconds.fraction": (["1680000000.0625", "1680000000.25", "1680000000.5"], [0, 1, 2]),
    "seconds and fractions": (["1680000000", "1680000000.5", "1680000001"], [0, 1, 2]),
    "midnight": (["20230401_235959", "20230402_000001", "20230402_000003"], [0, 1, 2]),
    "one evening": (["20230401_235957", "20230401_235959"], [235_957, 235_959]),
    "a dash": (["2023-04-01T23-59-59", "2023-04-02T00-00-01"], [0, 1]),
    "copies": (PHOTOS, list(range(1, 13))),
    "copies of one": (["photo", "photo (1)", "photo (2)", "photo (10)"], [0, 1, 2, 3]),
    "two counters": (["cam1_0002", "cam1_0010", "cam2_0001", "cam10_0005"], [0, 1, 2, 3]),
    "videos of 100DOH": (["food_1_aB_000060", "food_1_b-_000030"], [0, 1]),
    "one video of 100DOH": (["food_1_aB_000030", "food_1_aB_000060"], [30, 60]),
    "one number twice": (["1", "a1", "b2"], [0, 1, 2]),
    "number in the middle": (["f2_left", "f10_left", "f10_right"], [0, 1, 2]),
    "no numbers": (["a", "b", "c"], [0, 1, 2]),
    "either case": (["img_1", "IMG_2", "img_3"], [1, 2, 3]),
    "alone": (["frame_000030"], [0]),
    "longest": (["1" * 240, "2" * 240], [0, 1]),
}


@pytest.mark.parametrize("name", ORDERS)
def test_order_and_numbers(name: str) -> None:
    names, numbers = ORDERS[name]
    expected = [(number, Path(f"{stem}.jpg")) for number, stem in zip(numbers, names, strict=True)]
    for seed in range(5):
        shuffled = [path for _, path in expected]
        random.Random(seed).shuffle(shuffled)
        assert in_order(shuffled) == expected
    for number, _ in expected:
        assert KEY.fullmatch(sample_key("video", number, "left"))


def test_names_that_count_alike_are_told_apart_by_the_rest() -> None:
    files = [Path(name) for name in ("2.jpg", "1.png", "01.png", "1.jpg")]
    assert [path.name for _, path in in_order(files)] == ["01.png", "1.jpg", "1.png", "2.jpg"]
    assert image_number(Path("a_007.png")) == 7 and image_number(Path("a7b.png")) is None


@pytest.mark.parametrize("name", ["nanoseconds", "seconds.nanoseconds", "midnight", "copies"])
@pytest.mark.parametrize("size", [2, 500])
def test_a_folder_is_read_in_the_order_of_its_pictures(
    name: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "PIECE_IMAGES", size)
    names, numbers = ORDERS[name]
    for place, stem in enumerate(names):
        cv2.imwrite(str(tmp_path / f"{stem}.png"), numbered(place))
    (footage,) = find_footage([str(tmp_path)])
    frames = list(read_frames(footage, Sampling(every=1), pytest.fail))
    assert [number_in(frame.image) for frame in frames] == list(range(len(names)))
    assert [frame.number for frame in frames] == numbers


def test_boxes_find_their_images_whatever_these_are_called(tmp_path: Path) -> None:
    for stem in STAMPS:
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"{stem}.jpg").touch()
    boxes = tmp_path / "boxes.csv"
    rows = [f"{stem}.jpg,0,0,{place + 5},9,l" for place, stem in enumerate(STAMPS)]
    boxes.write_text("\n".join(["image,x0,y0,x1,y1,hand", *reversed(rows)]))
    here = find_footage([str(tmp_path / "set")])
    (found,) = read_detections(str(boxes)).match(here).found.values()
    assert found.frame.tolist() == list(range(6)) and found.box[:, 2].tolist() == list(range(5, 11))


def test_units_know_of_images_that_were_counted_another_way(tmp_path: Path) -> None:
    """Once there are images of the next day, the numbers of those before are others."""
    for name in ("20230401_235957", "20230401_235959"):
        (tmp_path / f"{name}.jpg").touch()

    def made_of() -> list[object]:
        return [part.made_of for part in plan.units_of(found(), 2)]

    def found() -> list[video.Piece]:
        return pieces(find_footage([str(tmp_path)])[0], Sampling(every=1))

    evening = made_of()
    assert [piece.numbers for piece in found()] == [(235_957, 235_959)]
    (tmp_path / "20230402_000001.jpg").touch()
    assert [piece.numbers for piece in found()] == [(0, 1, 2)] and made_of()[0] != evening[0]


def test_the_fraction_of_a_time_is_no_suffix_of_a_file() -> None:
    paths = ["/d/2023.04.01", "/d/2023.04.02", "/d/clip.mp4", "/d/dive.360"]
    names = ["2023.04", "clip", "dive", "2023.04.02"]
    assert find_by_tail(names, paths, "boxes.csv") == [-1, 2, 3, 1]
