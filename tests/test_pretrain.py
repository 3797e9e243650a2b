"""$ handclr pretrain: promises about processes in real ones, the others in this one."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
from labelled_helpers import (
    TRAINING,
    command,
    error_line,
    handclr,
    labelled_sample,
    without_tables,
    write_labelled,
    write_pairs,
)
from shard_helpers import write_shard
from torch import nn

from handclr_cli import main as front
from handclr_cli import options
from handclr_cli.console import State
from handclr_cli.contract import fields
from handclr_cli.contract.errors import HandclrError, Preempted
from handclr_cli.contract.index import ShardIndex
from handclr_cli.contract.npz import as_keys, read_npz, write_npz
from handclr_cli.contract.pairs import PairsFile, checked_parts
from handclr_cli.contract.provenance import Provenance, provenance
from handclr_cli.contract.sample import Sample
from handclr_cli.learning import pretrain_job
from handclr_cli.learning.encoder import seeded
from handclr_cli.learning.positives import mined
from handclr_cli.learning.pretraining import ContrastiveModel, Objective
from handclr_cli.learning.projection import ProjectionHead
from handclr_cli.learning.run import Run
from handclr_cli.learning.views import Views

TINY = (*TRAINING, "--batch", 4, "--warmup-epochs", 1)
COUNT = 8


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("shards") / "hands.tar", COUNT)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keys = [labelled_sample(number).key for number in range(COUNT)]
    return write_pairs(
        tmp_path_factory.mktemp("pairs") / "pairs.npz", keys, [4, 5, 6, 7, 0, 1, 2, 3]
    )


@pytest.fixture(scope="module")
def undisturbed(
    shard: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, torch.Tensor]:
    run = tmp_path_factory.mktemp("undisturbed")
    handclr("pretrain", shard, "--pairs", pairs, "--run", run, "--epochs", 12, *TINY)
    return torch.load(run / "encoder.pt", weights_only=True)


@pytest.mark.slow
def test_prints_only_the_path_and_the_encoder_is_torchvisions(
    shard: Path, pairs: Path, tmp_path: Path
) -> None:
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
@pytest.mark.parametrize(
    ("kill", "code"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75), (signal.SIGINT, 130)],
)
def test_a_killed_run_resumes_to_the_same_weights(
    kill: signal.Signals,
    code: int,
    shard: Path,
    pairs: Path,
    undisturbed: dict[str, torch.Tensor],
    tmp_path: Path,
) -> None:
    arguments = (
        "pretrain",
        shard,
        "--pairs",
        pairs,
        "--run",
        tmp_path,
        "--epochs",
        12,
        "--save-every",
        3,
        *TINY,
    )
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while not (tmp_path / "last.pt").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(kill)
        process.communicate()
    assert process.returncode == code
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
    np.testing.assert_array_equal(
        mined(index, [first, empty, rest]).table(), mined(index, [whole]).table()
    )
    with pytest.raises(HandclrError, match="handclr mine found no positive for any crop"):
        mined(index, [empty])


def test_a_part_of_the_pairs_that_is_missing_is_named() -> None:
    def of(*parts: str) -> list[PairsFile]:
        told: list[Provenance] = [{"arguments": {"part": part}} for part in parts]
        return [({}, origin) for origin in (None, {"arguments": {}}, *told)]

    for whole in (of(), of("0/1"), of("1/2", "0/2"), of("0/2", "1/2", "2/3", "0/3", "1/3")):
        assert checked_parts(whole) is whole
    checked_parts([({}, {"arguments": "0/2"}), ({}, {"arguments": {"part": [0, 2]}})])
    with pytest.raises(HandclrError, match="part 1/2 is missing; name the files of all 2 parts$"):
        checked_parts(of("0/2"))
    with pytest.raises(HandclrError, match="part 0/4 and 1 more are missing; "):
        checked_parts(of("0/1", "1/4", "3/4"))


@pytest.mark.slow
def test_another_configuration_is_refused_and_fresh_starts_anew(
    shard: Path, tmp_path: Path
) -> None:
    arguments = ("pretrain", "--run", tmp_path, "--method", "peclr", "--epochs", 2, *TINY)
    handclr(*arguments, "-", stdin=shard.read_bytes())
    line = error_line(handclr(*arguments, "--lr", 0.5, "-", stdin=shard.read_bytes(), code=2))
    assert "arguments.lr was 0.0002, now 0.5" in line and "(--fresh)" in line
    handclr(*arguments, "--lr", 0.001, "--fresh", "-", stdin=shard.read_bytes())
    (tmp_path / "last.pt").write_bytes(b"PK damaged")
    line = error_line(handclr(*arguments, "--lr", 0.001, "-", stdin=shard.read_bytes(), code=1))
    assert "last.pt: not a checkpoint, or damaged" in line


@pytest.mark.slow
def test_what_cannot_be_is_one_line(shard: Path, tmp_path: Path) -> None:
    def fails(code: int, *arguments: object) -> str:
        return error_line(
            handclr("pretrain", shard, "--run", tmp_path / "run", *arguments, code=code)
        )

    assert fails(2) == (
        "handclr: error: --pairs: the method handclr needs them; make them with handclr pca and "
        "handclr mine, or train without them (--method simclr)"
    )
    assert "'byol' is not one of 'handclr', 'handclr-soft', 'peclr'" in fails(2, "--method", "byol")
    foreign = write_pairs(tmp_path / "foreign.npz", ["a_00000000_l", "b_00000000_l"], [1, 0])
    assert "none of the pairs is in the shards" in fails(1, "--pairs", foreign)
    simclr = ("--method", "simclr")
    assert "--device cuda:9: not available here" in fails(1, *simclr, "--device", "cuda:9")
    assert not (tmp_path / "run").exists()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(shard.read_bytes()[:5000])
    done = handclr("pretrain", cut, "--method", "simclr", "--run", tmp_path / "run", code=1)
    assert "cut.tar: ends " in error_line(done)


# In this process or in a fork of one that has imported all, with a model of a few numbers.
PRELOADED = (
    "handclr_cli.main",
    "handclr_cli.learning.views",
    "handclr_cli.report.curves",
    "torch._dynamo",
)
SMALL = ("--size", 32, "--batch", 4, "--workers", 0, "--device", "cpu")


class Small(nn.Module):
    channels = 8

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 5, stride=4), nn.BatchNorm2d(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.bn1(self.conv1(images)).relu().mean(dim=(2, 3))


def small(arch: str, init: str, seed: int) -> ContrastiveModel:
    with seeded(seed):
        return ContrastiveModel(Small(), ProjectionHead(8, hidden=16, seed=seed))  # type: ignore[arg-type]


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run pretrain in this process: exit code, standard output, standard error."""
    monkeypatch.setattr(ContrastiveModel, "build", small)
    for name, value in (("quiet", False), ("muted", False), ("debug", False), ("stderr", None)):
        monkeypatch.setattr(State, name, value)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["handclr", "pretrain", *map(str, arguments)])
        State.quiet = State.muted = False
        older = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
        try:
            with monkeypatch.context() as patch, pytest.raises(SystemExit) as ended:
                patch.setattr(front, "_drop_stdout", lambda: None)
                front.main()
        finally:
            for one, handler in older.items():
                signal.signal(one, handler)
        said = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int) and "unexpected" not in said.err, said.err
        return code, said.out, said.err

    return run


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "encoder.pt", weights_only=True)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) for name, tensor in one.items()
    )


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_workers_and_cache_do_not_change_the_weights(
    here: Any, shard: Path, pairs: Path, tmp_path: Path
) -> None:
    found = []
    for number, (workers, cache) in enumerate([(0, "none"), (0, "ram"), (2, "none"), (2, "ram")]):
        run = tmp_path / str(number)
        choices = ("--epochs", 3, "--workers", workers, "--cache", cache)
        assert here(shard, "--pairs", pairs, "--run", run, *SMALL, *choices)[0] == 0
        found.append(weights_of(run))
    assert all(equal(found[0], other) for other in found[1:])
    assert (
        here(shard, "--pairs", pairs, "--run", run, *SMALL, "--fresh", "--epochs", 3, "--seed", 1)[
            0
        ]
        == 0
    )
    assert not equal(found[0], weights_of(run))


@pytest.mark.slow
def test_methods_differ_and_are_recorded(
    here: Any, shard: Path, pairs: Path, tmp_path: Path
) -> None:
    losses = {}
    for method in ("simclr", "peclr", "tempclr", "handclr", "simhand", "handclr-soft"):
        # What published views are, soft's exact undoing cannot know.
        for published in ((), ("--as-published",))[: 1 if method == "handclr-soft" else 2]:
            run = tmp_path / f"{method}{len(published)}"
            mined = ("--pairs", pairs) if method in ("handclr", "simhand", "handclr-soft") else ()
            code, out, err = here(
                shard, "--run", run, "--method", method, "--epochs", 1, *mined, *published, *SMALL
            )
            assert code == 0 and out == f"{run}/encoder.pt\n" and f"pretrain: {method}, " in err
            losses[run.name] = log_of(run)[0]["loss"]
            config = json.loads((run / "config.json").read_text())
            assert config["arguments"]["method"] == method
            assert config["arguments"]["as_published"] == bool(published)
            assert (config["recipe"]["weights"] == "linear") == (method == "simhand")
            assert ("targets" in config["recipe"]) == (method == "handclr-soft")
    assert len(set(losses.values())) == 11


@pytest.mark.slow
def test_top_k_needs_as_many_and_uses_them(
    here: Any, shard: Path, pairs: Path, tmp_path: Path
) -> None:
    code, _, err = here(shard, "--pairs", pairs, "--run", tmp_path / "one", "--top-k", 2, *SMALL)
    assert code == 1 and "--top-k 2: the pairs have 1 for each crop" in err
    rows = np.arange(COUNT)
    keys = [labelled_sample(number).key for number in range(COUNT)]
    positive = np.column_stack([(rows + 4) % COUNT, (rows + 5) % COUNT]).astype(np.int32)
    arrays = {
        "key": as_keys(keys),
        "positive": positive,
        "distance": np.ones((COUNT, 2), np.float32),
    }
    write_npz(str(tmp_path / "two.npz"), "pairs", arrays, provenance("test", {}))
    weights = []
    for top_k in (1, 2):
        run = tmp_path / f"two-{top_k}"
        choices = ("--pairs", tmp_path / "two.npz", "--top-k", top_k, "--epochs", 2)
        assert here(shard, "--run", run, *choices, *SMALL)[0] == 0
        weights.append(weights_of(run))
    assert not equal(*weights)


@pytest.mark.slow
def test_soft_targets_are_a_choice_of_any_method(shard: Path, pairs: Path, tmp_path: Path) -> None:
    arguments = (
        "pretrain",
        shard,
        "--pairs",
        pairs,
        "--run",
        tmp_path / "run",
        "--epochs",
        2,
        *TINY,
    )
    done = handclr(*arguments, "--targets", "pose", "--accumulate", 2)
    assert done.stdout.decode() == f"{tmp_path}/run/encoder.pt\n"
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"] == {
        "positives": "mined",
        "undo": "extent",
        "weights": "none",
        "targets": "pose",
        "batch": 4,
        "lr": 0.0002,
        "warmup_epochs": 1.0,
        "temperature": 0.5,
        "rotation": 45.0,
        "spread": 0.15,
    }
    assert config["arguments"]["targets"] == "pose" and "spread" not in config["arguments"]
    done = handclr(*arguments, "--targets", "pose", "--method", "simhand", code=2)
    assert "--targets pose: goes with weights none, not linear" in error_line(done)


@pytest.mark.slow
def test_soft_targets_and_their_width_are_another_loss(
    here: Any, shard: Path, tmp_path: Path
) -> None:
    losses = []
    for number, choices in enumerate(
        [(), ("--targets", "pose"), ("--targets", "pose", "--spread", 0.5)]
    ):
        run = tmp_path / str(number)
        assert (
            here(shard, "--run", run, "--method", "tempclr", "--epochs", 1, *choices, *SMALL)[0]
            == 0
        )
        losses.append(log_of(run)[0]["loss"])
    assert len(set(losses)) == 3
    again = ("--config", tmp_path / "2" / "config.json", "--workers", 0, "--device", "cpu")
    assert here(shard, *again, "--run", tmp_path / "3")[0] == 0
    assert log_of(tmp_path / "3")[0]["loss"] == losses[2]
    assert (tmp_path / "3" / "config.json").read_bytes() == (
        tmp_path / "2" / "config.json"
    ).read_bytes()


@pytest.fixture
def over_at_once(monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A time limit that is over before the first step."""
    monkeypatch.setattr(options, "seconds_of", lambda time: 0.0 if time else math.inf)
    return ("--time-limit", "0:01")


@pytest.mark.slow
def test_a_run_begun_before_targets_were_a_choice_goes_on(
    here: Any, over_at_once: tuple[str, str], shard: Path, tmp_path: Path
) -> None:
    run, choices = tmp_path / "run", ("--method", "peclr", "--epochs", 1, *SMALL)
    assert here(shard, "--run", run, *choices, *over_at_once)[0] == 75
    config = json.loads((run / "config.json").read_text())
    assert not config["recipe"].keys() & {"targets", "spread"}
    assert not config["arguments"].keys() & {"targets", "spread"}
    code, _, err = here(shard, "--run", run, *choices, "--targets", "pose")
    assert code == 2 and "arguments.targets was None, now pose" in err
    assert here(shard, "--run", run, *choices)[0] == 0


@pytest.mark.slow
def test_keypoints_are_needed_to_weigh_pairs(here: Any, tmp_path: Path) -> None:
    samples = [labelled_sample(number) for number in range(4)]
    del samples[2].members["keypoints2d.npy"]
    shard = write_shard(tmp_path / "hands.tar", samples)
    for choices in (("--weights", "linear"), ("--targets", "pose"), ("--as-published",)):
        code, out, err = here(
            shard, "--method", "tempclr", *choices, "--run", tmp_path / "run", *SMALL
        )
        lines = [line for line in err.splitlines() if "error" in line]
        assert code == 1 and not out and len(lines) == 1
        assert "hands.tar: sample video0-v0_00000002_r has no keypoints2d.npy" in lines[0]
    assert (
        here(
            shard,
            "--method",
            "tempclr",
            "--epochs",
            1,
            "--fresh",
            "--run",
            tmp_path / "run",
            *SMALL,
        )[0]
        == 0
    )


@pytest.mark.slow
def test_damaged_crops_cost_themselves_and_not_the_training(
    here: Any, pairs: Path, tmp_path: Path
) -> None:
    """Of eight, one cannot be decoded, three are seen to be damaged and were two pairs, and one of
    another size is used as it is.
    """
    samples = [labelled_sample(number) for number in range(COUNT)]
    samples[0].members["jpg"] = b"junk"
    samples[1].members["jpg"] = samples[1].members["jpg"][:-9]
    del samples[5].members["jpg"]
    samples[2].members["jpg"] = without_tables(bytes(samples[2].members["jpg"]))
    samples[3].members["jpg"] = cv2.imencode(".png", samples[3].image[::2, ::2])[1].tobytes()
    shard, run = write_shard(tmp_path / "hands.tar", samples), tmp_path / "run"
    code, out, err = here(shard, "--pairs", pairs, "--run", run, "--epochs", 1, *SMALL)
    assert code == 3 and out.strip() == str(run / "encoder.pt"), err
    assert "4 pairs (4 crops without one)" in err and "4 crops skipped" in err
    for number, why in (
        (0, "jpg: not a JPEG or PNG image; skipped"),
        (1, "jpg: damaged, or cut short; skipped"),
        (2, "bad jpg: not an image; another stands in for it"),
    ):
        assert f"sample video0-v0_{number:08d}_r: {why}" in err
    assert err.count("another stands in for it") == 1
    assert "sample video1-v0_00000005_r has no jpg; skipped" in err
    worse = [Sample(one.key, {**one.members, "jpg": b"junk"}) for one in samples]
    shard = write_shard(tmp_path / "worse.tar", worse)
    code, _, err = here(shard, "--pairs", pairs, "--run", tmp_path / "other", *SMALL)
    assert code == 1 and err.count("\n") == 1 and "none of 8 can be used" in err


@pytest.mark.slow
def test_other_pictures_or_keypoints_are_another_run(here: Any, tmp_path: Path) -> None:
    """Keypoints only where the method needs them."""
    samples = [labelled_sample(number) for number in range(4)]
    moved = [labelled_sample(number) for number in range(4)]
    field = fields.KEYPOINTS_2D
    moved[1].members[field.suffix] = fields.encode_array(field, moved[1].keypoints2d + 1)
    shard = tmp_path / "hands.tar"
    for method, code in (("peclr", 0), ("tempclr --weights linear", 2)):
        run, choices = tmp_path / method.split()[0], ("--method", *method.split(), "--epochs", 1)
        write_shard(shard, samples)
        assert here(shard, "--run", run, *choices, *SMALL)[0] == 0
        write_shard(shard, moved)
        got, _, err = here(shard, "--run", run, *choices, *SMALL)
        assert got == code and ("(data.keypoints are others now)" in err) == bool(code)
    samples[2].members["jpg"] = fields.encode_image(samples[2].image[::-1])
    write_shard(shard, samples)
    code, _, err = here(shard, "--run", run, *choices, *SMALL)
    assert code == 2 and "(data.image_sizes are others now)" in err


@pytest.mark.slow
def test_the_time_limit_saves_and_says_75(
    here: Any, over_at_once: tuple[str, str], shard: Path, tmp_path: Path
) -> None:
    choices = ("--method", "peclr", "--epochs", 2, *SMALL)
    assert here(shard, "--run", tmp_path / "whole", *choices)[0] == 0
    run = tmp_path / "run"
    for step in (1, 2, 3):
        code, out, err = here(shard, "--run", run, *choices, *over_at_once)
        assert code == 75 and not out and f"stopped at the time limit, saved at step {step};" in err
        assert not (run / "encoder.pt").exists()
    code, out, _ = here(shard, "--run", run, *choices, *over_at_once)
    assert (
        code == 0 and out == f"{run}/encoder.pt\n"
    )  # the last step was made: nothing is left to stop
    assert equal(weights_of(run), weights_of(tmp_path / "whole"))
    assert [record["step"] for record in log_of(run)] == [1, 2, 3, 4]


@pytest.mark.slow
def test_what_comes_before_the_first_step_counts_too(
    shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow input, by a clock that goes on by a minute while it is read."""
    now, slept = time.monotonic, [0]

    def slow(*arguments: Any, **settings: Any) -> ShardIndex:
        slept[0] = 60
        return ShardIndex(*arguments, **settings)

    monkeypatch.setattr(time, "monotonic", lambda: now() + slept[0])
    monkeypatch.setattr(pretrain_job, "ShardIndex", slow)
    how = {"arch": "resnet18", "size": 32, "batch": 4, "epochs": 2, "method": "peclr"}
    where = {"shards": [str(shard)], "run": str(tmp_path), "workers": 0, "device": "cpu"}
    settings = pretrain_job.PretrainSettings(**where, **how, time_limit=50.0)
    with pytest.raises(Preempted, match="stopped at the time limit, saved at step 1;"):
        pretrain_job.run_pretrain(settings)


@pytest.mark.slow
def test_a_file_configures_a_run(here: Any, shard: Path, pairs: Path, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        f'pairs = ["{pairs}"]\nsize = 32\nbatch = 4\nworkers = 0\ndevice = "cpu"\nepochs ='
        ' 2\n"top-k" = 1\n'
    )
    assert here(shard, "--config", file, "--run", tmp_path / "one")[0] == 0
    assert here(shard, "--pairs", pairs, "--run", tmp_path / "two", "--epochs", 2, *SMALL)[0] == 0
    config = (tmp_path / "one" / "config.json").read_bytes()
    assert (tmp_path / "two" / "config.json").read_bytes() == config
    again = (
        "--config",
        tmp_path / "one" / "config.json",
        "--pairs",
        pairs,
        "--workers",
        0,
        "--device",
        "cpu",
    )
    assert here(shard, *again, "--run", tmp_path / "three")[0] == 0
    assert (tmp_path / "three" / "config.json").read_bytes() == config
    assert equal(weights_of(tmp_path / "one"), weights_of(tmp_path / "three"))
    code, _, err = here(shard, *again, "--run", tmp_path / "one")
    assert code == 2 and "one/config.json is an input and lies in this folder" in err
    code, _, err = here(shard, *again, "--run", tmp_path / "three", "--epochs", 1)
    assert code == 2 and "arguments.epochs was 2, now 1" in err
    for text, message in (
        ("epoch = 2", "pretrain has no option epoch"),
        ('epochs = "x"', "'--epochs'"),
    ):
        file.write_text(text)
        code, _, err = here(shard, "--config", file, "--run", tmp_path / "four")
        assert code == 2 and message in err and err.count("\n") == 1


@pytest.mark.slow
def test_another_method_is_that_method_beside_a_runs_configuration(
    here: Any, shard: Path, tmp_path: Path
) -> None:
    assert (
        here(shard, "--method", "peclr", "--epochs", 1, "--run", tmp_path / "one", *SMALL)[0] == 0
    )
    again = ("--config", tmp_path / "one" / "config.json", "--workers", 0, "--device", "cpu")
    assert here(shard, *again, "--method", "tempclr", "--run", tmp_path / "two")[0] == 0
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    assert (
        config["arguments"]["method"] == "tempclr" and config["recipe"]["positives"] == "neighbour"
    )


METHODS = ("simclr", "peclr", "tempclr", "handclr", "simhand", "handclr-soft")
MINED = METHODS[3:]


@pytest.fixture
def configured(
    here: Any, shard: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Begin and end a run of a method without training; returns its configuration."""

    def untrained(*given: Any) -> Path:
        run = given[-1]
        assert isinstance(run, Run)
        return run.save({}, "encoder.pt")

    monkeypatch.setattr(pretrain_job, "_train", untrained)
    runs = itertools.count()

    def configure(method: str, *words: object) -> dict[str, Any]:
        run = tmp_path / f"configured-{next(runs)}"
        mined_of = ("--pairs", pairs) if method in MINED else ()
        words = (*mined_of, *words, "--workers", 0, "--device", "cpu", "--run", run)
        code, _, err = here(shard, *words)
        assert code == 0, err
        config = json.loads((run / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config))
        return dict(config)

    return configure


@pytest.mark.parametrize("published", [(), ("--as-published",)])
def test_a_runs_configuration_is_that_of_its_options(
    published: tuple[str, ...], configured: Any, tmp_path: Path
) -> None:
    """What was worked out is recorded beside what was asked for, and is not asked for again."""
    for method in METHODS[: 5 if published else 6]:
        asked = ("--method", method, "--size", 32, *published)
        config = configured(method, *asked)
        assert configured(method, "--config", tmp_path / "config.json") == config
        assert not config["arguments"].keys() & {"lr", "warmup_epochs", "temperature", "rotation"}
        assert config["arguments"]["batch"] == 256 and config["recipe"]["batch"] == COUNT
        assert config["recipe"]["rotation"] == (0 if method == "simclr" else 45)
    config = configured(method, *asked, "--lr", 0.5, "--warmup-epochs", 2, "--temperature", 1)
    given = {"lr": 0.5, "warmup_epochs": 2.0, "temperature": 1.0}
    assert (
        given.items() <= config["arguments"].items() and given.items() <= config["recipe"].items()
    )
    assert configured(method, "--config", tmp_path / "config.json") == config


def test_another_method_or_length_beside_a_configuration_is_as_without_it(
    configured: Any, tmp_path: Path
) -> None:
    of_simclr = tmp_path / "simclr.json"
    of_simclr.write_text(json.dumps(configured("simclr", "--method", "simclr", "--size", 32)))
    for method in METHODS:
        other = ("--method", method, "--batch", 4, "--epochs", 5)
        expected = configured(method, *other, "--size", 32)
        assert configured(method, "--config", of_simclr, *other) == expected
    assert expected["recipe"]["temperature"] == 0.1 and expected["recipe"]["rotation"] == 45
    assert expected["recipe"]["warmup_epochs"] == 0.5


def test_a_run_that_recorded_only_what_came_of_its_options_goes_on(
    configured: Any, here: Any, shard: Path, tmp_path: Path
) -> None:
    """As earlier versions did: also where the same is asked for that was worked out."""
    asked = ("--method", "peclr", "--as-published", "--size", 32)
    config = configured("peclr", *asked)
    older, made = dict(config), config["recipe"]
    older["recipe"] = {name: made.pop(name) for name in ("positives", "undo", "weights")}
    older["arguments"] = config["arguments"] | made
    run = tmp_path / "older"
    run.mkdir()
    (run / "last.pt").write_bytes(b"a state")
    words = (shard, *asked, "--workers", 0, "--device", "cpu", "--run", run)
    for more in ((), ("--lr", made["lr"]), ("--warmup-epochs", 10, "--batch", COUNT)):
        (run / "config.json").write_text(json.dumps(older))
        assert here(*words, *more)[0] == 0
    (run / "config.json").write_text(json.dumps(older))
    code, _, err = here(*words, "--temperature", 0.1)
    assert (
        code == 2 and "arguments.temperature was 0.5, now 0.1" in err and "arguments.lr" not in err
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--spread", 0.3), "--spread 0.3: is the width of soft targets; take --targets pose"),
        (("--top-k", 5), "--top-k 5: draws from mined positives, and here they are self"),
        (("--pairs", "nowhere.npz"), "nowhere.npz: no such file or folder"),
    ],
)
def test_what_a_method_has_no_use_for_is_refused(
    words: tuple[object, ...], told: str, here: Any, shard: Path, tmp_path: Path
) -> None:
    code, _, err = here(shard, "--method", "simclr", "--run", tmp_path / "run", *SMALL, *words)
    assert code == 2 and told in err and err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_pairs_that_a_method_has_no_use_for_may_be_there(
    here: Any, shard: Path, pairs: Path, tmp_path: Path
) -> None:
    words = ("--method", "simclr", "--pairs", pairs, "--run", tmp_path / "run", "--epochs", 1)
    code, _, err = here(shard, *words, *SMALL)
    assert code == 0 and "warning: positives are self: the mined pairs are not read" in err


@pytest.mark.parametrize("accumulate", [3, 4])
def test_a_batch_that_cannot_be_cut_is_refused(
    accumulate: int, here: Any, shard: Path, tmp_path: Path
) -> None:
    code, _, err = here(
        shard, "--method", "simclr", "--run", tmp_path / "run", *SMALL, "--accumulate", accumulate
    )
    assert code == 2 and err.count("\n") == 1 and not (tmp_path / "run").exists()
    assert f"--batch 4: cannot be cut into {accumulate} equal parts of two or more" in err


@pytest.mark.slow
def test_the_probe_is_logged_and_needs_held_out_crops(
    here: Any, shard: Path, tmp_path: Path
) -> None:
    held_out = write_labelled(tmp_path / "probe.tar", 3, first=100)
    choices = ("--method", "peclr", "--epochs", 4, *SMALL)
    probed, plain = tmp_path / "probed", tmp_path / "plain"
    code, out, err = here(shard, "--run", probed, *choices, "--probe", held_out, "--probe-every", 2)
    assert (
        code == 0
        and out == f"{probed}/encoder.pt\n"
        and "predicting the mean pose would score" in err
    )
    assert here(shard, "--run", plain, *choices)[0] == 0
    assert equal(weights_of(probed), weights_of(plain))
    found = [(record["step"], record["epoch"]) for record in log_of(probed) if "probe" in record]
    assert found == [(4, 1), (8, 3)]
    assert [record["step"] for record in log_of(probed) if "loss" in record] == list(range(1, 9))
    assert (probed / "loss.png").exists()
    code, _, err = here(shard, "--run", tmp_path / "same", *choices, "--probe", shard)
    assert code == 1 and "--probe: crop video0-v0_00000000_r is also trained on" in err


def test_half_an_environment_of_processes_is_refused(
    here: Any, shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    code, out, err = here(shard, "--method", "peclr", "--run", tmp_path / "run", *SMALL)
    assert code == 2 and not out and err.count("\n") == 1 and not (tmp_path / "run").exists()
    missing = "WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"
    assert f"incomplete torchrun or Slurm environment: missing {missing}" in err


@pytest.mark.slow
def test_too_few_crops_are_refused(here: Any, tmp_path: Path) -> None:
    for count in (0, 1):
        shard = write_labelled(tmp_path / f"{count}.tar", count)
        code, out, err = here(shard, "--method", "peclr", "--run", tmp_path / "run", *SMALL)
        assert code == 1 and not out and err.count("\n") == 1 and "too few to train on" in err
    shard = write_labelled(tmp_path / "3.tar", 3)
    code, _, err = here(
        shard, "--method", "peclr", "--run", tmp_path / "run", *SMALL, "--epochs", 1, "--size", 128
    )
    assert code == 0 and "only 3 pairs: the batch of 4 is cut to 3" in err


@pytest.mark.parametrize("lr", ["nan", "1e30"])
@pytest.mark.slow
def test_a_rate_that_cannot_be_ends_in_one_line(
    lr: str, here: Any, shard: Path, tmp_path: Path
) -> None:
    code, out, err = here(shard, "--method", "peclr", "--run", tmp_path / "run", "--lr", lr, *SMALL)
    errors = [line for line in err.splitlines() if "error" in line]
    assert code in (1, 2) and not out and len(errors) == 1 and "lr" in errors[0]
    assert (
        not (tmp_path / "run" / "encoder.pt").exists()
        and not (tmp_path / "run" / "last.pt").exists()
    )


STEPS = 66


def killed_run(arguments: list[str], calls: int, counted: Any) -> None:
    """Pre-train, and be killed after so many calls of functions from the second step on."""
    torch.set_num_threads(1)
    sys.argv = ["handclr", "pretrain", *arguments]
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    ContrastiveModel.build = small  # type: ignore[assignment,method-assign]
    differentiate, steps = Objective.__call__, itertools.count()

    def count(*event: object) -> None:
        counted.value += 1
        if counted.value == calls:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(objective: Objective, views: Views) -> dict[str, torch.Tensor]:
        step = next(steps)
        if step == 1:
            sys.setprofile(count)
        elif step == STEPS - 1:  # what draws the curve at the end is not counted
            sys.setprofile(None)
        return differentiate(objective, views)

    Objective.__call__ = watched  # type: ignore[method-assign]
    front.main()


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_as_an_undisturbed_one(
    shard: Path, pairs: Path, tmp_path: Path
) -> None:
    """Killed wherever it happens to be: within a step, in the middle of a save, between the save
    and the log.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])

    def attempt(run: Path, calls: int) -> tuple[int | None, int]:
        choices = (shard, "--pairs", pairs, "--run", run, "--epochs", 33, "--save-every", 3, *SMALL)
        counted = context.Value("q", 0, lock=False)
        process = context.Process(
            target=killed_run, args=([str(choice) for choice in choices], calls, counted)
        )
        process.start()
        process.join(60)
        return process.exitcode, counted.value

    code, calls = attempt(tmp_path / "whole", 0)
    assert code == 0
    steps = []
    for moment in np.random.default_rng(0).uniform(0, 5 / STEPS, 10):
        assert attempt(tmp_path / "run", int(moment * calls))[0] == -signal.SIGKILL
        saved = tmp_path / "run" / "last.pt"
        steps.append(torch.load(saved, weights_only=True)["step"] if saved.exists() else 0)
    assert steps == sorted(steps) and len(set(steps)) > 3 and 0 < steps[-1] < 66
    assert attempt(tmp_path / "run", 0)[0] == 0
    assert equal(weights_of(tmp_path / "run"), weights_of(tmp_path / "whole"))
    records = [log_of(tmp_path / name) for name in ("run", "whole")]
    assert [record["step"] for record in records[0]] == list(range(1, 67))
    assert [record["loss"] for record in records[0]] == [record["loss"] for record in records[1]]


@pytest.mark.slow
def test_two_processes_train_as_one(shard: Path, pairs: Path, tmp_path: Path) -> None:
    """A step of each epoch, as started by torchrun; the line of standard output and the log are
    one's.
    """
    # Not --run: torchrun takes that for an abbreviation of options of its own, and asks which.
    choices = ("--pairs", pairs, "--epochs", 3, "--lr", 1e-5, *TINY, "--batch", 8)
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    arguments = ["-m", "handclr_cli", "pretrain", shard, "-o", tmp_path / "two", *choices]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, *map(str, arguments)],
        capture_output=True,
        env=environment,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == f"{tmp_path}/two/encoder.pt\n"
    handclr("pretrain", shard, "--run", tmp_path / "one", *choices)
    curves = [[record["loss"] for record in log_of(tmp_path / name)] for name in ("two", "one")]
    assert len(curves[0]) == 3
    np.testing.assert_allclose(*curves, atol=1e-4)
    assert (tmp_path / "two" / "config.json").read_bytes() == (
        tmp_path / "one" / "config.json"
    ).read_bytes()
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )
