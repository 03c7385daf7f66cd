"""07_perf: latencies and the profiler -> `profile.csv`, `perf.json`: how fast, and where the time goes."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnx
import pandas as pd

from .. import files
from ..ascend import msprof
from ..backends import Profiler, bench, watched
from ..backends.bench import pure_inference
from ..data import batches
from ..executors import vendor
from ..metrics import latency, operators
from ..model.flops import flops_per_batch
from ..run import records
from ..run.folder import Run
from ..run.host import machine

# At least so many are profiled, but fewer batches where they are slow; six have an interval.
PROFILED_IMAGES, PROFILED_BATCHES = 24, 6


def measure(run: Run) -> dict[str, Any]:
    """Stage 07: statistics of the latencies of 05, a profiled run, and the utilisation of the machine.

    Returns:
        The content of `perf.json`.
    """
    records.ensure(run, "perf", lambda: _measure(run))
    return run.read("perf")


def stated_peak(run: Run) -> tuple[float | None, str]:
    """The peak in FLOP/s that the spec states, and where it comes from."""
    return (run.spec.peak_tflops * 1e12 if run.spec.peak_tflops else None), "peak_tflops of the spec"


def _measure(run: Run) -> None:
    inference = run.read("infer")
    profiled = max(PROFILED_BATCHES, -(-PROFILED_IMAGES // run.size))
    peak, source = stated_peak(run)
    found: operators.OperatorProfile | str = f"backend {run.spec.backend} has no profiler"
    pure: dict[str, Any] = {}
    if not run.spec.backend_row.is_program:
        with bench.open_model(_as_in_05(run, inference)) as model:
            (batch,) = batches.batches(run, run.size, model.dtype, 0, run.size)
            pure = pure_inference(model, batch, run.spec.time_box_s)
            inference |= {"runtime": model.describe(), "machine": machine()}
            profiler = model.backend
            if isinstance(profiler, Profiler):
                with model.failing("profiling"):
                    found = profiler.profile(batch.tensor, profiled)
                    if peak is None:
                        peak, source = profiler.peak_flops_per_s(), "matrix product, measured in the same run"
    if run.spec.backend_row.needs_om:  # a process of its own, once the device is free again
        table = msprof.profile(_watched(run, profiled), run.root)
        found = table if isinstance(table, str) else operators.OperatorProfile(table, profiled)
    write(run, inference, found, peak, source, pure)


def _watched(run: Run, times: int) -> list[str]:
    """The program that msprof watches: the device model, run so many times."""
    if run.spec.backend_row.is_program:
        return vendor.pure_inference(run, times)
    return [sys.executable, "-m", watched.__name__, str(run.folder / "spec.yaml"), str(run.size), str(times)]


def _as_in_05(run: Run, inference: dict[str, Any]) -> Run:
    """The run with the number of streams that 05 found best: 07 must not find another."""
    if "streams" not in inference["runtime"]:
        return run
    return run.replace(runtime={**run.spec.runtime, "streams": inference["runtime"]["streams"]})


def write(
    run: Run,
    inference: dict[str, Any],
    found: operators.OperatorProfile | str,
    peak: float | None,
    source: str,
    pure: dict[str, Any] | None = None,
) -> None:
    """Write `perf.json` and `profile.csv`.

    Args:
        inference: the content of `infer.json`; `runtime` and `machine` are of the profiled process.
        found: the operators, or why there are none.
        peak: the device's peak in FLOP/s, where known, and `source` says from where.
        pure: what `pure_inference` found; without it, rates are those of the call in 05.
    """
    graph, rate, runtime = run.file("static_onnx"), inference["interface_images_per_s"], inference["runtime"]
    alone = pure["images_per_s"] if pure else rate
    operators = _write_profile(run, found)
    flops = flops_per_batch(onnx.load(graph)) / run.size if graph.exists() else None
    # of 05 alone
    own = ("warmup_batches", "warmup_ms", "padded_rows", "batches", "shards", "interface_batches", "interface_images_per_s")
    files.write_json(
        run.file("perf"),
        {
            "batch_size": run.size,
            **{key: runtime[key] for key in ("backend", "device", "precision")},
            **{key: value for key, value in inference.items() if key not in own},
            "images_per_s": rate,
            "pure": pure or None,
            "e2e_of_pure": inference["e2e_images_per_s"] / alone if pure else None,
            **operators,
            "flops_per_image": flops,
            "peak_flops_per_s": peak,
            "peak_source": source if peak else None,
            "utilisation_percent": 100 * alone * flops / peak if peak and flops else None,
        },
    )


def _write_profile(run: Run, found: operators.OperatorProfile | str) -> dict[str, Any]:
    """Write `profile.csv`, empty where there is no profile, and return what `perf.json` says of it."""
    table = pd.DataFrame(columns=operators.COLUMNS) if isinstance(found, str) else found.table
    with files.atomic(run.file("profile")) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    facts: dict[str, Any] = {
        "families": {},
        "profiled_batches": 0,
        "profiled_ms": None,
        "operators_ms": None,
        "residual_ms": None,
        "profiler_overhead_percent": None,
        "profiler_overhead_ci95_percent": None,
        "profile_reason": None,
    }
    if isinstance(found, str):
        return facts | {"profile_reason": found}
    operators_ms = float(table["total_us"].sum() / found.batches / 1000)
    families = {name: {"share_percent": share} for name, share in operators.family_shares(table).items()}
    facts |= {"families": families, "profiled_batches": found.batches, "operators_ms": operators_ms}
    if not found.profiled_ms:  # a vendor's tables have no times of whole batches
        return facts
    profiled_ms = float(np.mean(found.profiled_ms))
    facts |= {"profiled_ms": profiled_ms, "residual_ms": profiled_ms - operators_ms}
    if not found.plain_ms:  # a batch takes too long for them
        return facts
    percent = 100 * (np.array(found.profiled_ms) / np.array(found.plain_ms) - 1)  # taken in turn
    overhead = {
        "profiler_overhead_percent": float(np.median(percent)),
        "profiler_overhead_ci95_percent": latency.interval(percent, 0.5),
    }
    return facts | overhead
