"""$ handclr evaluate: labels and predictions paired; the promises of the command in real
subprocesses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from labelled_helpers import (
    CAMERA,
    SIZE,
    TRAINING,
    error_line,
    handclr,
    labelled_sample,
    write_labelled,
)

from handclr_cli.contract import fields
from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import read_npz, write_npz
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.contract.shards import ShardOutput
from handclr_cli.evaluation import crops, predictions
from handclr_cli.evaluation.evaluate_job import EvaluateSettings, run_evaluate
from handclr_cli.evaluation.labels import read_labels
from handclr_cli.evaluation.scoring import (
    compare_evaluations,
    evaluated_arrays,
    score_predictions,
)
from handclr_cli.hand.camera import project
from handclr_cli.report.score_table import print_scores

STAGE = provenance("import freihand", {})
ALIGNMENTS = ["none", "root", "root+bone", "procrustes", "procrustes+reflection"]


def split_sample(number: int, left: bool = False) -> Sample:
    """A sample with its position in a split; a left hand, mirrored, where asked for."""
    sample = labelled_sample(number)
    info = {**sample.info, "index": number, "hand": "left" if left else "right", "flipped": left}
    sample.members[fields.INFO.suffix] = fields.encode_object(info)
    sample.cache.clear()
    return sample


def write_shard(path: Path, samples: list[Sample], record: dict[str, object] = STAGE) -> Path:
    with ShardOutput(str(path), record) as out:
        for sample in samples:
            out.write(sample)
    return path


def write_predictions(path: Path, keys: list[str], hands: np.ndarray) -> Path:
    # As any other program would write them.
    np.savez(path, key=np.array(keys, "S"), keypoints3d=hands.astype("float32"))
    return path


@pytest.fixture
def index(tmp_path: Path) -> ShardIndex:
    return ShardIndex(
        [str(write_shard(tmp_path / "eval.tar", [split_sample(number) for number in range(6)]))]
    )


def test_labels_are_read_as_they_stand(tmp_path: Path) -> None:
    samples = [split_sample(3, left=True), split_sample(0), labelled_sample(1)]
    samples[1].members[fields.VALID.suffix] = fields.encode_array(
        fields.VALID, np.arange(21) % 9 == 0
    )
    del samples[2].members[fields.KEYPOINTS_3D.suffix]
    labels = read_labels(ShardIndex([str(write_shard(tmp_path / "x.tar", samples))]))
    assert labels.rows.tolist() == [0, 1] and labels.position.tolist() == [3, 0]
    assert (
        labels.mirrored.tolist() == labels.left.tolist() == [True, False] and labels.of_both_hands
    )
    assert labels.units.tolist() == [b"unique-0003", b"unique-0000"] and labels.side.tolist() == [
        SIZE,
        SIZE,
    ]
    assert (
        labels.valid.sum(axis=1).tolist() == [21, 3] and labels.have_cameras and labels.seen.all()
    )
    np.testing.assert_array_equal(labels.keypoints3d[0], samples[0].keypoints3d)


@pytest.mark.parametrize("index", [2**63, -2, 1e300, "x", None, [1]])
def test_a_position_that_is_none_is_one_line(index: object, tmp_path: Path) -> None:
    sample = split_sample(0)
    sample.members[fields.INFO.suffix] = fields.encode_object({**sample.info, "index": index})
    path = write_shard(tmp_path / "x.tar", [Sample(sample.key, sample.members)])
    with pytest.raises(HandclrError, match="'index' in its JSON is no position in a split"):
        read_labels(ShardIndex([str(path)]))


def test_a_camera_that_is_none_is_one_line(tmp_path: Path) -> None:
    sample = split_sample(0)
    camera = fields.encode_array(fields.INTRINSICS, np.zeros((3, 3)))
    sample.members[fields.INTRINSICS.suffix] = camera
    path = write_shard(tmp_path / "x.tar", [Sample(sample.key, sample.members)])
    with pytest.raises(HandclrError, match=r"bad intrinsics\.npy: cannot be inverted"):
        read_labels(ShardIndex([str(path)]))


def test_units_come_from_the_field_that_is_named(index: ShardIndex) -> None:
    assert np.unique(read_labels(index, "video").units).tolist() == [
        b"video0-v0",
        b"video1-v0",
    ]
    assert read_labels(index, "hand").units.tolist() == [b"right"] * 6
    with pytest.raises(HandclrError, match="no 'subject' in its JSON"):
        read_labels(index, "subject")


def test_placed_hands_are_where_the_labels_are(index: ShardIndex) -> None:
    labels = read_labels(index)
    hands = labels.keypoints3d.astype(np.float64)
    bones = np.linalg.norm(hands[:, 9] - hands[:, 0], axis=-1)
    units = (hands - hands[:, :1]) / bones[:, None, None]
    seen = project(hands, CAMERA) / SIZE
    true = predictions.place_predictions(
        predictions.scaled(units * 0.08, labels, "true", 0.08),
        seen,
        labels,
        predictions.SCALES["true"],
    )
    np.testing.assert_allclose(true.keypoints3d, hands, atol=1e-6)
    # By a mean bone the hand is as much farther away as it is too large.
    mean = predictions.place_predictions(
        predictions.scaled(units * 0.08, labels, "training", 0.08), seen, labels, "as trained"
    )
    np.testing.assert_allclose(mean.keypoints3d, hands * (0.08 / bones)[:, None, None], atol=1e-6)
    assert mean.placed and "true bone" in true.scale
    report = score_predictions(true, labels, None, ["dexycb"], 0)
    assert (
        report["model"]["none"]["mpjpe_mm"] < 1e-2
        and report["official"]["dexycb"]["absolute"]["mpjpe_mm"] < 1e-2
    )


def test_the_depth_of_placed_hands_has_a_spread(index: ShardIndex, tmp_path: Path) -> None:
    labels, rng = read_labels(index), np.random.default_rng(0)
    hands = labels.keypoints3d.astype(np.float64)
    hands[:, 1:] += rng.normal(0, 0.008, hands[:, 1:].shape)
    seen = project(labels.keypoints3d.astype(np.float64), CAMERA) / SIZE
    seen += rng.normal(0, 0.02, seen.shape)
    found = predictions.place_predictions(hands, seen, labels, "as trained")
    assert found.depth_sigma is not None
    report = score_predictions(found, labels, None, [], 0)["depth_sigma"]
    off = np.abs(found.keypoints3d[:, 0, 2] - labels.keypoints3d[:, 0, 2])
    assert report["median_mm"] == pytest.approx(1000 * np.median(found.depth_sigma), abs=0.01)
    assert report["wrists_within"] == (off <= found.depth_sigma).mean() > 0.5
    # It goes with the hands into a file and out of it, in whatever order.
    arrays = {name: value[::-1] for name, value in evaluated_arrays(found, labels).items()}
    write_npz(str(tmp_path / "p.npz"), "predictions", arrays, STAGE)
    again = predictions.read_predictions(str(tmp_path / "p.npz"), labels)
    assert again.depth_sigma is not None
    np.testing.assert_array_equal(again.depth_sigma, found.depth_sigma)
    # What fits nowhere has none, and is not counted as near.
    nowhere = replace(found, depth_sigma=np.full(6, np.inf, np.float32))
    report = score_predictions(nowhere, labels, None, [], 0)["depth_sigma"]
    assert report["median_mm"] is None and report["wrists_within"] is None
    assert "depth_sigma" not in score_predictions(
        replace(found, depth_sigma=None), labels, None, [], 0
    )


def test_without_intrinsics_there_is_no_absolute_error(index: ShardIndex) -> None:
    labels = read_labels(index)
    camera = labels.intrinsics.copy()
    camera[2] = np.nan
    found = predictions.place_predictions(
        labels.keypoints3d, np.zeros((6, 21, 2)), replace(labels, intrinsics=camera), "as labelled"
    )
    assert not found.placed and found.position == "none: 1 of 6 samples have no intrinsics.npy"
    assert list(score_predictions(found, labels, None, [], 0)["model"]) == ALIGNMENTS[1:]


def test_both_alignments_are_named_wherever_either_is_printed(
    index: ShardIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = read_labels(index)
    # A fan of fingers, mirrored across its plane: a rotation does not undo that.
    mirrored = labels.keypoints3d.astype(np.float64) * [1, 1, -1]
    mirrored += 2 * (labels.keypoints3d[:, :1] * [0, 0, 1])
    predicted = predictions.Predicted(mirrored, True, "", "")
    scores = score_predictions(predicted, labels, None, ["freihand", "dexycb"], 0)
    model, official = scores["model"], scores["official"]
    assert model["procrustes"]["mpjpe_mm"] > 1
    assert model["procrustes+reflection"]["mpjpe_mm"] < 1e-3
    assert official["freihand"]["xyz_al_mean3d"] < 1e-4
    assert official["dexycb"]["procrustes"]["mpjpe_mm"] < 1e-3
    assert list(scores["official_definitions"]) == ["freihand", "dexycb"]
    for spread in (
        {"median_mm": 12.34, "wrists_within": 0.5},
        {"median_mm": None, "wrists_within": None},
    ):
        print_scores({**scores, "crop": "", "depth_sigma": spread})
    shown = " ".join(capsys.readouterr().out.split())
    for name in ("freihand", "dexycb"):
        assert "procrustes+reflection" in scores["official_definitions"][name]
        assert scores["official_definitions"][name] in shown
    assert len(re.findall(r"procrustes [^a-z]*\+reflection", shown)) == 2
    assert "standard deviation 12.3 mm (median); the true distance of 50% of the wrists" in shown
    assert "no hand fits a place before the camera" in shown


def test_predictions_of_any_order_are_paired_by_key(index: ShardIndex, tmp_path: Path) -> None:
    labels = read_labels(index)
    order = [4, 2, 0, 5, 1, 3]
    path = str(tmp_path / "theirs.npz")
    keys = [index.keys[row] for row in order]
    write_predictions(Path(path), [*keys, "stranger"], labels.keypoints3d[[*order, 0]])
    found = predictions.read_predictions(path, labels)
    np.testing.assert_array_equal(found.keypoints3d, labels.keypoints3d)
    assert found.placed and found.unused == 1 and found.origin is None
    write_predictions(Path(path), keys[:4], labels.keypoints3d[order[:4]])
    with pytest.raises(
        HandclrError,
        match=f"2 of 6 labelled samples have no prediction, the first is {index.keys[1]}",
    ):
        predictions.read_predictions(path, labels)
    write_predictions(Path(path), [*keys, keys[0]], labels.keypoints3d[[*order, 0]])
    with pytest.raises(HandclrError, match=f"key {keys[0]} appears twice"):
        predictions.read_predictions(path, labels)
    write_predictions(
        Path(path), keys, labels.keypoints3d[order] - labels.keypoints3d[order][:, :1]
    )
    assert not predictions.read_predictions(path, labels).placed


def test_missing_labels_and_both_hands_bring_assemblyhands_protocol(tmp_path: Path) -> None:
    samples = [split_sample(0), split_sample(1, left=True)]
    labels = read_labels(ShardIndex([str(write_shard(tmp_path / "x.tar", samples))]))
    predicted = predictions.Predicted(labels.keypoints3d + 0.01, True, "", "")
    scores = score_predictions(predicted, labels, None, [], 0)["official"]["assemblyhands"]
    assert scores == {
        "mpjpe_mm": pytest.approx(0, abs=1e-4),
        "right_mm": scores["right_mm"],
        "left_mm": scores["left_mm"],
    }
    right = replace(labels, left=np.zeros(2, bool))
    assert "official" not in score_predictions(predicted, right, None, [], 0)
    valid = np.ones((2, 21), bool)
    valid[1, 4] = False
    report = score_predictions(predicted, replace(right, valid=valid), None, [], 0)
    assert (
        report["joints_without_labels"] == 1
        and report["official"]["assemblyhands"]["left_mm"] is None
    )


def test_compared_files_must_be_of_the_same_samples(index: ShardIndex, tmp_path: Path) -> None:
    labels = read_labels(index)
    rng = np.random.default_rng(0)
    off = rng.normal(0, 0.01, labels.keypoints3d.shape)
    for name, factor in (("a", 2), ("b", 1)):
        predicted = predictions.Predicted(labels.keypoints3d + factor * off, True, "", "")
        found = evaluated_arrays(predicted, labels)
        rows = slice(None, None, -1 if name == "b" else 1)
        found = {key: value[rows] for key, value in found.items()}
        write_npz(str(tmp_path / f"{name}.npz"), "predictions", found, STAGE)
    first, second = (str(tmp_path / f"{name}.npz") for name in "ab")
    report = compare_evaluations(*predictions.read_pair(first, second), 0)
    assert report["interval"]["units"] == 6
    assert list(report["comparison"]) == ALIGNMENTS
    row = report["comparison"]["root"]
    assert (
        row["b_minus_a_mm"] == pytest.approx(-row["a_mpjpe_mm"] / 2, rel=1e-4)
        and row["resamples_with_b_better"] == 1
    )
    assert row["b_minus_a_interval"][0] < row["b_minus_a_mm"] < row["b_minus_a_interval"][1] < 0
    half = {key: value[:4] for key, value in found.items()}
    write_npz(second, "predictions", half, STAGE)
    with pytest.raises(HandclrError, match="2 keys are in the first only, 0 in the second only"):
        predictions.read_pair(first, second)
    write_npz(
        second, "predictions", {**found, "truth3d": found["truth3d"] + np.float32(0.01)}, STAGE
    )
    with pytest.raises(HandclrError, match="other labels under the same keys"):
        predictions.read_pair(first, second)
    write_predictions(Path(second), index.keys, labels.keypoints3d)
    with pytest.raises(HandclrError, match="holds no truth3d; write it with handclr evaluate"):
        predictions.read_pair(first, second)


def test_the_crop_is_named_by_the_history_of_the_shards() -> None:
    def kind(*stages: str) -> str:
        *past, last = ({"stage": stage} for stage in stages)
        return crops.crop_kind([{**last, "history": past}])

    assert kind("import dexycb") == kind("synth labelled", "keypoints") == "ground truth"
    assert kind("extract", "keypoints") == "detected"
    assert kind("extract", "import freihand", "join") == "ground truth and detected"
    assert kind("other") == crops.crop_kind([]) == "unknown"
    again = {
        "stage": "evaluate",
        "arguments": {"crop": "detected"},
        "history": [{"stage": "import freihand"}],
    }
    assert crops.crop_kind([again]) == "detected"


def test_detected_crops_give_points_of_the_crop_in_the_shard(tmp_path: Path) -> None:
    samples = [split_sample(0), split_sample(1)]
    del samples[1].members[fields.KEYPOINTS_2D.suffix]
    record = {**provenance("keypoints", {}), "history": [STAGE]}
    index = ShardIndex([str(write_shard(tmp_path / "x.tar", samples, record))])
    labels = read_labels(index)
    assert "found in 1 of 2" in crops.detected_kind(index.origins, labels)
    with pytest.raises(HandclrError, match="^crop: .* through handclr keypoints first"):
        crops.detected_kind([STAGE], labels)
    given = samples[0].keypoints2d
    low, high = given.min(axis=0), given.max(axis=0)
    seen: list[np.ndarray] = []

    def model(images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        seen.extend(images)
        return np.zeros((len(images), 21, 3)), np.full((len(images), 21, 2), [0.5, 1.0])

    ((_, uv),) = crops.predict_detected(model, index, labels.rows, 8)
    assert [crop.shape for crop in seen] == [(SIZE, SIZE, 3)] * 2
    np.testing.assert_array_equal(seen[1], index[1].image)
    middle, side = (low + high) / 2, 1.5 * (high - low).max()
    np.testing.assert_allclose(uv[0, 0] * SIZE, middle + [0, side / 2], atol=1.5)
    np.testing.assert_allclose(uv[1, 0], [0.5, 1.0])


class Recalled:
    """A model that knows the labels, in hands of another size."""

    def __init__(self, hands: np.ndarray) -> None:
        rooted = hands - hands[:, :1]
        self.hands = 2 * rooted
        self.seen = project(hands.astype(np.float64), CAMERA) / SIZE
        bone = float(np.linalg.norm(self.hands[:, 9], axis=-1).mean())
        self.mean = SimpleNamespace(pose=self.hands.mean(axis=0), bone=bone)

    def __call__(self, images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("the crops of the shards were asked for")

    def predict(
        self, index: ShardIndex, rows: np.ndarray, batch: int, workers: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, len(rows), batch):
            part = rows[first : first + batch]
            yield self.hands[part], self.seen[part]


def test_anything_that_predicts_is_a_model(index: ShardIndex, tmp_path: Path) -> None:
    labels = read_labels(index)
    shards, output = [str(tmp_path / "eval.tar")], str(tmp_path / "a.npz")
    settings = EvaluateSettings(shards=shards, bone="true", batch=4, workers=0, output=output)
    with pytest.raises(UsageError, match="one of the two"):
        run_evaluate(settings)
    done = run_evaluate(settings, Recalled(labels.keypoints3d))
    assert done.report["model"]["root+bone"]["mpjpe_mm"] < 1e-3
    named = {"no alignment", "procrustes", "procrustes+reflection", "mean pose, root+bone"}
    assert set(done.curves()) >= named
    assert done.report["provenance"]["arguments"] == {
        "resample_by": "sample",
        "bone": "true",
        "crop": "given",
    }
    given = EvaluateSettings(shards=shards, predictions=output)
    again = run_evaluate(given).report
    assert again["provenance"]["arguments"] == {"resample_by": "sample"}
    assert again["model"]["root"]["mpjpe_mm"] == pytest.approx(
        done.report["model"]["root"]["mpjpe_mm"], abs=1e-3
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    shard = write_labelled(folder / "train.tar", 8)
    size = (*TRAINING, "--batch", 4, "--epochs", 1)
    return Path(handclr("finetune", shard, "--run", folder / "run", *size).stdout.decode().strip())


@pytest.mark.slow
def test_evaluate_names_its_definitions_and_the_mean_pose(model: Path, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "eval.tar", [split_sample(number) for number in range(5)])
    output, plot = tmp_path / "a.npz", tmp_path / "pck.png"
    official = ("--freihand", tmp_path / "official", "--dexycb", tmp_path / "dexycb.txt")
    done = handclr(
        "evaluate", shard, "--model", model, "-o", output, "--plot", plot, *official, "--workers", 0
    )
    report = json.loads(done.stdout)
    assert (
        report["samples"] == 5
        and report["crop"] == "ground truth"
        and "training set" in report["scale"]
    )
    assert list(report["model"]) == ALIGNMENTS
    assert report["interval"]["unit"] == "sample" and report["interval"]["units"] == 5
    assert all(
        low < high
        for low, high in (block["mpjpe_mm_interval"] for block in report["model"].values())
    )

    def rooted(number: int) -> np.ndarray:
        keypoints = labelled_sample(number).keypoints3d.astype(np.float64)
        return keypoints - keypoints[:1]

    mean = np.mean([rooted(number) for number in range(8)], axis=0)
    truth = np.stack([rooted(number) for number in range(5)])
    expected = 1000 * np.linalg.norm(mean - truth, axis=-1).mean()
    assert report["mean_pose_of_training_set"]["root"]["mpjpe_mm"] == pytest.approx(
        expected, rel=1e-4
    )
    assert plot.read_bytes().startswith(b"\x89PNG")
    found, origin = read_npz(str(output), "predictions")
    assert set(found) == {"key", "keypoints3d", "depth_sigma", "truth3d"} | {
        "error_mm",
        "valid",
        "unit",
    }
    assert found["error_mm"].mean() == pytest.approx(report["model"]["root"]["mpjpe_mm"], rel=1e-5)
    assert origin is not None and origin["history"] and origin["arguments"]["bone"] == "training"
    lines = (tmp_path / "official" / "scores.txt").read_text().splitlines()
    assert (
        len(lines) == 12
        and lines[0] == f"xyz_mean3d: {report['official']['freihand']['xyz_mean3d']:f}"
    )
    assert b"warning: --freihand: 5 poses" in done.stderr
    assert len((tmp_path / "dexycb.txt").read_text().splitlines()) == 5
    # What handclr predict says of the same crops has the same errors.
    handclr("predict", shard, "--model", model, "-o", tmp_path / "p.npz", "--workers", 0)
    again = json.loads(handclr("evaluate", shard, "--predictions", tmp_path / "p.npz", "-q").stdout)
    assert again["crop"] == "ground truth" and "mean_pose_of_training_set" not in again
    for alignment, block in report["model"].items():
        assert again["model"][alignment]["mpjpe_mm"] == pytest.approx(block["mpjpe_mm"], rel=1e-5)
    piped = ("evaluate", "-", "--predictions", tmp_path / "p.npz", "--table", "-q")
    table = handclr(*piped, stdin=shard.read_bytes())
    assert (
        "procrustes" in table.stdout.decode()
        and "5 of 'sample'" in table.stdout.decode()
        and not table.stderr
    )
    assert (
        "b - a" in handclr("evaluate", "--compare", output, output, "--table", "-q").stdout.decode()
    )


@pytest.mark.slow
def test_what_cannot_be_is_one_line(model: Path, tmp_path: Path) -> None:
    shard = write_labelled(tmp_path / "eval.tar", 3)
    assert "cannot read" in error_line(
        handclr("evaluate", shard, "--model", tmp_path / "none.pt", code=1)
    )
    state = model.with_name("last.pt")
    assert "not a pose model" in error_line(handclr("evaluate", shard, "--model", state, code=1))
    wrong = write_predictions(tmp_path / "wrong.npz", ["other"], np.zeros((1, 21, 3)))
    assert "3 of 3 labelled samples" in error_line(
        handclr("evaluate", shard, "--predictions", wrong, code=1)
    )
    bare = tmp_path / "bare.tar"
    with ShardOutput(str(bare), provenance("test", {})) as out:
        sample = labelled_sample(0)
        del sample.members["keypoints3d.npy"]
        out.write(sample)
    assert "handclr import" in error_line(handclr("evaluate", bare, "--predictions", wrong, code=1))
    two = ("--model", model, "--predictions", wrong)
    assert "name one of" in error_line(handclr("evaluate", shard, *two, code=2))
    for option in (("--model", model), ("--resample-by", "video"), ("--crop", "detected")):
        both = ("--compare", shard, shard, *option)
        line = error_line(handclr("evaluate", *both, code=2))
        assert f"alone, without {option[0]}" in line
