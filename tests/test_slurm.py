"""The jobs for Slurm of docs/cluster.md, as they are printed there, on a real cluster of one node:
killed and preempted.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import drawn_pair
from drawn_hand import write_video
from labelled_helpers import TRAINING, labelled_sample, write_labelled, write_pairs
from slurm_cluster import ENDED, Cluster, missing, slurm_cluster, wait_until

PAGE = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text(encoding="utf-8")
JOBS = ("hands", "pairs", "pretrain")


@pytest.fixture
def cluster(environment: None) -> Iterator[Cluster]:
    if why := missing():
        pytest.skip(why)
    with slurm_cluster() as cluster:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        cluster.env.update(OMP_NUM_THREADS="1", PATH=path)
        yield cluster


def printed(head: str) -> str:
    """The one block of shell in the page that begins with these words."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    (block,) = [text for text in blocks if text.startswith(head)]
    return block


def write_jobs(folder: Path) -> Path:
    """The three scripts, in a folder of their own."""
    folder.mkdir(exist_ok=True)
    for name in JOBS:
        (folder / f"{name}.sbatch").write_text(printed(f"#!/bin/bash\n#SBATCH --job-name={name} "))
    return folder


def test_the_scripts_are_in_the_page_and_are_bash(tmp_path: Path) -> None:
    for script in write_jobs(tmp_path).iterdir():
        subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.slow
def test_a_preempted_training_of_two_tasks_ends_as_an_undisturbed_one(
    cluster: Cluster, tmp_path: Path
) -> None:
    """It saves on SIGTERM, asks to be run again, and goes on to the same weights, bit by bit."""
    work = write_jobs(tmp_path / "work")
    (work / "hands").mkdir()
    write_labelled(work / "hands" / "hands-000000.tar", 8)
    keys = [labelled_sample(number).key for number in range(8)]
    write_pairs(work / "pairs.npz", keys, [4, 5, 6, 7, 0, 1, 2, 3])

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
    ends = [
        torch.load(work / "runs" / run / "encoder.pt", weights_only=True)
        for run in ("whole", "cut")
    ]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
    log = (work / f"pretrain-{cut}.log").read_text()
    assert " x 2, " in log and "stopped by SIGTERM, saved at step" in log
    assert "runs/cut/encoder.pt" in log


@pytest.fixture
def small(cluster: Cluster, tmp_path: Path) -> Cluster:
    """The cluster, with an `sbatch` that makes the page's jobs as small as a test."""
    sizes = {
        "hands": ("--array=0-3 --cpus-per-task=1", "--shard-size 10"),
        "pairs": ("--cpus-per-task=2", ""),
        "pretrain": ("--cpus-per-task=1", f"--epochs 1 --batch 80 {' '.join(TRAINING)}"),
    }
    cases = "\n".join(
        f'{name}.sbatch) exec {shutil.which("sbatch")} "${{@:1:$#-1}}" {slurm} $job {ours} ;;'
        for name, (slurm, ours) in sizes.items()
    )
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(f"#!/bin/bash\njob=${{!#}}\ncase $job in\n{cases}\nesac\n")
    (folder / "sbatch").chmod(0o755)
    cluster.env["PATH"] = f"{folder}:{cluster.env['PATH']}"
    return cluster


def film(folder: Path) -> Path:
    """Eight videos at a frame a second, a shard each; the two of task 1 are longer, so that it is
    killed at work.
    """
    folder.mkdir(parents=True)
    pictures = [drawn_pair(index)[0] for index in range(5)]
    for number in range(8):
        frames = [
            np.roll(pictures[step % 5], (number - step, number + step), (0, 1))
            for step in range(10)
        ]
        write_video(folder / f"clip-{number}.mp4", frames * (3 if number in (2, 3) else 1), 1)
    return folder


def submit(cluster: Cluster, folder: Path) -> list[str]:
    """The three jobs, as the page submits them."""
    script = printed("hands=$(sbatch") + "echo $hands $pairs"
    words = cluster.run("bash", "-ec", script, cwd=folder).split()
    return [*words[-2:], words[-3]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


@pytest.mark.slow
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
