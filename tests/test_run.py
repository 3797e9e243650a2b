"""Run directories and the order of batches."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handclr_cli.commands import trainers
from handclr_cli.contract import temporary
from handclr_cli.contract.errors import HandclrError, UsageError
from handclr_cli.learning.distributed import Ranks
from handclr_cli.learning.finetune_job import FinetuneSettings
from handclr_cli.learning.pretrain_job import PretrainSettings
from handclr_cli.learning.run import Run, alone_in, run_config
from handclr_cli.learning.schedule import EpochBatches, Schedule
from handclr_cli.learning.setup import TrainResult, trial_of

PLAN = Schedule(samples=10, batch=3, epochs=4, lr=1.0, warmup_epochs=1, seed=0)


def test_batches_are_exact_epochs_in_a_new_order_each() -> None:
    batches = list(EpochBatches(PLAN, 0))
    assert len(batches) == PLAN.steps == 12
    for epoch in range(4):
        rows = [row for batch in batches[3 * epoch : 3 * epoch + 3] for _, row in batch]
        assert len(set(rows)) == 9
        assert {e for batch in batches[3 * epoch : 3 * epoch + 3] for e, _ in batch} == {epoch}
    assert batches[0] != batches[3]


@pytest.mark.parametrize("step", range(13))
def test_batches_resume_at_any_step(step: int) -> None:
    assert list(EpochBatches(PLAN, step)) == list(EpochBatches(PLAN, 0))[step:]
    assert len(EpochBatches(PLAN, step)) == 12 - step


def test_the_log_forgets_what_will_be_repeated(tmp_path: Path) -> None:
    run = Run(tmp_path, {"arguments": {"lr": 1}})
    run.log([{"step": step, "loss": 1.0} for step in range(1, 6)])
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    run.forget_after(3)
    assert [record["step"] for record in run.records()] == [1, 2, 3]


def test_a_state_comes_back_and_another_configuration_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path, {"arguments": {"lr": 1, "batch": 2}})
    assert run.load() is None
    run.save({"step": 7, "model": {"weight": torch.ones(2)}})
    state = Run(tmp_path, {"arguments": {"lr": 1, "batch": 2}}).load()
    assert (
        state is not None
        and state["step"] == 7
        and torch.equal(state["model"]["weight"], torch.ones(2))
    )
    with pytest.raises(UsageError, match=r"arguments\.lr was 1, now 2\)"):
        Run(tmp_path, {"arguments": {"lr": 2, "batch": 2}})
    assert Run(tmp_path, {"arguments": {"lr": 2}}, fresh=True).load() is None
    assert not [name for name in tmp_path.iterdir() if ".tmp" in name.name]


def test_other_contents_are_named_and_unknown_in_older_runs(tmp_path: Path) -> None:
    same = {"seed": 0, "rows": np.arange(2), "weights": "random"}

    def configured(**contents: bytes) -> dict[str, Any]:
        return run_config("finetune", {}, [], ["a", "b"], [], contents=contents, **same)

    older = Run(tmp_path, configured())
    older.save({"step": 1})
    assert Run(tmp_path, configured(labels=b"1")).load() is not None
    with pytest.raises(UsageError, match=r"another configuration \(data\.labels are others now\);"):
        Run(tmp_path, configured(labels=b"2"))
    with pytest.raises(UsageError, match=r"data\.labels_sha256 was .*, now None"):
        Run(tmp_path, configured())


@pytest.mark.parametrize("name", ["encoder.pt", "model.pt", "model-last.pt", "log.jsonl"])
def test_a_run_that_has_lost_its_state_is_not_replaced(name: str, tmp_path: Path) -> None:
    """last.pt is half of a run's bytes, and what comes to mind to remove when it is done."""
    Run(tmp_path, {"arguments": {"lr": 1}}).log([{"step": 1, "loss": 1.0}])
    (tmp_path / name).touch()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=r"\(arguments\.lr was 1, now 2\).*anew \(fresh=True\)"):
        Run(tmp_path, {"arguments": {"lr": 2}})
    if name == "log.jsonl":  # killed before its first save
        assert Run(tmp_path, {"arguments": {"lr": 1}}).load() is None
    else:
        with pytest.raises(UsageError, match=r"this run, which is done, without the last\.pt"):
            Run(tmp_path, {"arguments": {"lr": 1}})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    Run(tmp_path, {"arguments": {"lr": 2}}, fresh=True).begin()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_run_that_never_made_a_step_takes_any_configuration(tmp_path: Path) -> None:
    Run(tmp_path, {"arguments": {"lr": 1}}).forget_after(0)
    assert Run(tmp_path, {"arguments": {"lr": 2}}).load() is None


def test_a_best_so_far_is_not_the_end(tmp_path: Path) -> None:
    """model.pt is written before last.pt, between which a run may be killed."""
    run = Run(tmp_path, {"arguments": {}})
    run.log([{"step": 1, "loss": 1.0}, {"step": 1, "epoch": 0, "mpjpe_root_mm": 9.0}])
    run.save({"step": 1}, "model.pt")
    assert Run(tmp_path, {"arguments": {}}).load() is None


def test_a_fresh_run_leaves_the_older_one_until_it_begins(tmp_path: Path) -> None:
    older = Run(tmp_path, {"arguments": {"lr": 1}})
    older.log([{"step": 1, "loss": 1.0}])
    older.save({"step": 1})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    fresh = Run(tmp_path, {"arguments": {"lr": 2}}, fresh=True)
    assert fresh.load() is None
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    fresh.begin()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    fresh.save({"step": 2})
    state = fresh.load()
    assert state is not None and state["step"] == 2 and fresh.records() == []


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name", ["config.json", "model.pt", "encoder.pt", "log.jsonl"])
def test_a_folder_of_something_else_is_no_run(name: str, fresh: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"architectures": ["ResNet"]}')
    with pytest.raises(UsageError, match=f"holds {name} and is no run; name another"):
        Run(tmp_path, {"arguments": {}}, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_one_training_in_a_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "new"
    with alone_in(run, Ranks()):
        running = "another training is running in .*new; wait"
        with pytest.raises(HandclrError, match=running), alone_in(run, Ranks()):
            pytest.fail("not reached")
        with alone_in(run, Ranks(1, 2)):  # another process of the same training
            pass
    with alone_in(run, Ranks()):
        pass
    assert list(run.iterdir()) == []
    monkeypatch.setattr(temporary, "_lock", lambda descriptor, wait: False)
    with alone_in(run, Ranks()):
        pass
    assert "cannot be locked here; start no second training in it" in capsys.readouterr().err


@pytest.mark.parametrize("step", [0, 1, 4, 11])
def test_processes_share_each_batch(step: int) -> None:
    plan = Schedule(samples=13, batch=4, epochs=4, lr=1.0, warmup_epochs=1, seed=0)
    shares = [list(EpochBatches(plan, step, Ranks(rank, 2))) for rank in range(2)]
    assert [first + second for first, second in zip(*shares, strict=True)] == list(
        EpochBatches(plan, step)
    )


def test_only_the_main_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranks, "wait", lambda self: None)
    main = Run(tmp_path / "run", {"arguments": {}}, ranks=Ranks(0, 2))
    main.log([{"step": 1}])
    main.save({"step": 1})
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    other = Run(tmp_path / "run", {"arguments": {"lr": 1}}, fresh=True, ranks=Ranks(1, 2))
    other.log([{"step": 2}])
    other.save({"step": 2})
    other.forget_after(0)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    other.begin()
    state = other.load()
    assert state is not None and state["step"] == 1
    Run(tmp_path / "none", {}, ranks=Ranks(1, 2))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("given", "start", "asked"),
    [
        ({}, ("resnet50", "random"), "arch=resnet18 size=64 epochs=5"),
        ({"size": 64}, ("resnet34", "imagenet"), "arch=resnet18 epochs=5"),
        ({"epochs": 3}, ("resnet50", "runs/pretrain/encoder.pt"), "size=64"),
        (
            {"size": 64, "epochs": 5},
            ("resnet18", "handclr"),
            "a GPU (device=cuda), or fewer crops",
        ),
    ],
)
def test_what_makes_a_training_short_and_is_not_set_so_already(
    given: dict[str, Any], start: tuple[str, str], asked: str
) -> None:
    for kind in (PretrainSettings, FinetuneSettings):
        assert trial_of(kind(shards=[], run="runs/a", **given), *start) == asked


def test_without_matplotlib_a_training_ends_well_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.axes", "matplotlib.ticker"):
        monkeypatch.setitem(sys.modules, name, None)
    records = [{"step": step, "loss": 1.0 / step} for step in (1, 2)]
    trainers.finish("pretrain", TrainResult(tmp_path / "encoder.pt", records, main=True))
    told = capsys.readouterr()
    assert told.out.strip() == str(tmp_path / "encoder.pt")
    assert "loss.png is not drawn: matplotlib" in told.err and "loss 1.0000 at step 1" in told.err


def test_a_path_that_nobody_reads_costs_no_loss_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Closed(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    records = [{"step": step, "loss": 1.0 / step} for step in (1, 2)]
    with pytest.raises(BrokenPipeError):
        trainers.finish("pretrain", TrainResult(tmp_path / "encoder.pt", records, main=True))
    assert (tmp_path / "loss.png").exists() and "pretrain: loss 1.0" in capsys.readouterr().err
