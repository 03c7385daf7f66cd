"""Overlapping stages: order, bounds, exceptions carried, nothing left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from deit_helpers.data.prefetch import ahead, mapped


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

    found = []
    with pytest.raises(KeyError, match="third"):
        found.extend(ahead(source(), depth=8))
    assert found == [1, 2]


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
    for i, found in enumerate(stream):
        assert found == i * i
        assert max(started) <= i + 8


def test_a_worker_that_dies_is_heard_and_the_rest_is_not_started() -> None:
    started: list[int] = []

    def work(i: int) -> int:
        started.append(i)
        if i == 3:
            raise MemoryError("image 3")
        return i

    found = []
    with pytest.raises(MemoryError, match="image 3"):
        found.extend(mapped(work, range(1000), workers=2, depth=4))
    assert found == [0, 1, 2]
    assert len(started) < 20
