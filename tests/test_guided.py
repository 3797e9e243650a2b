"""Models that are told what the landmarker found: what goes in, what is learnt, what comes out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled_helpers import CAMERA, SIZE, error_line, handclr, labelled_sample
from shard_helpers import write_shard
from torch import Tensor

from handclr_cli.contract import fields
from handclr_cli.contract.errors import UsageError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.sample import Sample
from handclr_cli.evaluation.crops import predict_detected
from handclr_cli.footage.frames import Hand
from handclr_cli.footage.world_poses import WorldPoses
from handclr_cli.hand.camera import crop_camera, crop_turns, project, turned
from handclr_cli.hand.square import square_box
from handclr_cli.learning.finetune_job import FinetuneSettings, run_finetune
from handclr_cli.learning.finetuning import PoseDataset, collate_labelled, pose_augmentation
from handclr_cli.learning.ground_truth import PoseTruth, pose_truth
from handclr_cli.learning.guide import Guide
from handclr_cli.learning.guided import Guided
from handclr_cli.learning.posemodel import load_model
from handclr_cli.learning.store import CropStore
from handclr_cli.learning.training_labels import read_training_labels
from handclr_cli.prediction.guided import GuidedModel

CHANNELS = 8


def looked_at(number: int, posed: bool = True, found: bool = True) -> Sample:
    """A labelled sample after `handclr keypoints`: its 2D keypoints are the landmarker's."""
    sample = labelled_sample(number)
    pose = sample.keypoints3d - sample.keypoints3d[0]
    points = sample.keypoints2d + (2, -1)
    del sample.members[fields.KEYPOINTS_2D.suffix]
    if found:
        members = {fields.KEYPOINTS_2D: points, fields.WORLD_3D: 1.1 * pose}
        sample.members |= {
            field.suffix: fields.encode_array(field, value) for field, value in members.items()
        }
    if not posed:
        for field in (fields.KEYPOINTS_3D, fields.INTRINSICS):
            del sample.members[field.suffix]
    return sample


def index_of(path: Path, samples: list[Sample]) -> ShardIndex:
    return ShardIndex([str(write_shard(path / "hands.tar", samples))])


def test_a_crops_own_camera_looks_through_its_middle() -> None:
    """Whatever lies along its axis is in the middle of the crop, and it is turned no further."""
    cameras = np.array(
        [CAMERA, CAMERA + [[0, 0, 50], [0, 0, -90], [0, 0, 0]], np.full((3, 3), np.nan)]
    )
    turns = crop_turns(cameras, np.full(3, float(SIZE)))
    ahead = turned(np.tile([0.0, 0.0, 0.7], (3, 1, 1)), np.swapaxes(turns, 1, 2))
    for camera, point in zip(cameras[:2], ahead[:2], strict=True):
        np.testing.assert_allclose(project(point, camera), [[SIZE / 2, SIZE / 2]], atol=1e-9)
    np.testing.assert_allclose(turns[2], np.eye(3))
    np.testing.assert_allclose(
        turns @ np.swapaxes(turns, 1, 2), np.tile(np.eye(3), (3, 1, 1)), atol=1e-12
    )
    assert np.linalg.det(turns) == pytest.approx(np.ones(3))
    # A turn about an axis in the picture's plane has a symmetric upper block.
    np.testing.assert_allclose(turns[:, 0, 1], turns[:, 1, 0], atol=1e-12)


def test_where_a_crop_was_cut_does_not_change_what_is_learnt(tmp_path: Path) -> None:
    """The same picture of a hand, by a camera that looks past it, has the same labels."""
    straight, aside = labelled_sample(0), labelled_sample(0)
    turn = crop_turns((CAMERA + [[0, 0, 40], [0, 0, 25], [0, 0, 0]])[None], np.array([64.0]))[0]
    camera = CAMERA @ turn
    camera = camera / camera[2, 2]
    moved = straight.keypoints3d.astype(np.float64) @ turn
    for field, value in ((fields.KEYPOINTS_3D, moved), (fields.INTRINSICS, CAMERA @ turn)):
        aside.members[field.suffix] = fields.encode_array(field, value)
    first, second = (
        read_training_labels(index_of(tmp_path / name, [sample])).keypoints3d
        for name, sample in (("a", straight), ("b", aside))
        if not (tmp_path / name).mkdir()
    )
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_labels_of_crops_that_were_looked_at(tmp_path: Path) -> None:
    """The truth is where the 3D labels are seen; the landmarker's points are what it is told."""
    plain = labelled_sample(0)
    samples = [looked_at(0), looked_at(1, found=False), looked_at(2, posed=False)]
    labels = read_training_labels(index_of(tmp_path, samples), flat=True)
    np.testing.assert_allclose(labels.keypoints2d[0] * SIZE, plain.keypoints2d, atol=1e-4)
    np.testing.assert_allclose(labels.guide2d[0] * SIZE, plain.keypoints2d + (2, -1), atol=1e-4)
    assert labels.posed.tolist() == [True, True, False]
    assert labels.guided.tolist() == [True, False, True]
    assert [hand is None for hand in labels.hands()] == [False, True, False]
    np.testing.assert_allclose(labels.keypoints2d[2], labels.guide2d[2])
    assert read_training_labels(index_of(tmp_path, samples)).rows.tolist() == [0, 1]


def test_a_guide_says_nothing_of_place_and_size() -> None:
    random = np.random.default_rng(0)
    points, world = random.normal(size=(21, 2)), random.normal(size=(21, 3))
    one = Guide.of([(points, world)], 1).scaled()
    other = Guide.of([(3 * points + 5, 2 * world - 1)], 1).scaled()
    for at in (0, 3):
        torch.testing.assert_close(one[at], other[at])
    assert one[3][0, 0].abs().max() == 0 and one[3][0, 9].norm() == pytest.approx(1)
    for part in Guide.nothing(2, torch.device("cpu")).scaled():
        assert torch.isfinite(part).all()


def hands(n: int, size: int = 64) -> tuple[PoseTruth, Guide]:
    generator = torch.Generator().manual_seed(0)
    uv = 8 + (size - 16) * torch.rand(n, 21, 2, generator=generator)
    xyz = 0.05 * torch.randn(n, 21, 3, generator=generator)
    world = xyz + 0.01 * torch.randn(n, 21, 3, generator=generator)
    return pose_truth(uv, xyz, size), Guide(uv + 1, world, torch.arange(n) % 2 == 0)


def test_only_crops_with_landmarks_are_read_with_their_help() -> None:
    torch.manual_seed(0)
    head = Guided(CHANNELS).eval()
    features, (_, guide) = torch.randn(4, CHANNELS, 2, 2), hands(4)
    helped, alone = head.read(head(features, guide)), head.read(head(features))
    for with_help, without in zip(helped, alone, strict=True):
        assert torch.equal(with_help[1::2], without[1::2])
        assert not torch.isclose(with_help[::2], without[::2]).all()
    # Nothing is learnt yet: what comes out is what it was told.
    torch.testing.assert_close(helped[1][::2], guide.points[::2])


def test_crops_without_landmarks_teach_the_second_regression_nothing() -> None:
    torch.manual_seed(0)
    head = Guided(CHANNELS)
    truth, guide = hands(4)
    outputs = head(torch.randn(4, CHANNELS, 2, 2), guide)
    parts: list[Tensor] = [*outputs.alone, *outputs.helped]
    for part in parts:
        part.retain_grad()
    losses = head.loss(outputs, truth)
    losses["total"].backward()
    assert set(losses) == {"total", "location", "uv", "helped_location", "helped_uv"}
    for part in parts[:2]:
        assert part.grad is not None and (part.grad.abs().amax(dim=(1, 2)) > 0).all()
    for part in parts[2:]:
        assert part.grad is not None
        assert (part.grad.abs().amax(dim=(1, 2)) > 0).tolist() == [True, False, True, False]


def test_what_the_landmarker_labelled_does_not_confirm_it() -> None:
    head, (_, guide) = Guided(CHANNELS), hands(2)
    uv, xyz = guide.points.clone(), torch.randn(2, 21, 3)
    truth = pose_truth(uv, xyz, 64, posed=torch.zeros(2, dtype=torch.bool))
    losses = head.loss(head(torch.randn(2, CHANNELS, 2, 2), guide), truth)
    assert losses["helped_uv"] == losses["helped_location"] == losses["location"] == 0
    assert losses["uv"] > 0


def test_what_has_no_3d_labels_costs_no_3d(tmp_path: Path) -> None:
    uv, xyz = torch.full((2, 21, 2), 20.0), torch.randn(2, 21, 3)
    truth = pose_truth(uv, xyz, 64, posed=torch.tensor([True, False]))
    assert truth.valid.all(dim=1).tolist() == [True, False]
    assert truth.visible.all() and truth.location[1].abs().max() == 0


def test_a_mix_shows_all_crops_with_3d_and_the_next_of_the_others(tmp_path: Path) -> None:
    samples = [looked_at(n, posed=n < 3) for n in range(8)]
    labels = read_training_labels(index_of(tmp_path, samples), flat=True)
    index = ShardIndex([str(tmp_path / "hands.tar")])
    data = PoseDataset(CropStore(index, 64), labels, pose_augmentation(32, 90.0), 0, flat=2)
    assert len(data) == 5
    epochs = [[data[epoch, place].row for place in range(5)] for epoch in range(5)]
    assert all(rows[:3] == [0, 1, 2] for rows in epochs)
    others = [row for rows in epochs for row in rows[3:]]
    assert sorted(others[:5]) == sorted(others[5:]) == [3, 4, 5, 6, 7]
    batch = collate_labelled([data[0, place] for place in range(5)])
    assert batch.posed.tolist() == [True, True, True, False, False]


def train(tmp_path: Path, **settings: object) -> tuple[Path, Path]:
    """A guided model of one short training, and the shard that it was trained on."""
    samples = [looked_at(n, posed=n < 6, found=n != 1) for n in range(10)]
    shard = write_shard(tmp_path / "hands.tar", samples)
    how = {"arch": "resnet18", "head": "guided", "size": 32, "batch": 4, "epochs": 1, "mix": 0.25}
    where = {"shards": [str(shard)], "run": str(tmp_path / "run"), "workers": 0, "device": "cpu"}
    return run_finetune(FinetuneSettings(**{**where, **how, **settings})).weights, shard


@pytest.mark.slow
def test_a_guided_model_is_trained_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it is told is what the shard holds, and a crop without is seen alone."""
    weights, shard = train(tmp_path)
    said = "guided (5 with landmarks), 6 of 6 labelled crops and 4 with 2D keypoints alone"
    assert said in capsys.readouterr().err
    model, index = load_model(weights), ShardIndex([str(shard)])
    assert model.is_guided and model.own_axes
    run = json.loads(handclr("inspect", weights.parent, "--json").stdout)["items"][0]
    assert run["complete"] and run["steps"] == run["steps_planned"] == 2
    rows = np.arange(len(index))
    told = [
        np.concatenate(part)
        for part in zip(*GuidedModel(model, WorldPoses()).predict(index, rows, 3, 0), strict=True)
    ]
    alone = [np.concatenate(part) for part in zip(*model.predict(index, rows, 3, 0), strict=True)]
    assert told[0].shape == (10, 21, 3) and told[1].shape == (10, 21, 2)
    same = np.isclose(told[0], alone[0], atol=1e-5).all(axis=(1, 2))
    assert same.tolist() == [n == 1 for n in range(10)]
    pair = model([index[0].image], [(index[0].keypoints2d / SIZE, index[0].world3d)])
    np.testing.assert_allclose(pair.xyz[0], told[0][0], atol=1e-5)
    with pytest.raises(UsageError, match="2D keypoints alone"):
        plain = write_shard(tmp_path / "plain.tar", [labelled_sample(n) for n in range(4)])
        train(tmp_path, shards=[str(plain)], run=str(tmp_path / "other"))
    with pytest.raises(
        UsageError, match="guided: is told what the landmarker found.*none with 3D labels"
    ):
        train(tmp_path, shards=[str(plain)], run=str(tmp_path / "other"), mix=0)


def test_landmarks_of_crops_without_3d_labels_correct_nothing(tmp_path: Path) -> None:
    """Not refused, the second regression would stay as it began."""
    samples = [labelled_sample(n) for n in range(4)] + [looked_at(n, posed=False) for n in (4, 5)]
    shards = [str(write_shard(tmp_path / "unseen.tar", samples))]
    with pytest.raises(UsageError, match="none with 3D labels has that"):
        train(tmp_path, shards=shards, run=str(tmp_path / "other"), mix=0.25)
    assert not (tmp_path / "other").exists()


def test_crops_that_are_cut_again_are_told_and_turned(tmp_path: Path) -> None:
    """A model that gives the same hand of each cut gives it along that cut's own axes."""
    index = index_of(tmp_path, [looked_at(0), looked_at(1, found=False)])
    hand = np.random.default_rng(0).normal(size=(21, 3))

    class Same:
        own_axes, takes_landmarks = True, True

        def __call__(self, images: list, hands: list) -> tuple[np.ndarray, np.ndarray]:
            self.told = hands
            return np.stack([hand] * len(images)), np.full((len(images), 21, 2), 0.5)

    model = Same()
    ((hands, _),) = predict_detected(model, index, np.arange(2), 8)
    points, box = index[0].keypoints2d, square_box(index[0].keypoints2d, 1.5)
    np.testing.assert_allclose(model.told[0][0] * (box[2] - box[0]) + box[:2], points, atol=1e-4)
    assert model.told[1] is None
    camera = crop_camera(CAMERA, box, SIZE)
    whole, part = crop_turns(np.array([CAMERA, camera]), np.full(2, float(SIZE)))
    np.testing.assert_allclose(turned(hands[:1], whole.T[None]), turned(hand[None], part.T[None]))
    np.testing.assert_allclose(hands[1], hand)


@pytest.mark.slow
def test_the_commands_tell_a_guided_model_what_crops_hold(tmp_path: Path) -> None:
    weights, shard = train(tmp_path)
    errors, words = [], ("--model", weights, "--workers", "0")
    for options in ([], ["--alone"]):
        report = json.loads(handclr("evaluate", shard, *words, *options).stdout)
        assert report["provenance"]["arguments"].get("alone") == (True if options else None)
        errors.append(report["model"]["root"]["mpjpe_mm"])
        handclr("predict", shard, *words, "-o", tmp_path / f"poses{len(options)}.npz", *options)
    assert errors[0] != errors[1]
    first, second = (np.load(tmp_path / f"poses{n}.npz")["keypoints3d"] for n in (0, 1))
    assert first.shape == second.shape and not np.allclose(first, second)


def test_without_mediapipe_crops_that_hold_no_landmarks_are_seen_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    index = index_of(tmp_path, [looked_at(0), labelled_sample(1)])
    told = GuidedModel(None, WorldPoses())  # type: ignore[arg-type]
    found = [hand for _, hand in told.find(index)]
    assert isinstance(found[0], Hand) and found[1] is None
    assert "1 crop without landmarks predicted from the picture alone" in capsys.readouterr().err


def test_landmarks_alone_are_no_model(tmp_path: Path) -> None:
    for command in ("evaluate", "predict"):
        line = error_line(handclr(command, "x.tar", "--alone", "--model", "mediapipe", code=2))
        assert "--alone" in line


def test_a_mix_is_a_share(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="share"):
        run_finetune(FinetuneSettings(shards=["-"], mix=1.0))
