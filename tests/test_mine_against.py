"""$ handclr mine: new footage against a pool, pools of many files, parts of a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mining_helpers import VIDEOS, coarse, mined_by, mined_here, named, of_queries, shell
from shard_helpers import crops, load_npz, run_cli, write_pose, write_shard

from handclr_cli.contract.npz import as_keys, read_npz
from handclr_cli.similarity import pool


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
