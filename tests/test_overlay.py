"""Overlays: from dots in a video to crops and back onto the video, measured in pixels of
the video.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from dotted_hands import FPS, SIZE, DotReader, dots, hands_on, picture, write_dotted
from drawn_hand import write_video
from labelled_helpers import pose
from posed_helpers import crop_of, hands_of

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.kinds import FILM_MARK
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import ShardOutput
from handclr_cli.footage.finding import find_footage
from handclr_cli.footage.frames import Footage, Sampling
from handclr_cli.footage.sources import find_sources, sampling_of
from handclr_cli.hand.placement import Placed, cut_of, placed
from handclr_cli.learning.prediction import predict_crops
from handclr_cli.prediction.crops import columns_of, read_crop
from handclr_cli.prediction.films import (
    Drawn,
    Film,
    file_stems,
    footage_of,
    make_film,
    plan_films,
)
from handclr_cli.prediction.hands import PosedHands
from handclr_cli.prediction.overlay import DrawnHand, draw_hands
from handclr_cli.prediction.page import HandsPage
from handclr_cli.prediction.predict_job import _refuse_conflicts
from handclr_cli.prediction.settings import PredictSettings

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


def frames_of(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """The frames of a film, uint8 RGB, and their times."""
    with av.open(str(path)) as container:
        found = list(container.decode(video=0))
        return [frame.to_ndarray(format="rgb24") for frame in found], [
            frame.time for frame in found
        ]


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


def hands_in(shard: Path) -> tuple[ShardIndex, PosedHands]:
    index = ShardIndex([str(shard)])
    crops = [read_crop(sample, 60.0) for sample in index]
    return index, PosedHands(**columns_of(crops), placed=predicted(index))


def plan(shard: ShardIndex, named: list[str], **paths: str) -> list[Film]:
    return plan_films(
        footage_of(shard, named),
        sampling_of(shard.origins),
        paths.get("overlay"),
        paths.get("page"),
    )


def changed_from(frame: np.ndarray, number: int) -> np.ndarray:
    return np.abs(frame.astype(int) - picture(number)).max(axis=2) > 90


@pytest.mark.slow
def test_the_overlay_plays_every_sampled_frame_with_the_hands_where_they_are(
    dotted: tuple[Path, Path], tmp_path: Path
) -> None:
    video, shard = dotted
    index, hands = hands_in(shard)
    out = tmp_path / "out.mp4"
    (film,) = plan(index, [str(video)], overlay=str(out))
    done = make_film(film, hands, [], pytest.fail)
    assert done == Drawn([str(out)], FRAMES, len(index), len(index), str(video))
    frames, times = frames_of(out)
    assert len(frames) == FRAMES and [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    np.testing.assert_allclose(times, np.arange(FRAMES) * EVERY / FPS, atol=1e-3)
    for number, frame in zip(range(0, FRAMES * EVERY, EVERY), frames, strict=True):
        changed = changed_from(frame, number)
        for side, half in (("left", np.s_[:, :320]), ("right", np.s_[:, 320:])):
            rows, columns = np.nonzero(changed[half])
            if side not in hands_on(number):
                assert not len(rows)
                continue
            columns = columns + 320 * (side == "right")
            # Beside the wrist, above or below the others, is the label.
            inside = dots(number, side)
            low, high = inside.min(axis=0), inside.max(axis=0)
            assert abs(columns.max() - high[0]) < 40 and abs(columns.min() - low[0]) < 40
            assert np.all(changed[tuple(np.rint(inside[:, ::-1] - 0.5).astype(int).T)].mean() > 0.5)


def test_left_and_right_hands_are_told_apart_and_lines_grow_with_the_hand() -> None:
    canvas = np.full((400, 400, 3), 128, np.uint8)
    small, large = dots(0, "right") * 0.5, dots(0, "right") - (340, 0)
    drawn = {
        name: draw_hands(canvas, [DrawnHand(points, left)])
        for name, points, left in (
            ("small", small, False),
            ("large", large, False),
            ("left", large, True),
        )
    }
    assert (canvas == 128).all()
    assert not (drawn["large"] == drawn["left"]).all()
    white = {name: (image == 255).all(axis=2).sum() for name, image in drawn.items()}
    assert white["large"] > 3 * white["left"]
    areas = {name: (image != 128).any(axis=2).sum() for name, image in drawn.items()}
    assert areas["large"] > 2 * areas["small"]


def test_a_label_stays_in_the_picture_and_off_the_fingers() -> None:
    points = dots(0, "right") - (340, 0)
    for corner in ((0.0, 0.0), (-200.0, -150.0), (300.0, 320.0)):
        canvas = np.full((400, 400, 3), 128, np.uint8)
        bare = draw_hands(canvas, [DrawnHand(points + corner, None)])
        labelled = draw_hands(canvas, [DrawnHand(points + corner, None, 12)])
        rows, columns = np.nonzero((bare != labelled).any(axis=2))
        assert len(rows) > 100
        away = np.column_stack([columns, rows]) - (points + corner)[:1]
        if corner == (0.0, 0.0):
            assert np.linalg.norm(away, axis=1).min() > 2


@pytest.mark.parametrize("size", [(320, 240), (3840, 2160)])
def test_a_label_leaves_small_hands_to_be_seen(size: tuple[int, int]) -> None:
    """Two hands of a twentieth of the picture, one right above the other."""
    first = (dots(0, "right") - (380, 90)) * size[0] / 5000 + np.array(size) / 2
    hands = [DrawnHand(first, False, 1), DrawnHand(first + (0, size[1] / 16), True, 12)]
    canvas = np.full((size[1], size[0], 3), 128, np.uint8)
    bare = draw_hands(canvas, [replace(hand, left=None, track=0) for hand in hands])
    skeletons = (bare != 128).any(axis=2)
    unnamed = draw_hands(canvas, [replace(hand, left=None) for hand in hands])
    covered = (unnamed != bare).any(axis=2)
    assert (covered & skeletons).sum() < 0.05 * skeletons.sum()
    assert covered.sum() > 500


@pytest.mark.parametrize("page", [False, True])
def test_images_of_several_sizes_are_fitted_with_their_hands(
    page: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, size in enumerate([(480, 640), (240, 320), (640, 480)]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((*size, 3), 90, np.uint8))
    (footage,) = find_footage([str(tmp_path)])
    pages: list[HandsPage] = []
    monkeypatch.setattr(
        "handclr_cli.prediction.films.write_page", lambda path, it: pages.append(it)
    )
    sizes = [(640, 480), (320, 240), (480, 640)]
    hands = hands_of([crop_of(number)._replace(size=size) for number, size in enumerate(sizes)])
    out, kind = tmp_path / "out.mp4", footage.name
    paths = (None, "x.html") if page else (str(out), None)
    done = make_film(Film(footage, Sampling(every=1), kind, *paths), hands, [], pytest.fail)
    assert (done.frames, done.hands) == (3, 3)
    if page:
        moved, seen = pages[0].hands.placed.source2d, hands.placed.source2d
        np.testing.assert_allclose(moved[0], seen[0])
        np.testing.assert_allclose(moved[1], 2 * seen[1], rtol=1e-5)
        np.testing.assert_allclose(moved[2], 0.75 * seen[2] + (140, 0), rtol=1e-5)
    else:
        frames, times = frames_of(out)
        assert frames[2].shape == (480, 640, 3) and frames[2][:, :130].max() < 30
        np.testing.assert_allclose(times, [0, 0.1, 0.2], atol=1e-4)


def test_a_film_begins_with_its_first_frame(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.avi", [picture(frame) for frame in range(8)], FPS, "MJPG")
    (footage,) = find_footage([str(video)])
    sampling, out = Sampling(numbers=(3, 4, 7)), tmp_path / "out.mp4"
    make_film(Film(footage, sampling, "a", str(out), None), hands_of([]), [], pytest.fail)
    np.testing.assert_allclose(frames_of(out)[1], [0, 0.1, 0.4], atol=1e-3)


def test_no_crops_make_no_film(tmp_path: Path) -> None:
    assert plan_films({}, Sampling(), str(tmp_path / "a.mp4"), str(tmp_path / "a.html")) == []


def test_a_video_without_a_frame_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "clip.mp4"
    broken.write_bytes(b"film")
    footage = find_footage([str(broken)])[0]
    film = Film(footage, Sampling(every=1), footage.name, str(tmp_path / "out.mp4"), None)
    with pytest.raises(HandclrError, match=r"clip.mp4: no frame can be decoded"):
        make_film(film, hands_of([]), [], lambda error: None)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


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
    with pytest.raises(
        UsageError, match="footage: there is no footage gone/b.mp4 from this folder on; name it"
    ):
        find_sources(["gone/b.mp4"], [extracted("b.mp4")], [])
    monkeypatch.chdir(tmp_path / "here" / "deep")  # below the folder that extract read
    assert find_sources(["er/a.mp4"], [extracted("here")], [])["er/a.mp4"].is_video
    monkeypatch.chdir(tmp_path / "here" / "deep" / "er")
    assert find_sources(["er/a.mp4"], [extracted("here")], [])["er/a.mp4"].is_video
    with pytest.raises(UsageError, match="may both be gone/c.mp4"):
        find_sources(["gone/c.mp4"], [], [str(tmp_path / "twice")])
    with pytest.raises(UsageError, match="footage: there is no footage x/d.mp4 in it"):
        find_sources(["x/d.mp4"], [], [str(tmp_path / "twice")])


def test_films_of_several_videos_need_several_names(
    dotted: tuple[Path, Path], tmp_path: Path
) -> None:
    """They have the names of the files that were found, and differ where these do not."""
    video, shard = dotted
    first = ShardIndex([str(shard)])
    (tmp_path / "other").mkdir()
    second_video, second_shard = write_dotted(tmp_path / "other", 4)
    index, named = ShardIndex([str(shard), str(second_shard)]), [str(video), str(second_video)]
    for kind, suffix in (("overlay", ".mp4"), ("page", ".html")):
        with pytest.raises(UsageError, match="2 videos; name a folder, or {video}" + suffix):
            plan(index, named, **{kind: str(tmp_path / f"one{suffix}")})
        folder = str(tmp_path / kind)
        into = [getattr(film, kind) for film in plan(index, named, **{kind: folder})]
        assert into == [f"{folder}/dots{suffix}", f"{folder}/dots-2{suffix}"]
        into = [getattr(film, kind) for film in plan(index, named, **{kind: "x-{video}" + suffix})]
        assert into == [f"x-dots{suffix}", f"x-dots-2{suffix}"]
        with pytest.raises(UsageError, match=f"name a file {suffix}, or a folder"):
            plan(first, named[:1], **{kind: "out.avi"})


def test_films_of_images_have_the_name_of_their_folder(tmp_path: Path) -> None:
    sources = {}
    for name, count in (("walk", 2), ("one", 1)):
        files = tuple(tmp_path / name / f"{number}.png" for number in range(count))
        sources[name] = Footage(name, name, files, is_video=False)
    into = [film.overlay for film in plan_films(sources, Sampling(), str(tmp_path), None)]
    assert into == [str(tmp_path / "walk.mp4"), str(tmp_path / "0.mp4")]


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
        (planned,) = plan(ShardIndex([str(shard)]), [str(dotted[0])], overlay=str(path))
        into = Path(str(planned.overlay))
        assert into == (path if path.is_dir() else path.parent) / "dots.mp4"


def test_no_film_is_drawn_over_an_input_or_another_output(tmp_path: Path) -> None:
    drawn = b"\0\0\0\x20ftypisom" + FILM_MARK
    (tmp_path / "a.mp4").write_bytes(drawn)
    (tmp_path / "b.mp4").hardlink_to(tmp_path / "a.mp4")
    footage = Footage("b.mp4", "b", (tmp_path / "b.mp4",), is_video=True)
    film = Film(footage, Sampling(), "b.mp4", str(tmp_path / "a.mp4"), None)
    settings = PredictSettings(inputs=["crops.tar"], model="m.pt")
    source = SimpleNamespace(files=settings.inputs)
    with pytest.raises(UsageError, match=r"is an input of this command") as caught:
        _refuse_conflicts(settings, source, [film])  # type: ignore[arg-type]
    assert caught.value.setting == "overlay"
    other = replace(film, footage=replace(footage, files=()))
    for model in (tmp_path / "a.mp4", tmp_path / "b.mp4"):
        with pytest.raises(UsageError, match=r"is an input of this command"):
            _refuse_conflicts(replace(settings, model=str(model)), source, [other])  # type: ignore[arg-type]
    twin = replace(settings, output=str(tmp_path / "b.mp4"), form="npz")
    with pytest.raises(UsageError, match="the same file is given for two outputs"):
        _refuse_conflicts(twin, source, [other])  # type: ignore[arg-type]
    _refuse_conflicts(settings, source, [other])  # type: ignore[arg-type]
    (tmp_path / "poses.csv.json").write_text("notes")
    beside = replace(settings, output=str(tmp_path / "poses.csv"))
    with pytest.raises(UsageError, match=r"poses.csv.json exists and is not JSON"):
        _refuse_conflicts(beside, source, [])  # type: ignore[arg-type]


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
    film = Film(footage, Sampling(every=1), footage.name, str(tmp_path / "x.mp4"), None)
    hands = hands_of([crop_of(1)._replace(size=(1280, 720)), crop_of(2)])
    with pytest.raises(
        HandclrError, match=r"frames of 640x480, but the crops were cut from 1280x720"
    ):
        make_film(film, hands, [], pytest.fail)
    assert not list(tmp_path.iterdir())


def test_the_shard_says_what_extract_did(dotted: tuple[Path, Path]) -> None:
    """The stand-in for the landmarker aside, the dots went through the code of extract."""
    sample = ShardIndex([str(dotted[1])])[0]
    info = json.loads(bytes(sample.members["json"]))
    assert info["source_size"] == [SIZE[1], SIZE[0]] and info["hand"] == "left" and info["flipped"]


def test_footage_is_found_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nested footage, and videos with the same file name, as extract names them."""
    nested, first, second = "sub/dir/clips/a.mp4", "a/x/clip.mp4", "b/x/clip.mp4"
    for name in (nested, first, second, "moved/z/clip.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)

    def found(videos: list[str], named: list[str]) -> list[str]:
        sources = find_sources(videos, [extracted("a.mp4")], named)
        return [str(sources[video].files[0]) for video in videos]

    assert found(["clips/a.mp4"], []) == [nested]
    assert found([first, second], []) == found([first, second], ["a", "b"]) == [first, second]
    assert found(["x/clip.mp4", first], []) == [second, first]
    with pytest.raises(UsageError, match="may be both p/clip.mp4 and q/clip.mp4; name the other"):
        find_sources(["p/clip.mp4", "q/clip.mp4"], [], ["moved"])
