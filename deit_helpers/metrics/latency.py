"""How long calls take: clocks, the statistics of their samples, and `latency.csv`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from .. import files

ROUNDS_S = 6.0  # calls are compared in turn for so long
SETTLED_PERCENT = 2.0  # a measurement ends when the interval of its median is narrower than this, but
MIN_S = 1.0  # not before: clocks go up and down
LEAST = 6  # samples: the median of fewer has no 95 % interval
BLOCKS, _T_OF_BLOCKS = 10, 2.262  # of consecutive samples; Student's t for a 95 % interval from so many
# A rate is not to be trusted above these. Where others had 5 % of two cores, batches were seen to take some 20 % longer.
MOST_OTHER_PERCENT, MOST_UNSETTLED_PERCENT = 3.0, 5.0
_DISTURBED = {
    "other_cpu_percent": (MOST_OTHER_PERCENT, "others had {:.1f} % of the CPU"),
    "interrupted_percent": (MOST_OTHER_PERCENT, "a small workload on all cores stood still for {:.1f} % of its time"),
    "unsettled_percent": (MOST_UNSETTLED_PERCENT, "the rate is unsettled by {:.1f} %"),
}
P99_SAMPLES = 100  # with fewer samples the 99th percentile is an extrapolation: not given
# Timed per batch. read and preprocess happen in another thread, and wait is what was left of them; interface lies in inference.
# latency is that of the call, and longer than interface where batches overlap.
TIMINGS = ("read", "preprocess", "wait", "inference", "interface", "latency", "postprocess")
_PEAK_S = 1.0  # some 40 products on two cores: the best of them outlasts what others take of a shared machine
_QUANTILES = {"p50": (50, 1), "p90": (90, 1), "p99": (99, P99_SAMPLES)}  # percent, and how many samples it needs


def time_ms(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def in_turn(
    profiled: Callable[[], float], open_plain: Callable[[], Callable[[], float]], at_most: int
) -> tuple[list[float], list[float]]:
    """ms of calls that run a batch under the profiler, and of plain ones in turn with them, which `open_plain` makes ready.

    The first of each warms up and is left out. So many of each, fewer where they take longer than ROUNDS_S, two at least. Where
    the first takes so long that no interval of the difference can be had, one more is all, and nothing is opened.
    """
    if profiled() > 1000 * ROUNDS_S / (LEAST - 1):
        return [profiled()], []
    plain = open_plain()
    plain()
    profiled_ms, plain_ms = list[float](), list[float]()
    start = time.perf_counter()
    while len(plain_ms) < at_most and (len(plain_ms) < 2 or time.perf_counter() - start <= ROUNDS_S):
        plain_ms.append(plain())
        profiled_ms.append(profiled())
    return profiled_ms, plain_ms


def peak_rate(multiply: Callable[[], object], side: int) -> float:
    """Best rate in FLOP/s of a product of two square matrices, a first, uncounted one warming up."""
    multiply()
    start = time.perf_counter()
    best_ms = time_ms(multiply)
    while time.perf_counter() - start < _PEAK_S:
        best_ms = min(best_ms, time_ms(multiply))
    return 2 * side**3 / (best_ms / 1000)


def is_settled(all_ms: np.ndarray) -> bool:
    """Whether the 95 % interval of the median is narrower than SETTLED_PERCENT of it, and the warm-up certainly over."""
    warmup = warmup_count(all_ms)
    bounds = median_interval(all_ms[warmup:])
    narrow = bounds is not None and bounds[1] - bounds[0] < SETTLED_PERCENT / 100 * float(np.median(all_ms[warmup:]))
    return narrow and warmup < len(all_ms) // 2  # no more than half is ever taken for warm-up


def sample(samples_ms: Iterator[float], box_s: float) -> tuple[np.ndarray, dict[str, Any]]:
    """Take samples, each the ms of the work that yields it, until their median is settled or the time box ends.

    LEAST after the warm-up in any case, and enough for all percentiles when the box does not end it. Returned are the samples
    after the warm-up, and facts of them; the spread is the interquartile range over the median.
    """
    all_ms: list[float] = []
    start = time.perf_counter()
    for ms in samples_ms:
        all_ms.append(ms)
        wall_s, count = time.perf_counter() - start, len(all_ms)
        if wall_s > box_s and count - warmup_count(all_ms) >= LEAST:
            break
        if wall_s > MIN_S and count % 10 == 0 and count - warmup_count(all_ms) >= P99_SAMPLES and is_settled(np.array(all_ms)):
            break
    warmup = warmup_count(all_ms)
    values = np.array(all_ms[warmup:])
    return values, {
        "latency_ms": latency_ms(values),
        "ci95_ms": {name: interval(values, q / 100) for name, (q, _) in _QUANTILES.items()} | {"p50": median_interval(values)},
        "warmup_batches": warmup,
        "warmup_ms": [round(float(ms), 3) for ms in all_ms[:warmup]],
        "spread_percent": float(100 * scipy.stats.iqr(values) / np.median(values)),
        "settled": is_settled(np.array(all_ms)),
        "unsettled_percent": unsettled_percent(values),
    }


def warmup_count(samples: Sequence[float] | np.ndarray) -> int:
    """How many samples at the start are warm-up, at most half of them.

    Marginal standard error rule: the cut that leaves the mean of the rest with the smallest standard error (White 1997).
    """
    values = np.asarray(samples, float)
    count = len(values)
    if count < 2 * LEAST:  # slow batches: it would cut by chance, and the calls before them were the warm-up
        return 0
    left = count - np.arange(count // 2 + 1)
    # Sums of the last `left` values, and of their squares, for every cut at once; centred against cancellation.
    centred = values - values.mean()
    sums, squares = (np.cumsum(x[::-1])[left - 1] for x in (centred, centred**2))
    return int(np.argmin((squares - sums**2 / left) / left**2))


def interval(samples: np.ndarray, quantile: float) -> tuple[float, float] | None:
    """The 95 % interval of a quantile by order statistics; None for too few samples, such as five for a median."""
    bounds = scipy.stats.quantile_test(samples, p=quantile).confidence_interval(0.95)
    return None if np.isnan([bounds.low, bounds.high]).any() else (float(bounds.low), float(bounds.high))


def together(samples: np.ndarray, in_flight: int) -> np.ndarray:
    """The mean of each so many samples in a row: answers that are in flight together come at nearly the same moment."""
    return samples[: len(samples) // in_flight * in_flight].reshape(-1, in_flight).mean(axis=1)


def blocks_percent(samples: np.ndarray) -> float | None:
    """Half the 95 % interval, in percent, of the median of blocks of consecutive samples; None for too few samples.

    Unlike order statistics it sees a rate drift or jump (batch means, Schmeiser 1982).
    """
    if len(samples) < 2 * BLOCKS:
        return None
    medians = [np.median(block) for block in np.array_split(samples, BLOCKS)]
    return float(100 * _T_OF_BLOCKS * np.std(medians, ddof=1) / np.mean(medians) / np.sqrt(BLOCKS))


def median_interval(samples: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of the median: by order statistics, or by blocks where that is wider."""
    bounds, middle, factor = interval(samples, 0.5), float(np.median(samples)), 1 + (blocks_percent(samples) or 0.0) / 100
    return (min(bounds[0], middle / factor), max(bounds[1], middle * factor)) if bounds else None


def unsettled_percent(samples: np.ndarray) -> float | None:
    """How far the median may be off: by half its interval, or as far as the mean lies from it where some batches are slow."""
    bounds, middle = median_interval(samples), float(np.median(samples))
    return max(50 * (bounds[1] - bounds[0]), 100 * abs(float(samples.mean()) - middle)) / middle if bounds else None


def trust(other_cpu: float | None, interrupted: float | None, unsettled: float | None) -> dict[str, Any]:
    """What files say of how far a rate can be trusted, from percents, None where not known.

    `disturbed` has in words what speaks against it, and is empty where nothing does. No cause is guessed.
    """
    facts = {"other_cpu_percent": other_cpu, "interrupted_percent": interrupted, "unsettled_percent": unsettled}
    above = [text.format(facts[key]) for key, (most, text) in _DISTURBED.items() if (facts[key] or 0.0) > most]
    return {**facts, "disturbed": ", ".join(above)}


def rate(samples_ms: np.ndarray, images: int) -> tuple[float, tuple[float, float] | None]:
    """Images per second of timings of so many images: that of the median, and its 95 % interval where there is one."""
    bounds, per_ms = median_interval(samples_ms), 1000 * images
    return per_ms / float(np.median(samples_ms)), (per_ms / bounds[1], per_ms / bounds[0]) if bounds else None


def ratio(new: np.ndarray, base: np.ndarray) -> tuple[float, float, float] | None:
    """Ratio of the medians of two timings, and what it is at least and at most by their intervals, if both have one."""
    bounds, base_bounds = median_interval(new), median_interval(base)
    if bounds is None or base_bounds is None:
        return None
    return float(np.median(new) / np.median(base)), bounds[0] / base_bounds[1], bounds[1] / base_bounds[0]


def latency_ms(samples: Iterable[float]) -> dict[str, float | int | None]:
    """Mean and percentiles (linear interpolation) of latencies in ms, with their number n; None for want of samples."""
    values = np.array(list(samples))
    n = len(values)
    percentiles = {name: float(np.percentile(values, q)) if n >= least else None for name, (q, least) in _QUANTILES.items()}
    return {"mean": float(values.mean()) if n else None, **percentiles, "n": n}


def write_latency(path: Path, sizes: Sequence[int] | np.ndarray, columns: dict[str, Sequence[float] | np.ndarray]) -> None:
    """Write a `latency.csv`: a row per batch with its number, its images and the spans in ms; empty where not measured."""
    import pandas as pd

    table = pd.DataFrame({"images": sizes, **{f"{span}_ms": columns.get(span) for span in TIMINGS}})
    with files.atomic(path) as temporary:
        table.to_csv(temporary, index_label="batch", float_format="%.6f")
