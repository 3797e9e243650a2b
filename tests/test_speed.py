"""What a training says of its speed, once: that it takes hours, that it has become slow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import pytest

from handclr_cli import console
from handclr_cli.learning import speed
from handclr_cli.learning.schedule import Schedule
from handclr_cli.learning.speed import Speed

PLAN = Schedule(samples=10, batch=3, epochs=4, lr=1.0, warmup_epochs=1, seed=0)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.State, "stderr", None)


@pytest.mark.parametrize(
    ("trial", "step_s", "said"),
    [
        ("--size 64", 1800.0, "toy: about 5 h on this processor; to try it: --size 64\n"),
        ("--size 64", 90_000.0, "toy: about 10 days on this processor; to try it: --size 64\n"),
        ("--size 64", 200.0, ""),
        ("", 1800.0, ""),
    ],
)
def test_a_training_of_hours_on_a_processor_is_announced_once(
    trial: str, step_s: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = Speed("toy", replace(PLAN, trial=trial), 1)
    noted.note(1, PLAN.batch, 10 * step_s)  # loading and tuning
    for step in range(2, PLAN.steps):
        noted.note(step, PLAN.batch, step_s)
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("rates", "threads", "said"),
    [
        ([100] * 80 + [20] * 40, 2, "toy: 20 images/s, and 100 in the first minutes; beside"),
        ([100] * 80 + [20] * 40, 1, "do other programs use this machine?"),
        ([100] * 80 + [60] * 40, 2, ""),
        ([100] * 80 + [1] + [100] * 80, 2, ""),  # everything was stopped for a moment
        ([5, *[100] * 160], 2, ""),  # the first rate counts for nothing
        ([100] * 10, 2, ""),
    ],
)
def test_a_training_that_becomes_slow_says_so_once(
    rates: Sequence[float],
    threads: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = [0.0]
    monkeypatch.setattr(speed, "time", SimpleNamespace(monotonic=lambda: now[0]))
    noted = Speed("toy", PLAN, threads)
    for step, rate in enumerate(rates, 1):
        now[0] += 2.0 if rate > 1 else 200.0
        assert noted.note(step, 200, 200 / rate) == pytest.approx(rate)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == bool(said) and said in "".join(lines)
