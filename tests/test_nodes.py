"""The jobs of docs/cluster.md over several nodes, which die and are drained, and trainings by
torchrun's agents: what ends is what one node makes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import warm
from cluster_jobs import (
    contents,
    equal,
    film,
    handclr_cluster,
    weights_of,
    write_jobs,
    write_training,
)
from labelled_helpers import TRAINING, command
from slurm_cluster import Cluster, free_ports, kill_all, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.nodes]
CHOICES = ("--batch", "4", "--epochs", "8", "--save-every", "4", *TRAINING)


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
def alone(work: Path) -> Path:
    """The run of two undisturbed processes on one machine."""
    train = ("pretrain", "hands/", "--pairs", "pairs.npz", "--run", "runs/alone", *CHOICES)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(*free_ports(1))}
    world = {**os.environ, **address, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    ranks = [{**world, "RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    with subprocess.Popen(command(*train), env=ranks[1], cwd=work) as second:
        first = warm.run(train, env=ranks[0], cwd=work)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    return work / "runs" / "alone"


def first_save(run: Path) -> int:
    """Wait until a training has saved; the step that it is at."""
    wait_until((run / "last.pt").exists, f"the first save in {run}")
    return torch.load(run / "last.pt", weights_only=True)["step"]


def test_a_training_over_two_nodes_outlives_a_drain_and_a_death(
    cluster: Cluster, work: Path, alone: Path
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
    saved, when = first_save(run), (run / "last.pt").stat().st_mtime_ns
    assert f"stopped by SIGTERM, saved at step {saved}" in log.read_text()
    wait_until(lambda: cluster.node_state(second) == "drained", "the end of the drain")
    wait_until(lambda: (run / "last.pt").stat().st_mtime_ns != when, "a save of the second run")
    assert cluster.nodes_of(job) == [first, third]
    cluster.kill(third)
    cluster.run("scontrol", "update", f"nodename={second}", "state=resume")
    cluster.start_again(job, 2)
    cluster.wait(job)
    assert cluster.nodes_of(job) == [first, second]
    assert equal(weights_of(run), weights_of(alone))


@pytest.mark.landmarker
def test_an_array_task_whose_node_dies_is_made_on_another(cluster: Cluster, work: Path) -> None:
    """Its shards are those of an undisturbed run, byte for byte."""
    work = work / "array"
    film(write_jobs(work) / "videos", 6)
    array = ("--array=0-2", "--cpus-per-task=1", "--exclusive", "hands.sbatch")
    job = cluster.run("sbatch", "--parsable", *array, "--shard-size", "10", cwd=work)
    task, first = f"{job}_1", work / "hands" / "hands-000002.tar"
    wait_until(first.exists, "the first shard of task 1")
    (node,) = cluster.nodes_of(task)
    cluster.kill(node)
    cluster.start_again(task)
    assert cluster.node_state(node) == "down*"
    assert not (work / "hands" / "hands-000003.tar").exists()
    cluster.wait(job)
    assert cluster.nodes_of(task) != [node]

    output = "whole/hands-%06d.tar"
    (work / "whole").mkdir()
    extract = ("extract", "--shard-size", "10", "--skip-done", output, "videos/")
    crops = warm.run(extract, cwd=work).stdout
    assert warm.run(("keypoints", "-o", output), crops, cwd=work).returncode == 0
    whole = contents(work / "whole")
    assert len(whole) == 6 and contents(work / "hands") == whole


def agent(work: Path, port: int, name: str) -> subprocess.Popen[bytes]:
    """One of the two agents of a training by torchrun, as if on a machine of its own."""
    meeting = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "1")
    patience = ("--rdzv-conf", "keep_alive_interval=1", "--max-restarts", "1")
    nodes = ("--nnodes", "2", "--nproc-per-node", "1", *meeting, *patience)
    train = ("handclr_cli", "pretrain", "hands/", "--pairs", "pairs.npz", "-o", "runs/elastic")
    words = [sys.executable, "-m", "torch.distributed.run", *nodes, "-m", *train, *CHOICES]
    mark = {"AGENT": name, "RDZV": f"{port}"}
    settings = {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with open(work / f"{name}.log", "wb") as log:
        env = {**os.environ, **settings, **mark}
        return subprocess.Popen(words, env=env, cwd=work, stdout=log, stderr=log)


def listens(port: int) -> bool:
    with socket.socket() as one:
        return not one.connect_ex(("localhost", port))


def test_a_training_by_torchrun_goes_on_when_a_lost_agent_is_started_again(
    work: Path, alone: Path
) -> None:
    """The process that is left is started again too; both go on from the last save."""
    (port,) = free_ports(1)
    run, agents = work / "runs" / "elastic", {}
    logs = {name: work / f"{name}.log" for name in ("host", "lost", "new")}
    try:
        agents["host"] = agent(work, port, "host")
        # It is where they meet: were that lost, all would end.
        wait_until(lambda: listens(port), "the first agent", why=logs["host"].read_text)
        agents["lost"] = agent(work, port, "lost")
        first_save(run)
        kill_all(AGENT="lost", RDZV=f"{port}")
        agents["new"] = agent(work, port, "new")
        ends = {name: process.wait(200) for name, process in agents.items()}
    finally:
        kill_all(RDZV=f"{port}")
    assert ends == {"host": 0, "lost": -signal.SIGKILL, "new": 0}, logs["host"].read_text()
    assert "lost another process of this training" in logs["host"].read_text()
    assert equal(weights_of(run), weights_of(alone))
