"""Latencies: the spans timed per batch, their statistics, the file that keeps every sample."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from . import artifacts
from .artifacts import Run

P99_SAMPLES = 100  # with fewer samples the 99th percentile is an extrapolation: not given
# Timed per batch. read and preprocess happen in another thread, and wait is what was left of them; interface lies in inference.
# latency is that of the call, and longer than interface where batches overlap.
SPANS = ("read", "preprocess", "wait", "inference", "interface", "latency", "postprocess")


def latency_ms(samples: Iterable[float]) -> dict[str, float | int | None]:
    """Mean and percentiles (linear interpolation) of latencies in ms, with their number n; None where there are none.

    p99 is None when there are fewer than P99_SAMPLES.
    """
    values = np.array(list(samples))
    if not len(values):
        return {"mean": None, "p50": None, "p90": None, "p99": None, "n": 0}
    p50, p90, p99 = (float(p) for p in np.percentile(values, (50, 90, 99)))
    enough = len(values) >= P99_SAMPLES
    return {"mean": float(values.mean()), "p50": p50, "p90": p90, "p99": p99 if enough else None, "n": len(values)}


def write_latency(run: Run, sizes: Sequence[int] | np.ndarray, columns: dict[str, Sequence[float] | np.ndarray]) -> None:
    """Write `latency.csv`: a row per batch with its number, its images and the spans in ms; empty where not measured."""
    table = pd.DataFrame({"images": sizes, **{f"{span}_ms": columns.get(span) for span in SPANS}})
    with artifacts.atomic(run.file("latency")) as temporary:
        table.to_csv(temporary, index_label="batch", float_format="%.6f")


def peak_memory_mib() -> float | None:
    """Most memory this process ever held, in MiB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
