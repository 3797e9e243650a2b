"""JSON of any origin: plain values, or a ValueError."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import Handclr, lines, pack

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.jsontext import parse_json
from handclr_cli.contract.npz import read_npz
from handclr_cli.contract.provenance import loads, read_provenance
from handclr_cli.contract.shards import read_samples
from handclr_cli.contract.tar import END_OF_ARCHIVE, write_member


def test_plain_values_are_as_json_has_them() -> None:
    value = {"a": [1, -1, 0.5, 1e3, None, True, "é"], "b": {"c": 2**63, "d": [[[]]] * 60}}
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json("[" * 100 + "]" * 100)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 101 + "]" * 101, "nested too deeply"),
        ('{"a":' * 101 + "1" + "}" * 101, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("7" * 5_000, "a number of 5000 digits"),
        ("18446744073709551616", "a number of 20 digits"),
        ("-9223372036854775809", "a number of 20 digits"),
        ("[1", "Expecting"),
        (b"\xff\xfe\xfd", "codec can't decode"),
        ("", "Expecting value"),
    ],
)
def test_what_is_none_or_too_much_is_a_value_error(text: str | bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_json(text)
    assert loads(text) is None


WRONG = {
    "history": (3, "a list of stages"),
    "arguments": ([1], "an object"),
    "inputs": ("x", "a list"),
    "stage": (1, "text"),
    "unit": ("x", "an object"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_provenance_of_other_types_is_named(name: str, tmp_path: Path) -> None:
    value, called = WRONG[name]
    text = json.dumps({"stage": "pca", "history": [], name: value})
    with pytest.raises(
        HandclrError, match=f"^x is not a provenance .*: its {name} is not {called}"
    ):
        read_provenance(text, "x")
    with pytest.raises(HandclrError, match=f"its {name} is not {called}"):
        read_provenance(json.dumps({"history": [json.loads(text)]}), "x")
    with open(tmp_path / "x.tar", "wb") as file:
        write_member(file, "__handclr__", text.encode())
        file.write(END_OF_ARCHIVE)
    with pytest.raises(HandclrError, match=rf"x\.tar: __handclr__ is not a .*its {name} is not"):
        list(read_samples([str(tmp_path / "x.tar")]))


def arrays(**other: object) -> dict[str, object]:
    return {"key": np.array([b"a"]), "keypoints3d": np.zeros((1, 21, 3), np.float32), **other}


def test_the_array_that_is_wrong_is_named(tmp_path: Path, handclr: Handclr) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **arrays(meta=np.array('{"stage": "predict", "history": 3}')))
    done = handclr("evaluate", "--compare", path, path)
    assert lines(done.stderr) == [
        f"handclr: error: {path}: array 'meta' is not a provenance as handclr writes it: "
        "its history is not a list of stages"
    ]
    assert done.returncode == 1


def test_a_member_that_is_no_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, **arrays())
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["keypoints3d.npy"] = members["keypoints3d.npy"][6:]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(HandclrError, match="array 'keypoints3d' is not in NPY format, or damaged"):
        read_npz(str(path), "predictions")


def test_a_deep_member_costs_its_sample(tmp_path: Path) -> None:
    shard = tmp_path / "x.tar"
    shard.write_bytes(pack({"a": {"json": b'{"a":' * 5_000 + b"1" + b"}" * 5_000}}))
    (sample,) = read_samples([str(shard)])
    with pytest.raises(HandclrError, match="sample a: bad json: nested too deeply"):
        _ = sample.info


@pytest.mark.parametrize("name", ["options.toml", "options.json"])
def test_deep_options_are_one_line(name: str, tmp_path: Path, handclr: Handclr) -> None:
    deep = "[" * 50_000 + "]" * 50_000
    (tmp_path / name).write_text(f"a = {deep}" if name.endswith("toml") else deep)
    done = handclr("finetune", "x.tar", "--config", name, cwd=tmp_path)
    (line,) = lines(done.stderr)
    assert line.startswith(f"handclr: error: --config {name}: ")
    assert "unexpected" not in line and done.returncode == 2
