"""A Slurm cluster for tests: the real daemons, run as root without systemd, in a folder of their
own, and a slurmd for each of its nodes, all on this machine.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd")
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
CPUS, DEVICES = 4, ("null", "zero", "full", "random")
NODE = """\
NodeName={node} NodeAddr={node} NodeHostname={host} Port={port} CPUs={cpus} RealMemory=1000000 \
Gres=gpu:{gpus} State=UNKNOWN"""
CONFIGURATION = """\
ClusterName=handclr
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
JobRequeue=1
KillWait=20
SlurmdTimeout=6
MinJobAge=3600
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
GresTypes=gpu
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """The running cluster: `env` is the environment that reaches it, `folder` holds its logs.

    Nodes are named by addresses of this machine, so that their names lead to them.
    """

    def __init__(self, folder: Path, env: Mapping[str, str], nodes: int) -> None:
        self.folder, self.env = folder, dict(env)
        self.nodes = [f"127.0.0.{number}" for number in range(1, nodes + 1)]
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str, **env: str) -> None:
        """Start a daemon; its log has its name."""
        with open(self.folder / f"{name}.log", "ab") as log:
            self.daemons[name] = subprocess.Popen(
                command,
                env={**self.env, **env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def end(self, name: str) -> None:
        """End a daemon."""
        process = self.daemons.pop(name)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()

    def boot(self, node: str) -> None:
        """Start the slurmd of a node, also after `kill`."""
        self.start(node, "slurmd", "-D", "-N", node, SLURMD_NODENAME=node)

    def kill(self, node: str) -> None:
        """End a node as a loss of power does: its slurmd and all that runs under it."""
        process = self.daemons.pop(node)
        process.kill()
        process.wait()
        self.kill_jobs(node)

    def kill_jobs(self, node: str) -> None:
        """End what jobs run on a node: its slurmd hands its environment on to them."""
        kill_all(SLURMD_NODENAME=node, SLURM_CONF=self.env["SLURM_CONF"])

    def repair(self) -> None:
        """End all jobs, and bring back nodes that were killed or drained."""
        _end_jobs(self)
        for node in self.nodes:
            if node not in self.daemons:
                self.boot(node)
            if "drain" in self.node_state(node):
                self.run("scontrol", "update", f"nodename={node}", "state=resume")
        wait_until(lambda: _all_idle(self), "the nodes to be back", 60, self.logs)

    def node_state(self, node: str) -> str:
        """The state of a node, such as `idle`, `drained` or `down*`, which no longer answers."""
        return self.run("sinfo", "--noheader", "--format=%T", f"--nodes={node}")

    def nodes_of(self, job: str) -> list[str]:
        """The nodes that a job or a task of an array has, or had last."""
        names = self.field(job, "NodeList")
        return self.run("scontrol", "show", "hostnames", names).split()

    def run(self, *command: str | Path, cwd: Path | None = None) -> str:
        """The standard output of one of Slurm's commands."""
        words = [os.fspath(word) for word in command]
        done = subprocess.run(
            words, env=self.env, cwd=cwd, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def logs(self) -> str:
        """The last lines of what the daemons have said."""
        lines = []
        for file in sorted(self.folder.glob("*.log")):
            lines += [file.name, *file.read_text().splitlines()[-20:]]
        return "\n".join(lines)

    def field(self, job: str, name: str) -> str:
        """A field of the record of a job, or of a task of an array such as `7_2`; empty where there
        is none.
        """
        words = self.run("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word).get(name, "")

    def states(self, job: str) -> set[str]:
        """The states that the tasks of a job are in."""
        command = ("squeue", "--array", "--noheader", "--states=all", "--format=%T")
        return set(self.run(*command, f"--jobs={job}").split())

    def pids(self, job: str) -> list[int]:
        """The processes of a job or of a task of an array, that of the batch script first."""
        found = []
        for node in self.nodes:
            command = ["scontrol", "listpids", self.field(job, "JobId"), node]
            done = subprocess.run(
                command, env=self.env, capture_output=True, text=True, timeout=60, check=False
            )
            found += [int(line.split()[0]) for line in done.stdout.splitlines()[1:]]
        return found

    def start_again(self, job: str, restarts: int = 1) -> None:
        """Once a job has been requeued and its last run is gone, spare it the two minutes that
        Slurm has it wait.
        """
        again = f"job {job} to be queued again"
        wait_until(lambda: self.field(job, "Restarts") == f"{restarts}", again, why=self.logs)
        wait_until(lambda: not self.pids(job), f"the end of the last run of job {job}")
        # Not the second it ended in.
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now+2")

    def describe(self, job: str) -> str:
        """The records of a job and all that it has written, for a test that fails."""
        record = self.run("scontrol", "show", "job", job)
        logs = {Path(path) for path in re.findall(r"StdOut=(.+)", record)}
        return "\n".join([record, *(path.read_text() for path in sorted(logs) if path.exists())])

    def wait(self, job: str, timeout: float = 300) -> None:
        """Until all tasks of the job have ended; fails where one has not completed."""
        what = f"the end of job {job}"
        wait_until(lambda: self.states(job) <= ENDED, what, timeout, lambda: self.describe(job))
        assert self.states(job) == {"COMPLETED"}, self.describe(job)


def wait_until(
    true: Callable[[], bool], what: str, timeout: float = 120, why: Callable[[], str] = str
) -> None:
    """Ask often until it is so; fails after `timeout` seconds, with what `why` then says."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout:.0f} s for {what}\n{why()}")
        time.sleep(0.05)


def kill_all(**env: str) -> None:
    """End all processes that have this in the environment that they were started with."""
    marks = {f"{name}={value}".encode() for name, value in env.items()}
    found = True
    while found:
        found = False
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if marks <= set(path.read_bytes().split(b"\0")):
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    found = True


def missing() -> str:
    """Why no cluster can be started here; empty where one can."""
    absent = [name for name in (*DAEMONS, "sbatch") if not shutil.which(name)]
    if absent:
        return f"needs Debian's slurm-wlm and munge: no {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "needs root to start Slurm"


@contextlib.contextmanager
def slurm_cluster(nodes: int = 1) -> Iterator[Cluster]:
    """Start munged, slurmctld and a slurmd for each node on free ports; end them and all jobs with
    the block.
    """
    # Not pytest's folder: the path of munged's socket has to be short.
    with (
        tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        cluster = Cluster(folder, env, nodes)
        stack.callback(_end, cluster)
        _configure(cluster)
        key, sock = f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket"
        files = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("pid", "seed", "log")]
        cluster.start("munged", "munged", "--foreground", "--force", key, sock, *files)
        wait_until((folder / "munge.socket").exists, "munged")
        cluster.start("slurmctld", "slurmctld", "-D")
        for node in cluster.nodes:
            cluster.boot(node)
        wait_until(lambda: _all_idle(cluster), "Slurm", 30, cluster.logs)
        stack.callback(_end_jobs, cluster)
        yield cluster


def _configure(cluster: Cluster) -> None:
    folder, (port, *ports) = cluster.folder, free_ports(1 + len(cluster.nodes))
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    sizes = {"host": host, "cpus": CPUS, "gpus": len(DEVICES)}
    lines = [
        NODE.format(node=node, port=own, **sizes)
        for node, own in zip(cluster.nodes, ports, strict=True)
    ]
    text = CONFIGURATION.format(host=host, folder=folder, port=port, nodes="\n".join(lines))
    (folder / "slurm.conf").write_text(text)
    # Any devices do: what matters is that jobs may ask for some.
    devices = [
        f"NodeName={node} Name=gpu File=/dev/{name}\n" for node in cluster.nodes for name in DEVICES
    ]
    (folder / "gres.conf").write_text("".join(devices))


def free_ports(count: int) -> list[int]:
    """Numbers of ports that nothing listens at."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def _end(cluster: Cluster) -> None:
    """End the daemons, those first that others need last, and what jobs have left."""
    for name in reversed(list(cluster.daemons)):
        cluster.end(name)
    for node in cluster.nodes:
        cluster.kill_jobs(node)


def _all_idle(cluster: Cluster) -> bool:
    command = ["sinfo", "--noheader", "--format=%T"]
    done = subprocess.run(command, env=cluster.env, capture_output=True, text=True, check=False)
    return set(done.stdout.split()) == {"idle"}


def _end_jobs(cluster: Cluster) -> None:
    cluster.run("scancel", "--full", f"--user={os.getuid()}")
    wait_until(lambda: not cluster.run("squeue", "--noheader"), "the end of all jobs", 20)
