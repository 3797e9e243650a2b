"""$ handclr mine --index."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mining_helpers import VIDEOS, mined_by, named, write_coarse
from shard_helpers import crops, error_line, load_npz, pose_arrays, run_cli, tar_bytes, write_pose

from handclr_cli.contract.npz import read_npz


@pytest.mark.slow
class TestIndex:
    def test_made_and_read(self, tmp_path: Path) -> None:
        pose, index = (
            write_coarse(tmp_path / "pose.npz", [row % 9 for row in range(300)], 0),
            tmp_path / "p.hnsw",
        )
        made = run_cli("mine", pose, "--index", index)
        assert made.returncode == 0, made.stderr
        assert made.stderr.decode().rstrip().endswith("; hnsw, recall 100.00% of 300")
        before = index.read_bytes()
        read = run_cli("mine", pose, "--index", index)
        assert (read.returncode, read.stdout, read.stderr) == (0, made.stdout, made.stderr)
        assert index.read_bytes() == before
        arrays, record = read_npz(str(index), "pose")
        assert record and record["stage"] == "mine"
        original = load_npz(pose)
        for name in ("key", "embedding", "components", "mean"):
            np.testing.assert_array_equal(arrays[name], original[name])
        np.testing.assert_array_equal(
            arrays["video"][arrays["video_id"]], original["video"][original["video_id"]]
        )
        exact = mined_by(pose, "--engine", "exact-cpu")
        assert named(load_npz(read.stdout)) == named(exact)

    def test_a_pool_of_its_own(self, tmp_path: Path) -> None:
        """The index has all that a pose file has: it is mined, and serves as a basis."""
        pose, index = write_pose(tmp_path / "pose.npz", VIDEOS), tmp_path / "p.hnsw"
        mined_by(pose, "--index", index)
        assert named(mined_by(index, "--engine", "exact-cpu")) == named(mined_by(pose))
        assert run_cli("pca", "-q", "--basis", index, stdin=tar_bytes(crops())).returncode == 0

    def test_another_name_for_the_index_of_a_pool_that_has_one(self, tmp_path: Path) -> None:
        """Asked for an index, a run that goes well leaves one, also where the pool brings
        its own.
        """
        pose = write_pose(tmp_path / "pose.npz", VIDEOS)
        mined_by(pose, "--index", tmp_path / "p.hnsw")
        found = mined_by(tmp_path / "p.hnsw", "--index", tmp_path / "q.hnsw", "--seed", 3)
        assert (tmp_path / "q.hnsw").exists()
        assert json.loads(str(found["meta"]))["seed"] == 3

    def test_of_no_use(self, tmp_path: Path) -> None:
        pose, index = write_pose(tmp_path / "pose.npz", VIDEOS), tmp_path / "p.hnsw"
        mined_by(pose, "--index", index)
        moved = write_pose(
            tmp_path / "moved.npz", VIDEOS, embedding=pose_arrays(VIDEOS, seed=5)["embedding"]
        )
        more, output = write_pose(tmp_path / "more.npz", [4, 5]), tmp_path / "pairs.npz"
        (tmp_path / "cut.hnsw").write_bytes(index.read_bytes()[:-60])
        (tmp_path / "words.hnsw").write_bytes(b"just a few words\n" * 100)
        arrays = load_npz(index)
        arrays["hnsw_base"][2, 4:8] = 255
        np.savez(tmp_path / "broken.npz", **arrays)
        before = sorted(tmp_path.iterdir())
        for sources, given, words in (
            ([moved], index, "p.hnsw: damaged, or the index of other poses: other vectors"),
            ([more], index, "p.hnsw: damaged, or the index of other poses: 7 elements for 2 poses"),
            (
                [pose, more],
                index,
                "p.hnsw: damaged, or the index of other poses: 7 elements for 9 poses",
            ),
            ([pose], tmp_path / "cut.hnsw", "cut.hnsw: not an NPZ file, or damaged"),
            ([pose], tmp_path / "words.hnsw", "words.hnsw: not an NPZ file, or damaged"),
            (
                [pose],
                tmp_path / "broken.npz",
                "broken.npz: damaged, or the index of other poses: links that lead nowhere",
            ),
            (
                [pose],
                pose,
                "pose.npz: has no graph; name an index made by handclr mine",
            ),
        ):
            message = error_line(run_cli("mine", *sources, "--index", given, "-o", output), 1)
            assert words in message
        assert sorted(tmp_path.iterdir()) == before

    def test_in_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        pose = write_pose(tmp_path / "pose.npz", VIDEOS)
        done = run_cli(
            "mine", pose, "--index", tmp_path / "gone" / "p.hnsw", "-o", tmp_path / "pairs.npz"
        )
        assert error_line(done, 1).startswith(f"cannot write {tmp_path}/gone/p.hnsw: ")
        assert not list(tmp_path.glob(".*"))

    def test_not_to_standard_output(self, tmp_path: Path) -> None:
        """Where the pairs go: two files in one stream are neither."""
        done = run_cli(
            "mine", write_pose(tmp_path / "pose.npz", VIDEOS), "--index", "-", cwd=tmp_path
        )
        error_line(done, 2)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["pose.npz"]
