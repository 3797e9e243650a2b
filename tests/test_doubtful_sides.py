"""--min-side-score: crops whose side is not sure are left out of pca, mine and pretrain alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_helpers import TRAINING, handclr, labelled_sample, write_pairs
from mining_helpers import mined_here, named
from shard_helpers import crop, load_npz, pose_arrays, write_pose, write_shard

from handclr_cli.commands.mine import mine
from handclr_cli.commands.pca import pca
from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.fields import INFO, encode_object
from handclr_cli.contract.poses import PoseTable
from handclr_cli.contract.sample import Sample
from handclr_cli.learning.pretrain_job import PretrainSettings
from handclr_cli.similarity.mine_job import MineSettings, run_mine
from handclr_cli.similarity.pca_job import PcaSettings, run_pca

# None: the JSON says nothing of it.
SCORES: list[Any] = [1, 0.9, 0.85, None, 0.2, 0.95, 0.0, None]
SURE = [0, 1, 3, 5, 7]


def said(sample: Sample, score: Any) -> Sample:
    info = sample.info | ({} if score is None else {"side_score": score})
    return Sample(sample.key, {**sample.members, INFO.suffix: encode_object(info)})


def scored() -> list[Sample]:
    """Crops of two videos by turns."""
    crops = [crop("attic" if frame % 2 else "barn", frame) for frame in range(len(SCORES))]
    return [said(one, score) for one, score in zip(crops, SCORES, strict=True)]


def embedded(path: Path, samples: list[Sample], **options: Any) -> Any:
    shard = write_shard(path.with_suffix(".tar"), samples)
    return run_pca(PcaSettings(shards=[str(shard)], output=str(path), dim=3, **options))


def test_pca_leaves_them_out_and_keeps_the_scores_of_the_others(tmp_path: Path) -> None:
    done = embedded(tmp_path / "all.npz", scored())
    assert (done.poses, done.doubtful) == (8, 0)
    everything = load_npz(tmp_path / "all.npz")
    assert everything["side_score"].tolist() == [1, 0.9, 0.85, 1, 0.2, 0.95, 0, 1]
    done = embedded(tmp_path / "sure.npz", scored(), min_side_score=0.9)
    assert (done.poses, done.doubtful, done.dropped, done.skipped) == (5, 3, 0, 0)
    sure = load_npz(tmp_path / "sure.npz")
    assert sure["key"].tolist() == [everything["key"][row] for row in SURE]
    assert sure["side_score"].tolist() == [1, 0.9, 1, 0.95, 1]
    assert json.loads(str(sure["meta"]))["arguments"]["min_side_score"] == 0.9
    assert "min_side_score" not in json.loads(str(everything["meta"]))["arguments"]
    # As if they had never been there.
    embedded(tmp_path / "without.npz", [scored()[row] for row in SURE])
    without = load_npz(tmp_path / "without.npz")
    np.testing.assert_array_equal(without["embedding"], sure["embedding"])


def test_without_scores_there_is_no_array_and_nothing_is_doubtful(tmp_path: Path) -> None:
    done = embedded(tmp_path / "pose.npz", [crop(frame=frame) for frame in range(4)])
    assert "side_score" not in load_npz(tmp_path / "pose.npz")
    again = embedded(
        tmp_path / "pose.npz", [crop(frame=frame) for frame in range(4)], min_side_score=1.0
    )
    assert (done.poses, again.poses, again.doubtful) == (4, 4, 0)


@pytest.mark.parametrize("score", [1.5, -0.1, True, "sure", [1], "NaN"])
def test_a_score_that_is_none_skips_the_sample(
    score: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = said(crop("cellar"), score)
    done = embedded(tmp_path / "pose.npz", [*scored(), bad])
    assert (done.poses, done.skipped) == (8, 1)
    assert "sample cellar_00000000_r: side_score is " in capsys.readouterr().err


def test_leaving_all_out_is_an_error(tmp_path: Path) -> None:
    low = [said(crop(frame=frame), 0.5) for frame in range(4)]
    with pytest.raises(HandclrError, match="leaves none of the 4 samples") as caught:
        embedded(tmp_path / "pose.npz", low, min_side_score=0.6)
    assert caught.value.setting == "min_side_score"


def by_hand(arrays: dict[str, np.ndarray], kept: np.ndarray) -> Any:
    """What mining the kept rows alone finds."""
    rows = {name: arrays[name][kept] for name in ("key", "video_id", "embedding")}
    return {**arrays, **rows}


def test_mine_neither_asks_nor_answers_with_them(tmp_path: Path) -> None:
    videos = [row % 5 for row in range(40)]
    scores = np.random.default_rng(1).uniform(size=40)
    pose = write_pose(tmp_path / "pose.npz", videos, side_score=scores)
    sure = scores >= 0.6
    assert 10 < sure.sum() < 30
    alone = write_pose(tmp_path / "alone.npz", videos, **by_hand(pose_arrays(videos), sure))
    found = mined_here(tmp_path / "pairs.npz", pose, top_k=3, min_side_score=0.6)
    assert named(found) == named(mined_here(tmp_path / "alone-pairs.npz", alone, top_k=3))
    assert found["key"].tolist() == pose_arrays(videos)["key"][sure].tolist()
    done = run_mine(
        MineSettings(pose=[str(pose)], output=str(tmp_path / "x.npz"), min_side_score=0.6)
    )
    assert done.left_out == done.report()["doubtful_sides_left_out"] == 40 - sure.sum()
    assert done.summary.queries == done.summary.pool == sure.sum()
    assert json.loads(str(found["meta"]))["arguments"]["min_side_score"] == 0.6
    everything = mined_here(tmp_path / "all.npz", pose)
    assert len(everything["key"]) == 40
    assert "min_side_score" not in json.loads(str(everything["meta"]))["arguments"]


def test_mine_against_leaves_them_out_on_both_sides(tmp_path: Path) -> None:
    queries = write_pose(tmp_path / "new.npz", [0, 0, 0], side_score=np.array([0.1, 1.0, 0.7]))
    pool_arrays = pose_arrays([1, 2, 3, 4], seed=1)
    pool_arrays["embedding"][2] = pose_arrays([0, 0, 0])["embedding"][1]
    pool = write_pose(
        tmp_path / "pool.npz",
        [1, 2, 3, 4],
        **pool_arrays | {"side_score": np.array([1, 1, 0.2, 1])},
    )
    near = mined_here(tmp_path / "near.npz", queries, against=[str(pool)])
    keys = pool_arrays["key"].tolist()
    assert named(near)[1][1] == [(keys[2], 0.0)]
    found = mined_here(tmp_path / "pairs.npz", queries, against=[str(pool)], min_side_score=0.5)
    assert [key for key, _ in named(found)] == [key for key, _ in named(near)][1:]
    assert keys[2] not in found["target"].tolist()
    done = run_mine(
        MineSettings(
            pose=[str(queries)],
            against=[str(pool)],
            output=str(tmp_path / "x.npz"),
            min_side_score=0.5,
        )
    )
    assert done.left_out == 2


def test_mine_of_parts_is_that_of_the_whole(tmp_path: Path) -> None:
    scores = np.random.default_rng(2).uniform(size=30)
    pose = write_pose(tmp_path / "pose.npz", [row % 4 for row in range(30)], side_score=scores)
    whole = mined_here(tmp_path / "whole.npz", pose, min_side_score=0.3)
    halves = [
        mined_here(tmp_path / f"{part}.npz", pose, min_side_score=0.3, part=f"{part}/2")
        for part in range(2)
    ]
    assert [*named(halves[0]), *named(halves[1])] == named(whole)


def test_an_index_of_the_sure_ones_knows_their_scores(tmp_path: Path) -> None:
    scores = np.linspace(0, 1, 30)
    pose = write_pose(tmp_path / "pose.npz", [row % 4 for row in range(30)], side_score=scores)
    index = tmp_path / "poses.hnsw"
    found = mined_here(tmp_path / "a.npz", pose, min_side_score=0.5, index=str(index))
    kept = load_npz(index)
    assert kept["side_score"].tolist() == scores[15:].tolist()
    assert named(found) == named(mined_here(tmp_path / "b.npz", pose, min_side_score=0.5))
    # Its graph is over all of its rows: where some are left out, the search is exact.
    assert PoseTable([str(index)], min_side_score=0.5).graph() is not None
    table = PoseTable([str(index)], min_side_score=0.9)
    assert (table.graph(), len(table), table.left_out) == (None, 3, 12)
    nearest = mined_here(tmp_path / "c.npz", index, min_side_score=0.9)
    assert named(nearest) == named(mined_here(tmp_path / "d.npz", pose, min_side_score=0.9))


def test_a_pool_of_files_with_and_without_scores(tmp_path: Path) -> None:
    arrays = pose_arrays([5, 6], seed=3)
    scored_file = write_pose(tmp_path / "a.npz", [0, 1, 2], side_score=np.array([0.1, 0.9, 0.5]))
    silent = write_pose(tmp_path / "b.npz", [5, 6], **arrays)
    table = PoseTable([str(scored_file), str(silent)], min_side_score=0.5)
    assert (len(table), table.left_out) == (4, 1)
    assert table.arrays()["side_score"].tolist() == [0.9, 0.5, 1, 1]
    assert "side_score" not in PoseTable([str(silent)]).arrays()
    with pytest.raises(HandclrError, match="leaves none of the 1 poses") as caught:
        only = write_pose(tmp_path / "c.npz", [0], side_score=np.array([0.5]))
        PoseTable([str(only)], min_side_score=0.6)
    assert caught.value.setting == "min_side_score"


def test_the_summaries_count_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard, pose = write_shard(tmp_path / "hands.tar", scored()), str(tmp_path / "pose.npz")
    pca([str(shard)], output=pose, dim=2, min_side_score=0.9)
    said_by_pca = "0 samples without keypoints dropped, 3 of a doubtful side left out\n"
    assert capsys.readouterr().err.endswith(said_by_pca)
    pca([str(shard)], output=pose, dim=2)
    mine([pose], output=str(tmp_path / "pairs.npz"), min_side_score=0.9)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "mine: 3 crops of a doubtful side left out" and "doubtful" not in lines[0]


@pytest.mark.slow
def test_pretrain_shows_them_neither_as_query_nor_as_positive(tmp_path: Path) -> None:
    samples = [
        said(labelled_sample(number), 0.3 if number in (2, 5) else None) for number in range(8)
    ]
    shard = write_shard(tmp_path / "hands.tar", samples)
    keys = [sample.key for sample in samples]
    # The pairs name them: 2 has a positive, and so has 1, to which 5 is it.
    pairs = write_pairs(tmp_path / "pairs.npz", keys, [4, 5, 6, 7, 0, 1, 2, 3])
    words = ["--min-side-score", 0.5, *TRAINING, "--run", tmp_path / "run"]
    schedule = ("--epochs", 1, "--batch", 4, "--warmup-epochs", 0)
    done = handclr("pretrain", shard, "--pairs", pairs, *words, *schedule)
    told = "4 pairs (4 crops without one), 2 crops of a doubtful side left out"
    assert told in done.stderr.decode()
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["arguments"]["min_side_score"] == 0.5 and config["data"]["rows"] == 4
    low = write_shard(tmp_path / "low.tar", [said(one, 0.1) for one in samples])
    failed = handclr("pretrain", low, "--method", "simclr", *words, "--fresh", code=1)
    said_then = "handclr: error: --min-side-score 0.5: leaves no pair of crops; ask for less\n"
    assert failed.stderr.decode() == said_then
    sure = write_shard(
        tmp_path / "sure.tar", [samples[0], *(said(one, 0.1) for one in samples[1:])]
    )
    failed = handclr("pretrain", sure, "--method", "simclr", *words, "--fresh", code=1)
    said_then = (
        "1 pair left by --min-side-score 0.5: too few to train on; leave more, or add shards"
    )
    assert said_then in failed.stderr.decode()
    assert "min_side_score" not in PretrainSettings(shards=["hands.tar"]).arguments()
