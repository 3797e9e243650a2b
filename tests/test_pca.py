"""$ handclr pca, as it is run."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from shard_helpers import (
    RECORD,
    crop,
    crops,
    error_line,
    hand_points,
    load_npz,
    pose_arrays,
    run_cli,
    tar_bytes,
    write_pose,
    write_shard,
)

from handclr_cli.commands.pca import pca
from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.fields import encode_object
from handclr_cli.contract.npz import read_npz, write_npz
from handclr_cli.contract.provenance import provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.hand.normalise import pose_vectors
from handclr_cli.similarity.embedding import fit
from handclr_cli.similarity.pose_reading import read_poses
from handclr_cli.similarity.pose_store import PoseStore


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def expected(samples: list[Sample], dimensions: int, normalisation: str = "crop") -> np.ndarray:
    points = np.stack([sample.keypoints2d for sample in samples])
    vectors = pose_vectors(points, np.full(len(points), 16), normalisation)
    return fit([vectors], dimensions).embed(vectors)


@pytest.mark.slow
def test_pipe_to_pipe() -> None:
    samples = [*crops(frames=10), crop("cellar", keypoints=False)]
    done = run_cli("pca", stdin=tar_bytes(samples))
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr.decode()
        .splitlines()[-1]
        .startswith("pca: 20 poses of 2 videos, 14 dimensions with ")
    )
    assert b"1 samples without keypoints dropped" in done.stderr
    found = load_npz(done.stdout)
    assert [key.decode() for key in found["key"]] == [sample.key for sample in samples[:20]]
    assert found["video"].tolist() == [b"attic", b"barn"]
    assert found["video_id"].tolist() == [0] * 10 + [1] * 10
    np.testing.assert_array_equal(found["embedding"], expected(samples[:20], 14))
    record = json.loads(str(found["meta"]))
    assert (record["stage"], record["arguments"]) == (
        "pca",
        {"dim": 14, "normalize": "crop", "robust": False, "basis": False},
    )
    assert [past["stage"] for past in record["history"]] == ["extract"]


@pytest.mark.slow
def test_files_options_and_a_basis(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", crops(frames=10))
    options = ["--dim", "5", "--normalize", "root-scale", "--plot", tmp_path / "variance.png"]
    done = run_cli("pca", shard, "-q", "-o", tmp_path / "pose.npz", *options)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    arrays, record = read_npz(str(tmp_path / "pose.npz"), "pose")
    np.testing.assert_array_equal(arrays["embedding"], expected(crops(frames=10), 5, "root-scale"))
    assert cv2.imread(str(tmp_path / "variance.png")) is not None

    # The basis brings its dimensions and its normalisation along; one pose is enough now.
    projected = run_cli(
        "pca", "--basis", tmp_path / "pose.npz", stdin=tar_bytes(crops(["barn"], frames=10)[3:4])
    )
    assert projected.returncode == 0, projected.stderr
    told = re.search(rb"with ([\d.]+)% of their variance \(([\d.]+)% of that", projected.stderr)
    vectors = pose_vectors(
        crops(["barn"], frames=10)[3].keypoints2d[None], np.array([16]), "root-scale"
    )
    off = np.square(vectors - arrays["mean"]).sum()
    shares = (
        np.square(arrays["embedding"][13]).sum() / off,
        arrays["explained_variance_ratio"].sum(),
    )
    assert told and [float(one) for one in told.groups()] == [round(100 * one, 1) for one in shares]
    found = load_npz(projected.stdout)
    assert (found["embedding"] == arrays["embedding"][13:14]).all()
    for name in ("components", "mean", "explained_variance_ratio"):
        np.testing.assert_array_equal(found[name], arrays[name])
    assert json.loads(str(found["meta"]))["arguments"] == {
        "dim": 5,
        "normalize": "root-scale",
        "robust": False,
        "basis": True,
    }
    assert record is not None and record["inputs"] == ["a.tar"]

    whole = load_npz(run_cli("pca", "--basis", tmp_path / "pose.npz", shard).stdout)
    assert (whole["embedding"] == arrays["embedding"]).all()


@pytest.mark.slow
def test_the_size_is_that_of_the_picture(tmp_path: Path) -> None:
    """Poses in crops of two resolutions meet in one space."""
    small = crops(frames=3)
    large = [
        crop(
            s.info["video"],
            s.info["frame"] + 10,
            points=s.keypoints2d * 2,
            members={"jpg": picture(32)},
        )
        for s in small
    ]
    write_pose(tmp_path / "basis.npz", [0])
    done = run_cli("pca", "--basis", tmp_path / "basis.npz", stdin=tar_bytes([*small, *large]))
    embedding = load_npz(done.stdout)["embedding"].reshape(2, 6, 14)
    np.testing.assert_allclose(embedding[1], embedding[0], atol=1e-6)


def picture(side: int) -> bytes:
    return cv2.imencode(".jpg", np.zeros((side, side, 3), np.uint8))[1].tobytes()


@pytest.mark.slow
def test_history_of_a_concatenation(tmp_path: Path) -> None:
    write_pose(tmp_path / "basis.npz", [0])
    data = tar_bytes(crops(["attic"])) + tar_bytes(crops(["barn"]), {**RECORD, "seed": 1})
    done = run_cli("pca", "--basis", tmp_path / "basis.npz", "-", stdin=data)
    history = json.loads(str(load_npz(done.stdout)["meta"]))["history"]
    assert [past["seed"] for past in history if "seed" in past] == [0, 1]


@pytest.mark.slow
def test_reruns_are_equal_byte_for_byte(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", crops())
    first = run_cli("pca", "--dim", "3", shard, "-o", tmp_path / "pose.npz")
    second = run_cli("pca", "--dim", "3", shard)
    assert first.returncode == second.returncode == 0
    assert (tmp_path / "pose.npz").read_bytes() == second.stdout


@pytest.mark.slow
def test_too_many_dimensions() -> None:
    message = error_line(run_cli("pca", stdin=tar_bytes(crops(frames=3))), 1)
    more = "add footage, take more frames of it by handclr extract (--fps 5, or all: --every 1)"
    fewer = "ask for fewer dimensions (--dim 5)"
    assert message == f"--dim: 6 poses cannot give 14 dimensions; {more}, or {fewer}"
    assert run_cli("pca", "--dim", "43", stdin=b"").returncode == 2
    others = "project on the axes of another pose file (--basis pose.npz)"
    message = error_line(run_cli("pca", "--dim", "1", stdin=tar_bytes([crop()])), 1)
    assert message == f"one pose cannot give axes; {more}, or {others}"


def test_no_place_for_the_plot(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "a.tar", crops(frames=10))
    for plot, words in (
        ("gone/x.png", "no such folder"),
        ("-", "standard output is for the poses"),
    ):
        with pytest.raises(HandclrError, match=words):
            pca([str(shard)], output=str(tmp_path / "pose.npz"), plot=plot)
    assert not (tmp_path / "pose.npz").exists()


@pytest.mark.slow
def test_no_keypoints() -> None:
    message = error_line(run_cli("pca", stdin=tar_bytes(crops(keypoints=False))), 1)
    assert (
        message
        == "none of the 6 samples has keypoints2d.npy; did they go through handclr keypoints?"
    )
    message = error_line(run_cli("pca", stdin=tar_bytes([])), 1)
    assert message == "the input holds no crops; did handclr extract find a hand?"


@pytest.mark.slow
def test_unknown_normalisation() -> None:
    message = error_line(run_cli("pca", "--normalize", "wrist", stdin=tar_bytes(crops())), 2)
    assert message == (
        "Invalid value for '--normalize': 'wrist' is not one of 'crop', 'root', 'root-scale', "
        "'box'; see handclr pca --help"
    )


BAD_KEYPOINTS = {
    "nan": (npy(np.full((21, 2), np.nan, np.float32)), "not finite"),
    "inf": (npy(np.where(np.arange(42).reshape(21, 2) == 7, np.inf, 1.0)), "not finite"),
    "too large for float32": (npy(np.full((21, 2), 1e300)), "not finite"),
    "shape": (npy(np.zeros((20, 2), np.float32)), "expected shape"),
    "text": (npy(np.full((21, 2), "x")), "expected numbers"),
    "objects": (npy(np.full((21, 2), None)), "allow_pickle"),
    "truncated": (npy(np.zeros((21, 2)))[:-8], "bad keypoints2d.npy"),
    "empty": (b"", "bad keypoints2d.npy"),
}


@pytest.mark.parametrize("name", BAD_KEYPOINTS)
def test_bad_keypoints_are_left_out(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    payload, reason = BAD_KEYPOINTS[name]
    bad = crop("cellar", members={"keypoints2d.npy": payload})
    shard = write_shard(tmp_path / "a.tar", [bad, *crops()])
    read = read_poses([str(shard)], PoseStore())
    assert (len(read.poses), read.skipped, read.dropped) == (6, 1, 0)
    warning = capsys.readouterr().err
    said = f"{shard}: sample cellar_00000000_r: bad keypoints2d.npy: "
    assert said in warning and reason in warning and warning.endswith("; skipped\n")
    with pytest.raises(HandclrError, match="sample cellar_00000000_r: bad keypoints2d.npy"):
        read_poses([str(shard)], PoseStore(), strict=True)
    assert capsys.readouterr().err == ""


OTHER_BAD_MEMBERS = [
    ({"jpg": b"no picture"}, "sample cellar_00000000_r: jpg: not a JPEG or PNG image"),
    ({"jpg": b""}, "sample cellar_00000000_r: jpg: not a JPEG or PNG image"),
    ({"json": b"[1]"}, "sample cellar_00000000_r: bad json: not a JSON object"),
    ({"json": b"[" * 100_000}, "sample cellar_00000000_r: bad json: "),
]


@pytest.mark.parametrize(("members", "reason"), OTHER_BAD_MEMBERS)
def test_other_bad_members_name_the_sample(
    members: dict[str, bytes], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = [*crops(), crop("cellar", members=members)]
    shard = write_shard(tmp_path / "a.tar", samples)
    assert read_poses([str(shard)], PoseStore()).skipped == 1
    assert f"{shard}: {reason}" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_skipped_is_an_exit_code(tmp_path: Path) -> None:
    bad = crop("cellar", members={"jpg": b"no picture"})
    shard = write_shard(tmp_path / "a.tar", [*crops(), bad])
    done = run_cli("pca", shard, "--dim", 2, "-o", tmp_path / "pose.npz")
    assert done.returncode == 3 and done.stderr.decode().endswith(" dropped, 1 skipped\n")
    assert len(load_npz(tmp_path / "pose.npz")["key"]) == 6
    error = error_line(run_cli("pca", shard, "--dim", 2, "--strict"), 1)
    assert error == f"{shard}: sample cellar_00000000_r: jpg: not a JPEG or PNG image"
    none = error_line(run_cli("pca", stdin=tar_bytes([bad])), 1)
    assert none.endswith("not a JPEG or PNG image; none of 1 can be used")


@pytest.mark.slow
def test_a_basis_that_is_none(tmp_path: Path) -> None:
    data = tar_bytes(crops())
    assert "gone.npz: No such file" in error_line(
        run_cli("pca", "--basis", tmp_path / "gone.npz", stdin=data), 1
    )
    (tmp_path / "x.npz").write_bytes(data)
    assert "x.npz: not an NPZ file" in error_line(
        run_cli("pca", "--basis", tmp_path / "x.npz", stdin=data), 1
    )


@pytest.mark.slow
def test_videos_by_their_verbatim_names(tmp_path: Path) -> None:
    """`video` is the JSON's word, and samples without one are told apart by their keys."""
    named = [
        crop("x", n, members={"json": encode_object({"video": "set/küche.mp4"})}) for n in range(2)
    ]
    keyed = [crop("x-1", n, points=hand_points(n)) for n in range(2)]
    for sample in keyed:
        del sample.members["json"]
    write_pose(tmp_path / "basis.npz", [0])
    found = load_npz(
        run_cli("pca", "--basis", tmp_path / "basis.npz", stdin=tar_bytes([*named, *keyed])).stdout
    )
    assert [name.decode() for name in found["video"][found["video_id"]]] == [
        "set/küche.mp4"
    ] * 2 + ["x-1"] * 2


@pytest.mark.slow
def test_a_key_that_comes_twice(tmp_path: Path) -> None:
    write_pose(tmp_path / "basis.npz", [0])
    first, second = (
        write_shard(tmp_path / "a.tar", crops()),
        write_shard(tmp_path / "b.tar", crops(["cellar", "barn"])),
    )
    done = run_cli("pca", "--basis", tmp_path / "basis.npz", first, second)
    said = f"{second}: key barn_00000000_r appears twice in the input; keys must be unique"
    assert error_line(done, 1) == said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dim", "13"], "--dim 13: {} has 14; leave out one of the two"),
        (["--normalize", "box"], "--normalize box: {} has root; leave out one of the two"),
        (["--robust"], "--robust: {} was fitted without it; leave out one of the two"),
    ],
)
def test_options_that_contradict_the_basis(
    options: list[str], message: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "basis.npz")
    write_npz(path, "pose", pose_arrays([0]), provenance("pca", {"dim": 14, "normalize": "root"}))
    done = run_cli("pca", "--basis", path, *options, stdin=tar_bytes(crops()))
    assert error_line(done, 2) == message.format(path)
    assert done.stdout == b""


@pytest.mark.slow
def test_robust(tmp_path: Path) -> None:
    """A few wrong poses are counted, embedded, and out of the axes; a basis keeps in mind how it
    was fitted.
    """
    good = crops(frames=40)
    bad = [crop("cellar", frame, points=1000 * (hand_points(frame) - 8)) for frame in range(3)]
    done = run_cli("pca", "--robust", "--dim", "5", stdin=tar_bytes([*good, *bad]))
    assert done.stderr.decode().splitlines()[-1].endswith(", 3 outliers left out of the fit")
    found = load_npz(done.stdout)
    assert len(found["embedding"]) == 83 and np.abs(found["embedding"][80:]).max() > 50
    np.testing.assert_allclose(found["embedding"][:80], expected(good, 5), atol=1e-5)
    assert json.loads(str(found["meta"]))["arguments"]["robust"] is True

    (tmp_path / "pose.npz").write_bytes(done.stdout)
    options = ["--basis", tmp_path / "pose.npz", "--robust", "--dim", "5", "--normalize", "crop"]
    projected = run_cli("pca", *options, stdin=tar_bytes(bad))
    assert (load_npz(projected.stdout)["embedding"] == found["embedding"][80:]).all()
    assert json.loads(str(load_npz(projected.stdout)["meta"]))["arguments"]["robust"] is True
    assert b"outlier" not in projected.stderr


def test_more_poses_than_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in batches, keys of any length and videos in any order end in the right rows."""
    monkeypatch.setattr("handclr_cli.similarity.pose_reading.BATCH", 4)
    samples = crops(["barn", "a-much-longer-name", "attic"], frames=5)
    output = tmp_path / "pose.npz"
    pca([str(write_shard(tmp_path / "a.tar", samples))], output=str(output), dim=6, quiet=True)
    found, _ = read_npz(str(output), "pose")
    assert found["key"].tolist() == [sample.key.encode() for sample in samples]
    assert found["video"].tolist() == [b"a-much-longer-name", b"attic", b"barn"]
    assert found["video_id"].tolist() == [2] * 5 + [0] * 5 + [1] * 5
    np.testing.assert_allclose(found["embedding"], expected(samples, 6), atol=1e-6)
