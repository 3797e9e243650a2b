"""Work done by several processes, answered in order, whatever becomes of the processes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, Generic

from ..contract.errors import HandclrError
from .watch import Watch
from .worker import PATIENCE_S, Item, Result, Task, Worker, one_thread

ATTEMPTS = 2
# Results kept for each worker until it is their turn: enough that no worker waits while a long item
# is answered.
AHEAD = 512
# When less work than this is left for each worker, the longest items go first, so that all workers
# end together.
ENDING = 128
# So many workers in a row may end before they are ready for an item.
STILLBORN = 4


class WorkerLostError(HandclrError):
    """The process that worked on an item ended, or hung, and so did the one that tried again."""


class Crew(Generic[Item, Result]):
    """Processes that each answer one item after another; a context manager that ends them.

    `work` gives any number of results for an item, always the same ones. It is sent to the
    processes once and may keep there what is costly to make; where it has a method `prepare`, that
    is called first. After `recycle` results a process is replaced by a new one, so that the memory
    that a native library leaks stays bounded. A process that hangs is ended, as `Watch` tells by
    its results and by `pulse.beat`, which the work calls at each of its steps. `workers` may be set
    until the first item is asked for; where it is 0, the work is done in this process.
    """

    def __init__(
        self, work: Callable[[Item], Iterable[Result]], workers: int, recycle: int | None = None
    ) -> None:
        self._work, self.workers, self._recycle = work, workers, recycle
        self._crew: list[Worker] = []
        self._watch = Watch()
        # Handed out before anything else: items that a process ended over, and the last items.
        self._first: deque[Task[Item, Result]] = deque()
        self._sizes: deque[int] = deque()
        self._left = self._stillborn = 0

    def __enter__(self) -> Crew[Item, Result]:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._crew:
            worker.pipe.close()
            # An idle worker has nothing to clean up, which takes native libraries a while.
            (worker.process.terminate if worker.task else worker.process.kill)()
        until = time.monotonic() + PATIENCE_S
        for worker in self._crew:
            worker.end(until - time.monotonic())
        self._crew = []

    def hire(self, items: int) -> None:
        """Start the processes for so many items now, before the items are there."""
        while len(self._crew) < min(self.workers, items):
            self._crew.append(Worker(self._work))

    def answers(
        self, items: Iterable[Item], sizes: Sequence[int] = ()
    ) -> Iterator[tuple[Item, Iterator[Result]]]:
        """Yield each item with its results, in order; take the results before the next item.

        `sizes`, about how many results each item has, decide in which order the last items are
        begun, so that the workers end together. The results depend neither on them nor on the
        number of workers. Taking the results raises what `work` raised, or WorkerLostError where
        two processes ended over one item; the items after it can still be taken. Raises
        HandclrError where process after process ends before it is ready for an item.
        """
        if self.workers < 1:
            one_thread()
            yield from ((item, iter(self._work(item))) for item in items)
            return
        rest = iter(items)
        self._sizes, self._left = deque(sizes), sum(sizes)
        tasks: deque[Task[Item, Result]] = deque()
        while self._hand_out(tasks, rest) or tasks:
            if not tasks:
                # All workers are busy with items that an earlier call did not take to the end.
                self._listen(None, tasks)
                continue
            head = tasks[0]
            yield head.item, self._results(head, tasks, rest)
            while not head.over:
                head.results.clear()
                self._hand_out(tasks, rest)
                self._listen(head, tasks)
            tasks.popleft()

    def _results(
        self, head: Task[Item, Result], tasks: deque[Task[Item, Result]], rest: Iterator[Item]
    ) -> Iterator[Result]:
        while True:
            while head.results:
                yield head.results.popleft()
            if head.over:
                break
            self._hand_out(tasks, rest)
            self._listen(head, tasks)
        if head.error is not None:
            raise head.error

    def _hand_out(self, tasks: deque[Task[Item, Result]], rest: Iterator[Item]) -> bool:
        """Give tasks to idle workers; returns whether there may be more to give."""
        while not self._ahead(tasks):
            free = next((worker for worker in self._crew if worker.task is None), None)
            if free is None and len(self._crew) >= self.workers:
                break
            if not self._first and 0 < self._left <= ENDING * self.workers:
                self._begin_the_end(tasks, rest)
            if self._first:
                task = self._first.popleft()
            else:
                item = next(rest, _NOTHING)
                if item is _NOTHING:
                    return False
                task = Task(item)
                tasks.append(task)
                self._left -= self._sizes.popleft() if self._sizes else 0
            if free is None:
                free = Worker(self._work)
                self._crew.append(free)
            free.take(task)
        return True

    def _begin_the_end(self, tasks: deque[Task[Item, Result]], rest: Iterator[Item]) -> None:
        ending = [Task[Item, Result](item) for item in rest]
        tasks.extend(ending)
        longest_first = sorted(zip(self._sizes, ending, strict=True), key=lambda pair: -pair[0])
        self._first.extend(task for _, task in longest_first)
        self._left = 0

    def _ahead(self, tasks: deque[Task[Item, Result]]) -> bool:
        """Whether as many results wait for their turn as may be kept."""
        waiting = sum(len(task.results) for task in tasks)
        return not self._first and max(waiting, len(tasks)) > AHEAD * self.workers

    def _listen(self, head: Task[Item, Result] | None, tasks: deque[Task[Item, Result]]) -> None:
        """Wait for messages and keep them; where enough results wait, only those of `head`."""
        heard = busy = [worker for worker in self._crew if worker.task is not None]
        if head and self._ahead(tasks):
            heard = [worker for worker in busy if worker.task is head]
        waited_for: dict[Any, Worker] = {worker.pipe: worker for worker in heard}
        for pipe in wait(list(waited_for), self._watch.tick_s):
            worker = waited_for.pop(pipe)
            try:
                self._keep(worker, *worker.pipe.recv())
            except (EOFError, OSError):  # at the end of a message, or within it
                self._bury(worker)
        for worker in self._watch.hanging(busy, waited_for.values()):
            worker.kill()
            self._bury(worker)

    def _keep(self, worker: Worker, over: bool | None, payload: Any) -> None:
        task = worker.task
        assert task is not None
        if over is None:
            worker.begin()
            self._stillborn = 0
            return
        worker.answers += 1
        if over:
            task.over, task.error, worker.task = True, payload, None
            if self._recycle and worker.answers > self._recycle:
                self._retire(worker)
        elif worker.skip:
            worker.skip -= 1
        else:
            task.results.append(payload)
            task.received += 1

    def _bury(self, worker: Worker) -> None:
        """Replace a worker that ended over its task; the task is tried again, or given up."""
        self._retire(worker)
        task = worker.task
        assert task is not None
        self._stillborn += not worker.ready
        if self._stillborn >= STILLBORN:
            raise HandclrError(_why_stillborn(worker))
        task.lost += worker.ready
        if task.lost < ATTEMPTS:
            self._first.append(task)
            return
        task.over, task.error = True, WorkerLostError(_end_of(worker))

    def _retire(self, worker: Worker) -> None:
        worker.end()
        self._crew.remove(worker)


_NOTHING: Any = object()


def _why_stillborn(worker: Worker) -> str:
    if worker.hung:
        return "worker processes hang before they do anything; can the disk of Python be read?"
    why = "worker processes end before they do anything; are they killed because memory runs out"
    return f'{why}, or does a script lack `if __name__ == "__main__":`?'


def _end_of(worker: Worker) -> str:
    if worker.hung:
        return f"a worker process hung for {worker.silent_s / 60:,.0f} minutes, twice"
    code = worker.process.exitcode
    how = f"by signal {-code}" if code and code < 0 else f"with exit code {code}"
    return f"a worker process ended {how}, twice; fewer workers need less memory"


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, batch: int = 1
) -> Iterator[Result]:
    """Yield work(item) for each item in order; `workers` processes take `batch` items at a time.

    Each process uses one thread. With less than two workers the work is done in this process.
    Raises what `work` raised, or WorkerLostError.
    """
    with Crew(_Each(work), workers if workers > 1 else 0) as crew:
        for _, results in crew.answers(_batches(items, batch if workers > 1 else 1)):
            yield from results


def _batches(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    rest = iter(items)
    while batch := tuple(islice(rest, size)):
        yield batch


class _Each(Generic[Item, Result]):
    def __init__(self, work: Callable[[Item], Result]) -> None:
        self.work = work

    def __call__(self, items: tuple[Item, ...]) -> Iterator[Result]:
        return map(self.work, items)
