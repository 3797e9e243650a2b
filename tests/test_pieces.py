"""Long footage in pieces: together they are one reading of all of it."""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest
from films import H264, film, number_in, numbered

from handclr_cli.footage import decoding, video
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Footage, Frame, Piece, Sampling, UnreadableError
from handclr_cli.footage.roll import Roll
from handclr_cli.footage.video import pieces, read_frames, read_piece

TOTAL = 300
SLICE_S = 2.0
# Two of three frames after every second second are gone; and a first half at a fifth of the rate of
# the second.
UNEVEN = ("-vf", r"select='not(mod(n\,3))+lt(mod(n\,120)\,60)'", "-fps_mode", "vfr")
SLOW_START = ("-vf", r"select='not(mod(n\,5))+gt(n\,150)'", "-fps_mode", "vfr")
FILMS: dict[str, tuple[float | str, tuple[str, ...]]] = {
    "constant.mp4": (30, H264),
    "one key frame.mp4": (30, (*H264, "-g", "9999")),
    "open groups.mp4": (30, (*H264, "-x264-params", "open-gop=1:bframes=3")),
    "ntsc.mp4": ("30000/1001", H264),
    "ntsc.mkv": ("30000/1001", H264),
    "uneven.mp4": (30, (*UNEVEN, *H264)),
    "uneven.mkv": (30, (*UNEVEN, *H264)),
    "slow start.mp4": (30, (*SLOW_START, *H264)),
    "slow start.mkv": (30, (*SLOW_START, *H264)),
    "fragments.mp4": (30, (*H264, "-movflags", "frag_keyframe+empty_moov")),
    "offset.ts": (30, (*H264, "-output_ts_offset", "1000")),
    "offset.mkv": (30, (*H264, "-output_ts_offset", "7")),
    "vp8.webm": (25, ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "50")),
    "mpeg4.avi": (25, ("-c:v", "mpeg4", "-bf", "2")),
    "program stream.mpg": (25, ("-c:v", "mpeg2video", "-bf", "2")),
    "flash.flv": (30, H264),
    "animation.gif": (10, ()),
}
CONSTANT = [name for name in FILMS if not name.startswith(("uneven", "slow"))]
# No index says when and where each of their frames is.
UNCUT = ("offset.ts", "program stream.mpg", "flash.flv", "animation.gif")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Footage]:
    folder = tmp_path_factory.mktemp("films")
    paths = [str(film(folder / name, TOTAL, rate, *args)) for name, (rate, args) in FILMS.items()]
    return dict(zip(FILMS, find_footage(paths), strict=True))


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "SLICE_S", SLICE_S)


def fail(error: UnreadableError) -> None:
    raise error


def in_one(footage: Footage, sampling: Sampling) -> list[Frame]:
    return list(read_piece(Piece(footage, sampling), fail))


def in_pieces(footage: Footage, sampling: Sampling) -> list[list[Frame]]:
    return [list(read_piece(piece, fail)) for piece in pieces(footage, sampling)]


def contents(frames: list[Frame]) -> list[tuple[float | None, int]]:
    return [(frame.time_s, number_in(frame.image)) for frame in frames]


@pytest.mark.parametrize("fps", [0.3, 1, 3.7])
@pytest.mark.parametrize("name", FILMS)
@pytest.mark.slow
def test_slices_are_one_reading(films: dict[str, Footage], name: str, fps: float) -> None:
    sampling = Sampling(fps=fps)
    slices, whole = in_pieces(films[name], sampling), in_one(films[name], sampling)
    frames = list(itertools.chain.from_iterable(slices))
    assert contents(frames) == contents(whole)
    assert len(slices) == 1 if name in UNCUT else len(slices) > 2
    numbers = [frame.number for frame in frames]
    assert all(before < after for before, after in itertools.pairwise(numbers))
    if name in CONSTANT:
        assert (
            numbers
            == [frame.number for frame in whole]
            == [number_in(frame.image) for frame in whole]
        )


def test_no_two_frames_have_one_number(tmp_path: Path) -> None:
    """Not where pairs of frames, closer together than the nominal rate, lie on both sides of where
    intervals begin.
    """
    place = "-0.01*eq(mod(N,4),1)+0.01*eq(mod(N,4),2)+0.1*eq(mod(N,4),3)+0.18*not(mod(N,4))"
    pairs = f"setpts='if(N,0.4*floor((N+3)/4)+{place},0)/TB'"
    args = (
        "-vf",
        f"settb=1/1000,{pairs}",
        "-fps_mode",
        "passthrough",
        "-enc_time_base",
        "1/1000",
        *H264,
    )
    path = film(tmp_path / "pairs.mkv", 100, 10, *args)
    (footage,) = find_footage([str(path)])
    sampling = Sampling(fps=5)
    frames = list(read_frames(footage, sampling, fail))
    assert contents(frames) == contents(in_one(footage, sampling))
    assert [frame.time_s for frame in frames][:6] == [0, 0.39, 0.41, 0.79, 0.81, 1.19]
    assert [frame.number for frame in frames][:6] == [0, 4, 5, 8, 9, 12]
    assert len({frame.number for frame in frames}) == len(frames)


def test_footage_is_read_as_its_pieces_are(films: dict[str, Footage]) -> None:
    sampling = Sampling(fps=3)
    slices = itertools.chain.from_iterable(in_pieces(films["uneven.mp4"], sampling))
    frames = list(read_frames(films["uneven.mp4"], sampling, fail))
    assert [(frame.number, frame.time_s) for frame in frames] == [
        (frame.number, frame.time_s) for frame in slices
    ]


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.slow
def test_estimate_is_near_what_is_read(films: dict[str, Footage], name: str) -> None:
    for sampling in (
        Sampling(fps=1),
        Sampling(fps=4),
        Sampling(every=7),
        Sampling(numbers=(3, 9, 100)),
    ):
        cut = pieces(films[name], sampling)
        read = sum(len(list(read_piece(piece, fail))) for piece in cut)
        assert sum(piece.frames for piece in cut) == pytest.approx(read, rel=0.15, abs=2) or (
            # Matroska's header counts what a constant rate would have, and the time before the
            # first frame.
            (sampling.every and name.startswith(("uneven", "slow"))) or name == "offset.mkv"
        )


@pytest.mark.parametrize(
    "sampling",
    [Sampling(every=1), Sampling(numbers=(5,)), Sampling(fps=30), Sampling(fps=200)],
    ids=str,
)
def test_only_sparse_sampling_by_time_is_cut(films: dict[str, Footage], sampling: Sampling) -> None:
    """Where every frame is taken, the numbers of a variable rate could run out in a slice."""
    assert len(pieces(films["slow start.mp4"], sampling)) == 1


def test_short_video_is_one_piece(
    films: dict[str, Footage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "SLICE_S", 20.0)
    (piece,) = pieces(films["uneven.mp4"], Sampling())
    assert not piece.cut
    frames = list(read_piece(replace(piece, sampling=Sampling(fps=30)), fail))
    assert [frame.number for frame in frames] == list(range(len(frames)))


def test_piece_travels_between_processes(films: dict[str, Footage]) -> None:
    piece = pieces(films["uneven.mp4"], Sampling())[1]
    assert pickle.loads(pickle.dumps(piece)) == piece
    error = pickle.loads(
        pickle.dumps(UnreadableError("a/b.mp4", "truncated or damaged", "1.0 of 2.0 s"))
    )
    assert (error.path, error.reason, str(error)) == (
        "a/b.mp4",
        "truncated or damaged",
        "a/b.mp4: truncated or damaged: 1.0 of 2.0 s",
    )


def test_one_opening_serves_pieces_and_estimates(
    films: dict[str, Footage], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    real = decoding.opened
    monkeypatch.setattr(decoding, "opened", lambda path: opened.append(path) or real(path))
    cut = pieces(films["constant.mp4"], Sampling())
    assert sum(piece.frames for piece in cut) == 10
    assert len(opened) == 1


# Slices of videos that are shorter than promised


def cut_short(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    return path


@pytest.fixture(params=["mkv", "mp4"])
def half(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    args = (*H264, "-movflags", "+faststart") if request.param == "mp4" else H264
    return cut_short(film(tmp_path / f"half.{request.param}", TOTAL, 30, *args), 0.55)


def test_data_that_end_early_are_named_once(half: Path) -> None:
    (footage,) = find_footage([str(half)])
    errors: list[UnreadableError] = []
    sampling = Sampling(fps=5)
    whole = list(read_piece(Piece(footage, sampling), lambda error: None))
    (piece,) = pieces(footage, sampling)
    assert contents(list(read_piece(piece, errors.append))) == contents(whole) and whole
    (error,) = errors
    assert error.reason == "truncated or damaged" and "of 10.0 s" in error.detail


def _counting(real: Callable[[Any], bool], calls: list[object]) -> Callable[[Any], bool]:
    def count(self: object) -> bool:
        calls.append(self)
        return real(self)

    return count


# Exactly these frames


@pytest.mark.parametrize("name", ["constant.mp4", "uneven.mkv", "vp8.webm"])
def test_frames_by_number(films: dict[str, Footage], name: str) -> None:
    every = in_one(films[name], Sampling(every=1))
    (taken,) = in_pieces(films[name], Sampling(fps=0.1, every=50, numbers=(120, 7, 8, 0, 7)))
    assert [frame.number for frame in taken] == [0, 7, 8, 120]
    assert contents(taken) == contents([every[number] for number in (0, 7, 8, 120)])


def test_reading_by_number_stops_after_the_last(
    films: dict[str, Footage], monkeypatch: pytest.MonkeyPatch
) -> None:
    grabbed: list = []
    monkeypatch.setattr(Roll, "forward", _counting(Roll.forward, grabbed))
    assert len(in_one(films["constant.mp4"], Sampling(numbers=(2, 10)))) == 2
    assert len(grabbed) == 11


def test_numbers_that_are_not_there_are_named(films: dict[str, Footage]) -> None:
    errors: list[UnreadableError] = []
    frames = list(
        read_frames(films["constant.mp4"], Sampling(numbers=(298, 299, 300, 500)), errors.append)
    )
    assert [frame.number for frame in frames] == [298, 299]
    assert [(error.reason, error.detail) for error in errors] == [
        ("requested frames are missing from the video", "2")
    ]


# Folders of images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Footage:
    folder = tmp_path_factory.mktemp("images")
    for number in range(23):
        cv2.imwrite(str(folder / f"{3 * number}.png"), numbered(3 * number))
    return find_footage([str(folder)])[0]


@pytest.mark.parametrize("size", [1, 4, 23, 500])
@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(every=1), Sampling(every=7), Sampling(numbers=(66, 3, 4))],
    ids=str,
)
def test_pieces_of_a_folder_are_one_reading(
    folder: Footage, size: int, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "PIECE_IMAGES", size)
    parts = in_pieces(folder, sampling)
    numbers = [frame.number for part in parts for frame in part]
    assert len(parts) == -(-23 // size)
    assert numbers == [number_in(frame.image) for part in parts for frame in part]
    assert numbers == (
        [3, 66] if sampling.numbers else list(range(0, 69, 3 * (sampling.every or 1)))
    )
    assert [piece.frames for piece in pieces(folder, sampling)] == [len(part) for part in parts]


# Threads


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted by Linux")
def test_decoding_takes_one_thread(films: dict[str, Footage]) -> None:
    frames = read_frames(films["constant.mp4"], Sampling(every=1), fail)
    before = len(os.listdir("/proc/self/task"))
    next(frames)
    assert len(os.listdir("/proc/self/task")) == before
    frames.close()
