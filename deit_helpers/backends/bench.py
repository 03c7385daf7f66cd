"""How many batches a runtime works on at once, measured unless `runtime: {streams: N}` says it; and the model timed alone."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..data.batches import Batch
from ..metrics import latency
from ..metrics.latency import time_ms
from ..model import checkpoint
from ..run.folder import Run
from .contract import Options
from .pool import Pool, Prediction, open_backend

STREAMS = (1, 2)  # tried; on few cores more of them share the caches and lose
TRIALS, TRIAL_S = 2, 0.3  # each is tried so often, every stream for so long or for one batch,
SLOW_MS = 500.0  # unless a batch takes longer than this: large batches keep all cores busy


def open_model(run: Run) -> Pool:
    """The device model of this batch size in the backend of the spec; use it as a context manager."""
    spec, path = run.spec, run.device_model
    options = Options(
        precision=spec.precision_text,
        device=spec.device,
        batch_size=run.size,
        execution=spec.execution,
        providers=spec.providers,
        cache=run.folder / "cache",
        network=lambda: checkpoint.load(run, fused_attention=True)[0],
        recipe=spec.recipe,
        runtime=spec.runtime,
    )

    def load(**keys: int) -> Pool:
        return open_backend(spec.backend, path, dataclasses.replace(options, runtime={**spec.runtime, **keys}))

    return fastest(load)


def fastest(load: Callable[..., Pool]) -> Pool:
    """The model with as many streams as are fastest on this machine at its batch size; they are tried in turn.

    The slowest trial decides: threads that work on one batch wait for each other, and may do so longer at other times.

    Args:
        load: loads the model, with `streams=` as many, or without as the spec says.
    """
    model = load()
    backend = model.backend
    given = "streams" not in backend.runtime_keys or "streams" in backend.runtime
    if given or model.batch_size is None or model.describe()["device"] != "CPU":
        return model
    begun = time.perf_counter()
    batch = model.noise(model.batch_size)
    batch_ms = min(model.warm_up(batch))
    if batch_ms < SLOW_MS:
        models = [model, *(load(streams=streams) for streams in STREAMS[1:])]
        times = max(1, round(1000 * TRIAL_S / batch_ms))
        trials = [[_images_per_s(candidate, batch, times) for candidate in models] for _ in range(TRIALS)]
        model = models.pop(int(np.min(trials, axis=0).argmax()))
        for slower in models:
            slower.__exit__(None, None, None)
    model.tuning_s = time.perf_counter() - begun
    return model


def _images_per_s(model: Pool, batch: Batch, times: int) -> float:
    """The rate with every session at work, over `times` batches of each, once the model is warm."""
    model.warm_up(batch)
    count = model.in_flight * times
    return count * len(batch.tensor) * 1000 / time_ms(lambda: deque(model.predictions([batch] * count), maxlen=0))


def time_alone(model: Pool, batch: Batch, box_s: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Time the model on one batch again and again, as `latency.sample`: no images are read, no profiler runs beside it.

    Where threads work on several batches their predictions come together: a sample is the mean over as many. A device that
    tells execution from copies is given one batch after the other, and a sample is the execution.
    """
    # closed at the end: threads must not run on into what comes next
    with contextlib.closing(model.predictions(itertools.repeat(batch), model.backend.times_executions)) as predictions:
        return latency.sample(_means_ms(predictions, model.workers), box_s)


def _means_ms(predictions: Iterator[Prediction], count: int) -> Iterator[float]:
    """The mean interface time of every `count` predictions."""
    while True:
        yield sum(prediction.interface_ms for prediction in itertools.islice(predictions, count)) / count


def pure_inference(model: Pool, batch: Batch, box_s: float) -> dict[str, Any]:
    """What `perf.json` says of the model alone: the first call, the rate and its interval, percentiles of the samples.

    A sample is the mean of `batches_per_sample` batches.
    """
    cold_ms, *_ = model.warm_up(batch)
    samples_ms, measured = time_alone(model, batch, box_s)
    rate, interval = latency.rate(samples_ms, len(batch.tensor))
    facts = {"cold_ms": cold_ms, "images_per_s": rate, "images_per_s_ci95": interval, "batches_per_sample": model.workers}
    return facts | measured
