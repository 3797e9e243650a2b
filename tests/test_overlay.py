"""Overlays: from dots in a video to crops and back onto the video, measured in pixels of
the video.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from dotted_hands import FPS, SIZE, DotReader, dots, hands_on, picture, write_dotted
from labelled_helpers import pose

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.kinds import FILM_MARK
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import ShardOutput
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Footage, Sampling
from handclr_cli.footage.sources import find_sources, sampling_of
from handclr_cli.hand.film import video_writer
from handclr_cli.hand.placement import Placed, cut_of, placed
from handclr_cli.learning.prediction import predict_crops
from handclr_cli.prediction.overlay import (
    DrawnHand,
    Film,
    draw_hands,
    drawn_hand,
    file_stems,
    pace,
    plan_films,
    write_overlay,
)
from handclr_cli.prediction.predict_job import PredictSettings, _refuse_conflicts

FRAMES, EVERY = 13, 1


@pytest.fixture(scope="module")
def dotted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_dotted(tmp_path_factory.mktemp("dots"), FRAMES, EVERY)


def predicted(index: ShardIndex) -> Placed:
    """What the stand-in model predicts for all crops."""
    relative = pose(np.random.default_rng(0))
    model = DotReader((relative - relative[:1]).astype(np.float32))
    read = partial(cut_of, fov_deg=60.0)
    ((rows, cuts, poses),) = predict_crops(model, index, read, 100, 0, pytest.fail)  # type: ignore[arg-type]
    assert rows == list(range(len(index)))
    return placed(poses.xyz, poses.uv, cuts)


def frames_of(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return frames


@pytest.mark.slow
def test_predictions_come_back_to_the_pixels_of_the_source(dotted: tuple[Path, Path]) -> None:
    index = ShardIndex([str(dotted[1])])
    hands = predicted(index)
    sides = set()
    for row, key in enumerate(index.keys):
        info = index[row].info
        sides.add((info["hand"], info["flipped"]))
        assert np.abs(hands.source2d[row] - dots(info["frame"], info["hand"])).max() < 1.0, key
        # A left hand is one again: x of the camera has the sign of the picture.
        assert (hands.source3d[row, 0, 0] < 0) == (hands.source2d[row, 0, 0] < SIZE[1] / 2)
    assert sides == {("left", True), ("right", False)}


@pytest.mark.slow
def test_the_overlay_plays_every_sampled_frame_with_the_hands_where_they_are(
    dotted: tuple[Path, Path], tmp_path: Path
) -> None:
    video, shard = dotted
    index = ShardIndex([str(shard)])
    points = predicted(index).source2d
    out = tmp_path / "out.mp4"
    (film,) = plan_films(index, str(out), [str(video)])
    hands = [drawn_hand(info, points[row]) for row, info in film.crops.items()]
    assert write_overlay(film.path, film.footage, film.sampling, hands, pytest.fail) == (
        FRAMES,
        len(index),
    )
    capture = cv2.VideoCapture(str(out))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(FPS / EVERY, rel=0.01)
    frames = frames_of(out)
    assert len(frames) == FRAMES and [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    for number, frame in zip(range(0, FRAMES * EVERY, EVERY), frames, strict=True):
        changed = np.abs(frame.astype(int) - picture(number)).max(axis=2) > 90
        for side, half in (("left", np.s_[:, :320]), ("right", np.s_[:, 320:])):
            rows, columns = np.nonzero(changed[half])
            if side not in hands_on(number):
                assert not len(rows)
                continue
            low, high = dots(number, side).min(axis=0), dots(number, side).max(axis=0)
            columns = columns + 320 * (side == "right")
            assert np.abs(np.array([columns.min(), rows.min()]) - low).max() < 12
            assert np.abs(np.array([columns.max(), rows.max()]) - high).max() < 12


def test_left_and_right_hands_are_told_apart_and_lines_grow_with_the_hand() -> None:
    canvas = np.full((400, 400, 3), 128, np.uint8)
    small, large = dots(0, "right") * 0.5, dots(0, "right") - (340, 0)
    drawn = {
        name: draw_hands(canvas, [DrawnHand(0, None, points, left)])
        for name, points, left in (
            ("small", small, False),
            ("large", large, False),
            ("left", large, True),
        )
    }
    assert (canvas == 128).all()
    assert not (drawn["large"] == drawn["left"]).all()
    assert (drawn["large"] == 255).all(axis=2).sum() > 50 and (drawn["left"] == 255).all(
        axis=2
    ).sum() < 50
    areas = {name: (image != 128).any(axis=2).sum() for name, image in drawn.items()}
    assert areas["large"] > 3 * areas["small"]


def test_the_overlay_plays_as_fast_as_the_footage() -> None:
    def hands(fps: float, numbers: list[int]) -> list[DrawnHand]:
        return [DrawnHand(number, number / fps, np.zeros((21, 2)), False) for number in numbers]

    assert pace(hands(30, [0, 15, 40]), Sampling(fps=1.0)) == 1.0
    assert pace(hands(24, [0, 100]), Sampling(fps=60.0)) == pytest.approx(24)
    assert pace(hands(30, [3, 6, 9]), Sampling(every=3)) == pytest.approx(10)
    assert pace([DrawnHand(7, None, np.zeros((21, 2)), False)], Sampling(fps=1.0)) == 10.0


def test_odd_sides_and_other_sizes_fit_into_the_video(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    wide = np.full((20, 120, 3), 200, np.uint8)
    with video_writer(path, 4.0, (63, 41)) as write:
        write(np.full((41, 63, 3), 200, np.uint8))
        write(wide)
    first, second = frames_of(path)
    assert first.shape == (42, 64, 3) and first.min() > 150
    assert second[:10].max() < 60 and second[21, 32].min() > 150


def test_a_video_that_fails_leaves_nothing(tmp_path: Path) -> None:
    older = "....ftypolder"
    (tmp_path / "out.mp4").write_text(older)
    with pytest.raises(RuntimeError), video_writer(tmp_path / "out.mp4", 4.0, (64, 64)) as write:
        write(np.zeros((64, 64, 3), np.uint8))
        raise RuntimeError
    assert [path.read_text() for path in tmp_path.iterdir()] == [older]


def extracted(*names: str, **arguments: float) -> dict[str, object]:
    return provenance("extract", {"fps": 2.0, **arguments}, names)


def test_the_sampling_is_what_extract_was_told() -> None:
    later = {**provenance("keypoints", {}), "history": [extracted("a.mp4")]}
    assert sampling_of([later]) == Sampling(2.0, None)
    assert sampling_of([extracted("a.mp4", every=5)]) == Sampling(2.0, 5)
    assert sampling_of([extracted("a.mp4"), extracted("b.mp4", every=5)]) == Sampling(every=1)
    assert sampling_of([provenance("synth", {})]) == Sampling(every=1)


def test_footage_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Videos are known by their names only, so empty files will do."""
    for name in (
        "here/a.mp4",
        "here/deep/er/a.mp4",
        "here/b.mp4",
        "moved/b.mp4",
        "twice/1/c.mp4",
        "twice/2/c.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)

    def found(video: str, inputs: list[str], named: list[str]) -> str:
        source = find_sources([video], [extracted(*inputs)], named)[video]
        return str(source.files[0].resolve().relative_to(tmp_path.resolve()))

    assert found("here/a.mp4", ["here"], []) == "here/a.mp4"
    assert found("er/a.mp4", ["here"], []) == "here/deep/er/a.mp4"
    assert found("here/b.mp4", ["b.mp4"], []) == "here/b.mp4"
    assert found("gone/b.mp4", ["b.mp4"], ["moved"]) == "moved/b.mp4"
    assert found("gone/b.mp4", ["b.mp4"], ["here", "moved"][:1]) == "here/b.mp4"
    assert found("other/name.mov", ["name.mov"], ["moved/b.mp4"]) == "moved/b.mp4"
    monkeypatch.chdir(tmp_path / "here")
    assert (
        find_sources(["here/b.mp4"], [extracted("b.mp4")], [])["here/b.mp4"].files[0].name
        == "b.mp4"
    )
    with pytest.raises(UsageError, match="no footage gone/b.mp4 from this folder on; name it"):
        find_sources(["gone/b.mp4"], [extracted("b.mp4")], [])
    with pytest.raises(UsageError, match="may both be gone/c.mp4"):
        find_sources(["gone/c.mp4"], [], [str(tmp_path / "twice")])
    with pytest.raises(UsageError, match="footage: there is no footage x/d.mp4 in it"):
        find_sources(["x/d.mp4"], [], [str(tmp_path / "twice")])


def test_overlays_of_several_videos_need_several_names(
    dotted: tuple[Path, Path], tmp_path: Path
) -> None:
    video, shard = dotted
    first = ShardIndex([str(shard)])
    other = tmp_path / "other"
    other.mkdir()
    second_video, second_shard = write_dotted(other, 4)
    index, named = ShardIndex([str(shard), str(second_shard)]), [str(video), str(second_video)]
    with pytest.raises(UsageError, match="of 2 videos; name a folder, or {video}.mp4"):
        plan_films(index, str(tmp_path / "one.mp4"), named)
    heads = [key.split("_")[0] for key in (index.keys[0], index.keys[-1])]
    into = [film.path for film in plan_films(index, str(tmp_path / "films"), named)]
    assert into == [str(tmp_path / "films" / f"{head}.mp4") for head in heads]
    assert [film.path for film in plan_films(index, "x-{video}.mp4", named)] == [
        f"x-{head}.mp4" for head in heads
    ]
    with pytest.raises(UsageError, match="writes MP4"):
        plan_films(first, "out.avi", named)
    clip = video.rename(video.with_suffix(".mp4"))
    with pytest.raises(UsageError, match="is the footage itself"):
        plan_films(first, str(clip), [str(clip)])
    clip.rename(video)


def test_names_of_any_origin_stay_in_the_folder_and_differ() -> None:
    ordinary = ["wild-0-00000-1a2b3c4d", "Küche (1)", "a.b"]
    assert file_stems(ordinary) == ordinary
    hostile = ["../../film", "/etc/passwd", "a/b", "a\\b", "A_B", "..", ".hid", "", "C:x"]
    hostile += ["a\x1b[2J\n\u202e", "x" * 1000, "x" * 999, "ü" * 300, "\udc80"]
    stems = file_stems(hostile)
    assert stems[:9] == [
        *("__.._film", "_etc_passwd", "a_b", "a_b-2", "A_B-3", "_", "_hid", "video", "C_x"),
    ]
    assert len({stem.casefold() for stem in stems}) == len(stems)
    for stem in stems:
        assert stem.isprintable() and len(stem.encode()) <= 210 and "/" not in stem
        assert not stem.startswith(".") and stem


@pytest.mark.parametrize("head", ["../../film", "/{folder}/film", "x/../../film"])
def test_a_shard_chooses_no_file_outside_the_folder(
    head: str, dotted: tuple[Path, Path], tmp_path: Path
) -> None:
    film, shard = tmp_path / "film.mp4", tmp_path / "hostile.tar"
    film.write_bytes(b"the only copy")
    head = head.format(folder=tmp_path)
    with ShardOutput(str(shard), provenance("test", {})) as out:
        for number, sample in enumerate(ShardIndex([str(dotted[1])])):
            key = f"{head}_{number:08d}_l"
            out.write(Sample(key, sample.members))
    for path in (tmp_path / "out" / "films", tmp_path / "out" / "{video}.mp4"):
        path.parent.mkdir(exist_ok=True)
        (planned,) = plan_films(ShardIndex([str(shard)]), str(path), [str(dotted[0])])
        assert Path(planned.path).parent == (path if path.is_dir() else path.parent)
        assert not Path(planned.path).exists() and ".." not in Path(planned.path).parts


def test_no_film_is_drawn_over_an_input_or_another_output(tmp_path: Path) -> None:
    drawn = b"\0\0\0\x20ftypisom" + FILM_MARK
    (tmp_path / "a.mp4").write_bytes(drawn)
    (tmp_path / "b.mp4").hardlink_to(tmp_path / "a.mp4")
    footage = Footage("b.mp4", "b", (tmp_path / "b.mp4",), is_video=True)
    films = [Film(str(tmp_path / "a.mp4"), footage, Sampling(), {})]
    settings = PredictSettings(shards=["crops.tar"], model="m.pt")
    with pytest.raises(UsageError, match=r"is an input of this command") as caught:
        _refuse_conflicts(settings, films)
    assert caught.value.setting == "overlay"
    other = [Film(str(tmp_path / "a.mp4"), replace(footage, files=()), Sampling(), {})]
    for model in (tmp_path / "a.mp4", tmp_path / "b.mp4"):
        with pytest.raises(UsageError, match=r"is an input of this command"):
            _refuse_conflicts(replace(settings, model=str(model)), other)
    with pytest.raises(UsageError, match="the same file is given for two outputs"):
        _refuse_conflicts(replace(settings, output=str(tmp_path / "b.mp4")), other)
    _refuse_conflicts(settings, other)


def test_a_shard_names_no_footage_outside_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "a.mp4").touch()
    monkeypatch.chdir(tmp_path / "here")
    for video, read in ((f"{tmp_path}/a.mp4", "/"), ("../a.mp4", ".."), ("x/../../a.mp4", ".")):
        with pytest.raises(UsageError, match="there is no footage"):
            find_sources([video], [extracted(read, video)], [])


def test_footage_of_another_size_is_refused(dotted: tuple[Path, Path], tmp_path: Path) -> None:
    footage = find_footage([str(dotted[0])])[0]
    hand = DrawnHand(1, 0.1, dots(1, "left"), True, (1280, 720))
    with pytest.raises(
        HandclrError, match=r"frames of 640x480, but the crops were cut from 1280x720"
    ):
        write_overlay(str(tmp_path / "x.mp4"), footage, Sampling(every=1), [hand], pytest.fail)
    assert not list(tmp_path.iterdir())


def test_the_shard_says_what_extract_did(dotted: tuple[Path, Path]) -> None:
    """The stand-in for the landmarker aside, the dots went through the code of extract."""
    sample = ShardIndex([str(dotted[1])])[0]
    info = json.loads(bytes(sample.members["json"]))
    assert info["source_size"] == [SIZE[1], SIZE[0]] and info["hand"] == "left" and info["flipped"]
