"""Pose files as one table."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from shard_helpers import pose_arrays, write_pose

from handclr_cli.contract import poses as poses_module
from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.poses import PoseTable, all_rows

EMPTY = {name: pose_arrays([])[name] for name in ("key", "video", "video_id", "embedding")}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Three files with 4, 3 and 5 rows; v1 is in all of them."""
    videos = [[0, 0, 1, 1], [2, 1, 2], [1, 3, 3, 3, 1]]
    return [
        str(
            write_pose(
                tmp_path / f"{number}.npz",
                ids,
                embedding=pose_arrays(ids, seed=number)["embedding"],
            )
        )
        for number, ids in enumerate(videos)
    ]


def damaged(path: Path, **changes: np.ndarray) -> str:
    np.savez(path, **{**pose_arrays([0, 0, 1, 1]), **changes})
    return str(path)


def test_rows_follow_each_other(files: list[str]) -> None:
    table = PoseTable(files)
    assert len(table) == 12
    names = list(table.names)
    assert [names[video] for video in table.video] == [
        b"v%d" % v for v in (0, 0, 1, 1, 2, 1, 2, 1, 3, 3, 3, 1)
    ]
    assert table.video.dtype == np.int32
    alone = [PoseTable([file]) for file in files]
    np.testing.assert_array_equal(table.keys(), np.concatenate([one.keys() for one in alone]))
    np.testing.assert_array_equal(
        table.embedding(), np.concatenate([one.embedding() for one in alone])
    )
    np.testing.assert_array_equal(table.embedding(files[1:2]), alone[1].embedding())
    assert table.embedding().dtype == np.float32


def test_the_order_of_the_files_is_that_of_the_rows(files: list[str]) -> None:
    table = PoseTable(files[::-1])
    assert [list(table.names)[video] for video in table.video[:2]] == [b"v1", b"v3"]
    np.testing.assert_array_equal(table.embedding()[:5], PoseTable(files[2:]).embedding())


@pytest.mark.slow
def test_names_in_messages(files: list[str]) -> None:
    assert PoseTable(files[:1]).name == files[0]
    assert PoseTable(files[:2]).name == f"{files[0]} and 1 more"
    assert PoseTable(files[:1] * 1500).name == f"{files[0]} and 1,499 more"


def test_a_table_like_another_shares_its_numbers(files: list[str]) -> None:
    queries = PoseTable(files[1:2])
    pool = PoseTable(files[::2], like=queries)
    assert pool.names is queries.names
    names = list(queries.names)
    assert [names[video] for video in pool.video] == [
        b"v%d" % v for v in (0, 0, 1, 1, 1, 3, 3, 3, 1)
    ]
    assert [names[video] for video in queries.video] == [b"v2", b"v1", b"v2"]
    assert pool.axes is queries.axes


def test_all_rows(files: list[str]) -> None:
    queries = PoseTable(files[1:2])
    pool = PoseTable([files[0], files[2]], like=queries)
    keys, video, rows = all_rows(queries, pool)
    np.testing.assert_array_equal(keys[:9], pool.keys())
    np.testing.assert_array_equal(keys[rows], queries.keys())
    np.testing.assert_array_equal(video[rows], queries.video)
    assert rows.tolist() == [9, 10, 11]
    keys, video, rows = all_rows(queries, queries)
    assert (len(keys), rows.tolist()) == (3, [0, 1, 2])
    np.testing.assert_array_equal(video, queries.video)


def test_keys_of_other_lengths_stay_whole(tmp_path: Path) -> None:
    """Bytes of another length in each file: the wider holds both, and nothing is cut."""
    arrays = pose_arrays([0, 1])
    long = np.array([b"a-name-that-is-much-longer_00000000_r", b"b"])
    paths = [damaged(tmp_path / "a.npz"), damaged(tmp_path / "b.npz", **{**arrays, "key": long})]
    for order in (paths, paths[::-1]):
        assert long[0] in PoseTable(order).keys().tolist()


@pytest.mark.parametrize(
    ("limit", "runs"),
    [
        (1, [1, 1, 1]),
        (4, [1, 1, 1]),
        (7, [2, 1]),
        (8, [1, 2]),
        (11, [2, 1]),
        (12, [3]),
        (1 << 22, [3]),
    ],
)
def test_batches(limit: int, runs: list[int], files: list[str]) -> None:
    order = files if limit != 8 else [files[2], *files[:2]]
    batches = PoseTable(order).batches(limit)
    assert [source for run in batches for source in run] == order
    assert [len(run) for run in batches] == runs


def test_batches_with_empty_files(files: list[str], tmp_path: Path) -> None:
    empty = str(write_pose(tmp_path / "empty.npz", [0], **EMPTY))
    table = PoseTable([empty, files[0], empty])
    assert len(table) == len(table.embedding()) == len(table.keys()) == 4
    assert [source for run in table.batches(4) for source in run] == [empty, files[0], empty]


def test_no_rows(tmp_path: Path) -> None:
    empty = str(write_pose(tmp_path / "empty.npz", [0], **EMPTY))
    with pytest.raises(HandclrError, match="empty.npz: no poses to mine"):
        PoseTable([empty])
    with pytest.raises(HandclrError, match="empty.npz and 1 more: no poses to mine"):
        PoseTable([empty, empty])


def test_provenance_of_each_file_once(files: list[str]) -> None:
    table = PoseTable(files)
    table.keys()
    table.embedding()
    assert [origin and origin["stage"] for origin in table.origins] == ["pca"] * 3


def test_only_what_is_asked_for_is_read(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []
    read = poses_module.read_npz

    def recorded(source: str, kind: str, only: tuple[str, ...] | None = None) -> object:
        asked.append(set(only or ["everything"]))
        return read(source, kind, only)

    monkeypatch.setattr(poses_module, "read_npz", recorded)
    table = PoseTable(files)
    table.keys()
    assert not any({"embedding", "everything"} & names for names in asked)
    asked.clear()
    table.embedding(files[:1])
    assert len(asked) == 1 and "key" not in asked[0]


def test_a_pipe_is_read_once(files: list[str], tmp_path: Path) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    data = Path(files[0]).read_bytes()
    writer = threading.Thread(target=lambda: Path(pipe).write_bytes(data), daemon=True)
    writer.start()
    table, plain = PoseTable([pipe, files[1]]), PoseTable(files[:2])
    writer.join(10)
    np.testing.assert_array_equal(table.keys(), plain.keys())
    np.testing.assert_array_equal(table.embedding(), plain.embedding())
    assert table.graph() is None
    assert len(table.origins) == 2


def test_other_axes(files: list[str], tmp_path: Path) -> None:
    arrays = pose_arrays([0, 0, 1, 1])
    moved = damaged(tmp_path / "moved.npz", mean=arrays["mean"] + 1e-12)
    turned = damaged(tmp_path / "turned.npz", components=-arrays["components"])
    fewer = damaged(tmp_path / "fewer.npz", **pose_arrays([0, 0, 1, 1], dimensions=10))
    queries = PoseTable(files[:1])
    for other in (moved, turned, fewer):
        for sources, like in (([files[0], other], None), ([other], queries)):
            with pytest.raises(HandclrError) as caught:
                PoseTable(sources, like=like)
            assert str(caught.value).startswith(f"{other}: made with other axes than {files[0]}")
            assert f"handclr pca with {files[0]} as the basis" in str(caught.value)


def test_other_shares_of_the_variance_do_not_matter(files: list[str], tmp_path: Path) -> None:
    """`pca --basis` may write them for the new footage: what decides are the axes."""
    other = damaged(tmp_path / "other.npz", explained_variance_ratio=np.full(14, 0.01))
    assert len(PoseTable([files[0], other])) == 8


@pytest.mark.parametrize("ids", [[0, 1, 2, -1], [0, 1, 2, 3], [-5, 0, 0, 0]])
def test_videos_that_are_not_named(ids: list[int], tmp_path: Path) -> None:
    path = damaged(
        tmp_path / "p.npz", video=np.array([b"a", b"b", b"c"]), video_id=np.array(ids, np.int32)
    )
    with pytest.raises(
        HandclrError, match="p.npz: array 'video_id' has rows that are not in 'video'"
    ):
        PoseTable([path])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad: float, files: list[str], tmp_path: Path) -> None:
    embedding = pose_arrays([0, 0, 1, 1])["embedding"]
    embedding[3, 13] = bad
    path = damaged(tmp_path / "p.npz", embedding=embedding)
    with pytest.raises(
        HandclrError, match=r"p.npz: array 'embedding' holds (values that are not finite|NaN)"
    ):
        PoseTable([files[0], path]).embedding()


def test_embeddings_of_another_width_than_the_axes(files: list[str], tmp_path: Path) -> None:
    """Arrays that are read apart must fit each other all the same."""
    narrow = damaged(tmp_path / "p.npz", embedding=pose_arrays([0, 0, 1, 1], 10)["embedding"])
    for sources in ([narrow], [files[0], narrow], [narrow, files[0]]):
        with pytest.raises(HandclrError, match="p.npz: array '(embedding|components)' should be"):
            PoseTable(sources).embedding()


def test_keys_of_another_number_than_the_rows(files: list[str], tmp_path: Path) -> None:
    keys = pose_arrays([0] * 6)["key"]
    for count in (3, 5):
        path = damaged(tmp_path / "p.npz", key=keys[:count])
        for sources in ([path], [files[0], path]):
            with pytest.raises(HandclrError, match="p.npz: array "):
                PoseTable(sources).keys()
