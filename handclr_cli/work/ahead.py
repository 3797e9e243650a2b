"""Items made ahead of their use, in a thread."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

Item = TypeVar("Item")
_END = object()
# What is being made is waited for no longer than this at the end.
PATIENCE_S = 60.0


def ahead(items: Iterable[Item], depth: int = 4) -> Iterator[Item]:
    """Yield the items in order; a thread takes them from their source, at most `depth` ahead.

    The thread starts with the first item asked for, and ends with the last, when the iterator is
    closed, or on an error, which is raised here after the items before it. The thread also closes
    the source.
    """
    done: SimpleQueue[tuple[object, BaseException | None]] = SimpleQueue()
    room, stopped = Semaphore(depth), Event()
    thread = Thread(target=_produce, args=(items, done, room, stopped), name="ahead", daemon=True)

    def stop() -> None:
        stopped.set()
        room.release()
        thread.join(PATIENCE_S)

    thread.start()
    # An iterator that an error has left half way is not closed before the interpreter ends, and a
    # thread in a native library does not survive that.
    atexit.register(stop)
    try:
        while True:
            item, error = done.get()
            if error is not None:
                raise error
            if item is _END:
                return
            room.release()
            yield item  # type: ignore[misc]
            # Otherwise the item would be kept in memory until the next one is there.
            del item
    finally:
        stop()
        atexit.unregister(stop)


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
