"""Footage as it comes: each file gives the right frames, or is skipped and named with the reason in
one line.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from films import H264, ffmpeg, film, number_in, numbered

from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Footage, Frame, Hand, Sampling, UnreadableError
from handclr_cli.footage.video import read_frames

EVERY = Sampling(every=1)
TOTAL = 150


def read(
    path: Path | Footage, sampling: Sampling = EVERY
) -> tuple[list[Frame], list[UnreadableError]]:
    """The frames of one footage, and what was skipped, each named in one line of its own."""
    (footage,) = [path] if isinstance(path, Footage) else find_footage([str(path)])
    errors: list[UnreadableError] = []
    frames = list(read_frames(footage, sampling, errors.append))
    for error in errors:
        assert len(str(error).splitlines()) == 1 and error.reason in str(error)
        assert not any(character.isdigit() for character in error.reason.replace("UTF-8", ""))
    return frames, errors


def numbers_of(path: Path, sampling: Sampling = EVERY) -> list[int]:
    """What the pictures say; nothing may be skipped."""
    frames, errors = read(path, sampling)
    assert not errors, errors
    return [number_in(frame.image) for frame in frames]


def reason_of(path: Path | Footage) -> str:
    """Why there is no frame at all."""
    frames, errors = read(path)
    assert not frames
    (error,) = errors
    return error.reason


def rough(total: int) -> Iterator[np.ndarray]:
    """Numbered pictures that do not compress to nothing, so that damage hits frames."""
    noise = np.random.default_rng(0)
    for number in range(total):
        picture = numbered(number)
        picture[16:] = picture[16:] // 4 * 3 + noise.integers(0, 60, picture[16:].shape, np.uint8)
        yield picture


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("plain") / "plain.mp4", 40, 20, *H264)


@pytest.fixture(scope="module")
def rough_films(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("rough")
    kinds = {
        "mp4": H264,
        "front.mp4": (*H264, "-movflags", "+faststart"),
        "fragments.mp4": (*H264, "-movflags", "frag_keyframe+empty_moov"),
        "mkv": H264,
        "ts": H264,
        "webm": ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "20"),
        "avi": ("-c:v", "mjpeg"),
        "mpg": ("-c:v", "mpeg2video"),
    }

    def made(kind: str) -> Path:
        path = folder / f"rough.{kind}"
        return (
            path
            if path.exists()
            else film(path, rough(TOTAL), 25 if kind == "mpg" else 30, *kinds[kind])
        )

    return made


# Kinds of video


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("h264.mp4", H264),
        ("h264.mov", H264),
        ("h264.mkv", H264),
        ("hevc.mp4", ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")),
        ("ten bit.mp4", (*H264, "-pix_fmt", "yuv420p10le")),
        (
            "ten bit.webm",
            (
                "-c:v",
                "libvpx-vp9",
                "-deadline",
                "realtime",
                "-cpu-used",
                "8",
                "-pix_fmt",
                "yuv420p10le",
            ),
        ),
        ("full chroma.mp4", (*H264, "-pix_fmt", "yuv444p")),
        ("grey.mp4", (*H264, "-pix_fmt", "gray")),
        ("vp8.webm", ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8")),
        ("mjpeg.avi", ("-c:v", "mjpeg")),
        ("mpeg4.avi", ("-c:v", "mpeg4", "-bf", "2")),
        ("lossless.avi", ("-c:v", "ffv1")),
        ("clip.gif", ()),
        ("clip.mpg", ("-c:v", "mpeg2video", "-r", "25")),
        ("clip.wmv", ("-c:v", "wmv2")),
        ("clip.m2ts", H264),
        ("raw.mp4", (*H264, "-f", "h264")),
    ],
    ids=str,
)
@pytest.mark.slow
def test_kinds_of_video(tmp_path: Path, name: str, args: tuple[str, ...]) -> None:
    path = film(tmp_path / name, 12, 25, *args)
    frames, errors = read(path)
    assert not errors
    assert (
        [number_in(frame.image) for frame in frames]
        == [frame.number for frame in frames]
        == list(range(12))
    )
    times = np.array([frame.time_s for frame in frames])
    np.testing.assert_allclose(times - times[0], np.arange(12) / 25, atol=2e-3)
    assert {frame.image.dtype for frame in frames} == {np.dtype(np.uint8)}
    assert {frame.image.shape for frame in frames} == {(32, 160, 3)}


@pytest.mark.slow
def test_4k(tmp_path: Path) -> None:
    path = film(tmp_path / "4k.mp4", [numbered(5, (2160, 3840))], 30, *H264)
    (frame,), errors = read(path)
    assert not errors
    assert frame.image.shape == (2160, 3840, 3) and number_in(frame.image[::8, ::8]) == 5


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("container", ["mp4", "mov", "mkv"])
@pytest.mark.slow
def test_turned_phone_is_upright(tmp_path: Path, degrees: int, container: str) -> None:
    """What is stored lies on its side; the container says by how much to turn it."""
    upright = np.full((96, 64, 3), 40, np.uint8)
    upright[:48, :32] = 230
    stored = film(tmp_path / "stored.mp4", [np.rot90(upright, -degrees // 90)] * 3, 10, *H264)
    path = tmp_path / f"phone.{container}"
    ffmpeg("-display_rotation", str(degrees), "-i", str(stored), "-c", "copy", str(path))
    frames, errors = read(path)
    assert not errors and len(frames) == 3
    assert frames[0].image.shape == (96, 64, 3)
    assert np.abs(frames[0].image.astype(int) - upright).mean() < 12


def test_size_that_changes_on_the_way(tmp_path: Path) -> None:
    small = film(tmp_path / "small.ts", 10, 10, *H264)
    large = film(
        tmp_path / "large.ts", [numbered(number, (64, 320)) for number in range(10, 20)], 10, *H264
    )
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames, _ = read(both)
    seen = [number_in(frame.image) for frame in frames]
    assert seen == list(range(20))
    # One source has one size, the first.
    assert {frame.image.shape for frame in frames} == {(32, 160, 3)}


# Times and headers


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize("fps", [0.5, 3, 30])
@pytest.mark.slow
def test_variable_frame_rate(tmp_path: Path, container: str, fps: float) -> None:
    """A source of 30 frames a second, of which two of three are gone in every second second."""
    select = r"select='not(mod(n\,3))+lt(mod(n\,60)\,30)'"
    path = film(tmp_path / f"phone.{container}", 180, 30, "-vf", select, "-fps_mode", "vfr", *H264)
    there = [number for number in range(180) if not number % 3 or number % 60 < 30]
    first: dict[int, int] = {}
    for number in there:
        first.setdefault(int(number * fps / 30 + 1e-6), number)
    frames, errors = read(path, Sampling(fps=fps))
    assert not errors
    assert [number_in(frame.image) for frame in frames] == list(first.values())
    np.testing.assert_allclose(
        [frame.time_s for frame in frames], np.array(list(first.values())) / 30, atol=1e-3
    )
    assert [frame.number for frame in frames] == [there.index(number) for number in first.values()]


def test_millisecond_clocks_lose_no_frames(tmp_path: Path) -> None:
    """Matroska writes 33, 67, 100 ms, where 30 a second ask for 33.3, 66.7, 100."""
    assert numbers_of(film(tmp_path / "a.mkv", 40, 30, *H264), Sampling(fps=30)) == list(range(40))


def test_late_first_frame(tmp_path: Path) -> None:
    """Matroska counts the time before the first frame in; that is no reason to call it
    truncated.
    """
    path = film(tmp_path / "late.mkv", 40, 10, *H264, "-output_ts_offset", "30")
    assert numbers_of(path, Sampling(fps=2)) == list(range(0, 40, 5))


def with_avi_header(
    path: Path, frames: int | None = None, rate: tuple[int, int] | None = None
) -> Path:
    """Overwrite what an AVI says of its number of frames, or of its rate and scale."""
    data = bytearray(path.read_bytes())
    stream, main = data.index(b"strh") + 8, data.index(b"avih") + 8
    if frames is not None:
        data[stream + 32 : stream + 36] = data[main + 16 : main + 20] = struct.pack("<I", frames)
    if rate is not None:
        data[stream + 20 : stream + 28], data[main : main + 4] = (
            struct.pack("<II", rate[1], rate[0]),
            bytes(4),
        )
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("frames", [0, 55, 59])
def test_header_that_promises_too_few_frames(tmp_path: Path, frames: int) -> None:
    path = with_avi_header(film(tmp_path / "a.avi", 60, 10, "-c:v", "mjpeg"), frames)
    assert numbers_of(path, Sampling(fps=2)) == list(range(0, 60, 5))


@pytest.mark.parametrize("frames", [1_000, 4_000_000_000])
def test_header_that_promises_too_many_frames(tmp_path: Path, frames: int) -> None:
    path = with_avi_header(film(tmp_path / "a.avi", 60, 10, "-c:v", "mjpeg"), frames)
    taken, errors = read(path, Sampling(fps=2))
    assert [number_in(frame.image) for frame in taken] == list(range(0, 60, 5))
    assert [str(error) for error in errors] == (
        [f"{path}: truncated or damaged: 6.0 of 100.0 s can be decoded"] if frames == 1_000 else []
    )


@pytest.mark.parametrize("rate", [(90_000, 1), (0, 1), (0, 0)], ids=str)
def test_header_without_a_frame_rate(tmp_path: Path, rate: tuple[int, int]) -> None:
    """The rate is not known then, but not one frame a microsecond."""
    path = with_avi_header(film(tmp_path / "a.avi", 60, 10, "-c:v", "mjpeg"), rate=rate)
    assert numbers_of(path) == list(range(60))
    frames, errors = read(path, Sampling(fps=1))
    assert not errors
    assert [frame.number for frame in frames] in ([0, 30], [0, 25, 50])


def test_video_of_90000_frames_a_second(tmp_path: Path) -> None:
    """It has time stamps of its own, and they are believed."""
    path = film(tmp_path / "a.mp4", 60, 90_000, *H264)
    assert numbers_of(path) == list(range(60))
    assert numbers_of(path, Sampling(fps=1)) == [0]
    assert numbers_of(path, Sampling(fps=9000)) == list(range(0, 60, 10))


def test_times_that_are_never_quite_the_same_apart(tmp_path: Path) -> None:
    jitter = r"settb=1/90000,setpts='N*4500+mod(N*N*7919\,97)'"
    args = ("-vf", jitter, "-fps_mode", "passthrough", "-enc_time_base", "1/90000", *H264)
    assert numbers_of(film(tmp_path / "a.mp4", 60, 20, *args), Sampling(fps=2)) == list(
        range(0, 60, 10)
    )


# Damage


def damaged(source: Path, path: Path, start: float, end: float) -> Path:
    """A copy with zeros between two shares of the file."""
    data = bytearray(source.read_bytes())
    low, high = int(start * len(data)), int(end * len(data))
    data[low:high] = bytes(high - low)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["mp4", "fragments.mp4", "mkv", "ts", "webm", "avi", "mpg"])
@pytest.mark.slow
def test_some_damaged_packets_are_passed_over(
    tmp_path: Path, rough_films: Callable[[str], Path], kind: str
) -> None:
    frames, errors = read(damaged(rough_films(kind), tmp_path / f"a.{kind}", 0.5, 0.51))
    numbers = [number_in(frame.image) for frame in frames]
    assert not errors
    assert len(frames) > 0.9 * TOTAL
    assert numbers[:50] == list(range(50)) and numbers[-10:] == list(range(TOTAL - 10, TOTAL))


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "webm", "avi", "mpg"])
def test_much_damage_is_named_and_the_rest_used(
    tmp_path: Path, rough_films: Callable[[str], Path], kind: str
) -> None:
    frames, errors = read(damaged(rough_films(kind), tmp_path / f"a.{kind}", 0.3, 0.6))
    numbers = [number_in(frame.image) for frame in frames]
    (error,) = errors
    assert (
        error.reason in ("truncated or damaged", "a long stretch without frames") and error.detail
    )
    assert 40 < len(frames) < 0.8 * TOTAL
    assert numbers[:20] == list(range(20)) and numbers[-10:] == list(range(TOTAL - 10, TOTAL))


@pytest.mark.slow
def test_hundreds_of_damaged_packets_in_a_row(tmp_path: Path) -> None:
    """More than are tried where no more frames are promised."""
    good = film(tmp_path / "good.mp4", rough(600), 60, *H264)
    frames, errors = read(damaged(good, tmp_path / "bad.mp4", 0.05, 0.7), Sampling(fps=10))
    assert [error.reason for error in errors] == ["truncated or damaged"]
    assert frames[-1].time_s == pytest.approx(9.9, abs=0.2)


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("kind", ["front.mp4", "fragments.mp4", "mkv", "webm", "avi"])
@pytest.mark.slow
def test_truncated_video_is_used_as_far_as_it_goes(
    tmp_path: Path, rough_films: Callable[[str], Path], kind: str, share: float
) -> None:
    data = rough_films(kind).read_bytes()
    path = tmp_path / f"a.{kind}"
    path.write_bytes(data[: int(share * len(data))])
    frames, errors = read(path)
    numbers = [number_in(frame.image) for frame in frames]
    if kind == "fragments.mp4" and not frames:
        # FFmpeg opens none that ends within the header of a fragment.
        assert [error.reason for error in errors] == ["cannot be opened as a video"]
        return
    # The last ones may have lost what they refer to.
    assert numbers[:-4] == list(range(len(numbers) - 4))
    assert 0.3 * share * TOTAL < len(numbers) < (share + 0.05) * TOTAL
    # Fragments that follow are not promised by those before.
    assert [error.reason for error in errors] in (
        ["truncated or damaged"],
        [] if "fragments" in kind else None,
    )


def test_truncated_mp4_without_its_table(tmp_path: Path, plain: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(plain.read_bytes()[: plain.stat().st_size // 2])
    assert reason_of(path) == "cannot be opened as a video"


# No video at all


@pytest.mark.parametrize("container", ["mp4", "mkv", "mov"])
def test_audio_only(tmp_path: Path, container: str) -> None:
    path = tmp_path / f"a.{container}"
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", str(path))
    assert reason_of(path) == "cannot be opened as a video"


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi"])
def test_no_frames(tmp_path: Path, plain: Path, container: str) -> None:
    path = tmp_path / f"a.{container}"
    ffmpeg("-i", str(plain), "-c", "copy", "-frames:v", "0", str(path))
    assert reason_of(path) in ("cannot be opened as a video", "no frame can be decoded")


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.png", "a_01.avi"])
def test_empty_and_foreign_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.touch()
    assert reason_of(path) == "empty file"
    path.write_text("this is no video\n" * 100)
    assert reason_of(path).startswith("cannot be")


def test_image_that_claims_to_be_enormous(tmp_path: Path) -> None:
    image = bytearray(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    image[16:24] = struct.pack(">II", 1_000_000, 1_000_000)
    (tmp_path / "bomb.png").write_bytes(image)
    assert reason_of(tmp_path / "bomb.png") == "cannot be decoded as an image"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_what_is_no_file_is_named_and_not_waited_for(
    tmp_path: Path, plain: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    shutil.copy(plain, "d/a.mp4")
    os.mkfifo(f"d/pipe{suffix}")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"d/socket{suffix}")
        Path("d", f"device{suffix}").symlink_to("/dev/zero")
        found = [read(footage) for footage in find_footage(["d"])]
    errors = [error for _, skipped in found for error in skipped]
    assert sum(len(frames) for frames, _ in found) == 40
    assert [error.reason for error in errors] == ["not a regular file"] * 3
    assert {Path(error.path).stem for error in errors} == {"pipe", "socket", "device"}


# Links, and what changes meanwhile


def test_file_under_several_names(tmp_path: Path, plain: Path) -> None:
    """By links it is one video, a copy is another one."""
    shutil.copy(plain, tmp_path / "a.mp4")
    shutil.copy(plain, tmp_path / "copy.mp4")
    (tmp_path / "hard.mp4").hardlink_to(tmp_path / "a.mp4")
    (tmp_path / "soft.mp4").symlink_to("a.mp4")
    assert [item.files[0].name for item in find_footage([str(tmp_path)])] == ["a.mp4", "copy.mp4"]
    named = [str(tmp_path / name) for name in ("soft.mp4", "hard.mp4", "a.mp4")]
    assert [item.files[0].name for item in find_footage(named)] == ["soft.mp4"]


def test_videos_of_one_name_are_two(tmp_path: Path) -> None:
    for folder, first in (("a", 0), ("b", 50)):
        (tmp_path / folder).mkdir()
        film(tmp_path / folder / "video.mp4", map(numbered, range(first, first + 5)), 10, *H264)
    found = find_footage([str(tmp_path)])
    assert len({item.id for item in found}) == 2
    assert [[number_in(frame.image) for frame in read(item)[0]] for item in found] == [
        [0, 1, 2, 3, 4],
        [50, 51, 52, 53, 54],
    ]


def test_links_that_lead_in_circles_end(tmp_path: Path, plain: Path) -> None:
    """Several of them multiply: two of 40 levels are more paths than there is time for."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for up in ("x", "y", "z"):
            (tmp_path / name / up).symlink_to(tmp_path, target_is_directory=True)
    shutil.copy(plain, tmp_path / "c" / "clip.mp4")
    assert [item.name for item in find_footage([str(tmp_path)])] == ["c/clip.mp4"]


@pytest.mark.parametrize("name", ["a.mp4", "a.png"])
@pytest.mark.parametrize("named", [True, False])
def test_links_to_nothing(tmp_path: Path, name: str, named: bool) -> None:
    link = tmp_path / name
    for target, reason in (
        ("gone", "No such file or directory"),
        (name, "Too many levels of symbolic links"),
    ):
        link.symlink_to(target)
        assert reason_of(link if named else tmp_path) == reason
        link.unlink()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_files_and_folders_that_may_not_be_read(tmp_path: Path, plain: Path) -> None:
    (tmp_path / "closed").mkdir(0)
    (tmp_path / "a.mp4").write_bytes(plain.read_bytes())
    (tmp_path / "a.mp4").chmod(0)
    found = find_footage([str(tmp_path)])
    assert [reason_of(item) for item in found] == ["Permission denied", "folder cannot be listed"]
    (tmp_path / "closed").chmod(0o700)


def test_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    shutil.copy(plain, tmp_path / "a.mp4")

    def scandir(path: str, real: Callable[..., object] = os.scandir) -> object:
        if os.path.basename(path) == "closed":
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        film_there, folder = find_footage([str(tmp_path)])
    assert len(read(film_there)[0]) == 40
    assert reason_of(folder) == "folder cannot be listed"


def test_file_that_vanishes_after_it_was_listed(tmp_path: Path, plain: Path) -> None:
    shutil.copy(plain, tmp_path / "a.mp4")
    (item,) = find_footage([str(tmp_path)])
    (tmp_path / "a.mp4").unlink()
    assert reason_of(item) == "No such file or directory"


def test_folder_of_images_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """What was listed is read: what has gone is named, what came is not taken, what changed is read
    as it is.
    """
    for number in (1, 5, 7, 40):
        cv2.imwrite(str(tmp_path / f"{number}.png"), numbered(number))
    (item,) = find_footage([str(tmp_path)])
    errors: list[UnreadableError] = []
    frames = read_frames(item, EVERY, errors.append)
    taken = [next(frames)]
    (tmp_path / "5.png").unlink()
    cv2.imwrite(str(tmp_path / "6.png"), numbered(6))
    cv2.imwrite(str(tmp_path / "7.png"), numbered(107))
    taken += frames
    assert [(frame.number, number_in(frame.image)) for frame in taken] == [
        (1, 1),
        (7, 107),
        (40, 40),
    ]
    assert [str(error) for error in errors] == [f"{tmp_path / '5.png'}: No such file or directory"]


def test_reason_is_one_line_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "new\nline\tand \x1b[31m.mp4"
    path.write_text("no video")
    _, (error,) = read(path)
    assert str(error) == f"{tmp_path}/new\\nline\\tand \\x1b[31m.mp4: cannot be opened as a video"
    assert error.path == str(path)


@pytest.mark.skipif(os.name == "nt", reason="names of files are Unicode there")
def test_name_that_is_no_unicode(tmp_path: Path, plain: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    try:
        shutil.copy(plain, path)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert numbers_of(path) == list(range(40))


def test_a_hand_in_its_crop_is_mirrored_with_its_shape() -> None:
    points = np.array([[10.0, 20.0], *[[30.0, 40.0]] * 20])
    world = np.array([[0.0, 0.0, 0.0], *[[0.01, -0.02, 0.03]] * 20])
    hand = Hand(points, "left", 0.9, world)
    seen = hand.in_crop((0, 10, 40, 50), 80, True)
    np.testing.assert_array_equal(seen.keypoints[:2], [[60, 20], [20, 60]])
    np.testing.assert_array_equal(seen.world[1], [-0.01, -0.02, 0.03])
    np.testing.assert_array_equal(hand.in_crop((0, 10, 40, 50), 80, False).world, world)
    assert set(seen.members()) == {"keypoints2d.npy", "world3d.npy"}
    assert set(Hand(points, "left", 0.9).in_crop((0, 10, 40, 50), 80, True).members()) == {
        "keypoints2d.npy"
    }
