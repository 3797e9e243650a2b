"""$ handclr mine: what it refuses, and what it says then."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mining_helpers import VIDEOS, Found, refusal
from shard_helpers import CLI, ROOT, cli_env, error_line, pose_arrays, run_cli, write_pose

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.similarity.mine_job import MineSettings, run_mine


@pytest.mark.slow
def test_usage(tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    sheet = tmp_path / "sheet.png"
    assert (
        error_line(run_cli("mine", pose, "--sheet", sheet), 2)
        == f"--sheet {sheet}: needs the crops; name them with --shards"
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
        (
            {"engine": "gpu"},
            "'--engine': 'gpu' is not one of 'auto', 'exact-cpu', 'exact-gpu', 'hnsw'",
        ),
        (
            {"rank": "nice"},
            "'--rank': 'nice' is not one of 'best', 'worst', 'random', 'quantiles'",
        ),
        (
            {"near_duplicates": "drop"},
            "'--near-duplicates': 'drop' is not one of 'report', 'exclude'",
        ),
        (
            {"exclude_by": "subject"},
            "--exclude-by subject: a field, needs the crops: name their shards",
        ),
        ({"against": ["POSE"], "symmetric": True}, "--symmetric: needs the queries in the pool; "),
        (
            {"against": ["POSE"], "more": True},
            "--against: takes one name, and 2 files follow; quote a pattern",
        ),
        (
            {"part": "0/2", "near_duplicates": "report"},
            "--near-duplicates report: needs all crops in one run",
        ),
        ({"part": "3/3"}, "--part 3/3: not I/N with I from 0 to N - 1"),
        ({"part": "-1/2"}, "--part -1/2: not I/N"),
        ({"part": "a/b"}, "--part a/b: not I/N"),
        ({"part": "0/0"}, "--part 0/0: not I/N"),
        ({"part": "1"}, "--part 1: not I/N"),
        ({"part": "/"}, "--part /: not I/N"),
        ({"part": "1/2/3"}, "--part 1/2/3: not I/N"),
        ({"index": "INDEX", "engine": "exact-cpu"}, ": is for the engine hnsw, not exact-cpu"),
        ({"index": "INDEX", "engine": "exact-gpu"}, ": is for the engine hnsw, not exact-gpu"),
        ({"exclude_by": "("}, "--exclude-by (: not a regular expression: "),
    ],
)
def test_words_for_wrong_options(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    pose = write_pose(tmp_path / "pose.npz", VIDEOS)
    places = {"POSE": str(pose), "INDEX": str(tmp_path / "p.hnsw")}
    sources = [pose]
    if options.get("more"):
        sources.append(write_pose(tmp_path / "more.npz", [5]))
    given = ["-o", str(tmp_path / "pairs.npz")]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            given += [option] if name != "more" else []
            continue
        values = value if isinstance(value, list) else [value]
        given += [f"{option}={places.get(one, one)}" for one in values]
    before = sorted(tmp_path.iterdir())
    code, said = refusal(*sources, *given)
    assert words in said
    assert code == 2
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
    assert "--part 0/2: needs files" in error_line(run_cli("mine", "--part", "0/2", stdin=data), 2)
    assert "--part 0/2: needs files" in error_line(
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
    assert "not a part of them" in error_line(
        run_cli("mine", pose, "--max-distance", "50%", "--part", "0/2"), 2
    )
    assert run_cli("mine", pose, "--threads", "0").returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.npz", "pose.npz"]


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


def test_a_crop_that_is_asked_about_twice(tmp_path: Path) -> None:
    pool = write_pose(tmp_path / "pool.npz", VIDEOS)
    new = [str(write_pose(tmp_path / name, [4, 5])) for name in ("a.npz", "b.npz")]
    with pytest.raises(HandclrError, match=r"a\.npz and 1 more: key .* appears twice"):
        run_mine(MineSettings(pose=new, against=[str(pool)], output=str(tmp_path / "pairs.npz")))


@pytest.mark.parametrize(("pattern", "error"), [("(", UsageError), ("zzz+", HandclrError)])
def test_a_pattern_of_no_use_is_told_before_the_work(
    pattern: str, error: type[Exception], tmp_path: Path
) -> None:
    pose, index = write_pose(tmp_path / "pose.npz", VIDEOS), tmp_path / "p.hnsw"
    settings = {"output": str(tmp_path / "o.npz"), "index": str(index)}
    with pytest.raises(error):
        run_mine(MineSettings(pose=[str(pose)], exclude_by=pattern, **settings))
    assert not index.exists()


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
        == "--engine exact-gpu: needs CUDA, and there is none here; take exact-cpu"
    )
    assert not (tmp_path / "pairs.npz").exists()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--max-distance", "0"], 0, "none is within --max-distance 0; allow more"),
        (
            ["--exclude-by", "^(v)", "--max-distance", "5"],
            3,
            "--exclude-by joins all 2 videos; add other people or recordings, or leave it out",
        ),
        (
            ["--exclude-by", "^(v)", "--symmetric"],
            3,
            "--exclude-by joins all 2 videos; add other people or recordings, or leave it out",
        ),
        (
            ["--against", "ALONE"],
            3,
            "positives come from another video, and --against has crops of theirs only; name more "
            "pose files there",
        ),
    ],
)
@pytest.mark.slow
def test_words_for_crops_without_a_positive(
    options: list[str], code: int, words: str, tmp_path: Path
) -> None:
    alone = write_pose(tmp_path / "alone.npz", [0, 0])
    pose = alone if "ALONE" in options else write_pose(tmp_path / "pose.npz", [0, 1])
    given = [str(alone) if word == "ALONE" else word for word in options]
    done = run_cli("mine", "-q", pose, *given, "-o", tmp_path / "pairs.npz")
    assert done.returncode == code, done.stderr
    assert done.stderr.decode() == f"handclr: warning: 2 crops have no positive: {words}\n"
