"""$ handclr mine, as it is run: its output, its inputs, and how it is stopped."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from mining_helpers import VIDEOS, mined_here, shell, write_coarse
from pose_engines import by_hand, poses
from shard_helpers import (
    CLI,
    cli_env,
    crops,
    error_line,
    load_npz,
    pose_arrays,
    run_cli,
    write_pose,
    write_shard,
)

from handclr_cli.contract.npz import read_npz
from handclr_cli.similarity import pool


@pytest.mark.slow
def test_from_a_file(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    done = run_cli("mine", pose, "-o", tmp_path / "pairs.npz", "--top-k", "2")
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert done.stderr.decode().startswith(
        "mine: 7 crops of 3 videos, 0 without a positive; distance 5% "
    )
    assert done.stderr.decode().endswith("; exact-cpu\n")
    found, record = read_npz(str(tmp_path / "pairs.npz"), "pairs")
    arrays = pose_arrays(VIDEOS)
    own = poses(arrays["embedding"], arrays["video_id"])
    positive, distance = by_hand(own, own, 2)
    np.testing.assert_array_equal(found["positive"], positive)
    np.testing.assert_array_equal(found["distance"], distance)
    np.testing.assert_array_equal(found["key"], arrays["key"])
    assert "target" not in found
    assert record is not None
    assert (record["stage"], record["inputs"]) == ("mine", ["pose.npz"])
    assert record["arguments"] == {
        "top_k": 2,
        "distinct_videos": False,
        "symmetric": False,
        "exclude_near_duplicates": False,
        "engine": "exact",
    }
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


@pytest.mark.slow
def test_a_failed_pca_fails_the_pipe(tmp_path: Path) -> None:
    done = shell(
        f"$HANDCLR pca -q --dim 30 {write_shard(tmp_path / 'hands.tar', crops())} | $HANDCLR mine >"
        " /dev/null"
    )
    assert done.returncode == 1
    assert b"standard input: is empty; did the upstream command fail?" in done.stderr


@pytest.mark.slow
def test_reruns_are_equal_byte_for_byte(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    piped = run_cli("mine", "-q", stdin=pose.read_bytes()).stdout
    assert piped == run_cli("mine", "-q", "-", stdin=pose.read_bytes()).stdout
    assert (
        load_npz(piped)["distance"].tobytes()
        == load_npz(run_cli("mine", pose).stdout)["distance"].tobytes()
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["exact-cpu", "hnsw"])
def test_threads_do_not_change_a_byte(engine: str, tmp_path: Path) -> None:
    """More rows than tiles take, so that the tree is walked by several threads; with an index, that
    too.
    """
    pose = write_coarse(tmp_path / "pose.npz", [row % 40 for row in range(pool.FEW_ROWS + 500)], 0)
    outputs = []
    for threads in (1, 2, 2):
        index = tmp_path / f"{len(outputs)}.hnsw"
        options = ["--engine", engine, "--threads", str(threads), "--top-k", "3", "--symmetric"]
        options += ["--index", str(index)] if engine == "hnsw" else []
        done = run_cli("mine", "-q", pose, *options)
        assert (done.returncode, done.stderr) == (0, b"")
        outputs.append((done.stdout, index.read_bytes() if engine == "hnsw" else b""))
    assert outputs[0] == outputs[1] == outputs[2]


@pytest.mark.slow
def test_tiles_and_the_tree_write_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pose = write_coarse(tmp_path / "pose.npz", [row % 9 for row in range(600)], 0)
    files = []
    for few in (0, 1 << 20):
        monkeypatch.setattr(pool, "FEW_ROWS", few)
        for options in (
            {},
            {"top_k": 5, "distinct_videos": True, "symmetric": True, "max_distance": 2.0},
        ):
            mined_here(tmp_path / "pairs.npz", pose, **options)  # type: ignore[arg-type]
            files.append((tmp_path / "pairs.npz").read_bytes())
    assert files[:2] == files[2:]


@pytest.mark.slow
def test_more_positives_than_there_are(tmp_path: Path) -> None:
    done = run_cli("mine", write_pose(tmp_path / "pose.npz", VIDEOS), "--top-k", "5")
    assert done.returncode == 0
    found = load_npz(done.stdout)
    assert (found["positive"] >= 0).sum(axis=1).tolist() == [4, 4, 4, 4, 4, 5, 4]
    assert np.isinf(found["distance"][0]).tolist() == [False] * 4 + [True]


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.slow
def test_a_single_video(rows: int, tmp_path: Path) -> None:
    done = run_cli(
        "mine", "-q", write_pose(tmp_path / "pose.npz", [0] * rows), "-o", tmp_path / "pairs.npz"
    )
    assert done.returncode == 3, done.stderr
    counted = "1 crop has" if rows == 1 else "4 crops have"
    assert done.stderr.decode() == (
        f"handclr: warning: {counted} no positive: positives come from another video, and there is "
        "only one (a folder of images counts as one); add videos, cut a film of several recordings "
        "into a file for each, or name them with handclr pca --video-from; handclr pretrain "
        "--method simclr needs no pairs\n"
    )
    found, _ = read_npz(str(tmp_path / "pairs.npz"), "pairs")
    assert (found["positive"] == -1).all() and np.isinf(found["distance"]).all()


@pytest.mark.slow
def test_nothing_to_plot_nor_to_sum_up(tmp_path: Path) -> None:
    """Where nobody has a positive, whatever was asked for is written all the same."""
    pose = write_pose(tmp_path / "pose.npz", [0] * 4)
    for engine in ("exact-cpu", "hnsw"):
        plot, report = tmp_path / f"{engine}.png", tmp_path / f"{engine}.json"
        options = [
            "--plot",
            plot,
            "--report",
            report,
            "--near-duplicates",
            "exclude",
            "--engine",
            engine,
        ]
        done = run_cli("mine", pose, "-o", tmp_path / "pairs.npz", *options)
        assert done.returncode == 3, done.stderr
        assert done.stderr.decode().startswith("mine: 4 crops of 1 video, 4 without a positive; ")
        assert cv2.imread(str(plot)) is not None
        written = json.loads(report.read_text())
        assert (written["without_positive"], written["distance"]["median"]) == (4, None)


@pytest.mark.slow
def test_a_terminal_gives_no_poses(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    command = [*CLI, "mine", "-o", str(tmp_path / "pairs.npz")]
    done = subprocess.run(command, stdin=slave, capture_output=True, env=cli_env(), timeout=120)
    os.close(master)
    os.close(slave)
    assert error_line(done, 2) == "no input: name files or folders, or pipe data in"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_folder_with_one_pose_file(tmp_path: Path) -> None:
    write_pose(tmp_path / "pose.npz", VIDEOS)
    assert run_cli("mine", tmp_path).returncode == 0


@pytest.mark.slow
def test_a_report_is_no_file_named_by_a_dash(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    run_cli("mine", pose, "-o", "pairs.npz", "--report", "-", cwd=tmp_path)
    assert not (tmp_path / "-").exists()


def started(*args: str | Path) -> subprocess.Popen[bytes]:
    command = [*CLI, "mine", *map(str, args)]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=cli_env(),
    )


def wait_for(process: subprocess.Popen[bytes], folder: Path, pattern: str) -> bool:
    """Whether such a file came up before the process ended."""
    while process.poll() is None:
        if list(folder.glob(pattern)):
            return True
        time.sleep(0.001)
    return False


@pytest.mark.slow
def test_killed_while_it_searches(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", [row % 40 for row in range(60_000)])
    out = tmp_path / "out"
    out.mkdir()
    process = started(
        pose, "-o", out / "pairs.npz", "--report", out / "r.json", "--top-k", "20", "--threads", "1"
    )
    time.sleep(3)
    assert process.poll() is None, "over before it could be killed"
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert list(out.iterdir()) == []


@pytest.mark.slow
def test_killed_while_it_writes(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", [row % 40 for row in range(8000)])
    out = tmp_path / "out"
    out.mkdir()
    process = started(pose, "-o", out / "pairs.npz", "--top-k", "1000")
    assert wait_for(process, out, ".pairs.npz.tmp-*"), process.stderr and process.stderr.read()
    process.kill()
    process.wait(60)
    if (out / "pairs.npz").exists():  # it was quicker than the signal
        assert len(read_npz(str(out / "pairs.npz"), "pairs")[0]["key"]) == 8000


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("engine", ["exact-cpu", "hnsw"])
def test_told_to_stop_while_it_searches(
    engine: str, sent: signal.Signals, code: int, tmp_path: Path
) -> None:
    """It ends soon, not only when the search does."""
    pose = write_pose(tmp_path / "pose.npz", [row % 40 for row in range(60_000)])
    out = tmp_path / "out"
    out.mkdir()
    process = started(
        pose, "-o", out / "pairs.npz", "--top-k", "20", "--threads", "1", "--engine", engine
    )
    time.sleep(3)
    assert process.poll() is None, "over before it could be stopped"
    process.send_signal(sent)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == code, errors
    assert list(out.iterdir()) == []
