"""$ handclr pretrain, in real subprocesses."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from labelled_helpers import command, error_line, handclr, labelled_sample, write_labelled, write_pairs

from handclr_cli.contract.errors import HandclrError
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import read_npz
from handclr_cli.learning.positives import mined

TINY = ("--arch", "resnet18", "--size", 32, "--batch", 4, "--workers", 0, "--device", "cpu", "--warmup-epochs", 1)
COUNT = 8


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("shards") / "hands.tar", COUNT)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keys = [labelled_sample(number).key for number in range(COUNT)]
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.npz", keys, [4, 5, 6, 7, 0, 1, 2, 3])


@pytest.fixture(scope="module")
def undisturbed(shard: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    run = tmp_path_factory.mktemp("undisturbed")
    handclr("pretrain", shard, "--pairs", pairs, "--run", run, "--epochs", 12, *TINY)
    return torch.load(run / "encoder.pt", weights_only=True)


@pytest.mark.slow
def test_prints_only_the_path_and_the_encoder_is_torchvisions(shard: Path, pairs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = handclr("pretrain", shard, "--pairs", pairs, "--run", run, "--epochs", 2, *TINY)
    assert done.stdout.decode() == f"{run}/encoder.pt\n"
    state = torch.load(run / "encoder.pt", weights_only=True)
    result = torchvision.models.resnet18().load_state_dict(state, strict=False)
    assert result.missing_keys == ["fc.weight", "fc.bias"] and not result.unexpected_keys
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3, 4]
    config = json.loads((run / "config.json").read_text())
    assert config["arguments"]["method"] == "handclr" and config["data"]["rows"] == COUNT
    again = handclr("pretrain", shard, "--pairs", pairs, "--run", run, "--epochs", 2, *TINY)
    assert again.stdout == done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_resumes_to_the_same_weights(
    kill: signal.Signals, shard: Path, pairs: Path, undisturbed: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    arguments = ("pretrain", shard, "--pairs", pairs, "--run", tmp_path, "--epochs", 12, "--save-every", 3, *TINY)
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not (tmp_path / "last.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(kill)
        process.communicate()
    assert process.returncode == (75 if kill == signal.SIGTERM else -signal.SIGKILL)
    assert not (tmp_path / "encoder.pt").exists()
    saved = torch.load(tmp_path / "last.pt", weights_only=True)["step"]
    assert 0 < saved < 24
    handclr(*arguments)
    resumed = torch.load(tmp_path / "encoder.pt", weights_only=True)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in undisturbed.items())
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 25))


def test_parts_of_the_pairs_are_read_as_one(shard: Path, pairs: Path, tmp_path: Path) -> None:
    index = ShardIndex([str(shard)])
    whole, _ = read_npz(str(pairs), "pairs")
    keys, positive = whole["key"], whole["positive"]
    empty = {"key": keys[:1], "target": keys[:0], "positive": positive[:1] * 0 - 1}
    first = {"key": keys[:3], "target": keys[::-1], "positive": COUNT - 1 - positive[:3]}
    rest = {"key": keys[3:], "target": keys, "positive": positive[3:]}
    np.testing.assert_array_equal(mined(index, [first, empty, rest]).table(), mined(index, [whole]).table())
    with pytest.raises(HandclrError, match="none of the pairs is in the shards"):
        mined(index, [empty])


@pytest.mark.slow
def test_another_configuration_is_refused_and_fresh_starts_anew(shard: Path, tmp_path: Path) -> None:
    arguments = ("pretrain", "--run", tmp_path, "--method", "peclr", "--epochs", 2, *TINY)
    handclr(*arguments, "-", stdin=shard.read_bytes())
    line = error_line(handclr(*arguments, "--lr", 0.5, "-", stdin=shard.read_bytes(), code=2))
    assert "arguments.lr was 0.0002, now 0.5" in line and "--fresh" in line
    handclr(*arguments, "--lr", 0.001, "--fresh", "-", stdin=shard.read_bytes())
    (tmp_path / "last.pt").write_bytes(b"PK damaged")
    line = error_line(handclr(*arguments, "--lr", 0.001, "-", stdin=shard.read_bytes(), code=1))
    assert "last.pt: not a checkpoint, or damaged" in line


@pytest.mark.slow
def test_what_cannot_be_is_one_line(shard: Path, tmp_path: Path) -> None:
    def fails(code: int, *arguments: object) -> str:
        return error_line(handclr("pretrain", shard, "--run", tmp_path / "run", *arguments, code=code))

    assert "needs --pairs" in fails(2)
    assert "choose from simclr, peclr, tempclr, handclr, simhand" in fails(2, "--method", "byol")
    foreign = write_pairs(tmp_path / "foreign.npz", ["a_00000000_l", "b_00000000_l"], [1, 0])
    assert "none of the pairs is in the shards" in fails(1, "--pairs", foreign)
    assert "--device cuda:9 is not available" in fails(1, "--method", "simclr", "--device", "cuda:9")
    assert not (tmp_path / "run").exists()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(shard.read_bytes()[:5000])
    done = handclr("pretrain", cut, "--method", "simclr", "--run", tmp_path / "run", code=1)
    assert "cut.tar: ends " in error_line(done)
