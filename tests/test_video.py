"""Footage: what is found under the paths a user names, and which frames of it are taken."""

from __future__ import annotations

import math
import re
import struct
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_hand import write_video

from handclr_cli.contract.errors import UsageError
from handclr_cli.contract.sample import KEY, sample_key
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Footage, Frame, Sampling, UnreadableError
from handclr_cli.footage.video import read_frames

NTSC = Fraction(30000, 1001)


def numbered(number: int, size: tuple[int, int] = (48, 128)) -> np.ndarray:
    """A picture that says its number in eight black and white bars, whatever the codec
    does to it.
    """
    bits = [255 * (number >> bit & 1) for bit in range(8)]
    return np.broadcast_to(np.repeat(bits, size[1] // 8)[None, :, None], (*size, 3)).astype(
        np.uint8
    )


def number_in(image: np.ndarray) -> int:
    columns = image.mean(axis=(0, 2)).reshape(8, -1).mean(axis=1)
    return sum(int(column > 127) << bit for bit, column in enumerate(columns))


EVERY_FRAME = Sampling(every=1)


def frames_of(path: str | Path, sampling: Sampling = EVERY_FRAME, skipped: int = 0) -> list[Frame]:
    (footage,) = find_footage([str(path)])
    errors: list[UnreadableError] = []
    frames = list(read_frames(footage, sampling, errors.append))
    assert len(errors) == skipped, errors
    return frames


def write_gif(path: Path, frames: list[np.ndarray]) -> Path:
    """A GIF of 10 frames a second; unlike OpenCV's videos it may have odd sizes."""
    if not hasattr(cv2, "imwriteanimation"):
        pytest.skip("this OpenCV writes no GIF")
    animation = cv2.Animation()
    animation.frames, animation.durations = frames, [100] * len(frames)
    assert cv2.imwriteanimation(str(path), animation)
    return path


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def names(footage: list[Footage]) -> list[str]:
    return [item.name for item in footage]


# Which frames are taken


@pytest.mark.parametrize("container", ["mp4", "avi"])
@pytest.mark.parametrize(
    "native", [Fraction(10), Fraction(25), NTSC, Fraction(30)], ids=["10", "25", "29.97", "30"]
)
@pytest.mark.parametrize("fps", [0.5, 1, 2, 7, 10, 15, 25, 100])
@pytest.mark.slow
def test_sampled_by_time(tmp_path: Path, container: str, native: Fraction, fps: float) -> None:
    total = 70
    codec = {"mp4": "mp4v", "avi": "MJPG"}[container]
    path = write_video(
        tmp_path / f"clip.{container}", map(numbered, range(total)), float(native), codec
    )
    frames = frames_of(path, Sampling(fps=fps))
    if fps > native:
        expected = list(range(total))
    else:
        step = native / Fraction(fps)
        expected = [
            math.ceil(tick * step) for tick in range(total) if math.ceil(tick * step) < total
        ]
    assert [frame.number for frame in frames] == expected
    assert [number_in(frame.image) for frame in frames] == expected
    np.testing.assert_allclose(
        [frame.time_s for frame in frames], np.array(expected) / float(native), atol=1e-3
    )


@pytest.mark.parametrize("every", [1, 2, 7, 100])
def test_every_nth_frame(tmp_path: Path, every: int) -> None:
    path = write_video(tmp_path / "clip.mp4", map(numbered, range(20)), 25)
    frames = frames_of(path, Sampling(fps=0.001, every=every))
    assert [frame.number for frame in frames] == list(range(0, 20, every))
    assert [number_in(frame.image) for frame in frames] == list(range(0, 20, every))


def test_frames_are_rgb(tmp_path: Path) -> None:
    red = np.full((48, 64, 3), (220, 20, 30), np.uint8)
    for path in (
        write_video(tmp_path / "c.mp4", [red] * 3, 10),
        write_video(tmp_path / "c.avi", [red] * 3, 10, "MJPG"),
    ):
        np.testing.assert_allclose(
            frames_of(path)[1].image.mean(axis=(0, 1)), (220, 20, 30), atol=8
        )
    cv2.imwrite(str(tmp_path / "red.png"), red[:, :, ::-1])
    np.testing.assert_array_equal(frames_of(tmp_path / "red.png")[0].image, red)


@pytest.mark.parametrize(
    ("degrees", "corner"), [(0, "top left"), (90, "top right"), (180, "bottom right")]
)
def test_rotated_phone_video_comes_out_upright(tmp_path: Path, degrees: int, corner: str) -> None:
    frame = np.full((48, 96, 3), 40, np.uint8)
    frame[:24, :48] = 230
    path = write_video(tmp_path / "phone.mp4", [frame] * 3, 10)
    sine, cosine = {0: (0, 1), 90: (1, 0), 180: (0, -1)}[degrees]
    data, one = bytearray(path.read_bytes()), 1 << 16
    place = data.index(b"tkhd") + 44
    matrix = (cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30)
    data[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    image = frames_of(path)[0].image
    assert image.shape == ((96, 48, 3) if degrees == 90 else (48, 96, 3))
    rows, columns = (image.shape[0] // 2, image.shape[1] // 2)
    quarters = {
        f"{v} {h}": image[y : y + rows, x : x + columns].mean()
        for v, y in (("top", 0), ("bottom", rows))
        for h, x in (("left", 0), ("right", columns))
    }
    assert max(quarters, key=lambda name: quarters[name]) == corner
    assert sorted(quarters.values())[2] < 60


@pytest.mark.parametrize("size", [(47, 63), (2, 2), (17, 640), (481, 33)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    frame = np.zeros((*size, 3), np.uint8)
    frame[:, : size[1] // 2] = 255
    cv2.imwrite(str(tmp_path / "odd.png"), frame)
    np.testing.assert_array_equal(frames_of(tmp_path / "odd.png")[0].image, frame)
    images = [
        taken.image for taken in frames_of(write_gif(tmp_path / "odd.gif", [frame, 255 - frame]))
    ]
    assert np.shape(images) == (2, *size, 3)
    assert np.abs(np.int32(images) - [frame, 255 - frame]).mean() < 8


def test_grey_video_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "grey.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48), False)
    for level in (30, 200):
        writer.write(np.full((48, 64), level, np.uint8))
    writer.release()
    images = [frame.image for frame in frames_of(path)]
    assert [image.shape for image in images] == [(48, 64, 3)] * 2
    np.testing.assert_allclose([image.mean() for image in images], [30, 200], atol=3)


def test_gif(tmp_path: Path) -> None:
    frames = frames_of(
        write_gif(tmp_path / "clip.gif", [numbered(i) for i in range(8)]), Sampling(fps=5)
    )
    assert [number_in(frame.image) for frame in frames] == [0, 2, 4, 6]


def test_images_of_other_kinds(tmp_path: Path) -> None:
    """Grey, 16 bit, and with transparency: all come out as uint8 RGB."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((9, 7), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.full((9, 7, 3), 90 * 257, np.uint16))
    cv2.imwrite(str(tmp_path / "c.png"), np.full((9, 7, 4), 90, np.uint8))
    cv2.imwrite(str(tmp_path / "d.JPG"), np.full((9, 7, 3), 90, np.uint8))
    for frame in frames_of(tmp_path):
        assert frame.image.dtype == np.uint8
        np.testing.assert_allclose(frame.image, np.full((9, 7, 3), 90), atol=1)


@pytest.mark.parametrize(
    "content", [b"", b"this is no video\n" * 100, None], ids=["empty", "text", "cut"]
)
def test_damaged_video_is_skipped(tmp_path: Path, content: bytes | None) -> None:
    good = write_video(tmp_path / "good.mp4", map(numbered, range(60)), 10)
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(good.read_bytes()[:-1000] if content is None else content)
    assert frames_of(bad, skipped=1) == []


# Folders of images


def write_images(folder: Path, files: dict[str, int]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, number in files.items():
        assert cv2.imwrite(str(folder / name), numbered(number))
    return folder


def test_image_numbers_with_gaps(tmp_path: Path) -> None:
    folder = write_images(
        tmp_path, {"frame_000030.jpg": 1, "frame_000000.jpg": 0, "frame_000090.png": 2}
    )
    frames = frames_of(folder)
    assert [(frame.number, number_in(frame.image), frame.time_s) for frame in frames] == [
        (0, 0, None),
        (30, 1, None),
        (90, 2, None),
    ]


def test_unpadded_image_numbers_are_in_order(tmp_path: Path) -> None:
    folder = write_images(tmp_path, {f"{number}.png": number for number in (1, 2, 3, 10, 11, 20)})
    assert [frame.number for frame in frames_of(folder)] == [1, 2, 3, 10, 11, 20]
    taken = frames_of(folder, Sampling(every=2))
    assert (
        [frame.number for frame in taken]
        == [number_in(frame.image) for frame in taken]
        == [1, 3, 11]
    )


@pytest.mark.parametrize(
    "files", [("thumb.jpg", "zebra.png", "index 4.jpg"), ("a_1.jpg", "b_1.jpg", "c_2.jpg")]
)
def test_images_without_numbers_of_their_own_are_counted(
    tmp_path: Path, files: tuple[str, ...]
) -> None:
    folder = write_images(tmp_path, {name: position for position, name in enumerate(sorted(files))})
    frames = frames_of(folder)
    assert (
        [frame.number for frame in frames]
        == [number_in(frame.image) for frame in frames]
        == [0, 1, 2]
    )


def test_single_image(tmp_path: Path) -> None:
    write_images(tmp_path, {"photo_17.jpg": 17})
    (frame,) = frames_of(tmp_path / "photo_17.jpg")
    assert (frame.number, frame.time_s, number_in(frame.image)) == (0, None, 17)


def test_damaged_image_of_a_folder_is_skipped(tmp_path: Path) -> None:
    folder = write_images(tmp_path, {"f_1.png": 1, "f_3.png": 3})
    touch(folder / "f_2.png")
    (folder / "f_4.png").write_text("no image")
    assert [frame.number for frame in frames_of(folder, skipped=2)] == [1, 3]


# What is found


def test_folders_are_searched_in_depth(tmp_path: Path) -> None:
    for name in (
        "b/clip.MP4",
        "b/deep/er/x.mkv",
        "a/1.jpg",
        "a/2.png",
        "a/clip.avi",
        "b/notes.txt",
        "b/.hidden.mp4",
    ):
        touch(tmp_path / name)
    found = find_footage([str(tmp_path)])
    assert [
        (item.is_video, [str(file.relative_to(tmp_path)) for file in item.files]) for item in found
    ] == [
        (False, ["a/1.jpg", "a/2.png"]),
        (True, ["a/clip.avi"]),
        (True, ["b/clip.MP4"]),
        (True, ["b/deep/er/x.mkv"]),
    ]


def test_named_file_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    (item,) = find_footage([str(touch(tmp_path / "recording.bin"))])
    assert item.is_video


def test_nothing_to_find(tmp_path: Path) -> None:
    touch(tmp_path / "notes.txt")
    with pytest.raises(UsageError, match="no videos or images"):
        find_footage([str(tmp_path)])
    with pytest.raises(UsageError, match="no such file"):
        find_footage([str(tmp_path / "missing.mp4")])


def test_same_name_in_different_folders(tmp_path: Path) -> None:
    paths = [
        touch(tmp_path / name)
        for name in ("a/clip.mp4", "b/clip.mp4", "a/x/clip.mp4", "b/x/clip.mp4")
    ]
    found = find_footage(list(map(str, paths)))
    assert names(found) == ["a/clip.mp4", "b/clip.mp4", "a/x/clip.mp4", "b/x/clip.mp4"]
    assert len({item.id for item in found}) == 4


def test_key_does_not_depend_on_how_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a" / "clip.mp4")
    monkeypatch.chdir(tmp_path / "a")
    ways = ["clip.mp4", "./clip.mp4", "../a/clip.mp4", str(tmp_path / "a" / "clip.mp4"), "."]
    assert len({find_footage([way])[0].id for way in ways}) == 1


def test_file_named_twice_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "a" / "clip.mp4")
    touch(tmp_path / "a" / "1.jpg")
    monkeypatch.chdir(tmp_path)
    ways = [
        "a/clip.mp4",
        "./a/clip.mp4",
        "a/../a/clip.mp4",
        str(tmp_path / "a" / "clip.mp4"),
        "a",
        "a/",
        str(tmp_path),
    ]
    assert names(find_footage(ways)) == ["a/clip.mp4", f"{tmp_path.name}/a"]


def test_link_to_a_folder_above_ends(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "clip.mp4")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    assert names(find_footage([str(tmp_path)])) == ["a/clip.mp4"]


@pytest.mark.parametrize(
    "name",
    [
        "with space.mp4",
        'it\'s "quoted".mp4',
        "new\nline.mp4",
        "Hände 手.mp4",
        "v1.2.final.mp4",
        "10:30.mp4",
        "a%04d.mp4",
    ]
    + ["-o.mp4", "...mp4", "手", "x" * 240 + ".mp4", "a_00000001_l.mp4"],
)
def test_names_become_plain_keys(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "plain.mp4", map(numbered, range(3)), 10).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    (item,) = find_footage([name])
    assert item.name == f"{tmp_path.name}/{name}"
    key = sample_key(item.id, 12, "left")
    assert re.fullmatch(r"[A-Za-z0-9_-]+", key) and len(key) < 90
    match = KEY.fullmatch(key)
    assert match and (match["video"], match["frame"], match["hand"]) == (item.id, "00000012", "l")
    assert [number_in(frame.image) for frame in frames_of(name)] == [0, 1, 2]


def test_names_that_differ_only_in_odd_characters_have_keys_of_their_own(tmp_path: Path) -> None:
    paths = [
        touch(tmp_path / name) for name in ("a b.mp4", "a-b.mp4", "a.b.mp4", "a?b.mp4", "a-b.avi")
    ]
    assert len({item.id for item in find_footage(list(map(str, paths)))}) == 5
