"""A Slurm cluster of one node for tests: the real daemons, run as root without systemd, in a folder
of their own.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
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
CONFIGURATION = """\
ClusterName=handclr
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
JobRequeue=1
KillWait=2
MinJobAge=3600
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """The running cluster: `env` is the environment that reaches it, `folder` holds its logs."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder, self.env = folder, dict(env)

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
        command = ["scontrol", "listpids", self.field(job, "JobId")]
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        return [int(line.split()[0]) for line in done.stdout.splitlines()[1:]]

    def start_again(self, job: str) -> None:
        """Once a job has been requeued and its last run is gone, spare it the two minutes that
        Slurm has it wait.
        """
        wait_until(lambda: self.field(job, "Restarts") == "1", f"job {job} to be queued again")
        wait_until(lambda: not self.pids(job), f"the end of the first run of job {job}")
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


def missing() -> str:
    """Why no cluster can be started here; empty where one can."""
    absent = [name for name in (*DAEMONS, "sbatch") if not shutil.which(name)]
    if absent:
        return f"needs Debian's slurm-wlm and munge: no {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "needs root to start Slurm"


@contextlib.contextmanager
def slurm_cluster() -> Iterator[Cluster]:
    """Start munged, slurmctld and slurmd on free ports; end them and all jobs with the block."""
    # Not pytest's folder: the path of munged's socket has to be short.
    with (
        tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name,
        contextlib.ExitStack() as stack,
    ):
        folder = Path(name)
        _configure(folder)
        cluster = Cluster(folder, {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")})
        key, sock = f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket"
        files = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("pid", "seed", "log")]
        _start(stack, cluster, "munged", "--foreground", "--force", key, sock, *files)
        wait_until((folder / "munge.socket").exists, "munged")
        _start(stack, cluster, "slurmctld", "-D")
        _start(stack, cluster, "slurmd", "-D")
        wait_until(lambda: _answers(cluster), "Slurm", 30, cluster.logs)
        stack.callback(_end_jobs, cluster)
        yield cluster


def _configure(folder: Path) -> None:
    for part in ("state", "spool"):
        (folder / part).mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    text = CONFIGURATION.format(
        host=host, folder=folder, ports=_free_ports(2), cpus=CPUS, gpus=len(DEVICES)
    )
    (folder / "slurm.conf").write_text(text)
    # Any devices do: what matters is that jobs may ask for some.
    devices = "".join(f"NodeName={host} Name=gpu File=/dev/{name}\n" for name in DEVICES)
    (folder / "gres.conf").write_text(devices)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]


def _start(stack: contextlib.ExitStack, cluster: Cluster, *command: str) -> None:
    with open(cluster.folder / f"{command[0]}.log", "wb") as log:
        process = subprocess.Popen(
            command, env=cluster.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )

    def end() -> None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        process.wait()

    stack.callback(end)


def _answers(cluster: Cluster) -> bool:
    command = ["sinfo", "--noheader", "--format=%T"]
    done = subprocess.run(command, env=cluster.env, capture_output=True, text=True, check=False)
    return done.stdout.strip() == "idle"


def _end_jobs(cluster: Cluster) -> None:
    cluster.run("scancel", "--full", f"--user={os.getuid()}")
    wait_until(lambda: not cluster.run("squeue", "--noheader"), "the end of all jobs", 20)
