"""Stages that overlap: work ahead of the consumer in threads, in order, bounded, with exceptions carried to the consumer."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")
_END = object()


def mapped(function: Callable[[T], R], source: Iterable[T], workers: int, depth: int | None = None) -> Generator[R, None, None]:
    """`function` of every item in order, by a pool of threads, at most `depth` results ahead of the consumer.

    An exception, also one of the source, is raised here, after the results before it. When the consumer stops early, so do the
    threads. Unless it is given, `depth` is 64, or 4 a worker where those are more.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="mapped")
    try:
        in_flight = 1 + (depth or max(64, 4 * workers))  # one is handed out while so many go on
        yield from pipelined(lambda item: pool.submit(function, item), Future[R].result, source, in_flight)
    finally:
        pool.shutdown(cancel_futures=True)


def pipelined(
    start: Callable[[T], S], finish: Callable[[S], R], source: Iterable[T], in_flight: int
) -> Generator[R, None, None]:
    """`finish(start(item))` of every item in order: as soon as `in_flight` are started the first of them is finished.

    An exception of the source is raised after the results of the items before it.
    """
    started = deque[S]()
    items = iter(source)
    while True:
        try:
            item = next(items)
        except StopIteration:
            break
        except Exception:
            yield from map(finish, started)
            raise
        started.append(start(item))
        if len(started) == in_flight:
            yield finish(started.popleft())
    yield from map(finish, started)


def ahead(source: Generator[T, None, None], depth: int) -> Iterator[T]:
    """The items of `source`, which a thread of its own takes at most `depth` ahead of the consumer; as `mapped` otherwise."""
    taken = mapped(lambda _: next(source, _END), itertools.repeat(None), workers=1, depth=depth)
    with contextlib.closing(source), contextlib.closing(taken):  # the thread ends first
        yield from itertools.takewhile(lambda item: item is not _END, taken)


class Timed(Iterator[T]):
    """The items of an iterator; `waited_ms` is how long all of them so far were waited for."""

    def __init__(self, source: Iterator[T]):
        self._source, self.waited_ms = source, 0.0

    def __next__(self) -> T:
        start = time.perf_counter_ns()
        item = next(self._source)
        self.waited_ms += (time.perf_counter_ns() - start) / 1e6
        return item
