"""A training whose processes that load are killed, hang, or lose their trainer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from shard_helpers import CLI, cli_env, crops, run_cli, write_shard

STEPS, EVERY = 24, 2
TRAINING = (
    *("pretrain", "hands.tar", "--method", "simclr", "--run", "run", "--arch", "resnet18"),
    *("--size", "32", "--batch", "8", "--epochs", str(STEPS // 2), "--save-every", str(EVERY)),
    *("--device", "cpu", "--cache", "none"),
)


def children(process: int) -> list[int]:
    """The processes that one has started and that are running."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == process and state != "Z":
            found.append(int(status.parent.name))
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def saved(folder: Path) -> int:
    return int(torch.load(folder / "run" / "last.pt", weights_only=True)["step"])


def time_of_save(folder: Path) -> int:
    path = folder / "run" / "last.pt"
    return path.stat().st_mtime_ns if path.exists() else 0


@contextmanager
def training(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """A training that has saved again, and its processes that load."""
    begin = time_of_save(folder)
    with subprocess.Popen(
        [*CLI, *TRAINING, "--workers", "2"], env=cli_env(), cwd=folder, stderr=subprocess.PIPE
    ) as process:
        try:
            while time_of_save(folder) == begin:
                assert process.poll() is None
                time.sleep(0.01)
            yield process, children(process.pid)
        finally:
            process.kill()


def end(process: subprocess.Popen[bytes], limit_s: float) -> tuple[int, str]:
    """The exit code, and the line that says why."""
    _, stderr = process.communicate(timeout=limit_s)
    begins, *lines = stderr.decode().splitlines()
    assert begins.startswith("pretrain: simclr") and len(lines) == 1, stderr
    return process.returncode, lines[0]


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="processes are read in /proc")
def test_a_training_outlives_its_loaders_and_they_do_not_outlive_it(tmp_path: Path) -> None:
    write_shard(tmp_path / "hands.tar", crops(frames=8))
    with training(tmp_path) as (trainer, loaders):
        assert len(loaders) == 2
        os.kill(loaders[0], signal.SIGKILL)
        code, line = end(trainer, 30)
    at, go_on = saved(tmp_path), "run the same command again to go on"
    assert code == 1 and at >= EVERY
    assert line.startswith("handclr: error: --workers 2: a process that decodes crops cannot go on")
    assert line.endswith(f"; use fewer, or 0 for none; saved at step {at}; {go_on}")

    with training(tmp_path) as (trainer, loaders):
        for loader in loaders:
            os.kill(loader, signal.SIGSTOP)
        time.sleep(0.5)
        trainer.send_signal(signal.SIGTERM)
        # Torch alone takes 10 s for each of them.
        code, line = end(trainer, 18)
    at = saved(tmp_path)
    assert code == 75
    assert line == f"handclr: error: stopped by SIGTERM, saved at step {at}; {go_on}"
    assert not any(map(is_running, loaders))

    with training(tmp_path) as (trainer, loaders):
        trainer.kill()
        until = time.monotonic() + 30
        while any(map(is_running, loaders)):
            assert time.monotonic() < until
            time.sleep(0.1)

    for run, workers in (("run", 2), ("undisturbed", 0)):
        done = run_cli(*TRAINING, "--run", run, "--workers", str(workers), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    interrupted, whole = ((tmp_path / run) for run in ("run", "undisturbed"))
    assert (interrupted / "encoder.pt").read_bytes() == (whole / "encoder.pt").read_bytes()
    records = (interrupted / "log.jsonl").read_text().splitlines()
    assert [json.loads(record)["step"] for record in records] == list(range(1, STEPS + 1))
