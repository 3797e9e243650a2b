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
# Results that wait for their turn, for each worker: enough that none idles while a long item is
# answered.
AHEAD = 512
# So much work for each worker is the end, where the longest items go first, so that all end
# together.
ENDING = 128
# Workers in a row that end before they are ready for an item.
STILLBORN = 4
# For a worker that is told to end: a decoder may be deep in a damaged file.
PATIENCE_S = 5.0


class WorkerLostError(HandclrError):
    """The process that worked on an item ended, and so did the one that tried it again."""


class _Task(Generic[Item, Result]):
    """An item, the results that wait for their turn, and how many processes it has cost."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.results: deque[Result] = deque()
        self.received = self.lost = 0
        self.over = False
        self.error: Exception | None = None


class _Worker:
    """A process and a plain pipe to it, because a pool's workers wait for ever where their parent
    was killed.
    """

    def __init__(self, work: Callable[[Any], Iterable[Any]]) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        self.task: _Task[Any, Any] | None = None
        self.skip = self.answers = 0
        self.ready = False
        # Inherited: Ctrl-C is answered here, and the worker ended from here.
        with _ignored(signal.SIGINT):
            self.process.start()
        theirs.close()

    def take(self, task: _Task[Any, Any]) -> None:
        """Begin a task; what an earlier worker has answered of it already is not kept twice."""
        self.task, self.skip = task, task.received
        # A filter lets this signal end it where its reader has gone; a worker that has gone is to
        # be replaced.
        with _ignored(signal.SIGPIPE), suppress(ConnectionError):  # seen when it is to answer
            self.pipe.send(task.item)

    def end(self) -> None:
        """See to it that the process is gone: native threads may keep it from ending by itself."""
        self.pipe.close()
        self.process.join(PATIENCE_S)
        self.process.kill()
        self.process.join()


class Crew(Generic[Item, Result]):
    """Processes that each answer one item after another; a context manager, at whose end they are
    gone.

    `work` gives any number of results for an item, always the same ones. It is sent to the
    processes once and may keep there what is costly to make; where it has a method `prepare`, that
    is called first. After `recycle` results a process is replaced by a new one, so that what a
    native library leaks stays bounded. Without `workers`, which may be set until the first item is
    asked for, the work is done here.
    """

    def __init__(
        self, work: Callable[[Item], Iterable[Result]], workers: int, recycle: int | None = None
    ) -> None:
        self._work, self.workers, self._recycle = work, workers, recycle
        self._crew: list[_Worker] = []
        # To be handed out before anything else: what has cost a process, and the end.
        self._first: deque[_Task[Item, Result]] = deque()
        self._sizes: deque[int] = deque()
        self._left = self._stillborn = 0

    def __enter__(self) -> Crew[Item, Result]:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._crew:
            worker.pipe.close()
            # Who has nothing to do has nothing to clean up, which takes native libraries a while.
            (worker.process.terminate if worker.task else worker.process.kill)()
        for worker in self._crew:
            worker.end()
        self._crew = []

    def hire(self, items: int) -> None:
        """Start the processes for so many items now, while the items are still being made."""
        while len(self._crew) < min(self.workers, items):
            self._crew.append(_Worker(self._work))

    def answers(
        self, items: Iterable[Item], sizes: Sequence[int] = ()
    ) -> Iterator[tuple[Item, Iterator[Result]]]:
        """Yield each item with its results, in order; the results are to be taken before the next
        item is.

        The results do not depend on the number of workers, nor on `sizes`, about how many results
        each item has, by which the last items are handed out so that the workers end together.
        Taking them raises what `work` raised, and WorkerLostError where two processes ended over
        one item; the items after it can be taken all the same. Raises HandclrError where process
        after process ends before it is ready for an item.
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
                # All are busy with what an earlier call was not interested in any more.
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
        """Give the idle something to do; says whether there may be more to give."""
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
        """Whether as much waits for its turn as is to be kept."""
        waiting = sum(len(task.results) for task in tasks)
        return not self._first and max(waiting, len(tasks)) > AHEAD * self.workers

    def _listen(self, head: _Task[Item, Result] | None, tasks: deque[_Task[Item, Result]]) -> None:
        """Wait for messages and keep them; only from the one whose turn it is where enough is
        waiting.
        """
        busy = [worker for worker in self._crew if worker.task is not None]
        if head and self._ahead(tasks):
            busy = [worker for worker in busy if worker.task is head]
        by_pipe = {worker.pipe: worker for worker in busy}
        for pipe in wait(list(by_pipe)):
            worker = by_pipe[pipe]  # type: ignore[index]
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
        """A worker has died over its task: it is given to another, or given up."""
        self._retire(worker)
        task = worker.task
        assert task is not None
        self._stillborn += not worker.ready
        if self._stillborn >= STILLBORN:
            raise HandclrError(
                "worker processes end before they do anything; are they killed for want of memory?"
            )
        task.lost += worker.ready
        if task.lost < ATTEMPTS:
            self._first.append(task)
            return
        code = worker.process.exitcode
        how = f"by signal {-code}" if code and code < 0 else f"with exit code {code}"
        task.over = True
        task.error = WorkerLostError(
            f"a worker process ended {how}, twice; fewer --workers need less memory"
        )

    def _retire(self, worker: _Worker) -> None:
        worker.end()
        self._crew.remove(worker)


_NOTHING: Any = object()


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, batch: int = 1
) -> Iterator[Result]:
    """Yield work(item) for each item in order, by `workers` processes that take `batch` items at a
    time.

    Each process uses one thread. With less than two workers the work is done here. Raises what
    `work` raised, or WorkerLostError.
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
    """Say that all is ready, then answer what comes through a pipe until its other end is
    closed.
    """
    # As an exception, so that half-written files are removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    _let_go_of_pipes()
    one_thread()
    if prepare := getattr(work, "prepare", None):
        with suppress(Exception):  # the work itself raises it again, in its place
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
    # Nothing is left to clean up, and the interpreter's own cleaning up is not to be seen failing.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _let_go_of_pipes() -> None:
    """Leave standard input and output to the parent: what a native library prints does not belong
    into a tar.
    """
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
    """Keep OpenCV, and torch where it is loaded, to one thread: small pictures, and bytes free of
    the cores.
    """
    import cv2

    cv2.setNumThreads(1)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
