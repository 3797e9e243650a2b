"""$ handclr mine, as it is run."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import test_filters
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

from handclr_cli.contract.fields import KEYPOINTS_3D, encode_array
from handclr_cli.contract.npz import as_keys, read_npz
from handclr_cli.contract.sample import Sample
from handclr_cli.similarity.exact import mine_exact
from handclr_cli.similarity.quality import pair_quality

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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


ROWS = [row % 5 for row in range(30)]


def true_hands(rows: int = len(ROWS)) -> np.ndarray:
    return (np.random.default_rng(9).normal(size=(rows, 21, 3)) * 0.05 + [0, 0, 0.6]).astype(np.float32)


def truth_samples(hands: np.ndarray, skip: tuple[int, ...] = (), bare: tuple[int, ...] = ()) -> list[Sample]:
    """Truth under the keys of a pose file, in another order; rows in `skip` left out, in `bare` without 3D."""
    keys = [key.decode() for key in pose_arrays(ROWS)["key"]]
    members = [
        {"raw": b"x"} if row in bare else {"keypoints3d.npy": encode_array(KEYPOINTS_3D, hands[row])}
        for row in range(len(hands))
    ]
    return [Sample(keys[row], {**members[row]}) for row in reversed(range(len(hands))) if row not in skip]


@pytest.mark.slow
def test_the_truth(tmp_path: Path) -> None:
    """Truth in a folder of shards: known in all but two crops, one left out and one without the member."""
    pose, hands = write_pose(tmp_path / "pose.npz", ROWS), true_hands()
    samples = truth_samples(hands, skip=(3,), bare=(11,))
    (tmp_path / "truth").mkdir()
    write_shard(tmp_path / "truth" / "truth-000000.tar", samples[:17])
    write_shard(tmp_path / "truth" / "truth-000001.tar", [*samples[17:], *crops(["elsewhere"])])
    plain = run_cli("mine", pose)
    report = tmp_path / "truth.json"
    done = run_cli("mine", pose, "--truth", tmp_path / "truth", "--truth-report", report, "--seed", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout == plain.stdout
    hands[[3, 11]] = np.nan
    arrays = pose_arrays(ROWS)
    positive, _ = mine_exact(arrays["embedding"], arrays["video_id"])
    expected = pair_quality(hands, arrays["video_id"], positive[:, 0], seed=4).report()
    assert json.loads(report.read_text()) == expected
    assert (expected["pool"], expected["without_truth"]) == (28, 2)
    first, line = done.stderr.decode().splitlines()
    assert first == plain.stderr.decode().strip()
    assert line.startswith(f"mine: 3D distance in mm over {expected['queries']} crops, root-aligned: mined ")
    mined, random, best = (expected[f"{name}_mm"] for name in ("mined", "random", "best"))
    assert f"mined {mined['mean']:.2f} (median {mined['median']:.2f})" in line
    assert f"random {random['mean']:.2f} (median {random['median']:.2f})" in line
    assert f"best {best['mean']:.2f} (median {best['median']:.2f}); 2 without truth, " in line
    assert f"{expected['unpaired']} without a positive that has it" in line
    assert best["mean"] < min(mined["mean"], random["mean"])


@pytest.mark.slow
def test_the_truth_from_standard_input_and_in_parts(tmp_path: Path) -> None:
    pose, samples = write_pose(tmp_path / "pose.npz", ROWS), truth_samples(true_hands())
    whole, part = tar_bytes(samples), write_shard(tmp_path / "part.tar", samples[:9])
    reports = []
    for arguments, stdin in ((["--truth", "-"], whole), (["--truth", part, "--truth", "-"], tar_bytes(samples[9:]))):
        report = tmp_path / f"{len(reports)}.json"
        done = run_cli("mine", "-q", pose, *arguments, "--truth-report", report, "-o", "/dev/null", stdin=stdin)
        assert (done.returncode, done.stderr) == (0, b"")
        reports.append(report.read_bytes())
    assert reports[0] == reports[1]
    assert json.loads(reports[0])["queries"] == 30


@pytest.mark.slow
def test_many_crops_are_sampled(tmp_path: Path) -> None:
    rows = [row % 7 for row in range(2100)]
    hand = encode_array(KEYPOINTS_3D, true_hands(1)[0])
    samples = [Sample(key.decode(), {"keypoints3d.npy": hand}) for key in pose_arrays(rows)["key"]]
    pose = write_pose(tmp_path / "pose.npz", rows)
    done = run_cli("mine", pose, "-o", "/dev/null", "--truth", write_shard(tmp_path / "truth.tar", samples))
    assert done.stderr.decode().splitlines()[1] == (
        "mine: 3D distance in mm over a sample of 2,000 crops out of 2,100, root-aligned: mined 0.00 (median 0.00), "
        "random 0.00 (median 0.00), best 0.00 (median 0.00); 0 without truth"
    )


def test_the_truth_of_a_single_video(tmp_path: Path) -> None:
    keys = pose_arrays(ROWS)["key"]
    pose = write_pose(tmp_path / "pose.npz", [0] * len(ROWS), key=keys)
    truth = write_shard(tmp_path / "truth.tar", truth_samples(true_hands()))
    done = run_cli("mine", pose, "-o", "/dev/null", "--truth", truth, "--truth-report", tmp_path / "t.json")
    assert done.returncode == 3
    line = done.stderr.decode().splitlines()[1]
    assert line == "mine: 3D truth: no pair to measure; 0 without truth, 30 without a positive that has it"
    assert json.loads((tmp_path / "t.json").read_text())["mined_mm"] == {"mean": None, "median": None}


@pytest.mark.slow
def test_truth_that_is_of_no_use(tmp_path: Path) -> None:
    pose, out = write_pose(tmp_path / "pose.npz", ROWS), tmp_path / "out"
    out.mkdir()
    arguments = ["mine", pose, "-o", out / "pairs.npz", "--truth-report", out / "truth.json"]
    message = error_line(run_cli(*arguments), 2)
    assert message == "--truth-report needs the true keypoints: name their shards with --truth"
    other = write_shard(tmp_path / "other.tar", crops())
    message = error_line(run_cli(*arguments, "--truth", other), 1)
    assert message == f"--truth: no key in {other} is one of {pose}; is this the truth of the same footage?"
    bare = write_shard(tmp_path / "bare.tar", truth_samples(true_hands(), bare=tuple(range(30))))
    message = error_line(run_cli(*arguments, "--truth", bare), 1)
    assert message == f"--truth: no sample in {bare} has keypoints3d.npy; name shards with 3D labels"
    cut = tmp_path / "cut.tar"
    cut.write_bytes(tar_bytes(truth_samples(true_hands()))[:-600])
    assert "cut.tar" in error_line(run_cli(*arguments, "--truth", cut), 1)
    assert "gone.tar: no such file" in error_line(run_cli(*arguments, "--truth", tmp_path / "gone.tar"), 2)
    assert "only once" in error_line(run_cli(*arguments[:1], "--truth", "-", stdin=pose.read_bytes()), 2)
    sheet = ["--sheet", out / "s.png", "--shards", "-", "--truth", "-"]
    assert "only once" in error_line(run_cli(*arguments, *sheet), 2)
    good = write_shard(tmp_path / "good.tar", truth_samples(true_hands()))
    lost = run_cli("mine", pose, "-o", "/dev/null", "--truth", good, "--truth-report", out / "gone" / "t.json")
    assert error_line(lost, 1).startswith(f"cannot write {out}/gone/t.json: ")
    assert list(out.iterdir()) == []


@pytest.mark.slow
class TestMineWithTruth(test_filters.TestMine):
    def arguments(self, folder: Path) -> list[str]:
        keys = {key.decode(): None for data in (self.good(), self.large()) for key in load_npz(data)["key"]}
        hand = encode_array(KEYPOINTS_3D, true_hands(1)[0])
        truth = write_shard(folder / "truth.tar", [Sample(key, {"keypoints3d.npy": hand}) for key in keys])
        return ["mine", "--truth", str(truth)]
