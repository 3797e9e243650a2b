"""Files of several pictures are told from those of one, and are never read as their first."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from films import number_in, numbered
from labelled_helpers import handclr

from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Sampling, UnreadableError
from handclr_cli.footage.several import holds_several
from handclr_cli.footage.video import read_frames

ANIMATED = ("png", "webp", "avif", "gif")


def animation(path: Path, count: int = 4) -> Path:
    made = cv2.Animation()
    made.frames = [numbered(100 * number + 1) for number in range(count)]
    made.durations = [100] * count
    assert cv2.imwriteanimation(str(path), made)
    return path


def pages(path: Path, count: int = 3) -> Path:
    assert cv2.imwritemulti(str(path), [numbered(number + 1) for number in range(count)])
    return path


def tiff(kinds: list[int], order: str = "<", wide: bool = False) -> bytes:
    """A TIFF of as many directories as kinds, each with what the picture is for (tag 254)."""
    place, number = ("Q", "Q") if wide else ("I", "H")
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(f"{order}H", 43) + struct.pack(f"{order}HHQ", 8, 0, 16)
    data = mark + (head if wide else struct.pack(f"{order}HI", 42, 8))
    for last, kind in enumerate(kinds, 1 - len(kinds)):
        entry = struct.pack(f"{order}HH{place}I", 254, 4, 1, kind) + bytes(4 if wide else 0)
        data += struct.pack(f"{order}{number}", 1) + entry
        size = struct.calcsize(f"{order}{place}")
        data += struct.pack(f"{order}{place}", len(data) + size if last else 0)
    return data


@pytest.mark.parametrize("kind", ANIMATED)
def test_animations(kind: str, tmp_path: Path) -> None:
    data = animation(tmp_path / f"a.{kind}").read_bytes()
    assert holds_several(memoryview(data))
    assert cv2.imwrite(str(tmp_path / f"b.{kind}"), numbered(1))
    assert not holds_several(memoryview((tmp_path / f"b.{kind}").read_bytes()))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kinds", "several"),
    [([0], False), ([0, 0], True), ([2, 2, 2], True), ([0, 1], False), ([0, 1, 1, 0], True)],
)
def test_pages_of_a_tiff(kinds: list[int], several: bool, order: str, wide: bool) -> None:
    assert holds_several(memoryview(tiff(kinds, order, wide))) == several


def test_a_tiff_whose_pages_go_in_a_circle_ends() -> None:
    data = bytearray(tiff([0, 1]))
    data[-4:] = data[4:8]
    assert holds_several(memoryview(bytes(data)))
    data = bytearray(tiff([1, 1]))
    data[-4:] = data[4:8]
    assert not holds_several(memoryview(bytes(data)))


def test_pages_that_opencv_writes(tmp_path: Path) -> None:
    assert holds_several(memoryview(pages(tmp_path / "a.tiff").read_bytes()))
    assert not holds_several(memoryview(pages(tmp_path / "b.tiff", 1).read_bytes()))


@pytest.mark.parametrize("kind", [*ANIMATED, "tiff"])
def test_damage_raises_nothing(kind: str, tmp_path: Path) -> None:
    write = pages if kind == "tiff" else animation
    data = write(tmp_path / f"a.{kind}").read_bytes()
    rng = np.random.default_rng(0)
    for length in (*range(40), *rng.integers(40, len(data), 200)):
        holds_several(memoryview(data[:length]))
        damaged = bytearray(data)
        for place in rng.integers(0, len(data), 4):
            damaged[place] = rng.integers(256)
        holds_several(memoryview(bytes(damaged)))


def test_a_file_of_several_pictures_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    for number in (1, 5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered(number))
    animation(tmp_path / "2.png")
    animation(tmp_path / "3.webp")
    pages(tmp_path / "4.tif")
    # By what is in it, not by its name.
    animation(tmp_path / "a.gif").rename(tmp_path / "6.jpg")
    (footage,) = find_footage([str(tmp_path)])
    errors: list[UnreadableError] = []
    frames = list(read_frames(footage, Sampling(every=1), errors.append))
    assert [(frame.number, number_in(frame.image)) for frame in frames] == [(1, 1), (5, 5)]
    assert [str(error) for error in errors] == [
        f"{tmp_path / name}: several pictures in one file: convert it to a video"
        for name in ("2.png", "3.webp", "4.tif", "6.jpg")
    ]


@pytest.mark.slow
def test_extract_ends_with_3(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "1.png"), numbered(1, (200, 200)))
    animation(folder / "2.webp")
    (folder / "3.heic").touch()
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("image,x0,y0,x1,y1,hand\n1.png,9,9,90,90,r\n2.webp,9,9,90,90,r\n")
    done = handclr("extract", folder, "--detections", boxes, code=3)
    text = done.stderr.decode()
    assert "2.webp: several pictures in one file: convert it to a video; skipped" in text
    assert f"1 file of kinds that are not read: .heic 1; {folder / '3.heic'} first" in text
    assert "1 crop (0 left, 1 right), 0 frames without a hand, 1 inputs skipped" in text
