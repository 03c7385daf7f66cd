"""How many batches a runtime works on at once: measured when a model is opened, unless `runtime: {streams: N}` says it."""

from __future__ import annotations

import time
from collections.abc import Callable

from .backends import Backend
from .clock import time_ms
from .images import Batch

STREAMS = (1, 2)  # tried; on few cores more of them share the caches and lose
TRIALS, TRIAL_S = 2, 0.3  # each is tried so often, every stream for so long or for one batch,
SLOW_MS = 500.0  # unless a batch takes longer than this: large batches keep all cores busy


def fastest(load: Callable[..., Backend]) -> Backend:
    """The model with as many streams as are fastest on this machine at its batch size; they are tried in turn.

    The slowest trial decides: threads that work on one batch wait for each other, and may do so longer at other times.

    Args:
        load: loads the model, with `streams=` as many, or without as the spec says.
    """
    first = load()
    given = "streams" not in first.runtime_keys or "streams" in first.runtime
    if given or first.batch_size is None or first.describe()["device"] != "CPU":
        return first
    begun = time.perf_counter()
    batch = first.noise(first.batch_size)
    batch_ms = time_ms(lambda: first.infer(batch.tensor))
    best = first
    if batch_ms < SLOW_MS:
        tried = {STREAMS[0]: first, **{streams: load(streams=streams) for streams in STREAMS[1:]}}
        times = max(1, round(1000 * TRIAL_S / batch_ms))
        rates: dict[int, list[float]] = {streams: [] for streams in tried}
        for _ in range(TRIALS):
            for streams, backend in tried.items():
                rates[streams].append(_images_per_s(backend, batch, times))
        best = tried.pop(max(tried, key=lambda streams: min(rates[streams])))
        for backend in tried.values():
            backend.__exit__(None, None, None)
    best.tuning_s = time.perf_counter() - begun
    return best


def _images_per_s(backend: Backend, batch: Batch, times: int) -> float:
    """The rate with every stream at work: from when each has answered once, which warms it up, over `times` answers of each."""
    streams = backend.streams
    answered = [time.perf_counter() for _ in backend.stream([batch] * (streams * (times + 1)))]
    return streams * times * len(batch.tensor) / (answered[-1] - answered[streams - 1])
