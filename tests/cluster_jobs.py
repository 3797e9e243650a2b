"""The jobs for Slurm of docs/cluster.md, as they are printed there, and what they work on."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import drawn_pair
from drawn_hand import write_video
from labelled_helpers import TRAINING, labelled_sample, write_labelled, write_pairs
from slurm_cluster import Cluster, missing, slurm_cluster

PAGE = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text(encoding="utf-8")
JOBS = ("hands", "pairs", "pretrain")


@contextlib.contextmanager
def handclr_cluster(nodes: int = 1) -> Iterator[Cluster]:
    """A cluster whose jobs find the command of this interpreter."""
    if why := missing():
        pytest.skip(why)
    with slurm_cluster(nodes) as cluster:
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


def write_training(work: Path) -> Path:
    """A folder with the scripts, and what pretrain.sbatch trains on: four pairs."""
    (write_jobs(work) / "hands").mkdir()
    write_labelled(work / "hands" / "hands-000000.tar", 8)
    keys = [labelled_sample(number).key for number in range(8)]
    write_pairs(work / "pairs.npz", keys, [4, 5, 6, 7, 0, 1, 2, 3])
    return work


def shrink(cluster: Cluster, folder: Path) -> None:
    """Give the cluster an `sbatch` that makes the page's jobs as small as a test."""
    sizes = {
        "hands": ("--array=0-3 --cpus-per-task=1", "--shard-size 10"),
        "pairs": ("--cpus-per-task=2", ""),
        "pretrain": ("--cpus-per-task=1", f"--epochs 1 --batch 80 {' '.join(TRAINING)}"),
    }
    cases = "\n".join(
        f'{name}.sbatch) exec {shutil.which("sbatch")} "${{@:1:$#-1}}" {slurm} $job {ours} ;;'
        for name, (slurm, ours) in sizes.items()
    )
    folder.mkdir()
    (folder / "sbatch").write_text(f"#!/bin/bash\njob=${{!#}}\ncase $job in\n{cases}\nesac\n")
    (folder / "sbatch").chmod(0o755)
    cluster.env["PATH"] = f"{folder}:{cluster.env['PATH']}"


def film(folder: Path, videos: int = 8) -> Path:
    """Videos at a frame a second, a shard each, for half as many tasks; the two of task 1 are
    longer, so that it is killed at work.
    """
    folder.mkdir(parents=True)
    pictures = [drawn_pair(index)[0] for index in range(5)]
    for number in range(videos):
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


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "encoder.pt", weights_only=True)


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two encoders have the same weights, bit by bit."""
    same = first.keys() == second.keys()
    return same and all(torch.equal(tensor, second[name]) for name, tensor in first.items())
