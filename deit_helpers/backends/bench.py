"""How many batches a runtime works on at once: measured when a model is opened, unless `runtime: {streams: N}` says it."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..data import batches
from ..data.batches import Batch
from ..metrics import latency
from ..metrics.latency import time_ms
from ..model import checkpoint
from ..run.folder import Run
from . import Backend, open_backend


def open_model(run: Run) -> Backend:
    """The device model of this batch size in the backend of the spec; use it as a context manager."""
    spec = run.spec
    path = run.device_model
    options = {
        "execution": spec.execution,
        "providers": spec.providers,
        "cache": run.folder / "cache",
        "batch_size": run.size,
        "module": functools.partial(checkpoint.build, run, fused_attention=True),
        "recipe": spec.recipe,
    }

    def load(**keys: int) -> Backend:
        runtime = {**spec.runtime, **keys}
        return open_backend(spec.backend, path, spec.precision_text, spec.device, {**options, "runtime": runtime})

    return fastest(load)


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


def time_alone(backend: Backend, batch: batches.Batch, box_s: float) -> latency.Measurement:
    """Time the model on one batch again and again, with nothing beside it: no images are read, no profiler runs.

    Where several batches are worked on at once their answers come together: a sample is the mean over as many. A device that
    tells execution from copies is given one batch after the other, and a sample is the execution.
    """
    if backend.execution_ms is not None:
        return latency.measure(_executions_ms(backend, batch), box_s)
    enough = threading.Event()
    answers = backend.stream(itertools.takewhile(lambda _: not enough.is_set(), itertools.repeat(batch)))
    every_ms = (answer.interface_ms for answer in answers)
    found = latency.measure((sum(group) / len(group) for group in zip(*[every_ms] * backend.streams, strict=False)), box_s)
    enough.set()
    for _ in answers:  # what is still under way must not run into what comes next
        pass
    return found


def _executions_ms(backend: Backend, batch: batches.Batch) -> Iterator[float]:
    while True:
        backend.infer(batch.tensor)
        assert backend.execution_ms is not None
        yield backend.execution_ms


def pure_inference(backend: Backend, batch: batches.Batch, box_s: float) -> dict[str, Any]:
    """What `perf.json` says of the model alone: the first call, the rate and its interval, percentiles of the samples.

    A sample is the mean of `batches_per_sample` batches.
    """
    cold_ms, *_ = backend.warm_up(batch)
    measured = time_alone(backend, batch, box_s)
    rate, known = latency.rate(measured.samples_ms, len(batch.tensor))
    facts = {"cold_ms": cold_ms, "images_per_s": rate, "images_per_s_ci95": known, "batches_per_sample": backend.streams}
    return facts | measured.summary()
