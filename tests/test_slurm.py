"""The jobs for Slurm of docs/cluster.md, as they are printed there, on a real cluster of one node:
killed and preempted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_jobs import (
    contents,
    equal,
    film,
    handclr_cluster,
    shrink,
    submit,
    weights_of,
    write_jobs,
    write_training,
)
from labelled_helpers import TRAINING
from slurm_cluster import ENDED, Cluster, wait_until


@pytest.fixture
def cluster(environment: None) -> Iterator[Cluster]:
    with handclr_cluster() as cluster:
        yield cluster


@pytest.fixture
def small(cluster: Cluster, tmp_path: Path) -> Cluster:
    shrink(cluster, tmp_path / "bin")
    return cluster


def test_the_scripts_are_in_the_page_and_are_bash(tmp_path: Path) -> None:
    for script in write_jobs(tmp_path).iterdir():
        subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize(
    ("extract", "keypoints", "code"),
    [
        (0, 0, 0),
        (3, 0, 0),
        (0, 3, 0),
        (3, 3, 0),
        (0, 1, 1),
        (1, 3, 1),
        (137, 3, 137),
        (143, 0, 143),
    ],
)
def test_a_failed_stage_of_the_pipe_fails_the_task(
    extract: int, keypoints: int, code: int, tmp_path: Path
) -> None:
    """Whatever the other one ends with: 3 is footage that cannot be read."""
    fake = (
        f"#!/bin/bash\ncase $1 in extract) exit {extract} ;; keypoints) exit {keypoints} ;; esac\n"
    )
    (tmp_path / "handclr").write_text(fake)
    (tmp_path / "handclr").chmod(0o755)
    task = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "1"}
    env = {**os.environ, **task, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = write_jobs(tmp_path / "jobs") / "hands.sbatch"
    assert subprocess.run(["bash", script], env=env, cwd=tmp_path, check=False).returncode == code


@pytest.mark.slow
@pytest.mark.nodes
def test_a_preempted_training_of_two_tasks_ends_as_an_undisturbed_one(
    cluster: Cluster, tmp_path: Path
) -> None:
    """It saves on SIGTERM, asks to be run again, and goes on to the same weights, bit by bit."""
    work = write_training(tmp_path / "work")

    def train(run: str) -> str:
        job = ("sbatch", "--parsable", "--cpus-per-task=1", "pretrain.sbatch")
        options = ("--batch", "4", "--epochs", "8", "--save-every", "2", *TRAINING)
        return cluster.run(*job, "--run", f"runs/{run}", *options, cwd=work)

    whole, cut = train("whole"), train("cut")
    saved = work / "runs" / "cut" / "last.pt"
    wait_until(saved.exists, "the first save")
    cluster.run("scancel", "--signal=TERM", cut)  # as --signal does before the time is over
    cluster.start_again(cut)
    for job in (whole, cut):
        cluster.wait(job)
    assert equal(*(weights_of(work / "runs" / run) for run in ("whole", "cut")))
    log = (work / f"pretrain-{cut}.log").read_text()
    assert " x 2, " in log and "stopped by SIGTERM, saved at step" in log
    assert "runs/cut/encoder.pt" in log


@pytest.mark.slow
@pytest.mark.nodes
@pytest.mark.landmarker
def test_a_killed_and_requeued_array_makes_what_one_run_makes(
    small: Cluster, tmp_path: Path
) -> None:
    """Its jobs wait for each other, none starts on half the data, and submitting again makes what
    is missing.
    """
    work, alone = write_jobs(tmp_path / "work"), write_jobs(tmp_path / "alone")
    shutil.copytree(film(work / "videos"), alone / "videos")
    shards = work / "hands"
    first, second = (shards / f"hands-{number:06d}.tar" for number in (2, 3))

    hands, pairs, training = submit(small, work)
    task = f"{hands}_1"
    wait_until(first.exists, "the first shard of task 1")
    for process in small.pids(task)[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    wait_until(lambda: small.states(hands) <= ENDED, "the end of the array")
    assert small.field(task, "JobState") == "FAILED" and not second.exists(), small.describe(task)
    wait_until(
        lambda: small.states(pairs) | small.states(training) == {"CANCELLED"},
        "the dependent jobs' end",
    )
    options = ("--shard-size", "10", "--skip-done", "hands/hands-%06d.tar")
    lacking = small.run("handclr", "extract", "--dry-run", *options, "videos/", cwd=work)
    assert lacking == "hands/hands-000003.tar"

    made, left = {path: path.stat().st_ino for path in shards.glob("*.tar")}, set(shards.glob(".*"))
    hands, pairs, training = submit(small, work)
    task = f"{hands}_1"
    wait_until(lambda: bool(set(shards.glob(".*")) - left), "task 1 at work again")
    small.run("scontrol", "requeue", task)  # as Slurm does itself where a node fails
    small.start_again(task)
    for job in (hands, pairs, training):
        small.wait(job)
    assert {path: path.stat().st_ino for path in made} == made

    once = {**small.env, "SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "1"}
    subprocess.run(["bash", "hands.sbatch", "--shard-size", "10"], cwd=alone, env=once, check=True)
    subprocess.run(["bash", "pairs.sbatch"], cwd=alone, env=once, check=True)
    whole = contents(alone / "hands")
    assert len(whole) == 8 and contents(shards) == whole
    assert (work / "pairs.npz").read_bytes() == (alone / "pairs.npz").read_bytes()
    assert (work / "runs" / "pretrain" / "encoder.pt").exists()
