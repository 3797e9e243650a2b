"""Worker processes that load batches."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import torch
from shard_helpers import cli_env

from handclr_cli.contract.errors import HandclrError
from handclr_cli.learning import loaders
from handclr_cli.learning.loading import batches

FORK = """
import cv2, numpy as np, torch
from handclr_cli.learning.loading import batches
cv2.setNumThreads(4)
cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (0, 0), 5)
class Blurred(torch.utils.data.Dataset):
    def __getitem__(self, row):
        return cv2.GaussianBlur(np.full((64, 64, 3), row, np.uint8), (0, 0), 5).max()
with batches(Blurred(), [[1, 2], [3]], np.array, 2, torch.device("cpu")) as loaded:
    print([batch.tolist() for batch in loaded])
"""


@pytest.mark.slow
def test_workers_start_beside_the_threads_of_opencv() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, timeout=60, check=True)
    assert done.stdout == b"[[1, 2], [3]]\n"


class Crops(torch.utils.data.Dataset[torch.Tensor]):
    """Items that are slow, deadly or cannot be sent."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __getitem__(self, row: int) -> Any:
        if self.how == "slow":
            time.sleep(60)
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return (lambda: row) if self.how == "unsendable" else torch.full((1000,), row)


def load(how: str, workers: int = 1, **waiting: Any) -> list[Any]:
    cpu = torch.device("cpu")
    with batches(Crops(how), [[1], [2]], lambda items: items[0], workers, cpu, **waiting) as loaded:
        return list(loaded)


def test_a_wait_for_a_batch_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """And processes that hang end together: torch alone waits 10 s for each."""
    monkeypatch.setattr(loaders, "POLL_S", 0.1)
    monkeypatch.setattr(loaders, "ENDING_S", 0.2)
    begin = time.monotonic()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load("slow", 2, waiting=stop)
    assert time.monotonic() - begin < 10


def test_a_wait_for_a_batch_has_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[int] = []

    class Worker:
        pid = 123

        def kill(self) -> None: ...

    class Silent:
        _rcvd_idx, _task_info, _workers = 7, {6: (0,), 7: (1,)}, (None, Worker())

        def __next__(self) -> Any:
            raise RuntimeError("DataLoader timed out after 2 seconds")

    with pytest.raises(HandclrError, match="no batch of crops came from process 123 for 600 s"):
        next(loaders.patient(Silent(), lambda: calls.append(1)))  # type: ignore[arg-type]
    assert len(calls) == loaders.LIMIT_S / loaders.POLL_S
    told = "no batch of crops came from process 123 for 60 s; waiting for 540 s more"
    assert capsys.readouterr().err == f"handclr: warning: {told}\n"


def test_a_process_that_hangs_within_a_batch_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "POLL_S", 0.05)
    monkeypatch.setattr(loaders, "LIMIT_S", 0.2)
    killed = threading.Event()

    class Worker:
        def kill(self) -> None:
            killed.set()

    class Stuck:
        """As where torch waits for a process to hand over its memory."""

        _workers = (Worker(),)

        def __next__(self) -> Any:
            assert killed.wait(10)
            raise EOFError

    with pytest.raises(HandclrError, match="no batch of crops came for"):
        next(loaders.patient(Stuck(), lambda: None))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["killed", "unsendable"])
def test_a_process_that_is_lost_is_an_error(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "POLL_S", 0.1)
    with pytest.raises(HandclrError, match="a process that decodes crops cannot go on") as caught:
        load(how)
    assert caught.value.setting == "workers" and "\n" not in str(caught.value)


def test_a_process_that_is_lost_within_a_step_is_an_error_after_it() -> None:
    """torch raises it wherever the trainer is, and would leave half a step."""
    parts = [[1], [2], [3], [4]]
    with batches(Crops(""), parts, list, 1, torch.device("cpu")) as loaded:
        next(loaded)
        (process,) = multiprocessing.active_children()
        os.kill(process.pid or 0, signal.SIGKILL)
        time.sleep(0.3)  # the step
        with pytest.raises(HandclrError, match="a process that decodes crops cannot go on"):
            list(loaded)


@pytest.mark.parametrize("room", [0.0, 64e3, math.inf])
def test_batches_arrive_whatever_room_is_shared(
    room: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loaders, "_shared_room", lambda: room)
    assert [batch.tolist() for batch in load("", 2)] == [[1] * 1000, [2] * 1000]
    assert ("crops are decoded by 0 processes, not 2" in capsys.readouterr().err) == (room == 0)


TINY = """
mount -t tmpfs -o size=64k tmpfs /dev/shm || exit 42
exec "$@"
"""
CONTAINER = """
import torch
from handclr_cli.learning.loading import batches
class Large(torch.utils.data.Dataset):
    def __getitem__(self, row):
        return torch.full((300_000,), row)
parts = [[row] for row in range(6)]
with batches(Large(), parts, lambda items: items[0], 3, torch.device("cpu")) as loaded:
    print([int(batch.sum()) // 300_000 for batch in loaded])
"""


@pytest.mark.slow
def test_batches_arrive_in_a_container_with_hardly_any_shared_memory() -> None:
    command = ["unshare", "-m", "sh", "-c", TINY, "sh", sys.executable, "-c", CONTAINER]
    done = subprocess.run(command, env=cli_env(), capture_output=True, timeout=100, check=False)
    if done.returncode and b"Traceback" not in done.stderr:
        pytest.skip("a file system can be mounted here by root only")
    assert done.stdout == b"[0, 1, 2, 3, 4, 5]\n", done.stderr
    assert b"crops are decoded by 2 processes, not 3" in done.stderr
