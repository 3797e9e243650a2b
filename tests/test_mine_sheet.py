"""$ handclr mine --sheet and --plot."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from mining_helpers import mined_by
from shard_helpers import crops, error_line, load_npz, run_cli, tar_bytes, write_pose, write_shard

from handclr_cli.contract.npz import as_keys
from handclr_cli.report.pairs_page import RANKS


@pytest.fixture
def mined(tmp_path: Path) -> tuple[Path, Path]:
    """A pose file and the shard of its crops."""
    samples = crops(["attic", "barn"], frames=4)
    keys = as_keys([sample.key for sample in samples])
    return write_pose(tmp_path / "pose.npz", [0] * 4 + [1] * 4, key=keys), write_shard(
        tmp_path / "hands.tar", samples
    )


@pytest.mark.slow
def test_the_sheet(mined: tuple[Path, Path], tmp_path: Path) -> None:
    pose, shard = mined
    images = []
    for seed in ("0", "0", "1"):
        arguments = [
            "--sheet",
            tmp_path / "sheet.png",
            "--shards",
            shard,
            "--sheet-pairs",
            "3",
            "--seed",
            seed,
        ]
        done = run_cli("mine", pose, "-o", tmp_path / "pairs.npz", *arguments)
        assert (done.returncode, done.stdout) == (0, b""), done.stderr
        images.append(cv2.imread(str(tmp_path / "sheet.png")))
    assert images[0].shape[1] > images[0].shape[0] / 2 > 64
    assert (images[0] != 255).any()
    np.testing.assert_array_equal(images[0], images[1])
    assert images[2].shape != images[0].shape or (images[2] != images[0]).any()


@pytest.mark.slow
def test_the_sheet_of_each_rank_and_the_plot(mined: tuple[Path, Path], tmp_path: Path) -> None:
    pose, shard = mined
    images = {}
    for rank in RANKS:
        sheet, plot = tmp_path / f"{rank}.png", tmp_path / f"{rank}-plot.png"
        options = [
            "--sheet",
            sheet,
            "--rank",
            rank,
            "--sheet-pairs",
            "2",
            "--shards",
            shard,
            "--plot",
            plot,
        ]
        done = run_cli("mine", "-q", pose, "-o", tmp_path / "pairs.npz", "--top-k", "3", *options)
        assert (done.returncode, done.stderr) == (0, b"")
        images[rank] = cv2.imread(str(sheet))
        assert cv2.imread(str(plot)) is not None
    assert (images["best"] != images["worst"]).any()
    assert len({(tmp_path / f"{rank}-plot.png").read_bytes() for rank in RANKS}) == 1


@pytest.mark.slow
def test_the_sheet_of_new_footage_and_of_parts(mined: tuple[Path, Path], tmp_path: Path) -> None:
    pose, shard = mined
    new = crops(["cellar"], frames=3)
    fresh = write_pose(
        tmp_path / "new.npz", [0] * 3, video=as_keys(["v9"]), key=as_keys([one.key for one in new])
    )
    more = write_shard(tmp_path / "new.tar", new)
    sheet = tmp_path / "s.png"
    mined_by(fresh, "--against", pose, "--sheet", sheet, "--shards", shard, "--shards", more)
    assert cv2.imread(str(sheet)) is not None
    sheet.unlink()
    mined_by(pose, "--part", "1/3", "--sheet", sheet, "--shards", shard)
    assert cv2.imread(str(sheet)) is not None
    sheet.unlink()
    only_new = run_cli(
        "mine", fresh, "--against", pose, "--sheet", sheet, "--shards", more, "-o", "/dev/null"
    )
    assert f"--shards: the crops are not in {more}" in error_line(only_new, 1)
    assert not sheet.exists()


@pytest.mark.slow
def test_a_sheet_without_pairs_says_that_there_are_none(
    mined: tuple[Path, Path], tmp_path: Path
) -> None:
    """The crops are the right ones: it is the pairs that are missing."""
    pose, shard = mined
    options = [
        "--max-distance",
        "0.0001",
        "--sheet",
        tmp_path / "s.png",
        "--shards",
        shard,
        "-o",
        "/dev/null",
    ]
    done = run_cli("mine", pose, *options)
    assert b"are not those" not in done.stderr
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_the_sheet_from_standard_input(mined: tuple[Path, Path], tmp_path: Path) -> None:
    pose, shard = mined
    done = run_cli(
        "mine", pose, "--sheet", tmp_path / "s.png", "--shards", "-", stdin=shard.read_bytes()
    )
    assert done.returncode == 0, done.stderr
    assert len(load_npz(done.stdout)["key"]) == 8
    assert cv2.imread(str(tmp_path / "s.png")) is not None


@pytest.mark.slow
def test_a_sheet_of_other_crops(mined: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "other.tar").write_bytes(tar_bytes(crops(["cellar"])))
    arguments = ["--sheet", tmp_path / "s.png", "--shards", tmp_path / "other.tar"]
    message = error_line(run_cli("mine", mined[0], "-o", tmp_path / "pairs.npz", *arguments), 1)
    assert message == f"--shards: the crops are not in {tmp_path}/other.tar; name the shards of all"
    assert not (tmp_path / "s.png").exists() and not (tmp_path / "pairs.npz").exists()
