"""Films that are not just pictures one after the other: interlaced, mirrored, trimmed, joined."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from films import H264, ffmpeg, film, number_in, numbered

from handclr_cli.footage import video
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Frame, Sampling, UnreadableError
from handclr_cli.footage.roll import Roll
from handclr_cli.footage.video import pieces, read_frames

EVERY = Sampling(every=1)
FIELDS = ("-vf", "tinterlace=interleave_top,setfield=tff", "-flags", "+ildct+ilme")
PAL = (576, 720)


def read(
    path: Path, sampling: Sampling = EVERY, skipped: int = 0
) -> tuple[list[Frame], list[UnreadableError]]:
    (footage,) = find_footage([str(path)])
    errors: list[UnreadableError] = []
    frames = list(read_frames(footage, sampling, errors.append))
    assert len(errors) == skipped, errors
    return frames, errors


def numbers_in(path: Path, sampling: Sampling = EVERY) -> list[int]:
    return [number_in(frame.image) for frame in read(path, sampling)[0]]


# Two fields in a frame


def bar_at(place: int, size: tuple[int, int]) -> np.ndarray:
    """A bar that goes 8 pixels to the right from picture to picture."""
    picture = np.full((*size, 3), 20, np.uint8)
    picture[:, 8 * place + 16 : 8 * place + 56] = 220
    return picture


@pytest.mark.parametrize(
    ("name", "size", "args"),
    [
        ("a.mkv", (64, 320), (*H264, "-x264-params", "tff=1")),
        ("a.mp4", (64, 320), (*H264, "-x264-params", "tff=1")),
        ("a.mts", (64, 320), (*H264, "-x264-params", "tff=1", "-f", "mpegts")),
        ("a.mpg", (64, 320), ("-c:v", "mpeg2video", "-q:v", "2")),
        ("a.mov", (64, 320), ("-c:v", "prores_ks")),
        ("a.avi", PAL, ("-c:v", "dvvideo", "-pix_fmt", "yuv420p")),
    ],
    ids=["h264 mkv", "h264 mp4", "h264 mts", "mpeg2", "prores", "dv"],
)
def test_interlaced_frames_show_one_moment(
    tmp_path: Path, name: str, size: tuple[int, int], args: tuple[str, ...]
) -> None:
    """The lines of a frame come from two pictures; what is read shows one of them only."""
    pictures = [bar_at(place, size) for place in range(24)]
    path = film(tmp_path / name, pictures, 50, *FIELDS, *args, "-r", "25")
    for sampling, expected in ((EVERY, range(0, 24, 2)), (Sampling(every=5), (0, 10, 20))):
        frames, _ = read(path, sampling)
        assert [frame.number for frame in frames] == [place // 2 for place in expected]
        for frame, place in zip(frames, expected, strict=True):
            light = frame.image[8:-8].mean(axis=2) > 120
            columns = (np.arange(light.shape[1]) + 0.5) * size[1] / light.shape[1]
            middles = (light @ columns) / light.sum(axis=1)
            # Those of the other moment are at 8 pixels from there.
            assert np.abs(middles - (8 * place + 36)).max() < 4


def test_progressive_frames_are_left_as_they_are(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 3, 25, "-c:v", "libx264rgb", "-crf", "0")
    for number, frame in enumerate(read(path)[0]):
        np.testing.assert_array_equal(frame.image, numbered(number))


# How a container says that frames are shown


def with_matrix(path: Path, matrix: tuple[float, float, float, float]) -> Path:
    """Overwrite the display matrix of an MP4's track."""
    data, one = bytearray(path.read_bytes()), 1 << 16
    a, b, c, d = (int(value * one) for value in matrix)
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("matrix", "stored"),
    [
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
    ],
    ids=["left to right", "upside down", "transposed", "transposed the other way"],
)
def test_a_mirrored_film_is_shown_as_it_was(tmp_path: Path, matrix, stored) -> None:
    upright = np.full((96, 64, 3), 40, np.uint8)
    upright[:48, :32], upright[48:, :32] = 230, 130
    path = film(tmp_path / "a.mp4", [np.ascontiguousarray(stored(upright))] * 3, 10, *H264)
    frames, _ = read(with_matrix(path, matrix))
    assert frames[0].image.shape == upright.shape
    assert np.abs(frames[0].image.astype(int) - upright).mean() < 12


@pytest.mark.parametrize(
    ("aspect", "size", "width"),
    [
        ("4/3", (60, 80), 107),
        ("8/9", (48, 144), 128),
        ("1/1", (60, 80), 80),
        ("200/201", (60, 80), 80),
    ],
)
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_pixels_come_out_square(
    tmp_path: Path, container: str, aspect: str, size: tuple[int, int], width: int
) -> None:
    picture = np.zeros((*size, 3), np.uint8)
    picture[:, : size[1] // 2] = 255
    args = ("-vf", f"setsar={aspect}", *H264)
    frames, _ = read(film(tmp_path / f"a.{container}", [picture] * 2, 10, *args))
    assert frames[0].image.shape == (size[0], width, 3)
    assert frames[0].image.mean() == pytest.approx(127, abs=4)


def test_turned_and_not_square(tmp_path: Path) -> None:
    """What is stored is made wider before it is turned, not what is shown."""
    args = ("-vf", "setsar=2/1", *H264)
    path = film(tmp_path / "a.mp4", [np.zeros((40, 60, 3), np.uint8)] * 2, 10, *args)
    frames, _ = read(with_matrix(path, (0, 1, -1, 0)))
    assert frames[0].image.shape == (120, 40, 3)


def test_cover_pictures_and_small_streams_are_not_the_film(tmp_path: Path) -> None:
    large = film(tmp_path / "large.mp4", map(numbered, range(5)), 10, *H264)
    small = film(
        tmp_path / "small.mp4", [numbered(n, (16, 80)) for n in range(500, 505)], 10, *H264
    )
    cover = film(tmp_path / "cover.png", [numbered(999, (640, 800))], 1, "-frames:v", "1")
    both = tmp_path / "both.mp4"
    maps = ("-map", "1", "-map", "0", "-map", "2", "-c", "copy", "-disposition:v:2", "attached_pic")
    ffmpeg("-i", str(large), "-i", str(small), "-i", str(cover), *maps, str(both))
    assert numbers_in(both) == [0, 1, 2, 3, 4]


def test_av1(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libsvtav1", rate=10, options={"preset": "12", "crf": "20"})
        stream.width, stream.height = 160, 64
        pictures = [numbered(number, (64, 160)) for number in range(6)]
        frames = [av.VideoFrame.from_ndarray(picture, "rgb24") for picture in pictures]
        for frame in (*frames, None):
            container.mux(stream.encode(frame))
    assert numbers_in(path) == list(range(6))


# Times


def test_a_trimmed_film_is_whole(tmp_path: Path) -> None:
    """What lies before the edit begins is neither read nor missed."""
    whole = film(tmp_path / "whole.mp4", 100, 10, *H264, "-bf", "0")
    trimmed = tmp_path / "trimmed.mp4"
    ffmpeg("-ss", "3.9", "-i", str(whole), "-c", "copy", str(trimmed))
    frames, _ = read(trimmed)
    assert [number_in(frame.image) for frame in frames] == list(range(39, 100))
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(61) / 10, abs=1e-3)
    assert [frame.number for frame in frames] == list(range(61))


STAMPS = "settb=1/1000,setpts='{}'"
KEPT = ("-fps_mode", "passthrough", "-enc_time_base", "1/1000")


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_one_repeated_stamp_moves_no_other_frame(tmp_path: Path, container: str) -> None:
    """A frame every 100 ms, from the 40th on every second; the 20th has the stamp of the 19th."""
    stamps = STAMPS.format("if(lt(N,40),100*N-100*eq(N,20),4000+1000*(N-40))")
    path = film(tmp_path / f"a.{container}", 60, 10, "-vf", stamps, *KEPT, *H264, "-bf", "0")
    frames, _ = read(path)
    expected = [n / 10 if n < 40 else 4 + (n - 40) for n in range(60)]
    expected[20] = expected[19]
    assert [number_in(frame.image) for frame in frames] == list(range(60))
    assert [frame.time_s for frame in frames] == pytest.approx(expected, abs=2e-3)
    assert frames[20].time_s > frames[19].time_s


def test_high_speed_films_keep_their_clock(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", 90, 3000, *H264)
    frames, _ = read(path)
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(90) / 3000, abs=1e-4)
    assert numbers_in(path, Sampling(fps=100)) == [0, 28, 57, 87]


def joined(folder: Path, offsets: tuple[float, float]) -> Path:
    parts = []
    for number, offset in enumerate(offsets):
        pictures = map(numbered, range(100 * number, 100 * number + 50))
        args = (*H264, "-output_ts_offset", str(offset))
        parts.append(film(folder / f"{number}.ts", pictures, 10, *args).read_bytes())
    path = folder / "joined.ts"
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("offsets", [(0, 0), (2000, 10), (50_000, 3)], ids=str)
def test_joined_transport_streams_lose_nothing(
    tmp_path: Path, offsets: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "SLICE_S", 2.0)
    path = joined(tmp_path, offsets)
    (footage,) = find_footage([str(path)])
    assert len(pieces(footage, Sampling())) == 1
    frames, _ = read(path)
    assert [number_in(frame.image) for frame in frames] == [*range(50), *range(100, 150)]
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(100) / 10, abs=2e-3)
    assert numbers_in(path, Sampling(fps=1)) == [*range(0, 50, 10), *range(100, 150, 10)]


def test_slices_of_a_film_with_a_repeated_stamp_are_one_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "SLICE_S", 2.0)
    stamps = STAMPS.format("100*N-100*eq(mod(N,20),1)")
    path = film(tmp_path / "a.mkv", 100, 10, "-vf", stamps, *KEPT, *H264, "-bf", "0")
    (footage,) = find_footage([str(path)])
    assert len(pieces(footage, Sampling(fps=5))) > 1
    frames, _ = read(path, Sampling(fps=5))
    assert [number_in(frame.image) for frame in frames] == list(range(0, 100, 2))
    assert [frame.time_s for frame in frames] == pytest.approx(np.arange(50) / 5, abs=2e-3)


def test_an_index_that_stands_still_is_no_ground_to_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video, "SLICE_S", 2.0)
    stamps = STAMPS.format("100*N+100*gte(N,20)")
    path = film(tmp_path / "a.mp4", 100, 10, "-vf", stamps, *KEPT, *H264, "-bf", "0")
    assert len(pieces(find_footage([str(path)])[0], Sampling())) > 1
    data = bytearray(path.read_bytes())
    place = data.index(b"stts") + 12
    runs = [struct.unpack_from(">II", data, place + 8 * run) for run in range(3)]
    assert [count for count, _ in runs] == [19, 1, 80]
    struct.pack_into(">I", data, place + 12, 0)
    path.write_bytes(data)
    assert len(pieces(find_footage([str(path)])[0], Sampling())) == 1


# What fails


def test_a_frame_that_cannot_be_converted_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = film(tmp_path / "a.mp4", 12, 10, *H264), Roll.image

    def image(roll: Roll) -> np.ndarray:
        if roll.count in (3, 7):
            raise av.error.ExternalError(1, "no conversion")
        return real(roll)

    monkeypatch.setattr(Roll, "image", image)
    frames, (error,) = read(path, skipped=1)
    assert [frame.number for frame in frames] == [n for n in range(12) if n not in (3, 7)]
    assert (error.reason, error.detail) == ("frames cannot be converted", "3, 7")


def test_playlists_are_not_followed(tmp_path: Path) -> None:
    """A file that is called a film may name others, which are then its frames."""
    film(tmp_path / "other.ts", 5, 10, *H264)
    for name, text in (
        ("hls.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.5,\nother.ts\n#EXT-X-ENDLIST\n"),
        ("concat.mp4", "ffconcat version 1.0\nfile other.ts\n"),
    ):
        (tmp_path / name).write_text(text)
        frames, (error,) = read(tmp_path / name, skipped=1)
        assert frames == [] and error.reason == "cannot be opened as a video"


def test_a_film_of_an_unknown_codec_cannot_be_opened(tmp_path: Path) -> None:
    """FFmpeg lists its stream without a size."""
    data = film(tmp_path / "x.mp4", 5, 10, *H264).read_bytes()
    assert data.count(b"avc1") >= 1 and data.count(b"avcC") == 1
    (tmp_path / "x.mp4").write_bytes(data.replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    frames, (error,) = read(tmp_path / "x.mp4", skipped=1)
    assert frames == [] and error.reason == "cannot be opened as a video"
