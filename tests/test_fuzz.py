"""The fuzz driver on a few inputs; by hand it is run on thousands, see tests/fuzz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz import __main__ as driver
from fuzz import calls, mutations
from fuzz.readers import READERS
from fuzz.worker import kind_of, read, written
from labelled_helpers import write_labelled
from shard_helpers import crops, write_pose, write_shard

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.shards import read_samples

# Those whose seeds are made in no time, and read without torch.
TEXTS = {
    "options.toml": ("options, TOML", 'arch = "resnet18"\nlr = 0.1\n[more]\nx = [1, 2]\n'),
    "run/config.json": ("options, JSON", '{"arguments": {"lr": 0.1, "epochs": 2}, "seed": 1}'),
}


@pytest.mark.slow
def test_texts_of_any_kind_end_in_one_line(tmp_path: Path) -> None:
    for name, (_, text) in TEXTS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    kinds = [kind for kind, _ in TEXTS.values()]
    told = list(read(range(40), 0, kinds, tmp_path))[1::2]
    assert len(told) == 40 and {one.finding for one in told} == {""}
    assert {one.code for one in told} <= {1, 2}


@pytest.mark.slow
def test_shards_and_arrays_of_any_kind_end_in_one_line(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    write_shard(tmp_path / "hands.tar", crops())
    write_labelled(tmp_path / "labelled.tar", 4)
    write_pose(tmp_path / "pose.npz", [0, 0, 1, 1, 2, 2])
    keys = np.array([sample.key for sample in read_samples([str(tmp_path / "labelled.tar")])], "S")
    hands = {"keypoints3d": draw.normal(0, 0.05, (len(keys), 21, 3)).astype(np.float32)}
    np.savez(tmp_path / "predictions.npz", key=keys, **hands)
    told = list(read(range(45), 0, ["tar", "pose", "predictions"], tmp_path))[1::2]
    assert len(told) == 45 and {one.finding for one in told} == {""}
    assert {0, 1} <= {one.code for one in told} <= {0, 1, 2, 3}


def test_an_input_is_the_same_anywhere(tmp_path: Path) -> None:
    (tmp_path / "options.toml").write_text(TEXTS["options.toml"][1])
    for name in "ab":
        (tmp_path / name).mkdir()
        written(7, 3, ["options, TOML"], tmp_path, tmp_path / name)
    first, second = ((tmp_path / name / "options.toml").read_bytes() for name in "ab")
    assert first == second != TEXTS["options.toml"][1].encode()
    kinds = list(READERS)
    assert {kind_of(number, kinds) for number in range(400)} == set(kinds)


def test_what_should_not_be_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class App:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def main(self, words: list[str], **how: object) -> None:
            raise self.error

    for error, finding in (
        (HandclrError("in a line"), ""),
        (KeyError("history"), "unexpected KeyError: 'history'"),
        (RecursionError("deep"), "unexpected RecursionError: deep"),
    ):
        monkeypatch.setattr(calls, "get_command", lambda app, error=error: App(error))
        told = calls.call(["inspect"])
        assert told.finding.startswith(finding) and bool(told.finding) == bool(finding)


@pytest.mark.parametrize("change", [mutations.change_json, mutations.change_text])
def test_changes_are_many(change: mutations.Change) -> None:
    draw = np.random.default_rng(0)
    data = b'{"a": [1, {"b": null}], "c": "x"}'
    assert len({change(data, draw) for _ in range(50)}) > 20


@pytest.mark.slow
def test_the_driver_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "options.toml").write_text(TEXTS["options.toml"][1])
    asked = ["--inputs", "6", "--whole", "1", "--workers", "1", "--seeds", str(tmp_path)]
    assert driver.main([*asked, "--kinds", "options, TOML"]) == 0
    assert "6 inputs, 0 findings" in capsys.readouterr().err
