"""What a sample does not say is not assumed: hand, mirroring, unit."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from labelled_helpers import labelled_sample
from shard_helpers import crop, crops, jpeg, write_shard

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.fields import (
    KEYPOINTS_2D,
    WORLD_3D,
    encode_array,
    encode_object,
    legible,
)
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.pairs import PairCrops, Pairs
from handclr_cli.contract.sample import Sample
from handclr_cli.evaluation.evaluate_job import EvaluateSettings, run_evaluate
from handclr_cli.evaluation.labels import read_labels
from handclr_cli.footage.frames import Sampling
from handclr_cli.footage.sources import sampling_of
from handclr_cli.hand.placement import cut_of
from handclr_cli.hand.plausible import pixel_keypoints
from handclr_cli.prediction.crops import read_crop
from handclr_cli.prediction.films import footage_of
from handclr_cli.prediction.overlay import DrawnHand, draw_hands, label_of
from handclr_cli.report.pairs_page import _tiles, pairs_page
from handclr_cli.similarity.pose_reading import read_poses
from handclr_cli.similarity.pose_store import PoseStore
from handclr_cli.work.skips import Skips

BOX = [10, 10, 74, 74]


def told(key: str, **info: object) -> Sample:
    return Sample(key, {"jpg": jpeg(100, 64), "json": encode_object(info)})


@pytest.mark.parametrize(
    ("key", "info", "hand", "flipped"),
    [
        ("x", {}, None, None),
        ("v_00000001_l", {}, "left", True),
        ("v_00000001_r", {}, "right", False),
        ("x", {"hand": "left"}, "left", True),
        ("x", {"hand": "right"}, "right", False),
        ("x", {"flipped": False}, None, False),
        ("x", {"hand": "left", "flipped": False}, "left", False),
        ("v_00000001_r", {"hand": "left"}, "left", True),
        ("x", {"hand": None}, None, None),
        ("x", {"hand": "both"}, None, None),
    ],
)
def test_hand_and_mirroring(
    key: str, info: dict[str, object], hand: str | None, flipped: bool | None
) -> None:
    """Crops show right hands: one of a left hand was mirrored, whether or not it says so."""
    sample = told(key, **info)
    assert (sample.hand, sample.flipped) == (hand, flipped)


def test_a_crop_with_a_box_was_mirrored_as_its_hand_says() -> None:
    cuts = [cut_of(told("x", box=BOX, **more), 60.0) for more in ({"hand": "left"}, {})]
    assert [(cut.flipped, cut.told) for cut in cuts] == [(True, True), (False, False)]
    own = cut_of(told("v_00000001_l"), 60.0)  # its own source, which shows what it shows
    assert (own.flipped, own.told) == (False, True)


def test_a_hand_of_unknown_side_has_no_letter() -> None:
    canvas = np.full((200, 200, 3), 128, np.uint8)
    points = np.random.default_rng(0).uniform(20, 180, (21, 2))
    drawn = {left: draw_hands(canvas, [DrawnHand(points, left)]) for left in (True, False, None)}
    assert not (drawn[None] == drawn[False]).all() and (drawn[None] != 128).any()
    labels = [label_of(DrawnHand(points, left, 3)) for left in (True, False, None)]
    assert labels == ["L 3", "R 3", "3"] and label_of(DrawnHand(points, None)) == ""


@pytest.mark.parametrize(
    ("info", "hand"),
    [
        ({"flipped": True}, "left"),
        ({"flipped": False}, "right"),
        ({}, ""),
        ({"hand": "left"}, "left"),
    ],
)
def test_a_prediction_is_of_the_side_that_the_crop_says(info: dict[str, object], hand: str) -> None:
    crop = read_crop(told("x", box=BOX, **info), 60.0)
    assert (crop.hand, crop.video, crop.frame, crop.track) == (hand, "", -1, None)


@pytest.mark.parametrize(
    "info",
    [
        {"frame": -1, "time_s": "soon", "score": True, "track": 1.5},
        {"frame": True, "time_s": [1], "score": None, "track": -3},
        {"frame": 10**12, "time_s": {}, "score": "high", "track": "7"},
    ],
)
def test_what_is_no_number_is_unknown(info: dict[str, object]) -> None:
    crop = read_crop(told("x", box=BOX, **info), 60.0)
    assert (crop.frame, crop.track) == (-1, None)
    assert math.isnan(crop.time_s) and math.isnan(crop.score)


def test_crops_that_cannot_be_drawn_on_footage_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"film")
    where = {"video": "clip.mp4", "box": BOX, "hand": "left"}
    samples = [told("a", frame=1, **where), told("b", **where), told("c", frame=1, box=BOX)]
    samples.append(told("clip_00000002_l", **where))  # its key says it
    index = ShardIndex([str(write_shard(tmp_path / "x.tar", samples))])
    assert list(footage_of(index, [str(tmp_path / "clip.mp4")])) == ["clip.mp4"]
    assert "2 crops of 4 do not say which frame of which video" in capsys.readouterr().err


def test_hands_of_unknown_side_are_neither_left_nor_right(tmp_path: Path) -> None:
    samples = [labelled_sample(number) for number in range(4)]
    for number, sample in enumerate(samples):
        sample.key, sample.members["json"] = f"x{number}", b"{}"
        sample.members["valid.npy"] = _valid(20)
    shard = str(write_shard(tmp_path / "x.tar", samples))
    labels = read_labels(ShardIndex([shard]))
    assert not labels.sided.any() and not labels.of_both_hands
    truth = tmp_path / "p.npz"
    np.savez(truth, key=labels.keys, keypoints3d=labels.keypoints3d)
    settings = EvaluateSettings(shards=[shard], predictions=str(truth))
    assert "official" not in run_evaluate(settings).report
    known = [Sample(f"v_{n:08d}_l", one.members) for n, one in enumerate(samples)]
    labels = read_labels(ShardIndex([str(write_shard(tmp_path / "y.tar", known))]))
    assert labels.sided.all() and labels.left.all() and labels.mirrored.all()


def test_dexycbs_results_need_the_side_of_each_hand(tmp_path: Path) -> None:
    samples = [labelled_sample(number) for number in range(4)]
    for number, sample in enumerate(samples):
        sample.key, sample.members["json"] = f"x{number}", encode_object({"index": number})
    shard = str(write_shard(tmp_path / "x.tar", samples))
    labels, truth = read_labels(ShardIndex([shard])), tmp_path / "p.npz"
    np.savez(truth, key=labels.keys, keypoints3d=labels.keypoints3d)
    out = tmp_path / "results.txt"
    settings = EvaluateSettings(shards=[shard], predictions=str(truth), dexycb=str(out))
    with pytest.raises(HandclrError, match="^dexycb: 4 of 4 samples do not say their hand"):
        run_evaluate(settings)
    assert not out.exists()


def _valid(count: int) -> bytes:
    from handclr_cli.contract.fields import VALID

    return encode_array(VALID, np.arange(21) < count)


def test_keypoints_in_shares_of_the_crop_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = crop("cellar").keypoints2d / 16
    samples = [*crops(), crop("cellar", points=shares)]
    shard = str(write_shard(tmp_path / "x.tar", samples))
    with pytest.raises(HandclrError, match="sample cellar_00000000_r: keypoints2d.npy is in sh"):
        pixel_keypoints(ShardIndex([shard])[6])
    assert read_poses([shard], PoseStore()).skipped == 1
    assert "is in shares of the side of the crop, not in pixels; skipped" in capsys.readouterr().err
    nothing = encode_array(KEYPOINTS_2D, np.zeros((21, 2)))
    assert not pixel_keypoints(crop(members={"keypoints2d.npy": nothing})).any()


def test_a_damaged_crop_costs_its_row_of_a_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = crops(frames=2)
    samples[1].members["jpg"] = b"junk"
    index = ShardIndex([str(write_shard(tmp_path / "x.tar", samples))])
    keys = np.array(index.keys, "S")
    video, positive = np.array([0, 0, 1, 1]), np.array([[2], [3], [0], [1]])
    pairs = Pairs(keys, video, keys, video, positive, np.ones((4, 1), np.float32))
    page = pairs_page(pairs, PairCrops(index, np.arange(4), np.arange(4)), "best", 4, 0)
    assert page.ndim == 3
    said = capsys.readouterr().err
    assert said.count("sample attic_00000001_r: bad jpg: not an image; not drawn") == 2


def test_positives_keep_their_ranks_beside_one_that_has_no_crop(tmp_path: Path) -> None:
    index = ShardIndex([str(write_shard(tmp_path / "x.tar", crops(frames=2)))])
    keys, video = np.array(index.keys, "S"), np.arange(4)
    positive, distance = np.array([[1, 2, 3]] * 4), np.full((4, 3), 0.5, np.float32)
    there = PairCrops(index, np.arange(4), np.array([0, 1, -1, 3]))
    tiles = _tiles(Pairs(keys, video, keys, video, positive, distance), 0, there)
    assert [tile.caption[:2] for tile in tiles] == ["at", "1:", "3:"]


def test_names_that_are_no_text_stay_apart() -> None:
    names = [os.fsdecode(name) for name in (b"caf\xe9.mp4", b"caf\xe8.mp4", "café.mp4".encode())]
    assert [*map(legible, names)] == ["caf\\xe9.mp4", "caf\\xe8.mp4", "café.mp4"]


def test_boxes_say_which_frames_were_looked_at() -> None:
    """Their frame rate is that of no look."""
    past = {"stage": "extract", "arguments": {"fps": 1.0}}
    assert sampling_of([past]) == Sampling(1.0)
    assert sampling_of([{**past, "detections": {}}]) == Sampling(every=1)


def test_damaged_landmarks_are_not_taken_for_none(tmp_path: Path) -> None:
    samples = [labelled_sample(number) for number in range(3)]
    world = encode_array(WORLD_3D, np.zeros((21, 3)))
    for sample, data in zip(samples, (world, world[:100]), strict=False):
        sample.members["world3d.npy"] = data
    index = ShardIndex([str(write_shard(tmp_path / "x.tar", samples))])
    skips = Skips()
    assert read_labels(index, skips=skips).rows.tolist() == [0, 2] and skips.count == 1
    assert len(read_labels(index, seen=False)) == 3  # predictions are not made of them
