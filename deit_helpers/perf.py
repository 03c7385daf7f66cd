"""07_perf: latencies and the profiler -> `profile.csv`, `perf.json`: how fast, and where the time goes."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import onnx
import pandas as pd

from . import artifacts, freshness, images, infer, profile, timing
from .artifacts import Run
from .ascend import msprof
from .backends import Backend, Profiler
from .machine import machine
from .spec import ASCEND_TOOLS

# At least so many are profiled, but fewer batches where they are slow; six have an interval.
PROFILED_IMAGES, PROFILED_BATCHES = 24, 6


def measure(run: Run) -> dict[str, Any]:
    """Stage 07: statistics of the latencies of 05, a profiled run, and the utilisation of the machine.

    Returns:
        The content of `perf.json`.
    """
    freshness.ensure(run, "perf", lambda: _measure(run))
    return run.read("perf")


def flops_per_batch(graph: onnx.ModelProto) -> int:
    """Floating point operations of a static graph's matrix products and convolutions, two per multiply-add."""
    inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True).graph
    shapes = {t.name: tuple(t.dims) for t in inferred.initializer}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    total = 0
    for node in inferred.node:
        if node.op_type == "MatMul":
            total += 2 * prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        elif node.op_type == "Gemm":
            flipped = any(a.name == "transA" and a.i for a in node.attribute)
            total += 2 * prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if flipped else 1]
        elif node.op_type == "Conv":
            total += 2 * prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
    return total


def stated_peak(run: Run) -> tuple[float | None, str]:
    """The peak in FLOP/s that the spec states, and where it comes from."""
    return (run.spec.peak_tflops * 1e12 if run.spec.peak_tflops else None), "peak_tflops of the spec"


def _measure(run: Run) -> None:
    inference = run.read("infer")
    batches = max(PROFILED_BATCHES, -(-PROFILED_IMAGES // run.size))
    peak, source = stated_peak(run)
    found: profile.OperatorProfile | str = f"backend {run.spec.backend} has no profiler"
    pure: dict[str, Any] = {}
    if run.spec.backend not in ASCEND_TOOLS:
        with infer.open_model(_as_in_05(run, inference)) as backend:
            (batch,) = images.batches(run, run.size, backend.dtype, 0, run.size)
            pure = pure_inference(backend, batch, run.spec.time_box_s)
            inference |= {"runtime": backend.describe(), "machine": machine()}
            if isinstance(backend, Profiler):
                with backend.failing("profiling"):
                    found = backend.profile(batch.tensor, batches)
                    if peak is None:
                        peak, source = backend.peak_flops_per_s(), "matrix product, measured in the same run"
    if run.spec.on_ascend:  # a process of its own, once the device is free again
        found = msprof.profile(run, batches)
    write(run, inference, found, peak, source, pure)


def _as_in_05(run: Run, inference: dict[str, Any]) -> Run:
    """The run with the number of streams that 05 found best: 07 must not find another."""
    if "streams" not in inference["runtime"]:
        return run
    return run.having(runtime={**run.spec.runtime, "streams": inference["runtime"]["streams"]})


def time_alone(backend: Backend, batch: images.Batch, box_s: float) -> timing.Measurement:
    """Time the model on one batch again and again, with nothing beside it: no images are read, no profiler runs.

    Where several batches are worked on at once their answers come together: a sample is the mean over as many. A device that
    tells execution from copies is given one batch after the other, and a sample is the execution.
    """
    if backend.execution_ms is not None:
        return timing.measure(_executions_ms(backend, batch), box_s)
    enough = threading.Event()
    answers = backend.stream(itertools.takewhile(lambda _: not enough.is_set(), itertools.repeat(batch)))
    every_ms = (answer.interface_ms for answer in answers)
    found = timing.measure((sum(group) / len(group) for group in zip(*[every_ms] * backend.streams, strict=False)), box_s)
    enough.set()
    for _ in answers:  # what is still under way must not run into what comes next
        pass
    return found


def _executions_ms(backend: Backend, batch: images.Batch) -> Iterator[float]:
    while True:
        backend.infer(batch.tensor)
        assert backend.execution_ms is not None
        yield backend.execution_ms


def pure_inference(backend: Backend, batch: images.Batch, box_s: float) -> dict[str, Any]:
    """What `perf.json` says of the model alone: the first call, the rate and its interval, percentiles of the samples.

    A sample is the mean of `batches_per_sample` batches.
    """
    cold_ms, *_ = backend.warm_up(batch)
    measured = time_alone(backend, batch, box_s)
    rate, known = timing.rate(measured.samples_ms, len(batch.tensor))
    facts = {"cold_ms": cold_ms, "images_per_s": rate, "images_per_s_ci95": known, "batches_per_sample": backend.streams}
    return facts | measured.summary()


def write(
    run: Run,
    inference: dict[str, Any],
    found: profile.OperatorProfile | str,
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
    artifacts.write_json(
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


def _write_profile(run: Run, found: profile.OperatorProfile | str) -> dict[str, Any]:
    """Write `profile.csv`, empty where there is no profile, and return what `perf.json` says of it."""
    table = pd.DataFrame(columns=profile.COLUMNS) if isinstance(found, str) else found.table
    with artifacts.atomic(run.file("profile")) as temporary:
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
    families = {name: {"share_percent": share} for name, share in profile.family_shares(table).items()}
    facts |= {"families": families, "profiled_batches": found.batches, "operators_ms": operators_ms}
    if not found.profiled_ms:  # a vendor's tables have no times of whole batches
        return facts
    profiled_ms = float(np.mean(found.profiled_ms))
    percent = 100 * (np.array(found.profiled_ms) / np.array(found.plain_ms) - 1)  # taken in turn
    overhead = {
        "profiler_overhead_percent": float(np.median(percent)),
        "profiler_overhead_ci95_percent": timing.interval(percent, 0.5),
    }
    return facts | overhead | {"profiled_ms": profiled_ms, "residual_ms": profiled_ms - operators_ms}
