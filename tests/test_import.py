"""$ handclr import freihand, dexycb, assemblyhands, in real subprocesses."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from fake_scenes import FakeScene
from labelled_helpers import command, error_line, handclr

from handclr_cli.contract.fields import INTRINSICS
from handclr_cli.contract.index import ShardIndex
from handclr_cli.hand.camera import project
from handclr_cli.synth.layouts import write_assemblyhands, write_dexycb, write_freihand

SMALL = ["--size", 64]


@pytest.fixture(scope="module")
def freihand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("freihand") / "set"
    write_freihand(root, FakeScene, 6, lambda _: None)
    return root


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode()


@pytest.mark.slow
def test_workers_shards_and_reruns_do_not_change_what_is_written(
    freihand: Path, tmp_path: Path
) -> None:
    read = ["import", "freihand", freihand, *SMALL]
    alone, shards = tmp_path / "alone.tar", tmp_path / "x-%03d.tar"
    done = handclr(*read, "--workers", 2)
    assert "24 hands of 24 in train (0 left, 24 right)" in said(done)
    alone.write_bytes(done.stdout)
    handclr(*read, "--workers", 0, "-o", tmp_path / "same.tar")
    assert (tmp_path / "same.tar").read_bytes() == done.stdout
    numbered = [*read, "--shard-size", 5, "--workers", 0, "-o", shards]
    handclr(*numbered, "--part", "1/2")
    assert [path.name for path in sorted(tmp_path.glob("x-*"))] == [
        "x-002.tar",
        "x-003.tar",
        "x-004.tar",
    ]
    again = handclr(*numbered)
    assert "24 hands of 24 in train (0 left, 24 right); 3 of 5 shards there already" in said(again)
    samples, sharded = (
        ShardIndex([str(alone)]),
        ShardIndex([str(path) for path in sorted(tmp_path.glob("x-*"))]),
    )
    assert samples.keys == sharded.keys
    assert all(samples[row].members == sharded[row].members for row in range(24))


@pytest.mark.slow
def test_options_that_do_not_fit_are_one_line(freihand: Path, tmp_path: Path) -> None:
    read = [
        "import",
        "freihand",
        freihand,
        "--split",
        "eval",
        *SMALL,
        "-o",
        tmp_path / "x-%03d.tar",
    ]
    handclr(*read)
    line = error_line(handclr(*read, "--margin", 2, code=2))
    assert "x-000.tar: made with margin 1.5; remove the old shards" in line
    assert "needs numbered shards" in error_line(
        handclr(*read, "--part", "0/2", "-o", tmp_path / "x.tar", code=2)
    )


@pytest.mark.slow
def test_a_killed_import_goes_on_and_ends_with_the_same_bytes(
    freihand: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    read = ["import", "freihand", freihand, "--shard-size", 1]
    handclr(*read, "-o", whole / "x-%03d.tar", "--workers", 0)
    run = subprocess.Popen(
        command(*read, "-o", killed / "x-%03d.tar", "--workers", 2), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not files(killed) and time.monotonic() < deadline:
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL and 0 < len(files(killed)) < 24
    handclr(*read, "-o", killed / "x-%03d.tar", "--workers", 2)
    assert files(killed) == files(whole)


@pytest.mark.slow
def test_broken_images_are_counted_and_end_with_3_again_and_again(
    freihand: Path, tmp_path: Path
) -> None:
    root, shards = tmp_path / "set", tmp_path / "x-%d.tar"
    write_freihand(root, FakeScene, 2, lambda _: None)
    broken = root / "FreiHAND_pub_v2/training/rgb/00000003.jpg"
    broken.write_bytes(broken.read_bytes()[:500])
    read = ["import", "freihand", root, *SMALL, "--workers", 0, "--shard-size", 3]
    first = handclr(*read, "-o", shards, code=3)
    assert "00000003.jpg: with a damaged image; skipped" in said(first)
    for done in (first, handclr(*read, "-o", shards, code=3)):
        assert "7 hands of 8 in train (0 left, 7 right); 1 with a damaged image" in said(done)
    assert "x-1.tar: lacks 1 of its items" in said(done)
    line = error_line(handclr(*read, "-o", tmp_path / "strict.tar", "--strict", code=1))
    assert "00000003.jpg" in line and not (tmp_path / "strict.tar").exists()


@pytest.mark.slow
def test_a_check_measures_and_draws_even_where_all_is_done(tmp_path: Path) -> None:
    write_dexycb(tmp_path / "set", FakeScene, 24, lambda _: None)
    sheet, report = tmp_path / "sheet.png", tmp_path / "report.json"
    read = [
        "import",
        "dexycb",
        tmp_path / "set",
        "--split",
        "all",
        *SMALL,
        "--workers",
        0,
        "-o",
        tmp_path / "x-%d.tar",
    ]
    handclr(*read)
    before = files(tmp_path)
    done = handclr(*read, "--check", sheet, "--report", report)
    assert files(tmp_path) == before
    assert (
        "20 hands of 24 in all (7 left, 13 right); 4 without labels; 1 of 1 shard there already"
        in said(done)
    )
    assert "0.00 px from the set's own 2D labels" in said(done)
    found = json.loads(report.read_text())
    assert found["skipped"] == {"without labels": 4} and (found["left"], found["right"]) == (7, 13)
    check = found["check"]
    assert (
        check["hands"] == 20
        and check["projection_error_px"]["max"] < 1e-3
        and 0.5 < check["joints_inside"] <= 1
    )
    bones = [
        1000 * float(np.linalg.norm(sample.keypoints3d[9] - sample.keypoints3d[0]))
        for sample in ShardIndex([str(tmp_path / "x-0.tar")])
    ]
    expected = [min(bones), float(np.median(bones)), max(bones)]
    np.testing.assert_allclose(
        [check["reference_bone_mm"][name] for name in ("min", "median", "max")], expected, rtol=1e-5
    )
    page = cv2.imread(str(sheet))
    assert page.shape[0] > 3 * 128 and page.shape[1] > 8 * 128


@pytest.mark.slow
def test_both_hands_of_assemblyhands(tmp_path: Path) -> None:
    write_assemblyhands(tmp_path / "set", FakeScene, 8, lambda _: None)
    done = handclr(
        "import",
        "assemblyhands",
        tmp_path / "set",
        *SMALL,
        "--workers",
        0,
        "-o",
        tmp_path / "out.tar",
    )
    index = ShardIndex([str(tmp_path / "out.tar")])
    sides = [sample.info["hand"] for sample in index]
    assert f"({sides.count('left')} left, {sides.count('right')} right)" in said(done) and set(
        sides
    ) == {
        "left",
        "right",
    }
    assert "without a box" in said(done)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("freihand", "training_xyz.json is missing"),
        ("dexycb", "holds no subject"),
        ("assemblyhands", "assemblyhands_train_ego_data_v1-1.json is missing"),
    ],
)
@pytest.mark.slow
def test_a_folder_that_is_none_is_one_line(name: str, words: str, tmp_path: Path) -> None:
    line = error_line(handclr("import", name, tmp_path, code=1))
    assert words in line and str(tmp_path) in line


@pytest.mark.slow
@pytest.mark.parametrize("name", ["freihand", "dexycb", "assemblyhands"])
def test_a_split_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    assert "'--split': 'test' is not one of" in error_line(
        handclr("import", name, tmp_path, "--split", "test", code=2)
    )


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "root", "split", "count", "inside"),
    [
        ("freihand", "freihand", "train", 400, 1.0),
        ("freihand", "freihand/FreiHAND_pub_v2", "eval", 183, 1.0),
        ("dexycb", "dexycb", "all", 165, 0.9),
    ],
)
def test_real_images_come_with_labels_that_project_onto_them(
    name: str, root: str, split: str, count: int, inside: float, real_data: Path, tmp_path: Path
) -> None:
    path, report = tmp_path / "out.tar", tmp_path / "report.json"
    more = ["--check", tmp_path / "sheet.png", "--report", report]
    handclr("import", name, real_data / root, "--split", split, "-o", path, *more)
    index = ShardIndex([str(path)])
    assert len(index) == len(set(index.keys)) == count
    for sample in index:
        projected = project(
            sample.keypoints3d.astype(np.float64), sample.read(INTRINSICS).astype(np.float64)
        )
        np.testing.assert_allclose(projected, sample.keypoints2d, atol=1e-3)
        assert (sample.keypoints2d > 0).all() and (sample.keypoints2d < 224).all()
    check = json.loads(report.read_text())["check"]
    assert check["joints_inside"] >= inside
    # The hand of a grown person.
    assert 60 < check["reference_bone_mm"]["min"] < check["reference_bone_mm"]["max"] < 105
