"""Latencies: the spans timed per batch, their statistics, the file that keeps every sample."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Any

import numpy as np

from . import artifacts
from .artifacts import Run

P99_SAMPLES = 100  # with fewer samples the 99th percentile is an extrapolation: not given
SPANS = ("read", "preprocess", "inference", "interface", "postprocess")  # timed per batch; interface lies in inference


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


def write_latency(run: Run, rows: list[dict[str, Any]]) -> None:
    """Write `latency.csv`: a row per batch with its number, its images and the spans in ms; empty where not measured."""
    with artifacts.atomic(run.file("latency")) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["batch", "images", *(f"{span}_ms" for span in SPANS)])
        for row in rows:
            writer.writerow([row["batch"], row["images"], *(f"{row[s]:.6f}" if s in row else "" for s in SPANS)])
