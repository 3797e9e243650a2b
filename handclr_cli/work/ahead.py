"""Work done ahead, in a thread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item], depth: int = 4) -> Iterator[Item]:
    """Yield the items in order, asked for by a thread that is at most `depth` items ahead.

    The thread starts when the first is asked for, and has ended when the last was taken, the
    iterator is closed or an error comes out; what raises there raises here, after the items before
    it. The source is closed in the thread.
    """
    done: SimpleQueue[tuple[object, BaseException | None]] = SimpleQueue()
    room, stopped = Semaphore(depth), Event()
    thread = Thread(target=_produce, args=(items, done, room, stopped), name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = done.get()
            if error is not None:
                raise error
            if item is _END:
                return
            room.release()
            yield item  # type: ignore[misc]
            # It would be kept until the next one is there.
            del item
    finally:
        stopped.set()
        room.release()
        thread.join()


def _produce(
    items: Iterable[Item],
    done: SimpleQueue[tuple[object, BaseException | None]],
    room: Semaphore,
    stopped: Event,
) -> None:
    source = iter(items)
    try:
        while room.acquire() and not stopped.is_set():
            done.put((next(source), None))
    except StopIteration:
        done.put((_END, None))
    except BaseException as error:
        done.put((None, error))
    finally:
        if close := getattr(source, "close", None):
            close()
