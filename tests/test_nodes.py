"""The jobs of docs/cluster.md over several nodes, which die and are drained, and trainings by
torchrun's agents: what ends is what one node makes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import warm
from cluster_jobs import contents, equal, film, handclr_cluster, weights_of, write_training
from labelled_helpers import TRAINING, handclr
from slurm_cluster import Cluster, free_ports, kill_all, wait_until

pytestmark = pytest.mark.slow
CHOICES = ("--batch", "4", "--epochs", "8", "--save-every", "2", *TRAINING)
CRASH = "lost another process of this training"


@pytest.fixture(scope="module")
def three(environment: None) -> Iterator[Cluster]:
    with handclr_cluster(nodes=3) as cluster:
        yield cluster


@pytest.fixture
def cluster(three: Cluster) -> Iterator[Cluster]:
    """The three nodes, all of them up before and after the test."""
    yield three
    three.repair()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all trainings are, on a disk that the nodes share."""
    return write_training(tmp_path_factory.mktemp("nodes") / "work")


@pytest.fixture(scope="module")
def alone(work: Path) -> dict[str, torch.Tensor]:
    """The weights of two undisturbed processes on one machine."""
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    train = ("handclr_cli", "pretrain", "hands/", "--pairs", "pairs.npz", "-o", "runs/alone")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *launcher, *train, *CHOICES]
    subprocess.run(command, cwd=work, env=environment, capture_output=True, check=True)
    return weights_of(work / "runs" / "alone")


def first_save(run: Path) -> int:
    """Wait until a training has saved; the step that it is at."""
    wait_until((run / "last.pt").exists, f"the first save in {run}")
    return torch.load(run / "last.pt", weights_only=True)["step"]


def test_two_processes_have_the_weights_of_one(work: Path, alone: dict[str, torch.Tensor]) -> None:
    """All but the last bits: sums are taken in another order."""
    run = work / "runs" / "one"
    shards, pairs = work / "hands", work / "pairs.npz"
    handclr("pretrain", shards, "--pairs", pairs, "--run", run, *CHOICES)
    weights = weights_of(run)
    assert weights.keys() == alone.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, alone[name], atol=1e-3, rtol=1e-2)


def test_a_training_over_two_nodes_outlives_a_drain_and_a_death(
    cluster: Cluster, work: Path, alone: dict[str, torch.Tensor]
) -> None:
    """Drained, its job is saved, and goes on elsewhere; after a death it goes on from the last
    save. Each run has the nodes that are left, and the weights are one machine's, bit by bit.
    """
    first, second, third = cluster.nodes
    run = work / "runs" / "moved"
    nodes = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1")
    job = cluster.run(
        *("sbatch", "--parsable", *nodes, "pretrain.sbatch", "--run", run, *CHOICES), cwd=work
    )
    first_save(run)
    assert cluster.nodes_of(job) == [first, second]
    cluster.run("scontrol", "update", f"nodename={second}", "state=drain", "reason=test")
    assert cluster.node_state(second) == "draining"
    cluster.run("scontrol", "requeue", job)
    cluster.start_again(job)
    log = work / f"pretrain-{job}.log"
    saved = first_save(run)
    assert f"stopped by SIGTERM, saved at step {saved}" in log.read_text()
    assert cluster.node_state(second) == "drained"
    cluster.wait(job)
    assert equal(weights_of(run), alone)
