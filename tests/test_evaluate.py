"""$ handclr evaluate, in real subprocesses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from labelled_helpers import error_line, handclr, labelled_sample, write_labelled

from handclr_cli.contract.npz import read_npz
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.shards import ShardOutput


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    shard = write_labelled(folder / "train.tar", 8)
    size = ("--arch", "resnet18", "--size", 32, "--batch", 4, "--epochs", 1, "--workers", 0, "--device", "cpu")
    return Path(handclr("finetune", shard, "--run", folder / "run", *size).stdout.decode().strip())


@pytest.mark.slow
def test_evaluate_names_its_definitions_and_the_mean_pose(model: Path, tmp_path: Path) -> None:
    shard = write_labelled(tmp_path / "eval.tar", 5, first=20)
    arrays = tmp_path / "predictions.npz"
    done = handclr("evaluate", shard, "--model", model, "-o", arrays, "--plot", tmp_path / "pck.png", "--workers", 0)
    report = json.loads(done.stdout)
    assert report["samples"] == 5 and report["crop"] == "ground truth"
    assert set(report["model"]) == {"root", "root+bone", "procrustes", "mpjpe_mm_by_joint_root+bone"}
    assert set(report["model"]["root"]["pck_auc"]) == {"0-50mm", "20-50mm"}

    def rooted(number: int) -> np.ndarray:
        keypoints = labelled_sample(number).keypoints3d.astype(np.float64)
        return keypoints - keypoints[:1]

    mean = np.mean([rooted(number) for number in range(8)], axis=0)
    truth = np.stack([rooted(number) for number in range(20, 25)])
    expected = 1000 * np.linalg.norm(mean - truth, axis=-1).mean()
    assert report["mean_pose_of_training_set"]["root"]["mpjpe_mm"] == pytest.approx(expected, rel=1e-4)
    assert (tmp_path / "pck.png").read_bytes().startswith(b"\x89PNG")
    predictions, origin = read_npz(str(arrays), "predictions")
    assert predictions["error_mm"].mean() == pytest.approx(report["model"]["root"]["mpjpe_mm"], rel=1e-5)
    assert origin is not None and origin["history"]
    table = handclr("evaluate", "-", "--model", model, "--table", "-q", stdin=shard.read_bytes())
    assert "procrustes" in table.stdout.decode() and not table.stderr


@pytest.mark.slow
def test_what_cannot_be_is_one_line(model: Path, tmp_path: Path) -> None:
    shard = write_labelled(tmp_path / "eval.tar", 3)
    assert "cannot read" in error_line(handclr("evaluate", shard, "--model", tmp_path / "none.pt", code=1))
    assert "not a checkpoint" in error_line(handclr("evaluate", shard, "--model", shard, code=1))
    state = model.with_name("last.pt")
    assert "not a pose model" in error_line(handclr("evaluate", shard, "--model", state, code=1))
    bare = tmp_path / "bare.tar"
    with ShardOutput(str(bare), provenance("test", {})) as out:
        sample = labelled_sample(0)
        del sample.members["keypoints3d.npy"]
        out.write(sample)
    assert "handclr import" in error_line(handclr("evaluate", bare, "--model", model, code=1))
