"""How many processes a job uses: by the cores, by what it was told, by how much there is to do."""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path

# Long enough for a clock of 100 ticks a second, short enough for nobody to wait.
LOOK_S = 0.3


def finder_count(asked: int | None, work: int, each: int) -> int:
    """Processes that find hands: as asked, else one for each core; 0 where work is short.

    Each is to get `each` of the work at least, and there are two or none. On a single core there is
    one all the same: where it crashes or leaks memory, a long job goes on.
    """
    if asked is not None:
        return asked
    return min(cores(), work // each) if work >= 2 * each else 0


def worker_count(asked: int | None, sharing: int = 1) -> int:
    """Processes that decode images: as asked, else one for each core, 16 at most.

    The cores are shared by `sharing` processes like this one.
    """
    return min(share_of_cores(sharing), 16) if asked is None else asked


def share_of_cores(sharing: int) -> int:
    """The cores of each of so many processes like this one, at least one."""
    # Slurm's number is of each task, the others are of all processes on the node.
    return cores() if "SLURM_CPUS_PER_TASK" in os.environ else max(1, cores() // sharing)


def cores() -> int:
    """The cores that this process may use: by its affinity, its control group and Slurm's task."""
    counts = [
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ]
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        counts.append(math.ceil(int(quota) / int(period)))
    with contextlib.suppress(ValueError):
        counts.append(int(os.environ.get("SLURM_CPUS_PER_TASK", "")))
    return max(1, min(counts))


def idle_cores() -> int:
    """Those of the cores that other processes leave idle, at least one; looked at for a moment.

    All where nobody tells, or where Slurm has given them to this task alone.
    """
    if "SLURM_CPUS_PER_TASK" in os.environ:
        return cores()
    before = _ticks()
    time.sleep(LOOK_S if before else 0)
    idle = 0.0
    for (was_idle, was), (is_idle, now) in zip(before, _ticks(), strict=False):
        idle += (is_idle - was_idle) / max(1, now - was)
    return max(1, min(cores(), round(idle))) if before else cores()


def _ticks() -> list[tuple[int, int]]:
    """For each core that this process may use, the ticks that it was idle, and all of them."""
    found = []
    with contextlib.suppress(OSError, ValueError, AttributeError):
        for line in Path("/proc/stat").read_text().splitlines():
            name, *fields = line.split()
            if name[:3] == "cpu" and name[3:] and int(name[3:]) in os.sched_getaffinity(0):
                ticks = [int(field) for field in fields[:8]]  # the guests' are in the others
                found.append((ticks[3] + ticks[4], sum(ticks)))
    return found
