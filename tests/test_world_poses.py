"""MediaPipe's world landmarks as a baseline of evaluate."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from labelled_helpers import SIZE, error_line, handclr, labelled_sample
from shard_helpers import write_shard

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.fields import KEYPOINTS_2D, WORLD_3D, encode_array
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import read_npz
from handclr_cli.contract.sample import Sample
from handclr_cli.evaluation.evaluate_job import EvaluateSettings, run_evaluate
from handclr_cli.evaluation.models import filled
from handclr_cli.footage.model_file import NETWORKS
from handclr_cli.footage.world_poses import WorldPoses


def seen(number: int, scale: float = 1.0) -> Sample:
    """A labelled crop whose world landmarks are its label, in a size of their own."""
    sample = labelled_sample(number)
    relative = sample.keypoints3d - sample.keypoints3d[:1]
    sample.members[WORLD_3D.suffix] = encode_array(WORLD_3D, scale * relative)
    return sample


def baseline(shard: Path, **settings: object) -> dict[str, object]:
    asked = EvaluateSettings(shards=[str(shard)], model="mediapipe", **settings)  # type: ignore[arg-type]
    return run_evaluate(asked, WorldPoses()).report


def test_what_crops_hold_is_measured_without_looking(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [seen(number, 0.5) for number in range(5)])
    report = baseline(shard, output=str(tmp_path / "a.npz"))
    scores = report["model"]
    assert scores["root+bone"]["mpjpe_mm"] < 1e-3 < 20 < scores["root"]["mpjpe_mm"]  # type: ignore[index]
    assert report["scale"] == "metres as the landmarker estimates them in each crop"
    assert report["hands_found"]["samples"] == 5  # type: ignore[index]
    assert "mean_pose_of_training_set" not in report
    # Half the size at half the distance is seen in the same place.
    arrays, meta = read_npz(str(tmp_path / "a.npz"), "predictions")
    assert arrays["keypoints3d"][0, 0, 2] == pytest.approx(arrays["truth3d"][0, 0, 2] / 2, rel=0.02)
    assert meta is not None and meta["arguments"] == {"resample_by": "sample"}


def test_crops_without_a_hand_stay_in_the_figures() -> None:
    hands, seen = np.full((4, 21, 3), np.nan), np.full((4, 21, 2), np.nan)
    rng = np.random.default_rng(0)
    hands[1:3], seen[1:3] = rng.normal(size=(2, 21, 3)), rng.uniform(size=(2, 21, 2))
    given = filled(hands, seen)
    assert given.found.tolist() == [False, True, True, False]
    np.testing.assert_array_equal(given.hands[1:3], hands[1:3])
    mean = (hands[1:3] - hands[1:3, :1]).mean(axis=0)
    np.testing.assert_allclose(given.hands[0], mean)
    np.testing.assert_allclose(given.seen[3], seen[1:3].mean(axis=0))
    with pytest.raises(HandclrError, match="no hand was found in any of the labelled crops"):
        filled(np.full((2, 21, 3), np.nan), np.full((2, 21, 2), np.nan))


def test_a_damaged_member_is_an_error_of_its_sample(tmp_path: Path) -> None:
    samples = [seen(number) for number in range(3)]
    samples[1].members[WORLD_3D.suffix] = b"no array"
    index = ShardIndex([str(write_shard(tmp_path / "a.tar", samples))])
    found = [hand for _, hand in WorldPoses().find(index)]
    assert isinstance(found[1], HandclrError) and "world3d.npy" in str(found[1])
    (batch,) = WorldPoses().predict(index, np.arange(3), 8, 0)
    assert np.isnan(batch[0][1]).all() and np.isfinite(batch[0][[0, 2]]).all()
    np.testing.assert_allclose(batch[1][0], samples[0].keypoints2d / SIZE)


@pytest.mark.slow
def test_what_does_not_fit_a_baseline_is_refused(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", [seen(number) for number in range(3)])
    words = ("evaluate", shard, "--model", "mediapipe")
    assert "--bone is for models" in error_line(handclr(*words, "--bone", "true", code=2))
    line = error_line(handclr(*words, "--crop", "detected", code=2))
    assert "--crop detected cuts crops by MediaPipe, which is what is measured here" in line
    done = handclr(*words, "--workers", "0")
    report = json.loads(done.stdout)
    assert report["samples"] == 3 and "provenance" in report
    assert b"root-relative MPJPE" in done.stderr


@pytest.mark.slow
@pytest.mark.landmarker
def test_crops_without_landmarks_are_looked_at(tmp_path: Path) -> None:
    """Dots are no hand: where one crop holds one, the others are given it."""
    bare = labelled_sample(1)
    del bare.members[KEYPOINTS_2D.suffix]
    shard = write_shard(tmp_path / "a.tar", [seen(0), bare])
    settings = EvaluateSettings(shards=[str(shard)], model="mediapipe")
    done = run_evaluate(settings, WorldPoses(workers=0))
    assert done.report["samples"] == 2
    assert done.report["hands_found"]["samples"] == 1
    assert "are given the mean of the hands found" in done.report["hands_found"]["others"]
    assert "hand_detector.tflite" in done.report["provenance"]["model"]


_BARE = """
import sys
sys.modules["mediapipe"] = sys.modules["av"] = None
from handclr_cli import main
main.main()
"""


@pytest.mark.slow
def test_without_mediapipe_there_is_one_line(tmp_path: Path) -> None:
    """Said where there is something to look at; what samples hold is measured without it."""
    ready = write_shard(tmp_path / "ready.tar", [seen(number) for number in range(3)])
    bare = write_shard(tmp_path / "bare.tar", [labelled_sample(number) for number in range(3)])
    task = tmp_path / "some.task"
    with zipfile.ZipFile(task, "w") as archive:
        for name in NETWORKS:
            archive.writestr(name, b"")
    words = ["--model", "mediapipe", "--workers", "0", "--landmarker", str(task)]
    for command in ("evaluate", "predict"):
        for shard, code in ((ready, 0), (bare, 1)):
            line = [sys.executable, "-c", _BARE, command, str(shard), *words]
            done = subprocess.run(line, capture_output=True, check=False)
            assert done.returncode == code, done.stderr
        said = done.stderr.decode().splitlines()[-1]
        assert "MediaPipe, which finds the hands, cannot be imported" in said


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.landmarker
@pytest.mark.parametrize(
    ("layout", "root", "words", "samples", "figures"),
    [
        ("freihand", "freihand/FreiHAND_pub_v2", ("--split", "eval"), 183, (25.9, 13.3)),
        ("dexycb", "dexycb", ("--split", "all"), 165, (61.4, 18.3)),
    ],
)
def test_the_landmarker_on_real_hands(
    layout: str,
    root: str,
    words: tuple[str, ...],
    samples: int,
    figures: tuple[float, float],
    real_data: Path,
    tmp_path: Path,
) -> None:
    shard = tmp_path / "labelled.tar"
    handclr("import", layout, real_data / root, *words, "-o", shard)
    report = json.loads(handclr("evaluate", shard, "--model", "mediapipe").stdout)
    assert report["samples"] == samples
    found = [report["model"][name]["mpjpe_mm"] for name in ("root+bone", "procrustes")]
    assert found == pytest.approx(figures, rel=0.03)
