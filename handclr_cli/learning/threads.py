"""How many threads of a processor compute, alone and beside other programs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .. import console
from ..work.cores import cores, idle_cores, share_of_cores


@dataclass(frozen=True)
class Threads:
    """How many threads compute; `asked` where that was told, and not found out here.

    `why` says so where it is not all of them.
    """

    count: int
    asked: bool = False
    why: str = ""

    def of_run(self, began_with: int | None) -> int:
        """Those to go on with in a run that began with so many, None where it begins or is older.

        The same number gives the same sums, to the bit: only another one that is asked for counts.
        Says what is worth knowing of them.
        """
        if self.asked and began_with not in (None, self.count):
            other = f"with {console.plural(self.count, 'thread')} from here on, not {began_with}"
            console.say(f"{other}: sums may differ in their last digits")
        if began_with is not None and not self.asked:
            return began_with
        if self.why:
            console.say(self.why)
        return self.count


ONE = Threads(1)


def pick_threads(asked: int | None, device: torch.device, sharing: int = 1) -> Threads:
    """The threads to begin a run with: as asked, else one for each core that is idle now.

    Where other programs use the cores, more threads are slower than fewer: in every operation all
    wait for the one that is not let on a core. The environment's OMP_NUM_THREADS is heeded; beside
    a GPU the number is left to PyTorch. `sharing` processes like this one share the cores.
    """
    if asked is not None:
        return Threads(asked, asked=True)
    if device.type != "cpu" or "OMP_NUM_THREADS" in os.environ:
        return Threads(torch.get_num_threads())
    if sharing > 1:
        return Threads(share_of_cores(sharing))
    idle, there = idle_cores(), cores()
    if idle >= there:
        return Threads(idle)
    used = f"others use {there - idle} of {there} cores"
    taking = console.called("threads", there)
    why = f"{used}: training with {console.plural(idle, 'thread')} ({taking}: all)"
    return Threads(idle, why=why)


@contextlib.contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Let PyTorch compute with so many threads for a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
