"""What memory the machine leaves, on faked trees of control groups, and what is said where none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from labelled_helpers import write_labelled

from handclr_cli.contract.errors import HandclrError
from handclr_cli.learning import finetune_job, hardware, pretrain_job
from handclr_cli.learning.encoder import build_encoder
from handclr_cli.learning.finetune_job import FinetuneSettings, run_finetune
from handclr_cli.learning.hardware import free_memory
from handclr_cli.learning.pose import PoseNet
from handclr_cli.learning.posemodel import MeanPose, PoseModel
from handclr_cli.learning.pretrain_job import PretrainSettings, run_pretrain
from handclr_cli.learning.setup import TrainSettings

GB = 10**9
JOB = "system.slice/slurmstepd.scope/job_7"
TASK = f"{JOB}/step_0/user/task_0"
V2, V1 = "0::/{}\n", "3:cpu,cpuacct:/other\n2:memory:/{}\n0::/\n"
NO_LIMIT = 9223372036854771712


def grouped(
    root: Path, listed: str, groups: dict[str, tuple[int | str, int, int]], available: int = 90 * GB
) -> None:
    """A tree of control groups: the limit, the usage, and how much of that is cache of files."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {available // 1024} kB\n")
    (root / "proc/self/cgroup").write_text(listed)
    older = listed.startswith("3:")
    for name, (limit, usage, cache) in groups.items():
        folder = root / "sys/fs/cgroup" / ("memory" if older else "") / name
        folder.mkdir(parents=True, exist_ok=True)
        words = ("limit_in_bytes", "usage_in_bytes") if older else ("max", "current")
        for word, value in zip(words, (limit, usage), strict=True):
            (folder / f"memory.{word}").write_text(f"{value}\n")
        stat = f"anon 5\ninactive_file {1 if older else cache}\n\ntotal_inactive_file {cache}\n"
        (folder / "memory.stat").write_text(stat)


@pytest.mark.parametrize(
    ("listed", "groups", "free"),
    [
        (V2.format(TASK), {}, 90),
        (V2.format(TASK), {TASK: ("max", 3 * GB, 0), JOB: (10 * GB, 4 * GB, 0)}, 6),
        (V2.format(TASK), {TASK: (5 * GB, 3 * GB, 0), JOB: (10 * GB, 4 * GB, 0)}, 2),
        (V2.format("gone/outside"), {"": (8 * GB, 1 * GB, 0)}, 7),
        (V2.format(""), {"": (8 * GB, 8 * GB, 6 * GB)}, 6),
        (V2.format(JOB), {JOB: (8 * GB, 9 * GB, 0)}, 0),
        (V1.format(TASK), {TASK: (NO_LIMIT, 3 * GB, 0), JOB: (10 * GB, 9 * GB, 4 * GB)}, 5),
        (V1.format("gone"), {"": (8 * GB, 1 * GB, 0)}, 7),
    ],
)
def test_memory_is_free_within_the_limits_of_all_groups(
    listed: str,
    groups: dict[str, tuple[int | str, int, int]],
    free: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grouped(tmp_path, listed, groups)
    monkeypatch.setattr(hardware, "_ROOT", tmp_path)
    assert free_memory() == pytest.approx(free * GB, abs=1024)


def test_a_group_without_statistics_has_its_limit_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grouped(tmp_path, V2.format(JOB), {JOB: (10 * GB, 4 * GB, GB)})
    (tmp_path / "sys/fs/cgroup" / JOB / "memory.stat").unlink()
    monkeypatch.setattr(hardware, "_ROOT", tmp_path)
    assert free_memory() == 6 * GB


def test_nothing_is_known_to_be_free_where_nobody_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_ROOT", tmp_path)
    assert free_memory() == 0


@pytest.mark.parametrize(
    ("job", "settings", "run", "advice"),
    [
        (
            pretrain_job,
            PretrainSettings(shards=(), method="simclr", arch="resnet18"),
            run_pretrain,
            "lower the batch or the size, or encode a batch in more parts",
        ),
        (finetune_job, FinetuneSettings(shards=()), run_finetune, "lower the batch or the size"),
    ],
)
def test_what_helps_a_training_is_among_its_options(
    job: ModuleType,
    settings: TrainSettings,
    run: Callable[[Any], object],
    advice: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*given: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(job, "_train", full)
    shards = [str(write_labelled(tmp_path / "hands.tar", 4))]
    asked = replace(settings, shards=shards, run=str(tmp_path / "run"), device="cpu", workers=0)
    with pytest.raises(HandclrError, match=f"^the device is out of memory; {advice}$"):
        run(asked)


def test_what_helps_a_prediction_is_among_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    network = PoseNet(build_encoder("resnet18"), 0, "regress")
    monkeypatch.setattr(network, "predict", full)
    model = PoseModel(network, 32, MeanPose(np.zeros((21, 3), np.float32), 0.09))
    with pytest.raises(HandclrError, match="^the device is out of memory; lower the batch$"):
        model(np.zeros((1, 32, 32, 3), np.uint8))
