"""What is footage in a folder: kinds of files, previews of films, hidden things."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import pytest
from films import numbered

from handclr_cli.contract.errors import UsageError
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Sampling, UnreadableError
from handclr_cli.footage.kinds import IMAGE_SUFFIXES, UNREAD_SUFFIXES, VIDEO_SUFFIXES
from handclr_cli.footage.video import read_frames


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def found(*arguments: Path, below: Path) -> tuple[list[list[str]], list[str]]:
    """The files of each footage, and what is said of others."""
    notes: list[str] = []
    footage = find_footage(list(map(str, arguments)), notes.append)
    files = [[str(file.relative_to(below)) for file in item.files] for item in footage]
    return files, [note.replace(f"{below}/", "") for note in notes]


def test_a_suffix_is_of_one_kind() -> None:
    kinds = (VIDEO_SUFFIXES, IMAGE_SUFFIXES, UNREAD_SUFFIXES)
    together = frozenset.union(*kinds)
    assert len(together) == sum(map(len, kinds))
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in together)


@pytest.mark.parametrize(
    "suffix",
    [".vob", ".MXF", ".m2v", ".mod", ".tod", ".360", ".insv", ".rm", ".dv", ".ogv", ".f4v"]
    + [".m2t", ".h264", ".hevc", ".divx", ".asf", ".3g2", ".lrv", ".MP4"],
)
def test_films_of_all_cameras_are_read(suffix: str, tmp_path: Path) -> None:
    touched(tmp_path, f"a{suffix}")
    (item,) = find_footage([str(tmp_path)])
    assert item.is_video


def test_what_is_not_read_is_counted_in_one_line(tmp_path: Path) -> None:
    photos = [f"p/{number}.HEIC" for number in range(3)]
    touched(tmp_path, "a.mp4", "notes.txt", "b.cr2", "c.braw", *photos)
    files, notes = found(tmp_path, tmp_path / "p" / ".." / "a.mp4", below=tmp_path)
    assert files == [["a.mp4"]]
    assert notes == ["5 files of kinds that are not read: .heic 3, .cr2 1, .braw 1; b.cr2 first"]
    with pytest.raises(UsageError, match=r"no videos or images in this folder; 3 files .*heic 3"):
        find_footage([str(tmp_path / "p")])


def test_a_photograph_that_is_named_and_not_read_is_skipped(tmp_path: Path) -> None:
    """FFmpeg shows a tile of it."""
    (item,) = find_footage([str(touched(tmp_path, "a.heic") / "a.heic")])
    errors: list[UnreadableError] = []
    assert not list(read_frames(item, Sampling(), errors.append))
    assert [error.reason for error in errors] == ["of a kind that is not read"]


@pytest.mark.parametrize(
    ("names", "kept"),
    [
        (["a.mp4", "a.jpg"], [["a.mp4"]]),
        (["A.MP4", "a.JPG"], [["A.MP4"]]),
        (["a.mp4", "a.mp4.png", "a_thumb.jpg", "a-poster.webp"], [["a.mp4"]]),
        (["a.mp4", "cover.jpg"], [["a.mp4"]]),
        (["a.mp4", "a.thm", "a.lrv"], [["a.mp4"]]),
        (["GX010001.MP4", "GL010001.LRV", "GX010001.THM"], [["GX010001.MP4"]]),
        (["DJI_1.MP4", "DJI_1.LRF"], [["DJI_1.MP4"]]),
        (["VID_00_1.insv", "LRV_11_1.insv"], [["VID_00_1.insv"]]),
        (["a.lrv"], [["a.lrv"]]),
        (["a.lrv", "a.jpg"], [["a.jpg"], ["a.lrv"]]),
        (["a.mp4", "b.jpg"], [["b.jpg"], ["a.mp4"]]),
        (["a.mp4", "a_0001.jpg", "a_0002.jpg"], [["a_0001.jpg", "a_0002.jpg"], ["a.mp4"]]),
        (["a.mp4", "b/a.jpg"], [["a.mp4"], ["b/a.jpg"]]),
        (["a.jpg", "cover.jpg"], [["a.jpg", "cover.jpg"]]),
        (["thumb.jpg", "thumb_2.jpg", "a.txt"], [["thumb.jpg", "thumb_2.jpg"]]),
    ],
)
def test_a_thumbnail_beside_its_film_is_no_video(
    names: Sequence[str], kept: list[list[str]], tmp_path: Path
) -> None:
    files, notes = found(touched(tmp_path, *names), below=tmp_path)
    assert files == kept
    lost = len(names) - len([file for group in kept for file in group]) - ("a.txt" in names)
    said = f"{lost} file{'s' * (lost > 1)} left out as previews or thumbnails of films; "
    assert [note[: len(said)] for note in notes] == ([said] if lost else [])


def test_a_thumbnail_that_is_named_alone_is_an_image(tmp_path: Path) -> None:
    touched(tmp_path, "a.mp4", "a.jpg")
    assert found(tmp_path / "a.jpg", below=tmp_path) == ([["a.jpg"]], [])
    assert found(tmp_path / "a.*", below=tmp_path)[0] == [["a.mp4"]]


def test_hidden_folders_and_those_of_machines_are_passed_over(tmp_path: Path) -> None:
    names = [
        ".Trashes/501/a.mp4",
        "@eaDir/a.mp4/SYNOPHOTO.jpg",
        "#recycle/b.mp4",
        "THMBNL/1.JPG",
        ".hidden/1.jpg",
    ]
    touched(tmp_path, "a.mp4", "._a.mp4", "__MACOSX/._b.mp4", "c/._1.jpg", "c/1.jpg", *names)
    assert found(tmp_path, below=tmp_path) == ([["a.mp4"], ["c/1.jpg"]], [])
    assert found(tmp_path / ".hidden", below=tmp_path) == ([[".hidden/1.jpg"]], [])


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES - {".jp2"}))
def test_each_kind_of_image_is_read(suffix: str, tmp_path: Path) -> None:
    written = {".jfif": ".jpg", ".jpe": ".jpg"}.get(suffix, suffix)
    image = numbered(5)[..., 0] if suffix == ".pgm" else numbered(5)
    assert cv2.imwrite(str(tmp_path / f"a{written}"), image)
    (tmp_path / f"a{written}").rename(tmp_path / f"a{suffix}")
    (item,) = find_footage([str(tmp_path)])
    (frame,) = read_frames(item, Sampling(), pytest.fail)
    assert frame.image.shape == (32, 160, 3)
