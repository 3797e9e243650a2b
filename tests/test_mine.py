"""$ handclr mine, as it is run."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import test_filters
import typer
from pose_engines import by_hand, poses
from shard_helpers import (
    CLI,
    ROOT,
    cli_env,
    crop,
    crops,
    error_line,
    load_npz,
    pose_arrays,
    run_cli,
    tar_bytes,
    write_pose,
    write_shard,
)

from handclr_cli.commands.mine import mine
from handclr_cli.contract.fields import INFO, KEYPOINTS_3D, encode_array, encode_object
from handclr_cli.contract.npz import as_keys, read_npz
from handclr_cli.contract.sample import Sample
from handclr_cli.report.pairs_page import RANKS
from handclr_cli.similarity import pool
from handclr_cli.similarity.quality import pair_distance_mm, pair_quality
from handclr_cli.similarity.summary import summarise

VIDEOS = [0, 0, 1, 1, 1, 2, 0]
Found = dict[str, np.ndarray]


def shell(script: str) -> subprocess.CompletedProcess[bytes]:
    """A pipeline in bash, in which $HANDCLR is the command line."""
    env = cli_env({"HANDCLR": " ".join(CLI)})
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", script],
        capture_output=True,
        env=env,
        cwd=ROOT,
        timeout=120,
    )


def mined_by(*args: str | Path, stdin: bytes | None = None) -> Found:
    """What a run that goes well writes to standard output."""
    done = run_cli("mine", "-q", *args, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    return load_npz(done.stdout)


def mined_here(path: Path, *sources: Path | str, **options: Any) -> Found:
    """The same without a process of its own, for many small runs and for changed constants."""
    if "max_distance" in options:
        options["max_distance"] = str(options["max_distance"])
    try:
        mine([*map(str, sources)], output=str(path), quiet=True, **options)
    except typer.Exit as exit_:
        assert exit_.exit_code == 3
    return load_npz(path)


def named(found: Found) -> list[tuple[bytes, list[tuple[bytes, float]]]]:
    """Each query's key with the keys and distances of its positives, in the order of the file."""
    target = found.get("target", found["key"])
    rows = []
    for key, positive, distance in zip(
        found["key"], found["positive"], found["distance"], strict=True
    ):
        there = positive >= 0
        assert np.isinf(distance[~there]).all() and np.isfinite(distance[there]).all()
        rows.append(
            (
                key,
                list(zip(target[positive[there]].tolist(), distance[there].tolist(), strict=True)),
            )
        )
    return rows


def coarse(rows: int, seed: int) -> np.ndarray:
    """Poses on a grid: many at equal distances, some equal."""
    return np.random.default_rng(seed).integers(0, 3, (rows, 14)).astype(np.float32) * (
        np.arange(14) < 5
    )


def write_coarse(path: Path, videos: Sequence[int], seed: int) -> Path:
    return write_pose(path, videos, embedding=coarse(len(videos), seed))


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
    assert done.stderr.decode().startswith(f"handclr: warning: {counted} no positive: ")
    assert len(done.stderr.splitlines()) == 1
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
def test_usage(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    sheet = tmp_path / "sheet.png"
    assert (
        error_line(run_cli("mine", pose, "--sheet", sheet), 2)
        == "--sheet needs the crops: name them with --shards"
    )
    message = error_line(
        run_cli("mine", pose, "--sheet", sheet, "--shards", tmp_path / "gone.tar"), 2
    )
    assert "gone.tar: no such file" in message
    message = error_line(run_cli("mine", "--sheet", sheet, "--shards", "-", stdin=b""), 2)
    assert "only once" in message
    assert run_cli("mine", "--top-k", "0", pose).returncode == 2
    assert not sheet.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"engine": "gpu"}, "--engine gpu: choose from auto, exact-cpu, exact-gpu, hnsw"),
        ({"rank": "nice"}, "--rank nice: choose from best, worst, random, quantiles"),
        ({"near_duplicates": "drop"}, "--near-duplicates drop: choose from report, exclude"),
        (
            {"exclude_by": "subject"},
            "--exclude-by subject, a field, needs the crops: name them with --shards",
        ),
        ({"against": ["POSE"], "symmetric": True}, "--symmetric needs the queries in the pool; "),
        (
            {"against": ["POSE"], "more": True},
            "--against takes one name, and 2 files follow; quote a pattern",
        ),
        (
            {"part": "0/2", "near_duplicates": "report"},
            "--near-duplicates needs all crops in one run",
        ),
        ({"part": "3/3"}, "--part 3/3: not I/N with I from 0 to N - 1"),
        ({"part": "-1/2"}, "--part -1/2: not I/N"),
        ({"part": "a/b"}, "--part a/b: not I/N"),
        ({"part": "0/0"}, "--part 0/0: not I/N"),
        ({"part": "1"}, "--part 1: not I/N"),
        ({"part": "/"}, "--part /: not I/N"),
        ({"part": "1/2/3"}, "--part 1/2/3: not I/N"),
        ({"index": "INDEX", "engine": "exact-cpu"}, "--index is for --engine hnsw, not exact-cpu"),
        ({"index": "INDEX", "engine": "exact-gpu"}, "--index is for --engine hnsw, not exact-gpu"),
        ({"exclude_by": "("}, "--exclude-by (: not a regular expression: "),
    ],
)
def test_words_for_wrong_options(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    places = {"POSE": str(pose), "INDEX": str(tmp_path / "p.hnsw")}
    given: dict[str, Any] = {
        name: (
            [places.get(one, one) for one in value]
            if isinstance(value, list)
            else places.get(value, value)
        )
        for name, value in options.items()
    }
    sources = [pose, write_pose(tmp_path / "more.npz", [5])] if given.pop("more", False) else [pose]
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Exception) as caught:
        mined_here(tmp_path / "pairs.npz", *sources, **given)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2  # type: ignore[attr-defined]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_wrong_options_as_they_are_run(tmp_path: Path) -> None:
    pose, other = (
        write_pose(tmp_path / "pose.npz", VIDEOS),
        write_pose(tmp_path / "other.npz", [3, 4]),
    )
    data = pose.read_bytes()
    assert "standard input (-) can be read only once" in error_line(
        run_cli("mine", "-", "-", stdin=data), 2
    )
    assert "only once" in error_line(run_cli("mine", "-", "--against", "-", stdin=data), 2)
    assert "only once" in error_line(run_cli("mine", "--against", "-", stdin=data), 2)
    assert "only once" in error_line(
        run_cli("mine", pose, "--against", "-", "--against", "-", stdin=data), 2
    )
    assert "--part needs files" in error_line(run_cli("mine", "--part", "0/2", stdin=data), 2)
    assert "--part needs files" in error_line(
        run_cli("mine", pose, "-", "--part", "0/2", stdin=data), 2
    )
    expanded = run_cli("mine", "--against", pose, other, other, "-o", tmp_path / "pairs.npz")
    assert "quote a pattern or name a folder" in error_line(expanded, 2)
    assert "nothing matches" in error_line(
        run_cli("mine", pose, "--against", tmp_path / "gone*.npz"), 2
    )
    assert "no .npz file in this folder" in error_line(
        run_cli("mine", pose, "--against", ROOT / "docs"), 2
    )
    for wrong in ("-1", "near", "0%", "101%", "5%%", "%", ""):
        assert "neither a distance" in error_line(run_cli("mine", pose, "--max-distance", wrong), 2)
    assert "without --part" in error_line(
        run_cli("mine", pose, "--max-distance", "50%", "--part", "0/2"), 2
    )
    assert run_cli("mine", pose, "--threads", "0").returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.npz", "pose.npz"]


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
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embeddings_that_are_not_finite(bad: float, tmp_path: Path) -> None:
    arrays = pose_arrays(VIDEOS)
    arrays["embedding"][3, 2] = bad
    np.savez(tmp_path / "bad.npz", **arrays)
    pose = write_pose(tmp_path / "pose.npz", [7, 8])
    for sources in (["bad.npz"], ["pose.npz", "bad.npz"], ["pose.npz", "--against", "bad.npz"]):
        message = error_line(run_cli("mine", *sources, "-o", "pairs.npz", cwd=tmp_path), 1)
        assert "bad.npz: array 'embedding' holds" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.npz", pose.name]


@pytest.mark.slow
def test_no_poses(tmp_path: Path) -> None:
    empty = {name: pose_arrays([])[name] for name in ("key", "video", "video_id", "embedding")}
    message = error_line(run_cli("mine", write_pose(tmp_path / "pose.npz", [0], **empty)), 1)
    assert message.endswith("pose.npz: no poses to mine")


@pytest.mark.slow
def test_files_that_do_not_fit_each_other(tmp_path: Path) -> None:
    pose, arrays = write_pose(tmp_path / "pose.npz", [7, 8, 8]), pose_arrays(VIDEOS)
    bad: dict[str, tuple[Found, str]] = {
        "axes.npz": ({**arrays, "mean": arrays["mean"] + 1}, f"made with other axes than {pose}"),
        "fewer.npz": (pose_arrays(VIDEOS, 10), f"made with other axes than {pose}"),
        "video.npz": (
            {**arrays, "video_id": arrays["video_id"] + 1},
            "array 'video_id' has rows that are not in",
        ),
        "narrow.npz": ({**arrays, "embedding": arrays["embedding"][:, :10].copy()}, "array '"),
        "keys.npz": ({**arrays, "key": arrays["key"][:5]}, "array '"),
    }
    for name, (made, _) in bad.items():
        np.savez(tmp_path / name, **made)
    before = sorted(tmp_path.iterdir())
    for name, (_, words) in bad.items():
        for sources in ([pose, name], [pose, "--against", name]):
            message = error_line(run_cli("mine", *sources, "-o", "pairs.npz", cwd=tmp_path), 1)
            assert message.startswith(f"{name}: {words}"), message
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_the_same_file_twice(tmp_path: Path) -> None:
    """Its keys would be twice in the pairs, each crop a rival of its own copy."""
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    done = run_cli("mine", pose, pose, "-o", tmp_path / "pairs.npz")
    assert "pose.npz" in error_line(done, 1 if done.returncode == 1 else 2)
    assert not (tmp_path / "pairs.npz").exists()


@pytest.mark.parametrize("greatest", [1e154, 1e155, 1e200, 1e308, float("inf")])
def test_distances_that_allow_everything(greatest: float, tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    everything = mined_here(tmp_path / "all.npz", pose, top_k=3)
    assert named(mined_here(tmp_path / "pairs.npz", pose, top_k=3, max_distance=greatest)) == named(
        everything
    )


@pytest.mark.slow
def test_the_greatest_distance_is_allowed(tmp_path: Path) -> None:
    embedding = np.zeros((6, 14), np.float32)
    embedding[:, :2] = [[0, 0], [3, 4], [0, 5.001], [0, 0], [100, 0], [100, 0]]
    pose = write_pose(tmp_path / "pose.npz", [0, 1, 2, 3, 4, 5], embedding=embedding)
    found = mined_by(pose, "--max-distance", "5", "--top-k", "5")
    keys = pose_arrays(range(6))["key"].tolist()
    assert named(found)[0] == (keys[0], [(keys[3], 0.0), (keys[1], 5.0)])
    found = mined_here(tmp_path / "pairs.npz", pose, max_distance=0.0, top_k=2)
    assert found["positive"][:, 0].tolist() == [3, -1, -1, 0, 5, 4]
    assert (found["positive"][:, 1] == -1).all()


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_k": 5, "symmetric": True}])
def test_the_share_of_the_crops_that_has_the_nearest(
    options: dict[str, Any], tmp_path: Path
) -> None:
    pose = write_coarse(tmp_path / "pose.npz", [row % 9 for row in range(200)], 0)
    everything = mined_here(tmp_path / "all.npz", pose, **options)
    nearest = np.sort(everything["distance"][everything["positive"][:, 0] >= 0, 0])
    assert named(mined_here(tmp_path / "pairs.npz", pose, max_distance="100%", **options)) == named(
        everything
    )
    for percent in (0.1, 10, 33.3, 50):
        found = mined_here(tmp_path / "pairs.npz", pose, max_distance=f"{percent}%", **options)
        cut = nearest[int(np.ceil(len(nearest) * percent / 100)) - 1]
        kept = everything["distance"] <= cut
        np.testing.assert_array_equal(found["positive"], np.where(kept, everything["positive"], -1))
        np.testing.assert_array_equal(
            found["distance"], np.where(kept, everything["distance"], np.inf)
        )
        assert found["positive"].dtype == np.int32 and found["distance"].dtype == np.float32
    alone = write_pose(tmp_path / "alone.npz", [0] * 4)
    assert (mined_here(tmp_path / "pairs.npz", alone, max_distance="50%")["positive"] == -1).all()


@pytest.mark.slow
def test_no_positive_within_the_distance_is_no_failure(tmp_path: Path) -> None:
    done = run_cli("mine", write_pose(tmp_path / "pose.npz", VIDEOS), "--max-distance", "0.001")
    assert done.returncode == 0, done.stderr
    assert (load_npz(done.stdout)["positive"] == -1).all()
    assert done.stderr.decode().startswith("mine: 7 crops of 3 videos, 7 without a positive; ")


OPTIONS: list[dict[str, Any]] = [
    {"top_k": 3},
    {"top_k": 3, "distinct_videos": True},
    {"max_distance": 1.0},
    {"symmetric": True},
    {"top_k": 20, "max_distance": 1.5, "symmetric": True},
    {"top_k": 4, "distinct_videos": True, "max_distance": 2.0, "symmetric": True},
    {"top_k": 2, "exclude_by": "v[012]_"},
    {"top_k": 5, "exclude_by": "^v([0-3]|4.*)", "symmetric": True},
    {"top_k": 100, "distinct_videos": True, "exclude_by": "v(.)"},
]


@pytest.mark.parametrize("engine", ["exact-cpu", "hnsw"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.slow
def test_options_together_are_what_the_loop_finds(
    options: dict[str, Any], engine: str, tmp_path: Path
) -> None:
    ids = np.random.default_rng(3).integers(0, 12, 150)
    pose = write_coarse(tmp_path / "pose.npz", [*ids], 3)
    found = mined_here(tmp_path / "pairs.npz", pose, engine=engine, **options)
    groups = {
        "v[012]_": ids,
        "v(.)": np.where(ids >= 10, 1, ids),
        "^v([0-3]|4.*)": np.where(ids >= 10, 1, ids),
    }
    own = poses(coarse(150, 3), groups.get(options.get("exclude_by", ""), ids))
    top_k, distinct = options.get("top_k", 1), options.get("distinct_videos", False)
    positive, distance = by_hand(own, own, top_k, distinct, options.get("max_distance", np.inf))
    lists = [row[row >= 0].tolist() for row in positive]
    for row, others in enumerate(lists):
        kept = [
            k
            for k, other in enumerate(others)
            if not options.get("symmetric") or row in lists[other]
        ]
        assert found["positive"][row].tolist() == [others[k] for k in kept] + [-1] * (
            top_k - len(kept)
        )
        np.testing.assert_array_equal(found["distance"][row, : len(kept)], distance[row, kept])
    if options.get("symmetric"):
        relation = {
            (row, other)
            for row, others in enumerate(found["positive"].tolist())
            for other in others
        }
        relation = {pair for pair in relation if pair[1] >= 0}
        assert relation and relation == {(other, row) for row, other in relation}


@pytest.mark.slow
def test_options_as_they_are_run(tmp_path: Path) -> None:
    ids = [row % 12 for row in range(150)]
    pose = write_coarse(tmp_path / "pose.npz", ids, 3)
    options = [
        "--top-k",
        "4",
        "--distinct-videos",
        "--max-distance",
        "2",
        "--symmetric",
        "--exclude-by",
        "v(.)",
    ]
    found = mined_by(pose, *options, "--threads", "2")
    expected = mined_here(
        tmp_path / "p.npz",
        pose,
        top_k=4,
        distinct_videos=True,
        max_distance=2.0,
        symmetric=True,
        exclude_by="v(.)",
    )
    assert named(found) == named(expected)
    assert json.loads(str(found["meta"])) == json.loads(str(expected["meta"]))
    arguments = json.loads(str(found["meta"]))["arguments"]
    assert (arguments["max_distance"], arguments["exclude_by"], arguments["symmetric"]) == (
        2.0,
        "v(.)",
        True,
    )


@pytest.fixture
def footage(tmp_path: Path) -> dict[str, Path]:
    """A pool of three files and new footage: one new video, several, and one that goes on with a
    video of the pool.
    """
    rng = np.random.default_rng(1)
    made = {
        f"pool/{part}.npz": rng.integers(5 * part, 5 * part + 6, 40 + part).tolist()
        for part in range(3)
    }
    made |= {
        "one.npz": [20] * 30,
        "several.npz": rng.integers(20, 24, 50).tolist(),
        "known.npz": [3] * 12 + [12] * 9,
    }
    (tmp_path / "pool").mkdir()
    paths = {}
    for number, (name, ids) in enumerate(made.items()):
        keys = as_keys([f"v{video}_{1000 * number + row:08d}_r" for row, video in enumerate(ids)])
        paths[name] = write_pose(tmp_path / name, ids, embedding=coarse(len(ids), number), key=keys)
    return paths


def of_queries(union: Found, queries: Path) -> list[tuple[bytes, list[tuple[bytes, float]]]]:
    wanted = set(load_npz(queries)["key"].tolist())
    return [row for row in named(union) if row[0] in wanted]


AGAINST: list[dict[str, Any]] = [
    {},
    {"top_k": 5},
    {"top_k": 5, "distinct_videos": True, "max_distance": 1.5},
]


@pytest.mark.parametrize("options", AGAINST, ids=str)
@pytest.mark.parametrize("engine", ["exact-cpu", "hnsw"])
@pytest.mark.slow
def test_new_footage_is_what_the_union_gives(
    engine: str, options: dict[str, Any], footage: dict[str, Path], tmp_path: Path
) -> None:
    """Of new videos that may pair with each other too, the new file is named as a part of
    the pool.
    """
    parts = [footage[f"pool/{part}.npz"] for part in range(3)]
    for name, own in (
        ("one.npz", []),
        ("several.npz", ["several.npz"]),
        ("known.npz", ["known.npz"]),
    ):
        union = mined_here(tmp_path / "union.npz", *parts, footage[name], engine=engine, **options)
        against = [*map(str, parts), *(str(footage[other]) for other in own)]
        found = mined_here(
            tmp_path / "new.npz", footage[name], against=against, engine=engine, **options
        )
        assert named(found) == of_queries(union, footage[name])
        assert len(set(found["target"].tolist())) == len(found["target"]) <= found["positive"].size


def test_videos_of_the_pool_are_no_positives_of_their_own(
    footage: dict[str, Path], tmp_path: Path
) -> None:
    """New frames of v3 and v12, which are in the pool under the same names."""
    found = mined_here(
        tmp_path / "new.npz", footage["known.npz"], against=[str(tmp_path / "pool")], top_k=200
    )
    pool_keys = [
        key for part in range(3) for key in load_npz(footage[f"pool/{part}.npz"])["key"].tolist()
    ]
    for key, positives in named(found):
        own = key.partition(b"_")[0] + b"_"
        assert sorted(other for other, _ in positives) == sorted(
            other for other in pool_keys if not other.startswith(own)
        )


@pytest.mark.slow
def test_new_footage_against_a_pool_in_any_form(footage: dict[str, Path], tmp_path: Path) -> None:
    """The pool as files, a folder, a pattern, one file that was merged before, an index; the
    queries from a pipe.
    """
    parts = [footage[f"pool/{part}.npz"] for part in range(3)]
    union = mined_by(*parts, footage["one.npz"], "--top-k", "3")
    expected = of_queries(union, footage["one.npz"])
    arrays = [load_npz(part) for part in parts]
    names = sorted({video for one in arrays for video in one["video"].tolist()})
    merged = {name: np.concatenate([one[name] for one in arrays]) for name in ("key", "embedding")}
    local = [
        names.index(one["video"][video]) for one in arrays for video in one["video_id"].tolist()
    ]
    changes = {**merged, "video": np.array(names), "video_id": np.array(local, np.int32)}
    whole = write_pose(tmp_path / "whole.npz", [0], **changes)
    index = tmp_path / "pool.hnsw"
    mined_by(*parts, "--index", index)
    forms: list[list[str | Path]] = [
        [arg for part in parts for arg in ("--against", part)],
        ["--against", tmp_path / "pool"],
        ["--against", tmp_path / "pool" / "*.npz"],
        ["--against", str(tmp_path / "pool" / "{0..2}.npz")],
        ["--against", whole],
        ["--against", index],
        ["--against", index, "--engine", "exact-cpu"],
        ["--against", tmp_path / "pool", "--index", index],
    ]
    for form in forms:
        assert named(mined_by(footage["one.npz"], *form, "--top-k", "3")) == expected, form
    piped = mined_by(
        "--against", tmp_path / "pool", "--top-k", "3", stdin=footage["one.npz"].read_bytes()
    )
    assert named(piped) == expected
    piped = mined_by(footage["one.npz"], "--against", "-", "--top-k", "3", stdin=whole.read_bytes())
    assert named(piped) == expected
    record = json.loads(str(mined_by(footage["one.npz"], "--against", tmp_path / "pool")["meta"]))
    assert record["inputs"] == ["one.npz", "0.npz", "1.npz", "2.npz"]


@pytest.mark.slow
def test_new_footage_through_the_pipe_with_the_basis(tmp_path: Path) -> None:
    """As the issue has it: nothing is refitted, and the union projected at once gives the same."""
    old, new = crops(["attic", "barn", "cellar"], frames=8), crops(["dock"], frames=6)
    hands, fresh = write_shard(tmp_path / "old.tar", old), write_shard(tmp_path / "new.tar", new)
    basis = tmp_path / "pose.npz"
    assert run_cli("pca", "-q", "--dim", "5", hands, "-o", basis).returncode == 0
    done = shell(
        f"$HANDCLR pca -q --basis {basis} < {fresh} | $HANDCLR mine -q --top-k 3 --against {basis}"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    both = shell(
        f"cat {hands} {fresh} | $HANDCLR pca -q --basis {basis} | $HANDCLR mine -q --top-k 3"
    )
    assert both.returncode == 0, both.stderr
    assert named(load_npz(done.stdout)) == named(load_npz(both.stdout))[24:]


@pytest.mark.slow
def test_files_of_different_days_are_one_pool(footage: dict[str, Path], tmp_path: Path) -> None:
    parts = [footage[name] for name in ("pool/0.npz", "known.npz", "pool/2.npz")]
    arrays = [load_npz(part) for part in parts]
    ids = [int(name[1:]) for one in arrays for name in one["video"][one["video_id"]].tolist()]
    merged = {name: np.concatenate([one[name] for one in arrays]) for name in ("key", "embedding")}
    whole = write_pose(tmp_path / "whole.npz", ids, **merged)
    once, apart = mined_by(whole, "--top-k", "4"), mined_by(*parts, "--top-k", "4")
    for name in ("key", "positive", "distance"):
        np.testing.assert_array_equal(once[name], apart[name])
    assert "target" not in apart
    piped = mined_by(parts[0], "-", parts[2], "--top-k", "4", stdin=parts[1].read_bytes())
    np.testing.assert_array_equal(once["positive"], piped["positive"])


def test_a_pool_in_memory_batches(
    footage: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [footage[f"pool/{part}.npz"] for part in range(3)]
    options: dict[str, Any] = {
        "top_k": 4,
        "symmetric": True,
        "near_duplicates": "exclude",
        "exclude_by": "v(.)",
    }
    files = []
    for batch in (1 << 22, 81, 1):
        monkeypatch.setattr(pool, "BATCH_ROWS", batch)
        mined_here(tmp_path / "all.npz", *parts, **options)
        new = mined_here(
            tmp_path / "new.npz", footage["one.npz"], against=[*map(str, parts)], top_k=3
        )
        files.append(((tmp_path / "all.npz").read_bytes(), named(new)))
    assert files[0] == files[1] == files[2]


PARTS: list[dict[str, Any]] = [
    {},
    {"symmetric": True, "top_k": 4},
    {"top_k": 3, "exclude_by": "v(.)"},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", PARTS, ids=str)
@pytest.mark.parametrize("count", [1, 3, 37])
def test_parts_are_the_whole(
    count: int, options: dict[str, Any], footage: dict[str, Path], tmp_path: Path
) -> None:
    parts = [footage[f"pool/{part}.npz"] for part in range(3)]
    whole = mined_here(tmp_path / "whole.npz", *parts, **options)
    rows = []
    for part in range(count):
        found = mined_here(tmp_path / "part.npz", *parts, part=f"{part}/{count}", **options)
        assert sorted(set(found["target"].tolist())) == sorted(found["target"].tolist())
        assert found["positive"].shape[1] == options.get("top_k", 1)
        rows += named(found)
    assert rows == named(whole)


def test_parts_of_new_footage(footage: dict[str, Path], tmp_path: Path) -> None:
    against = [str(tmp_path / "pool")]
    whole = mined_here(tmp_path / "whole.npz", footage["several.npz"], against=against, top_k=2)
    rows = []
    for part in range(4):
        options: dict[str, Any] = {"against": against, "top_k": 2, "part": f"{part}/4"}
        rows += named(mined_here(tmp_path / "part.npz", footage["several.npz"], **options))
    assert rows == named(whole)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["exact-cpu", "hnsw"])
def test_a_part_without_rows(engine: str, tmp_path: Path) -> None:
    """An array job may have more tasks than crops: the rest of them have nothing to do,
    and say so.
    """
    pose, out = write_pose(tmp_path / "pose.npz", VIDEOS), tmp_path / "part.npz"
    plot, report = tmp_path / "part.png", tmp_path / "part.json"
    options = [
        "--part",
        "0/9",
        "--top-k",
        "2",
        "--plot",
        plot,
        "--report",
        report,
        "--engine",
        engine,
    ]
    done = run_cli("mine", pose, "-o", out, *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode().startswith("mine: 0 crops of 0 videos")
    assert len(done.stderr.splitlines()) == 1
    found, record = read_npz(str(out), "pairs")
    assert found["positive"].shape == (0, 2) and found["target"].shape == (0,)
    assert record and record["arguments"]["part"] == "0/9"
    assert "NaN" not in report.read_text()
    assert json.loads(report.read_text())["queries"] == 0
    assert cv2.imread(str(plot)) is not None


@pytest.mark.slow
def test_exact_on_a_graphics_card_that_is_not_there(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    command = [*CLI, "mine", str(pose), "-o", str(tmp_path / "pairs.npz"), "--engine", "exact-gpu"]
    env = cli_env({"CUDA_VISIBLE_DEVICES": ""})
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env=env, timeout=120
    )
    assert (
        error_line(done, 1)
        == "--engine exact-gpu needs CUDA, and there is none here; take exact-cpu"
    )
    assert not (tmp_path / "pairs.npz").exists()


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
        done = run_cli(
            "mine",
            "-q",
            tmp_path / "p.hnsw",
            "--index",
            tmp_path / "q.hnsw",
            "-o",
            tmp_path / "o.npz",
        )
        assert done.returncode != 0 or (tmp_path / "q.hnsw").exists()

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
                "pose.npz: has no graph; name a file that is not there, or one made by --index",
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


@pytest.mark.slow
def test_a_report_is_no_file_named_by_a_dash(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    run_cli("mine", pose, "-o", "pairs.npz", "--report", "-", cwd=tmp_path)
    assert not (tmp_path / "-").exists()


def subjects(
    ids: Sequence[int], per_subject: int, embedding: np.ndarray
) -> tuple[list[Sample], dict[str, np.ndarray]]:
    """Crops with a subject in their JSON, several videos each, and changes for a pose
    file of them.
    """
    samples = []
    for row, video in enumerate(ids):
        info = {"video": f"v{video}", "frame": row, "subject": video // per_subject}
        samples.append(crop(f"v{video}", row, members={INFO.suffix: encode_object(info)}))
    return samples, {"key": as_keys([sample.key for sample in samples]), "embedding": embedding}


@pytest.mark.slow
def test_no_pairs_within_a_subject(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 12, 80)
    samples, changes = subjects(ids.tolist(), 3, coarse(80, 0))
    pose, shard = (
        write_pose(tmp_path / "p.npz", ids.tolist(), **changes),
        write_shard(tmp_path / "h.tar", samples),
    )
    found = mined_by(pose, "--exclude-by", "subject", "--shards", shard, "--top-k", "4")
    own = poses(coarse(80, 0), ids // 3)
    positive, distance = by_hand(own, own, 4)
    np.testing.assert_array_equal(found["positive"], positive)
    np.testing.assert_array_equal(found["distance"], distance)
    other = run_cli("mine", pose, "--exclude-by", "person", "--shards", shard)
    assert (
        error_line(other, 1)
        == "--exclude-by person: no crop of these videos has this field; they have frame, subject,"
        " video"
    )
    elsewhere = write_shard(tmp_path / "e.tar", crops(["attic"]))
    message = error_line(run_cli("mine", pose, "--exclude-by", "subject", "--shards", elsewhere), 1)
    assert message.endswith("are these their shards?")


@pytest.mark.slow
def test_patterns_on_keys(tmp_path: Path) -> None:
    pose, out = write_pose(tmp_path / "pose.npz", VIDEOS), tmp_path / "pairs.npz"
    everything = run_cli("mine", "-q", pose, "--exclude-by", "^v", "-o", out)
    assert everything.returncode == 3
    assert len(everything.stderr.splitlines()) == 1
    assert (load_npz(out)["positive"] == -1).all()
    out.unlink()
    message = error_line(run_cli("mine", pose, "--exclude-by", "zzz+", "-o", out), 1)
    assert message == "--exclude-by zzz+: found in no key, such as v0_00000000_r"
    partly = run_cli("mine", pose, "--exclude-by", "v([01])|v2")
    assert partly.returncode == 0, partly.stderr
    assert named(load_npz(partly.stdout)) == named(mined_by(pose))
    assert not out.exists()


def walks(videos: int, frames: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    steps = 0.3 * rng.normal(size=(videos, frames, 14))
    return (rng.normal(size=(videos, 1, 14)) + np.cumsum(steps, axis=1)).astype(np.float32)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """30 videos of 20 frames, and the 8th again as v30."""
    made = walks(30, 20)
    made = np.concatenate([made, made[8:9] + np.float32(0.002)])
    return write_pose(
        tmp_path / "copied.npz",
        np.repeat(np.arange(31), 20).tolist(),
        embedding=made.reshape(-1, 14),
    )


@pytest.mark.slow
def test_the_same_footage_twice(copied: Path, tmp_path: Path) -> None:
    plain = run_cli("mine", copied)
    report = tmp_path / "report.json"
    told = run_cli("mine", copied, "--near-duplicates", "report", "--report", report)
    assert told.returncode == 0, told.stderr
    assert told.stdout == plain.stdout
    first, second, third = told.stderr.decode().splitlines()
    assert first == plain.stderr.decode().strip()
    assert (
        second
        == "mine: 1 pair of videos show the same footage; --near-duplicates exclude keeps them from"
        " pairing"
    )
    (twin,) = json.loads(report.read_text())["near_duplicates"]
    assert (twin["first"], twin["second"]) == ("v8", "v30")
    poses_of = f"{twin['coincident']} of {twin['crops']} different poses"
    assert third == f"mine: same footage: v8 and v30, {poses_of}"
    excluded = run_cli("mine", copied, "--near-duplicates", "exclude", "--report", report)
    assert excluded.returncode == 0, excluded.stderr
    assert (
        excluded.stderr.decode().splitlines()[1]
        == "mine: 1 pair of videos show the same footage; make no pairs"
    )
    assert json.loads(report.read_text())["near_duplicates"] == [twin]

    def pairs_of_videos(data: bytes) -> set[tuple[int, int]]:
        found = load_npz(data)["positive"][:, 0]
        return {(row // 20, int(other) // 20) for row, other in enumerate(found)}

    assert {(8, 30), (30, 8)} <= pairs_of_videos(plain.stdout)
    assert not {(8, 30), (30, 8)} & pairs_of_videos(excluded.stdout)
    groups = np.repeat(np.arange(31), 20)
    groups[groups == 30] = 8
    own = poses(load_npz(copied)["embedding"], groups)
    np.testing.assert_array_equal(load_npz(excluded.stdout)["positive"], by_hand(own, own, 1)[0])
    record = json.loads(str(load_npz(excluded.stdout)["meta"]))
    assert record["arguments"]["exclude_near_duplicates"] is True


@pytest.mark.slow
def test_no_footage_twice(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    done = run_cli("mine", pose, "--near-duplicates", "report", "--report", tmp_path / "r.json")
    assert done.stderr.decode().splitlines()[1:] == [
        "mine: 0 pairs of videos show the same footage"
    ]
    assert json.loads((tmp_path / "r.json").read_text())["near_duplicates"] == []


@pytest.mark.slow
def test_new_footage_that_is_old(copied: Path, tmp_path: Path) -> None:
    arrays = load_npz(copied)
    changes = {"key": arrays["key"][600:], "embedding": arrays["embedding"][600:]}
    new = write_pose(tmp_path / "new.npz", [30] * 20, **changes)
    old = write_pose(
        tmp_path / "old.npz",
        arrays["video_id"][:600].tolist(),
        key=arrays["key"][:600],
        embedding=arrays["embedding"][:600],
    )
    report = tmp_path / "r.json"
    options = ["--against", old, "--near-duplicates", "exclude", "--report", report]
    found = mined_by(new, *options)
    (twin,) = json.loads(report.read_text())["near_duplicates"]
    assert {twin["first"], twin["second"]} == {"v8", "v30"}
    assert not any(key.startswith(b"v8_") for _, positives in named(found) for key, _ in positives)
    union = mined_by(old, new, "--near-duplicates", "exclude")
    assert named(found) == of_queries(union, new)


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
    assert f"--sheet: the crops are not in {more}" in error_line(only_new, 1)
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
    assert message == f"--sheet: the crops are not in {tmp_path}/other.tar; name the shards of all"
    assert not (tmp_path / "s.png").exists() and not (tmp_path / "pairs.npz").exists()


ROWS = [row % 5 for row in range(30)]


def true_hands(rows: int = len(ROWS)) -> np.ndarray:
    return (np.random.default_rng(9).normal(size=(rows, 21, 3)) * 0.05 + [0, 0, 0.6]).astype(
        np.float32
    )


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


@pytest.mark.slow
class TestMineWithTruth(test_filters.TestMine):
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
