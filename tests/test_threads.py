"""How many threads a training computes with, and what is said when it becomes slow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from handclr_cli import console
from handclr_cli.learning.loop import train
from handclr_cli.learning.run import Run
from handclr_cli.learning.schedule import Row, Schedule
from handclr_cli.learning.threads import Threads, pick_threads
from handclr_cli.work import cores

CPU = torch.device("cpu")
PLAN = Schedule(samples=10, batch=3, epochs=4, lr=1.0, warmup_epochs=1, seed=0)


class Rows(torch.utils.data.Dataset[int]):
    def __getitem__(self, row: Row) -> int:
        return row[1]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of four cores; nobody has decided on threads."""
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(cores, "LOOK_S", 0.0)
    monkeypatch.setattr(console.State, "stderr", None)


def looked_at(monkeypatch: pytest.MonkeyPatch, idle: Sequence[int]) -> None:
    """So many of 30 ticks each core is idle between two looks."""
    looks = iter([[(1000, 5000)] * len(idle), [(1000 + each, 5030) for each in idle]])
    monkeypatch.setattr(cores, "_ticks", lambda: next(looks))


@pytest.mark.parametrize(
    ("idle", "threads"),
    [
        ([30, 30, 30, 30], 4),
        ([0, 30, 30, 30], 3),
        ([22, 22, 22, 22], 3),
        ([29, 28, 27, 28], 4),  # what any desktop does
        ([0, 0, 0, 2], 1),
        ([], 4),  # nobody tells
    ],
)
def test_a_training_takes_the_cores_that_are_idle(
    idle: Sequence[int],
    threads: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    looked_at(monkeypatch, idle)
    found = pick_threads(None, CPU)
    assert found.of_run(7) == 7 and not capsys.readouterr().err
    assert found.of_run(None) == threads and not found.asked
    said = capsys.readouterr().err
    assert (f"others use {4 - threads} of 4 cores" in said) == (threads < 4)


def test_who_decides_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at(monkeypatch, [0, 0, 0, 0])
    assert pick_threads(3, CPU) == Threads(3, asked=True)
    assert pick_threads(None, CPU, sharing=2) == Threads(2)
    assert pick_threads(None, torch.device("cuda")) == Threads(torch.get_num_threads())
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "2")
    assert pick_threads(None, CPU) == Threads(2) == pick_threads(None, CPU, sharing=2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert pick_threads(None, CPU) == Threads(torch.get_num_threads())


def test_the_ticks_of_this_machine_are_read() -> None:
    if not Path("/proc/stat").exists():
        pytest.skip("needs Linux")
    found = cores._ticks()
    assert found and all(0 <= idle <= total for idle, total in found)


def test_a_run_goes_on_with_the_threads_it_began_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, seen = nn.Linear(1, 1), []

    def differentiate(batch: Any) -> dict[str, torch.Tensor]:
        seen.append(torch.get_num_threads())
        return {"loss": torch.zeros(())}

    def go_on(epochs: int, threads: Threads) -> set[int]:
        seen.clear()
        train(
            run=Run(tmp_path, {"arguments": {}}),
            label="toy",
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
            dataset=Rows(),
            collate=list,
            differentiate=differentiate,
            schedule=replace(PLAN, epochs=epochs, threads=threads),
            device=CPU,
        )
        return set(seen)

    before = torch.get_num_threads()
    assert go_on(4, Threads(2)) == {2}
    assert go_on(8, Threads(1)) == {2}
    assert "thread" not in capsys.readouterr().err
    assert go_on(12, Threads(3, asked=True)) == {3}
    assert "with 3 threads from here on, not 2" in capsys.readouterr().err
    assert go_on(16, Threads(1)) == {3}
    assert torch.get_num_threads() == before
