"""07_perf: latencies and the profiler -> `profile.csv`, `perf.json`: how fast, and where the time goes."""

from __future__ import annotations

from math import prod
from typing import Any

import onnx
import pandas as pd

from . import artifacts, freshness, images, infer, profile
from .artifacts import Run
from .ascend import msprof
from .backends import Profiler
from .machine import machine

PROFILED_IMAGES = 24  # at least so many images pass through the profiled session; pages say how many batches


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
    size = run.size
    inference = run.read("infer")
    batches = -(-PROFILED_IMAGES // size)
    peak, source = stated_peak(run)
    if run.spec.on_ascend:
        write(run, inference, msprof.profile(run, batches), peak, source)
        return
    with infer.open_model(run) as backend:
        found: profile.OperatorProfile | str = f"backend {run.spec.backend} has no profiler"
        if isinstance(backend, Profiler):
            found = backend.profile(next(images.batches(run, size, backend.dtype)).tensor, batches)
            if peak is None:
                peak, source = backend.peak_flops_per_s(), "matrix product, measured in the same run"
        write(run, {**inference, "runtime": backend.describe(), "machine": machine()}, found, peak, source)


def write(run: Run, inference: dict[str, Any], found: profile.OperatorProfile | str, peak: float | None, source: str) -> None:
    """Write `perf.json` and `profile.csv`.

    Args:
        inference: the content of `infer.json`; `runtime` and `machine` are of the profiled process.
        found: the operators, or why there are none.
        peak: the device's peak in FLOP/s, where known, and `source` says from where.
    """
    graph, rate, runtime = run.file("static_onnx"), inference["interface_images_per_s"], inference["runtime"]
    flops = flops_per_batch(onnx.load(graph)) / run.size if graph.exists() else None
    kept = ("images", "e2e_images_per_s", "e2e_efficiency", "latency_ms", "stages", "runtime", "machine", "imported_from")
    artifacts.write_json(
        run.file("perf"),
        {
            "batch_size": run.size,
            **{key: runtime[key] for key in ("backend", "device", "precision")},
            **{key: inference[key] for key in kept if key in inference},
            "images_per_s": rate,
            **_write_profile(run, found),
            "flops_per_image": flops,
            "peak_flops_per_s": peak,
            "peak_source": source if peak else None,
            "utilisation_percent": 100 * rate * flops / peak if peak and flops else None,
        },
    )


def _write_profile(run: Run, found: profile.OperatorProfile | str) -> dict[str, Any]:
    """Write `profile.csv`, empty where there is no profile, and return what `perf.json` says of it."""
    table = pd.DataFrame(columns=profile.COLUMNS) if isinstance(found, str) else found.table
    with artifacts.atomic(run.file("profile")) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    if isinstance(found, str):
        return {"families": {}, "profiled_batches": 0, "profiled_ms": None, "operators_ms": None, "profile_reason": found}
    return {
        "families": {name: {"share_percent": share} for name, share in profile.family_shares(table).items()},
        "profiled_batches": found.batches,
        "profiled_ms": found.batch_ms,
        "operators_ms": float(table["total_us"].sum() / found.batches / 1000),
        "profile_reason": None,
    }
