"""Overlapping stages: order, bounds, exceptions carried, nothing left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from deit_helpers.data.prefetch import Timed, ahead, mapped, pipelined


def test_items_come_in_order_and_no_further_ahead_than_asked() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for i in range(50):
            taken.append(i)
            yield i

    for expected, item in enumerate(ahead(source(), depth=3)):
        assert item == expected
        time.sleep(0.001)
        assert len(taken) <= expected + 1 + 3 + 1  # those in the queue, and one in the thread's hand


def test_an_exception_of_the_source_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("third")

    items = []
    with pytest.raises(KeyError, match="third"):
        items.extend(ahead(source(), depth=8))
    assert items == [1, 2]


def test_a_consumer_that_stops_early_stops_the_thread() -> None:
    before = threading.active_count()
    stream = ahead((i for i in range(10**9)), depth=2)
    assert next(stream) == 0
    stream.close()
    assert threading.active_count() == before


def test_mapped_keeps_order_whatever_takes_longest_and_is_bounded() -> None:
    started: list[int] = []

    def work(i: int) -> int:
        started.append(i)
        time.sleep(0.02 if i % 7 == 0 else 0)
        return i * i

    stream = mapped(work, range(60), workers=4, depth=8)
    for i, square in enumerate(stream):
        assert square == i * i
        assert max(started) <= i + 8


def test_a_worker_that_dies_is_heard_and_the_rest_is_not_started() -> None:
    started: list[int] = []

    def work(i: int) -> int:
        started.append(i)
        if i == 3:
            raise MemoryError("image 3")
        return i

    items = []
    with pytest.raises(MemoryError, match="image 3"):
        items.extend(mapped(work, range(1000), workers=2, depth=4))
    assert items == [0, 1, 2]
    assert len(started) < 20


@pytest.mark.parametrize("overlapping", [False, True])
def test_an_exception_of_the_source_loses_nothing_that_is_under_way(overlapping: bool) -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise KeyError("sixth")

    squares = mapped(square, source(), 2, 3) if overlapping else pipelined(square, lambda result: result, source(), 2)
    results = []
    with pytest.raises(KeyError, match="sixth"):
        results.extend(squares)
    assert results == [0, 1, 4, 9, 16]


def square(i: int) -> int:
    return i * i


def test_an_item_is_started_before_the_one_before_it_is_finished() -> None:
    log: list[str] = []
    results = pipelined(lambda i: log.append(f"start {i}") or i, lambda i: log.append(f"finish {i}") or i, range(3), 2)
    assert list(results) == [0, 1, 2]
    assert log == ["start 0", "start 1", "finish 0", "start 2", "finish 1", "finish 2"]


def test_the_waits_for_an_item_add_up() -> None:
    def source() -> Iterator[int]:
        for i in range(2):
            time.sleep(0.02)
            yield i

    timed = Timed(source())
    assert next(timed) == 0
    first_ms = timed.waited_ms
    time.sleep(0.05)  # the consumer's own time
    assert list(timed) == [1]
    assert 20 <= first_ms <= timed.waited_ms - 20
    assert timed.waited_ms < 80 + first_ms


def test_the_oldest_is_finished_before_another_item_is_waited_for() -> None:
    """A device's queued batch is not kept waiting for the files of the batch after next: its latency would hold that wait."""
    events: list[str] = []

    def source() -> Iterator[int]:
        for i in range(4):
            events.append(f"take {i}")
            yield i

    def start(i: int) -> int:
        events.append(f"start {i}")
        return i

    def finish(i: int) -> int:
        events.append(f"finish {i}")
        return i

    assert list(pipelined(start, finish, source(), in_flight=2)) == [0, 1, 2, 3]
    assert events[:8] == ["take 0", "start 0", "take 1", "start 1", "finish 0", "take 2", "start 2", "finish 1"]
