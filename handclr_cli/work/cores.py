"""How many processes a job gets: by the cores, by what it is asked for, by how much there
is to do.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path


def finder_count(asked: int | None, work: int, each: int) -> int:
    """Processes that find hands: as asked, else one for each core; none where there is less than
    `each` for two.

    On a single core it is one all the same: what ends it, or leaks there, does not end a long job.
    """
    if asked is not None:
        return asked
    return min(cores(), work // each) if work >= 2 * each else 0


def worker_count(asked: int | None, sharing: int = 1) -> int:
    """Processes: as asked, else one for each core of this process's share, 16 at most."""
    if asked is not None:
        return asked
    # Slurm's number is of each task, the others are of all processes on the node.
    share = cores() if "SLURM_CPUS_PER_TASK" in os.environ else cores() // sharing
    return min(max(1, share), 16)


def cores() -> int:
    """The processor cores that this process may use: by its affinity, its control group, and what
    Slurm gave a task.
    """
    counts = [
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ]
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        counts.append(math.ceil(int(quota) / int(period)))
    with contextlib.suppress(ValueError):
        counts.append(int(os.environ.get("SLURM_CPUS_PER_TASK", "")))
    return max(1, min(counts))
