"""Latencies: the spans timed per batch, a time-boxed measurement, statistics with intervals, the file of every sample."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
import scipy.stats

from . import artifacts
from .artifacts import Run

_QUANTILES = {"p50": 50, "p90": 90, "p99": 99}
BOX_S = 10.0  # a measurement ends after so long
SETTLED_PERCENT = 2.0  # or when the interval of its median is narrower than this
MIN_SAMPLES = 20
P99_SAMPLES = 100  # with fewer samples the 99th percentile is an extrapolation: not given
# Timed per batch. read and preprocess happen in another thread, and wait is what was left of them; interface lies in inference.
# latency is that of the call, and longer than interface where batches overlap.
SPANS = ("read", "preprocess", "wait", "inference", "interface", "latency", "postprocess")


class Measurement(NamedTuple):
    """Samples in ms, every one kept; the first `warmup` are not counted. `steal_percent` is what other guests took."""

    every_ms: np.ndarray
    warmup: int
    steal_percent: float | None

    @property
    def samples_ms(self) -> np.ndarray:
        return self.every_ms[self.warmup :]

    def summary(self) -> dict[str, Any]:
        """Percentiles with their 95 % intervals in ms, n, the warm-up, and the spread: interquartile range over median."""
        values = self.samples_ms
        low, middle, high = np.percentile(values, (25, 50, 75))
        found = latency_ms(values)
        return {
            "latency_ms": found,
            "ci95_ms": {name: interval(values, q / 100) for name, q in _QUANTILES.items() if found[name] is not None},
            "warmup_batches": self.warmup,
            "warmup_ms": [round(float(ms), 3) for ms in self.every_ms[: self.warmup]],
            "spread_percent": float(100 * (high - low) / middle),
            "steal_percent": self.steal_percent,
            "settled": is_settled(values),
        }


def measure(samples_ms: Iterator[float], box_s: float = BOX_S) -> Measurement:
    """Take samples until the median is known to SETTLED_PERCENT, or the time box ends; two at least.

    Args:
        samples_ms: does the work and yields how long it took; closed at the end.
    """
    every: list[float] = []
    steal, start = _steal_s(), time.perf_counter()
    for ms in samples_ms:
        every.append(ms)
        over = time.perf_counter() - start > box_s
        if (over and len(every) > 1) or (len(every) % 10 == 0 and is_settled(np.array(every[warm_up(every) :]))):
            break
    wall_s = time.perf_counter() - start
    stolen = None if steal is None else 100 * ((_steal_s() or 0.0) - steal) / (wall_s * (os.cpu_count() or 1))
    return Measurement(np.array(every), warm_up(every), stolen)


def warm_up(samples: Sequence[float]) -> int:
    """How many samples at the start are warm-up, at most half of them.

    Marginal standard error rule: the cut that leaves the mean of the rest with the smallest standard error (White 1997).
    """
    values = np.asarray(samples, float)
    count = len(values)
    if count < 4:
        return 0
    left = count - np.arange(count // 2 + 1)
    # Sums of the last `left` values, and of their squares, for every cut at once; centred against cancellation.
    centred = values - values.mean()
    sums, squares = (np.cumsum(x[::-1])[left - 1] for x in (centred, centred**2))
    return int(np.argmin((squares - sums**2 / left) / left**2))


def is_settled(samples: np.ndarray) -> bool:
    """Whether the 95 % interval of the median is narrower than SETTLED_PERCENT of it."""
    if len(samples) < MIN_SAMPLES:
        return False
    low, high = interval(samples, 0.5)
    return high - low < SETTLED_PERCENT / 100 * float(np.median(samples))


def interval(samples: np.ndarray, quantile: float) -> tuple[float, float]:
    """The 95 % interval of a quantile by order statistics: no assumption on the distribution."""
    found = scipy.stats.quantile_test(samples, p=quantile).confidence_interval(0.95)
    low, high = float(np.min(samples)), float(np.max(samples))
    return float(np.nan_to_num(found.low, nan=low)), float(np.nan_to_num(found.high, nan=high))


def ratio(new: np.ndarray, base: np.ndarray) -> tuple[float, float, float]:
    """Ratio of the medians of two timings and its 95 % interval by bootstrap: never compare two bare numbers."""

    def of_medians(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    found = scipy.stats.bootstrap((new, base), of_medians, n_resamples=2000, method="percentile", rng=np.random.default_rng(0))
    return float(of_medians(new, base)), float(found.confidence_interval.low), float(found.confidence_interval.high)


def latency_ms(samples: Iterable[float]) -> dict[str, float | int | None]:
    """Mean and percentiles (linear interpolation) of latencies in ms, with their number n; None where there are none.

    p99 is None when there are fewer than P99_SAMPLES.
    """
    values = np.array(list(samples))
    if not len(values):
        return {"mean": None, **dict.fromkeys(_QUANTILES), "n": 0}
    percentiles = dict(zip(_QUANTILES, map(float, np.percentile(values, list(_QUANTILES.values()))), strict=True))
    enough = {"p99": percentiles["p99"] if len(values) >= P99_SAMPLES else None}
    return {"mean": float(values.mean()), **percentiles, **enough, "n": len(values)}


def write_latency(run: Run, sizes: Sequence[int] | np.ndarray, columns: dict[str, Sequence[float] | np.ndarray]) -> None:
    """Write `latency.csv`: a row per batch with its number, its images and the spans in ms; empty where not measured."""
    table = pd.DataFrame({"images": sizes, **{f"{span}_ms": columns.get(span) for span in SPANS}})
    with artifacts.atomic(run.file("latency")) as temporary:
        table.to_csv(temporary, index_label="batch", float_format="%.6f")


def peak_memory_mib() -> float | None:
    """Most memory this process ever held, in MiB; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would tell what the program that started this one held, where that is more
        return int(re.findall(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)[0]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _steal_s() -> float | None:
    """CPU seconds that the hypervisor gave to others; None where the system does not say."""
    return getattr(psutil.cpu_times(), "steal", None)
