"""Tables of hands: what each format says, and that all say the same."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pandas
import pytest
from filter_contract import small_disk
from posed_helpers import crop_of, hands_of

from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.contract.kinds import other_kind
from handclr_cli.contract.npz import read_npz
from handclr_cli.contract.provenance import provenance
from handclr_cli.hand.camera import project
from handclr_cli.hand.joints import JOINT_NAMES
from handclr_cli.prediction.crops import track_numbers
from handclr_cli.prediction.hands import PosedHands
from handclr_cli.prediction.tables import COLUMNS, _cameras, format_of, sidecar, write_table

RECORD = provenance("predict", {})
HOSTILE = 'a,"b"\n\x1b[31m/clip.mp4'


@pytest.fixture
def hands() -> PosedHands:
    crops = [
        crop_of(3, time_s=0.1),
        crop_of(3, hand="left", track=100_000_003, time_s=0.1),
        crop_of(4, video=HOSTILE, track=None, hand="", time_s=math.nan),
        crop_of(2, track=2, time_s=2 / 30),
    ]
    return hands_of(crops)


def written(path: Path, hands: PosedHands) -> Path:
    write_table(str(path), format_of(str(path), None), hands, RECORD)
    return path


def test_pandas_reads_a_table_without_an_argument(tmp_path: Path, hands: PosedHands) -> None:
    table = pandas.read_csv(written(tmp_path / "poses.csv", hands))
    assert tuple(table.columns) == COLUMNS and len(table) == 4
    assert list(table.columns[:9]) == [
        *("video", "frame", "time_s", "hand", "score", "track", "wrist_x", "wrist_y", "wrist_z")
    ]
    assert table["frame"].tolist() == [3, 3, 4, 2]
    assert table["hand"].tolist()[:2] == ["right", "left"] and table["hand"].isna().tolist()[2]
    # As they begin, in each video; that without one has no number.
    assert table["track"].tolist()[:2] == [2, 3] and table["track"].tolist()[3] == 1
    assert math.isnan(table["track"][2]) and math.isnan(table["time_s"][2])
    assert table["video"][2] == 'a,"b"\\n\\x1b[31m/clip.mp4'


def test_all_formats_say_the_same(tmp_path: Path, hands: PosedHands) -> None:
    table = pandas.read_csv(written(tmp_path / "poses.csv", hands))
    lines = written(tmp_path / "poses.jsonl", hands).read_text().splitlines()
    told = [json.loads(line) for line in lines]
    arrays, _ = read_npz(str(written(tmp_path / "poses.npz", hands)), "predictions")
    in_space = table[[f"{joint}_{axis}" for joint in JOINT_NAMES for axis in "xyz"]].to_numpy()
    in_image = table[[f"{joint}_{axis}" for joint in JOINT_NAMES for axis in "uv"]].to_numpy()
    for name, columns in (("source3d", in_space), ("source2d", in_image)):
        values = columns.astype(np.float32).reshape(4, 21, -1)
        np.testing.assert_array_equal(values, arrays[name])
        listed = np.array([row[name] for row in told]).astype(np.float32)
        np.testing.assert_array_equal(listed, arrays[name])
    for name in ("frame", "time_s", "score", "side_score", "depth_sigma"):
        expected = arrays[name].astype(float)
        np.testing.assert_allclose(table[name], expected, rtol=1e-6, err_msg=name)
        listed = [math.nan if row[name] is None else row[name] for row in told]
        np.testing.assert_allclose(listed, expected, rtol=1e-6, err_msg=name)
    assert [row["video"] for row in told] == [name.decode() for name in arrays["video"]]
    assert told[2]["video"] == HOSTILE and told[2]["track"] is None and arrays["track"][2] == 0
    assert [row["key"] for row in told] == [key.decode() for key in arrays["key"]]


def test_the_camera_projects_3d_on_2d(tmp_path: Path, hands: PosedHands) -> None:
    """Left hands are left in both, and the columns of the camera are the matrix."""
    table = pandas.read_csv(written(tmp_path / "poses.csv", hands))
    for row in (0, 1):
        one = table.iloc[row]
        lens = [one[f"camera_{name}"] for name in ("fx", "cx", "fy", "cy")]
        camera = np.array([[lens[0], 0, lens[1]], [0, lens[2], lens[3]], [0, 0, 1]])
        space = [[one[f"{joint}_{axis}"] for axis in "xyz"] for joint in JOINT_NAMES]
        image = [[one[f"{joint}_{axis}"] for axis in "uv"] for joint in JOINT_NAMES]
        np.testing.assert_allclose(project(np.array(space), camera), image, atol=1e-2)
    beside = json.loads((tmp_path / "poses.csv.json").read_text())
    np.testing.assert_allclose(beside["cameras"]["clips/a.mp4"], camera, rtol=1e-6)
    assert beside["stage"] == "predict" and "metres" in beside["units"]["_x, _y, _z"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "npz"])
def test_no_hands_are_a_table_without_rows(tmp_path: Path, form: str) -> None:
    path = written(tmp_path / f"poses.{form}", hands_of([]))
    if form == "csv":
        assert tuple(pandas.read_csv(path).columns) == COLUMNS
    elif form == "npz":
        assert read_npz(str(path), "predictions")[0]["source3d"].shape == (0, 21, 3)
    else:
        assert path.read_bytes() == b""


def test_a_table_replaces_tables_only(tmp_path: Path, hands: PosedHands) -> None:
    for form in ("csv", "jsonl", "npz"):
        path = written(tmp_path / f"poses.{form}", hands)
        before = path.read_bytes()
        assert written(path, hands).read_bytes() == before
        assert not other_kind(path, "table")
    theirs = tmp_path / "data.csv"
    theirs.write_text("frame,value\n1,2\n")
    with pytest.raises(UsageError, match="exists and is not a CSV of hands"):
        written(theirs, hands)
    assert theirs.read_text() == "frame,value\n1,2\n"


def test_a_full_disk_leaves_nothing_beside_it(tmp_path: Path, hands: PosedHands) -> None:
    with small_disk(tmp_path / "small", "8k") as disk:
        with pytest.raises(HandclrError, match="No space left on device"):
            written(disk / "poses.csv", hands)
        assert not list(disk.iterdir())


def test_the_format_is_that_of_the_suffix(tmp_path: Path) -> None:
    assert format_of("a/poses.CSV", None) == "csv" and format_of("poses", "jsonl") == "jsonl"
    assert format_of("-", None) == format_of("/dev/null", None) == format_of(None, None) == "npz"
    assert sidecar("poses.csv", "csv") == "poses.csv.json"
    assert sidecar("poses.npz", "npz") is sidecar("-", "csv") is sidecar("/dev/null", "csv") is None
    with pytest.raises(UsageError, match=r"tables are \.csv, \.jsonl, \.npz"):
        format_of(str(tmp_path / "poses.txt"), None)


def test_a_table_in_a_pipe_is_text(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    import sys

    hands = hands_of([crop_of(1)])
    write_table("-", "csv", hands, RECORD)
    sys.stdout.flush()
    table = pandas.read_csv(io.BytesIO(capfdbinary.readouterr().out))
    assert table["frame"].tolist() == [1]


def test_tracks_are_numbered_as_they_begin() -> None:
    crops = [
        crop_of(9, track=4),
        crop_of(2, track=100_000_002),
        crop_of(2, track=2),
        crop_of(5, video="b.mp4", track=4),
        crop_of(9, track=None),
    ]
    assert track_numbers(crops).tolist() == [3, 1, 2, 1, 0]


def test_a_camera_that_differs_in_its_last_digits_is_one() -> None:
    hands = hands_of([crop_of(0), crop_of(1)])
    (camera,) = _cameras(hands).values()
    assert camera == hands.placed.camera[0].tolist()
    hands.placed.camera[1] *= 1 + 1e-7
    (close,) = _cameras(hands).values()
    np.testing.assert_allclose(close, camera, rtol=1e-6)
    hands.placed.camera[1, 0, 0] *= 1.01
    assert _cameras(hands) == {"clips/a.mp4": None}
