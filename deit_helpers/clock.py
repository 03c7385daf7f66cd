"""How long calls take, without what statistics import."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

ROUNDS_S = 6.0  # calls are compared in turn for so long
_PEAK_S = 2.0  # long enough to outlast what others take of a shared machine


def time_ms(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def rounds(at_most: int) -> Iterator[None]:
    """So many rounds of calls that are timed in turn, fewer where they take longer than ROUNDS_S, two at least."""
    start = time.perf_counter()
    for done in range(at_most):
        if done > 1 and time.perf_counter() - start > ROUNDS_S:
            return
        yield


def peak_rate(multiply: Callable[[], object], side: int) -> float:
    """Best rate in FLOP/s of a product of two square matrices, a first, uncounted one warming up."""
    multiply()
    begun = time.perf_counter()
    best_ms = time_ms(multiply)
    while time.perf_counter() - begun < _PEAK_S:
        best_ms = min(best_ms, time_ms(multiply))
    return 2 * side**3 / (best_ms / 1000)
