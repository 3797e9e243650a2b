"""Work done ahead in a thread: the same items, not too many of them, and no thread left behind."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from handclr_cli.work.ahead import ahead


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    assert condition()


@pytest.mark.parametrize("depth", [1, 2, 50])
@pytest.mark.parametrize("total", [0, 1, 20])
def test_items_come_in_order(depth: int, total: int) -> None:
    assert list(ahead(range(total), depth)) == list(range(total))


def test_none_is_an_item() -> None:
    assert list(ahead([None, 0, None])) == [None, 0, None]


def test_works_ahead_as_far_as_told() -> None:
    made: list[int] = []
    items = ahead((made.append(number) or number for number in range(100)), 3)  # type: ignore[func-returns-value]
    assert next(items) == 0
    soon(lambda: len(made) == 4)
    time.sleep(0.05)
    assert len(made) == 4
    items.close()
    assert len(made) <= 5


def test_error_comes_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield from range(3)
        raise ValueError("damaged")

    seen = []
    with pytest.raises(ValueError, match="damaged"):
        for item in ahead(failing(), 2):
            seen.append(item)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_source_is_closed_when_the_consumer_stops(taken: int) -> None:
    closed = []

    def endless() -> Iterator[int]:
        try:
            yield from iter(int, 1)
        finally:
            closed.append(threading.current_thread())

    items = ahead(endless(), 2)
    for _ in range(taken):
        next(items)
    items.close()
    assert (len(closed) == 1 and closed[0] is not threading.current_thread()) or taken == 0


def test_items_are_not_kept() -> None:
    """While the next one is made, none of those that were used is held."""

    class Item:
        pass

    alive: weakref.WeakSet[Item] = weakref.WeakSet()

    def make() -> Iterator[Item]:
        for _ in range(3):
            soon(lambda: not alive)
            item = Item()
            alive.add(item)
            yield item
            del item

    for item in ahead(make(), 1):
        del item
