"""Stages that overlap: work ahead of the consumer in threads, in order, bounded, with exceptions carried to the consumer."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar




T = TypeVar("T")
R = TypeVar("R")
_END = object()


def mapped(function: Callable[[T], R], source: Iterable[T], workers: int, depth: int | None = None) -> Generator[R, None, None]:
    """`function` of every item in order, by a pool of threads, at most `depth` results ahead of the consumer.

    An exception is raised here, after the results before it. When the consumer stops early, so do the threads. Unless it is
    given, `depth` is 64, or 4 a worker where those are more.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="mapped")
    futures = (pool.submit(function, item) for item in source)
    try:
        waiting = deque(itertools.islice(futures, depth or max(64, 4 * workers)))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(itertools.islice(futures, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def ahead(source: Generator[T, None, None], depth: int) -> Iterator[T]:
    """The items of `source`, which a thread of its own takes at most `depth` ahead of the consumer; as `mapped` otherwise."""
    taken = mapped(lambda _: next(source, _END), itertools.repeat(None), workers=1, depth=depth)
    try:
        yield from itertools.takewhile(lambda item: item is not _END, taken)
    finally:
        taken.close()
        source.close()


def timed(source: Iterable[T], waits_ms: list[float], failed: list[Exception]) -> Iterator[T]:
    """The items of `source`, noting how long each was waited for.

    An error of the source ends it and is noted, so that the answers to what was sent before are still taken.
    """
    items = iter(source)
    while True:
        start = time.perf_counter_ns()
        try:
            item = next(items, None)
        except Exception as err:
            failed.append(err)
            return
        if item is None:
            return
        waits_ms.append((time.perf_counter_ns() - start) / 1e6)
        yield item
