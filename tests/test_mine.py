"""$ handclr mine, as it is run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from shard_helpers import (
    CLI,
    ROOT,
    cli_env,
    crops,
    error_line,
    load_npz,
    pose_arrays,
    run_cli,
    tar_bytes,
    write_pose,
    write_shard,
)

from handclr_cli.contract.npz import as_keys, read_npz
from handclr_cli.similarity.exact import mine_exact

VIDEOS = [0, 0, 1, 1, 1, 2, 0]


def shell(script: str) -> subprocess.CompletedProcess[bytes]:
    """A pipeline in bash, in which $HANDCLR is the command line."""
    env = cli_env({"HANDCLR": " ".join(CLI)})
    return subprocess.run(["bash", "-o", "pipefail", "-c", script], capture_output=True, env=env, cwd=ROOT, timeout=120)


def test_from_a_file(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    done = run_cli("mine", pose, "-o", tmp_path / "pairs.npz", "--top-k", "2")
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert done.stderr.decode().startswith("mine: 7 crops of 3 videos, 0 without a positive; distance 5% ")
    found, record = read_npz(str(tmp_path / "pairs.npz"), "pairs")
    arrays = pose_arrays(VIDEOS)
    positive, distance = mine_exact(arrays["embedding"], arrays["video_id"], 2)
    np.testing.assert_array_equal(found["positive"], positive)
    np.testing.assert_array_equal(found["distance"], distance)
    np.testing.assert_array_equal(found["key"], arrays["key"])
    assert "target" not in found
    assert record is not None
    assert (record["stage"], record["arguments"], record["inputs"]) == ("mine", {"top_k": 2}, ["pose.npz"])
    assert [past["stage"] for past in record["history"]] == ["pca"]


def test_pca_into_mine(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "hands.tar", crops(["attic", "barn", "cellar"], frames=5))
    done = shell(f"$HANDCLR pca -q --dim 3 {shard} | $HANDCLR mine -q")
    assert (done.returncode, done.stderr) == (0, b"")
    found = load_npz(done.stdout)
    assert found["positive"].shape == (15, 1)
    assert ((found["positive"][:, 0] // 5) != (np.arange(15) // 5)).all()
    stages = [past["stage"] for past in json.loads(str(found["meta"]))["history"]]
    assert stages == ["extract", "pca"]


def test_a_failed_pca_fails_the_pipe(tmp_path: Path) -> None:
    done = shell(f"$HANDCLR pca -q --dim 30 {write_shard(tmp_path / 'hands.tar', crops())} | $HANDCLR mine > /dev/null")
    assert done.returncode == 1
    assert b"standard input: is empty; did the upstream command fail?" in done.stderr


def test_reruns_are_equal_byte_for_byte(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    piped = run_cli("mine", "-q", stdin=pose.read_bytes()).stdout
    assert piped == run_cli("mine", "-q", "-", stdin=pose.read_bytes()).stdout
    assert load_npz(piped)["distance"].tobytes() == load_npz(run_cli("mine", pose).stdout)["distance"].tobytes()


def test_more_positives_than_there_are(tmp_path: Path) -> None:
    done = run_cli("mine", write_pose(tmp_path / "pose.npz", VIDEOS), "--top-k", "5")
    assert done.returncode == 0
    found = load_npz(done.stdout)
    assert (found["positive"] >= 0).sum(axis=1).tolist() == [4, 4, 4, 4, 4, 5, 4]
    assert np.isinf(found["distance"][0]).tolist() == [False] * 4 + [True]


@pytest.mark.parametrize("rows", [1, 4])
def test_a_single_video(rows: int, tmp_path: Path) -> None:
    done = run_cli("mine", "-q", write_pose(tmp_path / "pose.npz", [0] * rows), "-o", tmp_path / "pairs.npz")
    assert done.returncode == 3
    assert done.stderr.decode().startswith(f"handclr: warning: {rows} crops have no positive")
    assert len(done.stderr.splitlines()) == 1
    found, _ = read_npz(str(tmp_path / "pairs.npz"), "pairs")
    assert (found["positive"] == -1).all() and np.isinf(found["distance"]).all()


def test_usage(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    sheet = tmp_path / "sheet.png"
    assert error_line(run_cli("mine", pose, "--sheet", sheet), 2) == "--sheet needs the crops: name them with --shards"
    message = error_line(run_cli("mine", pose, "--sheet", sheet, "--shards", tmp_path / "gone.tar"), 2)
    assert "gone.tar: no such file" in message
    message = error_line(run_cli("mine", "--sheet", sheet, "--shards", "-", stdin=b""), 2)
    assert "only once" in message
    write_pose(tmp_path / "second.npz", VIDEOS)
    assert "2 files; mine takes one" in error_line(run_cli("mine", tmp_path), 2)
    assert run_cli("mine", "--top-k", "0", pose).returncode == 2
    assert not sheet.exists()


def test_a_folder_with_one_pose_file(tmp_path: Path) -> None:
    write_pose(tmp_path / "pose.npz", VIDEOS)
    assert run_cli("mine", tmp_path).returncode == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embeddings_that_are_not_finite(bad: float, tmp_path: Path) -> None:
    arrays = pose_arrays(VIDEOS)
    arrays["embedding"][3, 2] = bad
    np.savez(tmp_path / "pose.npz", **arrays)
    message = error_line(run_cli("mine", tmp_path / "pose.npz"), 1)
    assert "pose.npz: array 'embedding' holds" in message


def test_no_poses(tmp_path: Path) -> None:
    empty = {name: pose_arrays([])[name] for name in ("key", "video", "video_id", "embedding")}
    message = error_line(run_cli("mine", write_pose(tmp_path / "pose.npz", [0], **empty)), 1)
    assert message.endswith("pose.npz: no poses to mine")


@pytest.fixture
def mined(tmp_path: Path) -> tuple[Path, Path]:
    """A pose file and the shard of its crops."""
    samples = crops(["attic", "barn"], frames=4)
    keys = as_keys([sample.key for sample in samples])
    return write_pose(tmp_path / "pose.npz", [0] * 4 + [1] * 4, key=keys), write_shard(tmp_path / "hands.tar", samples)


def test_the_sheet(mined: tuple[Path, Path], tmp_path: Path) -> None:
    pose, shard = mined
    images = []
    for seed in ("0", "0", "1"):
        arguments = ["--sheet", tmp_path / "sheet.png", "--shards", shard, "--sheet-pairs", "3", "--seed", seed]
        done = run_cli("mine", pose, "-o", tmp_path / "pairs.npz", *arguments)
        assert (done.returncode, done.stdout) == (0, b""), done.stderr
        images.append(cv2.imread(str(tmp_path / "sheet.png")))
    assert images[0].shape[1] > images[0].shape[0] / 2 > 64
    assert (images[0] != 255).any()
    np.testing.assert_array_equal(images[0], images[1])
    assert images[2].shape != images[0].shape or (images[2] != images[0]).any()


def test_the_sheet_from_standard_input(mined: tuple[Path, Path], tmp_path: Path) -> None:
    pose, shard = mined
    done = run_cli("mine", pose, "--sheet", tmp_path / "s.png", "--shards", "-", stdin=shard.read_bytes())
    assert done.returncode == 0, done.stderr
    assert len(load_npz(done.stdout)["key"]) == 8
    assert cv2.imread(str(tmp_path / "s.png")) is not None


def test_a_sheet_of_other_crops(mined: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other.tar").write_bytes(tar_bytes(crops(["cellar"])))
    arguments = ["--sheet", tmp_path / "s.png", "--shards", tmp_path / "other.tar"]
    message = error_line(run_cli("mine", mined[0], "-o", tmp_path / "pairs.npz", *arguments), 1)
    assert "other.tar are not those of the pairs" in message
    assert not (tmp_path / "s.png").exists()
