"""How a training ends before its schedule does."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator

import pytest

from handclr_cli.contract.errors import HandclrError, Interrupted, Preempted
from handclr_cli.learning.distributed import Ranks
from handclr_cli.learning.stopping import Stop, StoppedError, saved_when_stopped


class Told(Ranks):
    """One process of two; the other one tells it the same before each step."""

    def __init__(self, told: int) -> None:
        super().__init__(rank=0, world=2)
        object.__setattr__(self, "_told", told)

    def most(self, value: int) -> int:
        return max(value, self._told)  # type: ignore[attr-defined]


def test_signals_are_noted_and_a_second_ctrl_c_interrupts() -> None:
    older = signal.getsignal(signal.SIGTERM)
    with Stop(math.inf) as stop:
        assert not stop.requested()
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested() and stop.error is Preempted
        signal.raise_signal(signal.SIGINT)
        assert stop.requested() and stop.error is Interrupted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is older


@pytest.mark.parametrize("ranks", [Ranks(), Told(0)], ids=["one", "several"])
def test_a_signal_ends_the_wait_for_a_batch_and_nothing_else(ranks: Ranks) -> None:
    def late() -> Iterator[int]:
        yield 1
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:  # as the reader of a damaged crop does
            pytest.fail("taken for a damaged crop")
        yield 2

    seen = []
    with Stop(math.inf, ranks) as stop, pytest.raises(StoppedError) as caught:
        seen.extend(stop.between(late(), 2))
    assert isinstance(caught.value.error, Preempted) and str(caught.value) == "stopped by SIGTERM"
    with Stop(math.inf, ranks) as stop, pytest.raises(StoppedError):
        for batch in stop.between([2, 3], 2):
            signal.raise_signal(signal.SIGTERM)  # while the step is made
            seen.append(batch)
    with Stop(math.inf, ranks) as stop:
        for batch in stop.between([4], 1):
            signal.raise_signal(signal.SIGTERM)  # in the last step
            seen.append(batch)
    assert seen == [1, 2, 4]


def test_a_training_without_time_makes_a_step() -> None:
    def slow(stop: Stop) -> Iterator[int]:
        for number in (1, 2):
            stop.look()  # as while a batch does not come
            yield number

    seen = []
    with Stop(-1) as stop, pytest.raises(StoppedError, match="stopped at the time limit"):
        seen.extend(stop.between(slow(stop), 2))
    assert seen == [1]
    with Stop(-1) as stop, pytest.raises(StoppedError, match="stopped by SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
        seen.extend(stop.between(slow(stop), 2))
    assert seen == [1]


@pytest.mark.parametrize(
    ("ranks", "fails", "code", "line"),
    [
        (Ranks(), True, 1, "workers: lost; "),
        (Told(0), True, 1, "workers: lost; "),
        (Told(1), True, 1, "workers: lost; "),
        (Told(1), False, 75, "stopped with another process, "),
        (
            Told(2),
            False,
            1,
            "another process of this training gets no crops; what it printed tells why; ",
        ),
    ],
)
def test_processes_stop_together_and_are_saved(
    ranks: Ranks, fails: bool, code: int, line: str
) -> None:
    def batches() -> Iterator[int]:
        if fails:
            raise HandclrError("lost", setting="workers")
        yield 1

    with (
        pytest.raises(HandclrError) as caught,
        Stop(math.inf, ranks) as stop,
        saved_when_stopped(lambda: 1234),
    ):
        list(stop.between(batches(), 2))
    saved = "saved at step 1,234; run the same command again to go on"
    assert str(caught.value) == line + saved and caught.value.exit_code == code


def test_a_background_job_goes_on_ignoring_ctrl_c() -> None:
    older = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop(math.inf) as stop:
            signal.raise_signal(signal.SIGINT)
            assert not stop.requested()
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, older)
