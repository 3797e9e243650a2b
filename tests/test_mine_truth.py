"""$ handclr mine --report and --truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filter_contract import MineContract
from mining_helpers import coarse, mined_by, mined_here
from pose_engines import by_hand, poses
from shard_helpers import (
    crops,
    error_line,
    load_npz,
    pose_arrays,
    run_cli,
    tar_bytes,
    write_pose,
    write_shard,
)

from handclr_cli.contract.fields import KEYPOINTS_3D, encode_array, encode_object
from handclr_cli.contract.sample import Sample
from handclr_cli.similarity.quality import pair_distance_mm, pair_quality
from handclr_cli.similarity.summary import summarise
from handclr_cli.similarity.truth import BY_SQUARE

ROWS = [row % 5 for row in range(30)]


def true_hands(rows: int = len(ROWS)) -> np.ndarray:
    return (np.random.default_rng(9).normal(size=(rows, 21, 3)) * 0.05 + [0, 0, 0.6]).astype(
        np.float32
    )


def placed(frame: int, x: int = 0, flipped: bool = False) -> dict[str, bytes]:
    """The JSON of a square of 100 px in a frame."""
    info = {"video": "v", "frame": frame, "box": [x, 0, x + 100, 100], "flipped": flipped}
    return {"json": encode_object(info)}


def truth_samples(
    hands: np.ndarray, skip: tuple[int, ...] = (), bare: tuple[int, ...] = ()
) -> list[Sample]:
    """Truth under the keys of a pose file, in another order; rows in `skip` left out, in `bare`
    without 3D.
    """
    keys = [key.decode() for key in pose_arrays(ROWS)["key"]]
    members = [
        (
            {"raw": b"x"}
            if row in bare
            else {"keypoints3d.npy": encode_array(KEYPOINTS_3D, hands[row])}
        )
        for row in range(len(hands))
    ]
    return [
        Sample(keys[row], {**members[row]})
        for row in reversed(range(len(hands)))
        if row not in skip
    ]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["exact-cpu", "hnsw"])
def test_the_report(engine: str, tmp_path: Path) -> None:
    pose, report = write_pose(tmp_path / "pose.npz", ROWS), tmp_path / "report.json"
    options = ["--top-k", "3", "--report", report, "--engine", engine]
    found = mined_by(pose, *options)
    about = summarise(
        found["positive"], found["distance"], np.arange(30), pose_arrays(ROWS)["video_id"], 30
    )
    recall = 1.0 if engine == "hnsw" else None
    rest = {
        "engine": engine,
        "recall": recall,
        "left_to_tree": 0,
        "doubtful_sides_left_out": 0,
        "near_duplicates": None,
        "truth": None,
    }
    assert json.loads(report.read_text()) == json.loads(json.dumps({**about.report(), **rest}))


@pytest.mark.slow
def test_the_report_of_a_part_and_of_new_footage(tmp_path: Path) -> None:
    pose, report, ids = write_pose(tmp_path / "pose.npz", ROWS), tmp_path / "r.json", np.array(ROWS)
    found = mined_here(tmp_path / "whole.npz", pose, top_k=2)
    mined_by(pose, "--top-k", "2", "--part", "1/3", "--report", report)
    part = slice(10, 20)
    about = summarise(
        found["positive"][part], found["distance"][part], np.arange(10, 20), ids[part], 30
    )
    written = json.loads(report.read_text())
    assert {name: written[name] for name in about.report()} == about.report()
    new = write_pose(tmp_path / "new.npz", [7, 8, 7], embedding=coarse(3, 1))
    mined_by(new, "--top-k", "2", "--against", pose, "--report", report)
    positive, distance = by_hand(
        poses(coarse(3, 1), [7, 8, 7]), poses(pose_arrays(ROWS)["embedding"], ids), 2
    )
    about = summarise(positive, distance, None, np.array([7, 8, 7]), 30)
    written = json.loads(report.read_text())
    assert {name: written[name] for name in about.report()} == about.report()
    assert written["mutual"] == {"share": None, "pairs": None}


@pytest.mark.slow
def test_the_truth(tmp_path: Path) -> None:
    """Truth in a folder of shards: known in all but two crops, one left out and one without the
    member.
    """
    pose, hands = write_pose(tmp_path / "pose.npz", ROWS), true_hands()
    samples = truth_samples(hands, skip=(3,), bare=(11,))
    (tmp_path / "truth").mkdir()
    write_shard(tmp_path / "truth" / "truth-000000.tar", samples[:17])
    write_shard(tmp_path / "truth" / "truth-000001.tar", [*samples[17:], *crops(["elsewhere"])])
    plain = run_cli("mine", pose)
    report = tmp_path / "truth.json"
    done = run_cli("mine", pose, "--truth", tmp_path / "truth", "--report", report, "--seed", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout == plain.stdout
    hands[[3, 11]] = np.nan
    positive = load_npz(plain.stdout)["positive"][:, 0]
    expected = pair_quality(hands, np.array(ROWS), np.arange(30), positive, seed=4).report()
    assert json.loads(report.read_text())["truth"] == expected
    assert (expected["pool"], expected["without_truth"]) == (28, 2)
    first, line = done.stderr.decode().splitlines()
    assert first == plain.stderr.decode().strip()
    assert line.startswith(
        f"mine: 3D distance in mm over {expected['queries']} crops, root-aligned: mined "
    )
    mined, random, best = (expected[f"{name}_mm"] for name in ("mined", "random", "best"))
    assert f"mined {mined['mean']:.2f} (median {mined['median']:.2f})" in line
    assert f"random {random['mean']:.2f} (median {random['median']:.2f})" in line
    assert f"best {best['mean']:.2f} (median {best['median']:.2f}); 2 without truth, " in line
    assert f"{expected['unpaired']} without a positive that has it" in line
    assert best["mean"] < min(mined["mean"], random["mean"])


@pytest.mark.slow
def test_the_truth_by_squares(tmp_path: Path) -> None:
    """With the crops, a hand taken for one of the other side has the truth of the hand it shows,
    mirrored; one that moved is found, and one elsewhere is not; without a square the key counts.
    """
    pose, hands, report = write_pose(tmp_path / "pose.npz", ROWS), true_hands(), tmp_path / "r.json"
    keys = [key.decode() for key in pose_arrays(ROWS)["key"]]
    shown = [Sample(key, placed(row)) for row, key in enumerate(keys)]
    truth = [
        Sample(f"truth{row}", {"keypoints3d.npy": encode_array(KEYPOINTS_3D, hand), **placed(row)})
        for row, hand in enumerate(hands)
    ]
    shown[0] = Sample(keys[0], placed(0, x=20))
    shown[4] = Sample(keys[4], placed(4, flipped=True))
    shown[5] = Sample(keys[5], placed(5, x=400))
    shown[6], truth[6] = Sample(keys[6], {"raw": b"x"}), Sample(keys[6], truth[6].members)
    hands[4] *= (-1, 1, 1)
    hands[5] = np.nan
    shards = write_shard(tmp_path / "shown.tar", shown)
    known = write_shard(tmp_path / "truth.tar", truth)
    found = mined_by(pose, "--shards", shards, "--truth", known, "--report", report)
    positive = found["positive"][:, 0]
    expected = pair_quality(hands, np.array(ROWS), np.arange(30), positive)
    assert json.loads(report.read_text())["truth"] == replace(expected, joined=BY_SQUARE).report()
    assert expected.without_truth == 1
    elsewhere = write_shard(tmp_path / "elsewhere.tar", shown[5:6])
    failed = run_cli("mine", pose, "-o", "/dev/null", "--shards", elsewhere, "--truth", known)
    asked = "is this the truth of the same footage?"
    assert error_line(failed, 1) == f"--truth: no crop shows a hand of {known}; {asked}"


@pytest.mark.slow
def test_the_truth_of_a_part(tmp_path: Path) -> None:
    pose, hands, report = write_pose(tmp_path / "pose.npz", ROWS), true_hands(), tmp_path / "r.json"
    truth = write_shard(tmp_path / "truth.tar", truth_samples(hands))
    positive = mined_here(tmp_path / "whole.npz", pose)["positive"][:, 0]
    mined_by(pose, "--part", "1/3", "--truth", truth, "--report", report)
    asked = np.arange(10, 20)
    expected = pair_quality(hands, np.array(ROWS), asked, positive[asked]).report()
    assert json.loads(report.read_text())["truth"] == expected
    assert (expected["queries"], expected["pool"]) == (10, 30)


@pytest.mark.slow
def test_the_truth_of_new_footage(tmp_path: Path) -> None:
    """Two new videos that show the same hands: neither is in the pool, so that neither can be a
    pair of the other.
    """
    arrays, hands, report = pose_arrays(ROWS), true_hands(), tmp_path / "r.json"
    hands[20:25] = hands[25:30]
    ids = [*ROWS[:20], *[7] * 5, *[8] * 5]
    parts = [
        write_pose(
            tmp_path / f"{rows.start}.npz",
            ids[rows],
            key=arrays["key"][rows],
            embedding=arrays["embedding"][rows],
        )
        for rows in (slice(0, 20), slice(20, 30))
    ]
    truth = write_shard(tmp_path / "truth.tar", truth_samples(hands))
    mined_by(parts[1], "--against", parts[0], "--truth", truth, "--report", report)
    new, old = poses(arrays["embedding"][20:], ids[20:]), poses(arrays["embedding"][:20], ids[:20])
    positive = by_hand(new, old, 1)[0][:, 0]
    written = json.loads(report.read_text())["truth"]
    assert written["queries"] == 10
    assert written["mined_mm"]["mean"] == pytest.approx(
        pair_distance_mm(hands[20:], hands[positive]).mean()
    )
    best = [min(pair_distance_mm(hands[[row] * 20], hands[:20])) for row in range(20, 30)]
    assert written["best_mm"]["mean"] == pytest.approx(np.mean(best), rel=1e-5)
    assert written["pool"] == 20


@pytest.mark.slow
def test_the_truth_from_standard_input_and_in_parts(tmp_path: Path) -> None:
    pose, samples = write_pose(tmp_path / "pose.npz", ROWS), truth_samples(true_hands())
    whole, part = tar_bytes(samples), write_shard(tmp_path / "part.tar", samples[:9])
    reports = []
    for arguments, stdin in (
        (["--truth", "-"], whole),
        (["--truth", part, "--truth", "-"], tar_bytes(samples[9:])),
    ):
        report = tmp_path / f"{len(reports)}.json"
        done = run_cli(
            "mine", "-q", pose, *arguments, "--report", report, "-o", "/dev/null", stdin=stdin
        )
        assert (done.returncode, done.stderr) == (0, b"")
        reports.append(report.read_bytes())
    assert reports[0] == reports[1]
    assert json.loads(reports[0])["truth"]["queries"] == 30


@pytest.mark.slow
def test_many_crops_are_sampled(tmp_path: Path) -> None:
    rows = [row % 7 for row in range(2100)]
    hand = encode_array(KEYPOINTS_3D, true_hands(1)[0])
    samples = [Sample(key.decode(), {"keypoints3d.npy": hand}) for key in pose_arrays(rows)["key"]]
    pose = write_pose(tmp_path / "pose.npz", rows)
    done = run_cli(
        "mine", pose, "-o", "/dev/null", "--truth", write_shard(tmp_path / "truth.tar", samples)
    )
    assert (
        done.stderr.decode().splitlines()[1]
        == "mine: 3D distance in mm over a sample of 2,000 crops out of 2,100, root-aligned: mined"
        " 0.00 (median 0.00), random 0.00 (median 0.00), best 0.00 (median 0.00); 0 without"
        " truth"
    )


@pytest.mark.slow
def test_the_truth_of_a_single_video(tmp_path: Path) -> None:
    keys = pose_arrays(ROWS)["key"]
    pose = write_pose(tmp_path / "pose.npz", [0] * len(ROWS), key=keys)
    truth = write_shard(tmp_path / "truth.tar", truth_samples(true_hands()))
    done = run_cli(
        "mine", pose, "-o", "/dev/null", "--truth", truth, "--report", tmp_path / "t.json"
    )
    assert done.returncode == 3, done.stderr
    line = done.stderr.decode().splitlines()[1]
    assert (
        line
        == "mine: 3D truth: no pair to measure; 0 without truth, 30 without a positive that has it"
    )
    assert json.loads((tmp_path / "t.json").read_text())["truth"]["mined_mm"] == {
        "mean": None,
        "median": None,
    }


@pytest.mark.slow
def test_truth_that_is_of_no_use(tmp_path: Path) -> None:
    pose, out = write_pose(tmp_path / "pose.npz", ROWS), tmp_path / "out"
    out.mkdir()
    arguments = ["mine", pose, "-o", out / "pairs.npz", "--report", out / "report.json"]
    other = write_shard(tmp_path / "other.tar", crops())
    message = error_line(run_cli(*arguments, "--truth", other), 1)
    assert (
        message
        == f"--truth: no key in {other} is one of the poses; is this the truth of the same footage?"
    )
    bare = write_shard(tmp_path / "bare.tar", truth_samples(true_hands(), bare=tuple(range(30))))
    message = error_line(run_cli(*arguments, "--truth", bare), 1)
    assert (
        message == f"--truth: no sample in {bare} has keypoints3d.npy; name shards with 3D labels"
    )
    cut = tmp_path / "cut.tar"
    cut.write_bytes(tar_bytes(truth_samples(true_hands()))[:-600])
    assert "cut.tar" in error_line(run_cli(*arguments, "--truth", cut), 1)
    assert "gone.tar: no such file" in error_line(
        run_cli(*arguments, "--truth", tmp_path / "gone.tar"), 2
    )
    assert "only once" in error_line(
        run_cli(*arguments[:1], "--truth", "-", stdin=pose.read_bytes()), 2
    )
    sheet = ["--sheet", out / "s.png", "--shards", "-", "--truth", "-"]
    assert "only once" in error_line(run_cli(*arguments, *sheet), 2)
    good = write_shard(tmp_path / "good.tar", truth_samples(true_hands()))
    lost = run_cli(
        "mine", pose, "-o", "/dev/null", "--truth", good, "--report", out / "gone" / "t.json"
    )
    assert error_line(lost, 1).startswith(f"cannot write {out}/gone/t.json: ")
    assert list(out.iterdir()) == []


@pytest.mark.slow
class TestMineWithTruth(MineContract):
    def arguments(self, folder: Path) -> list[str]:
        keys = {
            key.decode(): None
            for data in (self.good(), self.large())
            for key in load_npz(data)["key"]
        }
        hand = encode_array(KEYPOINTS_3D, true_hands(1)[0])
        truth = write_shard(
            folder / "truth.tar", [Sample(key, {"keypoints3d.npy": hand}) for key in keys]
        )
        return ["mine", "--truth", str(truth)]
