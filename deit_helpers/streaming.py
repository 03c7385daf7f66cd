"""Stages that overlap: work ahead of the consumer in threads, in order, bounded, with exceptions carried to the consumer."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_PATIENCE_S = 0.1  # how long a producer takes to notice that its consumer is gone


def ahead(source: Iterable[T], depth: int) -> Iterator[T]:
    """The items of `source`, which a thread of its own takes at most `depth` ahead of the consumer.

    An exception of the source is raised here, after the items before it. When the consumer stops early, so does the thread.
    """
    items: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(depth)
    gone = threading.Event()

    def put(entry: tuple[T | None, BaseException | None, bool]) -> None:
        while not gone.is_set():
            with contextlib.suppress(queue.Full):
                items.put(entry, timeout=_PATIENCE_S)
                return

    def produce() -> None:
        try:
            for item in source:
                put((item, None, False))
                if gone.is_set():
                    return
        except BaseException as err:  # carried, not swallowed
            put((None, err, True))
        else:
            put((None, None, True))
        finally:
            if isinstance(source, Generator):  # here, where it runs: its own clean-up must not wait for the collector
                source.close()

    thread = threading.Thread(target=produce, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = items.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]  # an item, as it is not the last entry
    finally:
        gone.set()
        thread.join()


def mapped(function: Callable[[T], R], source: Iterable[T], workers: int, depth: int = 0) -> Iterator[R]:
    """`function` of every item in order, by a pool of threads, at most `depth` results ahead of the consumer.

    Unless it is given, `depth` is 64, or 4 a worker where those are more.
    """
    depth = depth or max(64, 4 * workers)
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="mapped")
    try:
        for item in source:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


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
