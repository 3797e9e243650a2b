"""Work done by several processes, answered in order, whatever becomes of the processes."""

from __future__ import annotations

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from ..contract.errors import HandclrError

Item = TypeVar("Item")
Result = TypeVar("Result")

ATTEMPTS = 2
# Results kept for each worker until it is their turn: enough that no worker waits while a long item
# is answered.
AHEAD = 512
# When less work than this is left for each worker, the longest items go first, so that all workers
# end together.
ENDING = 128
# So many workers in a row may end before they are ready for an item.
STILLBORN = 4
# How long a worker that is told to end may take: a decoder may be deep in a damaged file.
PATIENCE_S = 5.0
# All workers that are listened to are silent for so long only where they hang; the second time is
# for those that were stopped together with this process, and go on.
SILENCE_S = (3600.0, 60.0)


class WorkerLostError(HandclrError):
    """The process that worked on an item ended, and so did the one that tried again."""


class _Task(Generic[Item, Result]):
    """An item, its results that wait for their turn, and how many processes ended over it."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.results: deque[Result] = deque()
        self.received = self.lost = 0
        self.over = False
        self.error: Exception | None = None


class _Worker:
    """A process and a pipe to it; the workers of a pool would wait for ever for a killed parent."""

    def __init__(self, work: Callable[[Any], Iterable[Any]]) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        self.task: _Task[Any, Any] | None = None
        self.skip = self.answers = 0
        self.ready = self.hung = False
        # The worker inherits this: Ctrl-C is answered here, and the worker is ended from here.
        with _ignored(signal.SIGINT):
            self.process.start()
        theirs.close()

    def take(self, task: _Task[Any, Any]) -> None:
        """Begin a task; the results that an earlier worker gave of it are not kept twice."""
        self.task, self.skip = task, task.received
        # In a filter this signal ends the process when its reader has gone, but a worker that has
        # gone is replaced.
        with _ignored(signal.SIGPIPE), suppress(ConnectionError):  # seen when it is to answer
            self.pipe.send(task.item)

    def end(self) -> None:
        """End the process; native threads may keep it from ending by itself."""
        self.pipe.close()
        self.process.join(PATIENCE_S)
        self.process.kill()
        self.process.join()


class Crew(Generic[Item, Result]):
    """Processes that each answer one item after another; a context manager that ends them.

    `work` gives any number of results for an item, always the same ones. It is sent to the
    processes once and may keep there what is costly to make; where it has a method `prepare`, that
    is called first. After `recycle` results a process is replaced by a new one, so that the memory
    that a native library leaks stays bounded. `workers` may be set until the first item is asked
    for; where it is 0, the work is done in this process.
    """

    def __init__(
        self, work: Callable[[Item], Iterable[Result]], workers: int, recycle: int | None = None
    ) -> None:
        self._work, self.workers, self._recycle = work, workers, recycle
        self._crew: list[_Worker] = []
        # Handed out before anything else: items that a process ended over, and the last items.
        self._first: deque[_Task[Item, Result]] = deque()
        self._sizes: deque[int] = deque()
        self._left = self._stillborn = 0

    def __enter__(self) -> Crew[Item, Result]:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._crew:
            worker.pipe.close()
            # An idle worker has nothing to clean up, which takes native libraries a while.
            (worker.process.terminate if worker.task else worker.process.kill)()
        for worker in self._crew:
            worker.end()
        self._crew = []

    def hire(self, items: int) -> None:
        """Start the processes for so many items now, before the items are there."""
        while len(self._crew) < min(self.workers, items):
            self._crew.append(_Worker(self._work))

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
        tasks: deque[_Task[Item, Result]] = deque()
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
        self, head: _Task[Item, Result], tasks: deque[_Task[Item, Result]], rest: Iterator[Item]
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

    def _hand_out(self, tasks: deque[_Task[Item, Result]], rest: Iterator[Item]) -> bool:
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
                task = _Task(item)
                tasks.append(task)
                self._left -= self._sizes.popleft() if self._sizes else 0
            if free is None:
                free = _Worker(self._work)
                self._crew.append(free)
            free.take(task)
        return True

    def _begin_the_end(self, tasks: deque[_Task[Item, Result]], rest: Iterator[Item]) -> None:
        ending = [_Task[Item, Result](item) for item in rest]
        tasks.extend(ending)
        longest_first = sorted(zip(self._sizes, ending, strict=True), key=lambda pair: -pair[0])
        self._first.extend(task for _, task in longest_first)
        self._left = 0

    def _ahead(self, tasks: deque[_Task[Item, Result]]) -> bool:
        """Whether as many results wait for their turn as may be kept."""
        waiting = sum(len(task.results) for task in tasks)
        return not self._first and max(waiting, len(tasks)) > AHEAD * self.workers

    def _listen(self, head: _Task[Item, Result] | None, tasks: deque[_Task[Item, Result]]) -> None:
        """Wait for messages and keep them; where enough results wait, only those of `head`."""
        busy = [worker for worker in self._crew if worker.task is not None]
        if head and self._ahead(tasks):
            busy = [worker for worker in busy if worker.task is head]
        by_pipe: dict[Any, _Worker] = {worker.pipe: worker for worker in busy}
        pipes = list(by_pipe)
        for pipe in wait(pipes, SILENCE_S[0]) or wait(pipes, SILENCE_S[1]) or _killed(busy):
            worker = by_pipe[pipe]
            try:
                self._keep(worker, *worker.pipe.recv())
            except (EOFError, ConnectionError):
                self._bury(worker)

    def _keep(self, worker: _Worker, over: bool | None, payload: Any) -> None:
        task = worker.task
        assert task is not None
        if over is None:
            worker.ready, self._stillborn = True, 0
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

    def _bury(self, worker: _Worker) -> None:
        """Replace a worker that ended over its task; the task is tried again, or given up."""
        self._retire(worker)
        task = worker.task
        assert task is not None
        self._stillborn += not worker.ready
        if self._stillborn >= STILLBORN:
            why = "worker processes end before they do anything"
            advice = 'or does a script lack `if __name__ == "__main__":`?'
            raise HandclrError(f"{why}; are they killed because memory runs out, {advice}")
        task.lost += worker.ready
        if task.lost < ATTEMPTS:
            self._first.append(task)
            return
        task.over, task.error = True, WorkerLostError(_end_of(worker))

    def _retire(self, worker: _Worker) -> None:
        worker.end()
        self._crew.remove(worker)


_NOTHING: Any = object()


def _killed(workers: Sequence[_Worker]) -> list[Any]:
    """Kill workers that hang; gives their pipes, which have ended then."""
    for worker in workers:
        worker.hung = True
        worker.process.kill()
    return [worker.pipe for worker in workers]


def _end_of(worker: _Worker) -> str:
    if worker.hung:
        return f"a worker process was silent for {SILENCE_S[0] / 60:,.0f} minutes, twice"
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


def _serve(work: Callable[[Any], Iterable[Any]], pipe: Connection) -> None:
    """Answer the items that come through a pipe until its other end is closed."""
    # Raise an exception on SIGTERM, so that half-written files are removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    _let_go_of_pipes()
    one_thread()
    if prepare := getattr(work, "prepare", None):
        with suppress(Exception):  # the work raises it again, where it can be handled
            prepare()
    with suppress(EOFError, ConnectionError):
        pipe.send((None, None))
        while True:
            item = pipe.recv()
            try:
                for result in work(item):
                    pipe.send((False, result))
                error = None
            except ConnectionError:
                raise
            except Exception as raised:
                error = raised
            pipe.send((True, error))
    # Nothing is left to clean up; this hides what the interpreter may print when it ends.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _let_go_of_pipes() -> None:
    """Leave standard input and output to the parent; native libraries would print into a tar."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    if nothing > 2:
        os.close(nothing)


@contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


def one_thread() -> None:
    """Let OpenCV, and torch where it is loaded, use one thread.

    Images are small, and the bytes must not depend on the number of cores.
    """
    import cv2

    cv2.setNumThreads(1)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
