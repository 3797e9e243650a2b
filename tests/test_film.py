"""Films: times, sizes, what is left when one fails, and that browsers play them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from browser import Browser, browser, needs_browser
from filter_contract import small_disk

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.kinds import FILM_MARK
from handclr_cli.hand.film import Encoding, encoded, film_writer, require_encoder


def plain(value: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    return np.full((size[1], size[0], 3), value, np.uint8)


def frames_of(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        found = list(container.decode(video=0))
        return [frame.to_ndarray(format="rgb24") for frame in found], [
            frame.time for frame in found
        ]


def test_each_frame_has_its_own_time(tmp_path: Path) -> None:
    path, wanted = tmp_path / "a.mp4", [0.0, 0.04, 0.05, 0.3, 0.3001, 2.0]
    with film_writer(path, (64, 48)) as write:
        for number, time_s in enumerate(wanted):
            write(plain(40 * number), time_s)
    frames, times = frames_of(path)
    np.testing.assert_allclose(times, wanted, atol=2e-5)
    assert [round(float(frame.mean()) / 40) for frame in frames] == list(range(6))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
    data = path.read_bytes()
    # The index comes first, so that a film plays while it is loaded.
    assert data.index(b"moov") < data.index(b"mdat") and data.endswith(FILM_MARK)


def test_times_that_do_not_increase_are_put_right_behind(tmp_path: Path) -> None:
    with film_writer(tmp_path / "a.mp4", (64, 48)) as write:
        for time_s in (0.0, 0.1, 0.1, 0.05, 0.2):
            write(plain(99), time_s)
    _, times = frames_of(tmp_path / "a.mp4")
    assert len(times) == 5 and all(np.diff(times) > 0) and times[-1] == pytest.approx(0.2)


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        with film_writer(tmp_path / name, (320, 240)) as write:
            for number in range(30):
                noise = np.random.default_rng(number).integers(0, 256, (240, 320, 3), np.uint8)
                write(noise, number / 30)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_odd_sides_and_other_sizes_fit_into_the_film(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    with film_writer(path, (63, 41)) as write:
        write(plain(200, (63, 41)), 0.0)
        write(plain(200, (120, 20)), 0.1)
    (first, second), _ = frames_of(path)
    assert first.shape == (42, 64, 3) and first.min() > 150
    assert second[:10].max() < 60 and second[21, 32].min() > 150


def test_a_film_that_fails_leaves_nothing(tmp_path: Path) -> None:
    older = b"\0\0\0\x20ftypisom" + FILM_MARK
    (tmp_path / "out.mp4").write_bytes(older)
    with pytest.raises(RuntimeError), film_writer(tmp_path / "out.mp4", (64, 48)) as write:
        write(plain(0), 0.0)
        raise RuntimeError
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [older]
    (tmp_path / "theirs.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    with (
        pytest.raises(UsageError, match="is not a film that handclr drew"),
        film_writer(tmp_path / "theirs.mp4", (64, 48)),
    ):
        pass
    with pytest.raises(HandclrError, match="not a file"), film_writer(tmp_path, (64, 48)):
        pass


def test_colours_are_kept_and_told(tmp_path: Path) -> None:
    """Players guess by the size of a film where it does not say what its colours are."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24], image[24:] = (0, 200, 60), (255, 0, 0)
    with film_writer(tmp_path / "a.mp4", (64, 48)) as write:
        write(image, 0.0)
        write(image, 1.5)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_range) == (1, 1, 1)
        # The last frame is shown as long as the one before.
        assert container.duration == 3_000_000
    frames, _ = frames_of(tmp_path / "a.mp4")
    assert np.abs(frames[0].astype(int) - image)[[8, 40]].max() < 6


def test_a_build_without_the_encoder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(HandclrError, match="PyAV has no libx264") as caught:
        require_encoder()
    assert "\n" not in str(caught.value)


def test_a_film_without_frames_is_one(tmp_path: Path) -> None:
    with film_writer(tmp_path / "a.mp4", (64, 48)):
        pass
    assert (tmp_path / "a.mp4").exists()


@pytest.mark.parametrize("count", [3, 60])
def test_a_full_disk_is_told_in_one_line(tmp_path: Path, count: int) -> None:
    """Whether it is full at once, or when the film is closed."""
    with small_disk(tmp_path / "small", "40k") as disk:
        with (
            pytest.raises(HandclrError, match=r"cannot write .*a.mp4: No space left") as caught,
            film_writer(disk / "a.mp4", (320, 240)) as write,
        ):
            for number in range(count):
                noise = np.random.default_rng(number).integers(0, 256, (240, 320, 3), np.uint8)
                write(noise, number / 30)
        assert "\n" not in str(caught.value) and not list(disk.iterdir())


def test_key_frames_are_as_close_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with encoded(str(path), (64, 48), Encoding(28, 15)) as write:
        for number in range(60):
            write(plain(number), number / 30)
    with av.open(str(path)) as container:
        keys = [frame.time for frame in container.decode(video=0) if frame.key_frame]
    assert len(keys) >= 4 and max(np.diff(keys)) <= 0.5001


@needs_browser
@pytest.mark.slow
def test_a_film_plays_in_a_browser(tmp_path: Path) -> None:
    path = tmp_path / "a film.mp4"
    with film_writer(path, (321, 241)) as write:
        for number in range(30):
            write(plain(8 * number, (321, 241)), number / 30)
    shown = "document.querySelector('video')"
    with browser() as page:
        page.open(path)
        page.wait_until(f"{shown}.readyState >= 2")
        assert page.value(f"[{shown}.videoWidth, {shown}.videoHeight]") == [322, 242]
        assert page.value(f"{shown}.duration") == pytest.approx(1.0, abs=0.04)
        page.value(f"void ({shown}.pause(), {shown}.currentTime = 0.51)")
        page.wait_until(f"!{shown}.seeking && {shown}.readyState >= 2")
        # What was drawn before the seek may be on the screen a little longer.
        until = time.monotonic() + 10
        while shade(page) != pytest.approx([8 * 15] * 3, abs=6):
            assert time.monotonic() < until, shade(page)
        assert page.errors == []


def shade(page: Browser) -> list[int]:
    """The colour in the middle of what a page shows; BGR."""
    shot = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    return shot[400, 640].tolist()


_ENDLESS = """
import sys, numpy as np
from handclr_cli.hand.film import film_writer
import signal
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
with film_writer(sys.argv[1], (640, 480)) as write:
    number = 0
    while True:
        write(np.full((480, 640, 3), number % 256, np.uint8), number / 30)
        number += 1
        print(number, flush=True)
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ENDLESS, str(tmp_path / "a.mp4")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as writer:
        assert writer.stdout is not None
        for _ in range(5):
            writer.stdout.readline()
        time.sleep(0.2)
        writer.send_signal(signal.SIGTERM)
        assert writer.wait(30) == 143
    assert not list(tmp_path.iterdir())
