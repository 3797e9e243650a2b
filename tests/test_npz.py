"""NPZ files: checked when read and when written, and never anything but arrays."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from shard_helpers import (
    ROOT,
    cli_env,
    crops,
    error_line,
    load_npz,
    pose_arrays,
    run_cli,
    tar_bytes,
    write_pose,
)

from handclr_cli.contract.errors import HandclrError, TruncatedError
from handclr_cli.contract.npz import KINDS, PAIRS, as_keys, read_npz, write_npz
from handclr_cli.contract.provenance import provenance

RECORD = provenance("test", {})


def predictions(rows: int = 3) -> dict[str, np.ndarray]:
    return {
        "key": as_keys([f"k{n}" for n in range(rows)]),
        "keypoints3d": np.zeros((rows, 21, 3), np.float32),
    }


def pairs(rows: int = 3, top_k: int = 2) -> dict[str, np.ndarray]:
    return {
        "key": as_keys([f"k{n}" for n in range(rows)]),
        "positive": np.full((rows, top_k), -1, np.int32),
        "distance": np.full((rows, top_k), np.inf, np.float32),
    }


MADE = {"pose": lambda: pose_arrays([0, 0, 1]), "pairs": pairs, "predictions": predictions}


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    arrays = MADE[kind]()
    write_npz(str(path), kind, arrays, RECORD)
    found, record = read_npz(str(path), kind)
    assert record == RECORD
    assert sorted(found) == sorted(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    raw = load_npz(path)
    assert raw["meta"].shape == () and json.loads(str(raw["meta"])) == RECORD


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows(kind: str, tmp_path: Path) -> None:
    arrays = {name: array[:0] for name, array in MADE[kind]().items()}
    if kind == "pose":
        arrays |= {"mean": np.zeros(42), "embedding": np.zeros((0, 0), np.float32)}
    write_npz(str(tmp_path / "x.npz"), kind, arrays, RECORD)
    found, _ = read_npz(str(tmp_path / "x.npz"), kind)
    assert len(found["key"]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_missing_array(kind: str, tmp_path: Path) -> None:
    for declared in KINDS[kind]:
        arrays = MADE[kind]()
        if declared.optional:
            continue
        del arrays[declared.name]
        np.savez(tmp_path / "x.npz", **arrays)
        with pytest.raises(
            HandclrError,
            match=rf"x\.npz: no array '{declared.name}'; a {kind} file is the output of",
        ):
            read_npz(str(tmp_path / "x.npz"), kind)


def test_optional_arrays_are_checked_too(tmp_path: Path) -> None:
    assert [declared.name for declared in PAIRS if declared.optional] == ["target"]
    write_npz(str(tmp_path / "x.npz"), "pairs", {**pairs(), "target": as_keys(["a"] * 7)}, RECORD)
    assert len(read_npz(str(tmp_path / "x.npz"), "pairs")[0]["target"]) == 7
    with pytest.raises(HandclrError, match="'target' should be S"):
        write_npz(str(tmp_path / "y.npz"), "pairs", {**pairs(), "target": np.zeros(7)}, RECORD)
    with pytest.raises(HandclrError, match="'error_mm' should be float32"):
        write_npz(
            "x", "predictions", {**predictions(), "error_mm": np.zeros((2, 21), np.float32)}, RECORD
        )


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("embedding", np.zeros((3, 14))),  # dtype
        ("embedding", np.zeros((3, 13), np.float32)),  # not as many dimensions as there are axes
        ("embedding", np.zeros((4, 14), np.float32)),  # not as many rows as there are keys
        ("embedding", np.zeros(3, np.float32)),
        ("embedding", np.full((3, 14), np.nan, np.float32)),
        ("components", np.zeros((14, 41))),
        ("mean", np.zeros((42, 1))),
        ("mean", np.float64(0)),
        ("video_id", np.zeros(3, np.int64)),
        ("key", np.array(["a", "b", "c"])),
    ],
)
def test_wrong_dtype_or_shape(name: str, array: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **{**pose_arrays([0, 0, 1]), name: array})
    with pytest.raises(HandclrError, match=rf"x\.npz: array '(embedding|components|mean|{name})'"):
        read_npz(str(tmp_path / "x.npz"), "pose")
    with pytest.raises(HandclrError):
        write_npz(
            str(tmp_path / "y.npz"),
            "pose",
            {**pose_arrays([0, 0, 1]), name: np.asarray(array)},
            RECORD,
        )
    assert not (tmp_path / "y.npz").exists()


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "boom",))  # type: ignore[return-value]

    np.savez(
        tmp_path / "x.npz", **{**pose_arrays([0, 1]), "key": np.array([Bomb(), Bomb()], object)}
    )
    (tmp_path / "raw.npz").write_bytes(pickle.dumps(Bomb()))
    np.savez(tmp_path / "meta.npz", **pose_arrays([0, 1]), meta=np.array(Bomb(), object))
    for name in ("x", "raw", "meta"):
        with pytest.raises(HandclrError, match="not an NPZ file, or damaged"):
            read_npz(str(tmp_path / f"{name}.npz"), "pose")
    assert not (tmp_path / "boom").exists()


def test_truncated_anywhere(tmp_path: Path) -> None:
    data = write_pose(tmp_path / "whole.npz", [0, 0, 1]).read_bytes()
    for cut in [
        1,
        4,
        100,
        *np.random.default_rng(0).integers(1, len(data), 60).tolist(),
        len(data) - 1,
    ]:
        (tmp_path / "x.npz").write_bytes(data[:cut])
        with pytest.raises(
            HandclrError,
            match=r"x\.npz: not an NPZ file, or damaged; is this the output of handclr pca",
        ):
            read_npz(str(tmp_path / "x.npz"), "pose")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_flipped_bytes_raise_our_error_or_none(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **pose_arrays([0, 0, 1]))
    plain = write_pose(tmp_path / "whole.npz", [0, 0, 1]).read_bytes()
    rng = np.random.default_rng(0)
    for number in range(300):
        data = bytearray(buffer.getvalue() if number % 2 else plain)
        for position in rng.integers(0, len(data), rng.integers(1, 6)).tolist():
            data[position] = int(rng.integers(0, 256))
        (tmp_path / "x.npz").write_bytes(data)
        try:
            read_npz(str(tmp_path / "x.npz"), "pose")
        except HandclrError as error:
            assert "\n" not in str(error)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "tar").write_bytes(tar_bytes(crops()))
    np.save(tmp_path / "array.npy", np.zeros(3))
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("key.txt", "words")
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("words\n")
    with pytest.raises(TruncatedError, match="empty: is empty"):
        read_npz(str(tmp_path / "empty"), "pose")
    for name in ("tar", "array.npy", "text"):
        with pytest.raises(HandclrError, match=rf"{name}: not an NPZ file"):
            read_npz(str(tmp_path / name), "pose")
    with pytest.raises(HandclrError, match="no array 'key'"):
        read_npz(str(tmp_path / "zip"), "pose")
    with pytest.raises(HandclrError, match="cannot read .*gone: No such file"):
        read_npz(str(tmp_path / "gone"), "pose")
    with pytest.raises(HandclrError, match="cannot read .*: Is a directory"):
        read_npz(str(tmp_path), "pose")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError("Unable to allocate 2 GiB"), MemoryError),
        (OSError(errno.EIO, "Input/output error"), HandclrError),
    ],
)
def test_a_good_file_is_not_called_damaged(
    error: Exception, told: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    write_npz(str(tmp_path / "pairs.npz"), "pairs", pairs(), RECORD)
    monkeypatch.setattr(np, "load", fails)
    with pytest.raises(told, match=r"^(Unable to allocate|cannot read .*: Input/output error)"):
        read_npz(str(tmp_path / "pairs.npz"), "pairs")


def test_a_kind_for_another(tmp_path: Path) -> None:
    write_npz(str(tmp_path / "pairs.npz"), "pairs", pairs(), RECORD)
    with pytest.raises(
        HandclrError, match="output of handclr pca, this one has distance, key, meta, positive"
    ):
        read_npz(str(tmp_path / "pairs.npz"), "pose")


def test_without_provenance(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **pairs())
    assert read_npz(str(tmp_path / "x.npz"), "pairs")[1] is None


READER = (
    "import sys; from handclr_cli.contract.npz import read_npz; print(len(read_npz(sys.argv[1],"
    " 'pose')[0]['key']))"
)


@pytest.mark.slow
def test_standard_input_and_other_pipes(tmp_path: Path) -> None:
    path = write_pose(tmp_path / "x.npz", [0, 0, 1])
    command = [sys.executable, "-c", READER, "-"]
    done = subprocess.run(
        command, input=path.read_bytes(), capture_output=True, env=cli_env(), check=True
    )
    assert done.stdout == b"3\n"
    substituted = f'"{sys.executable}" -c "{READER}" <(cat "{path}")'
    done = subprocess.run(
        ["bash", "-c", substituted], capture_output=True, env=cli_env(), check=True, cwd=ROOT
    )
    assert done.stdout == b"3\n"


@pytest.mark.slow
def test_a_tar_into_mine() -> None:
    message = error_line(run_cli("mine", stdin=tar_bytes(crops())), 1)
    assert message.startswith("standard input: not an NPZ file")
    assert "handclr pca" in message


def test_the_same_arrays_give_the_same_bytes(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    digests = {
        hashlib.sha256(write_pose(tmp_path / name, [0, 0, 1]).read_bytes()).digest()
        for name in ("a", "b")
    }
    write_npz("-", "pose", pose_arrays([0, 0, 1]), provenance("pca", {"dim": 14}))
    digests.add(hashlib.sha256(capsysbinary.readouterr().out).digest())
    with open(tmp_path / "fifo", "wb") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(file, write_through=True))
        write_npz("-", "pose", pose_arrays([0, 0, 1]), provenance("pca", {"dim": 14}))
    digests.add(hashlib.sha256((tmp_path / "fifo").read_bytes()).digest())
    assert len(digests) == 1


def test_keys_are_bytes() -> None:
    keys = as_keys(["a", "küche"])
    assert keys.dtype.kind == "S"
    assert [key.decode() for key in keys] == ["a", "küche"]
    assert as_keys([]).shape == (0,)
