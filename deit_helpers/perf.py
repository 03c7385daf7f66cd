"""07_perf: latencies and the profiler -> `profile.csv`, `perf.json`: how fast, and where the time goes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx

from . import artifacts, freshness, images, profile
from .artifacts import Run
from .backends import Profiler, open_backend
from .errors import BackendError
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


def _measure(run: Run) -> None:
    size = run.size
    inference = run.read("infer")
    graph = onnx.load(run.file("static_onnx"))
    iterations = -(-PROFILED_IMAGES // size)
    with open_backend(run.spec.backend, run.file("static_onnx"), run.spec.precision, run.spec.device) as backend:
        if not isinstance(backend, Profiler):
            raise BackendError(f"backend {run.spec.backend!r} has no profiler: profile it with the device's own tool")
        events = backend.profile(next(images.batches(run, size, backend.dtype)).tensor, iterations)
        peak = backend.peak_flops_per_s()
        runtime = backend.describe()
    table = profile.table_from_onnxruntime(events, profile.layer_norm_nodes(graph))
    with artifacts.atomic(run.file("profile")) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
    flops = flops_per_batch(graph) / size
    rate = inference["interface_images_per_s"]
    runs_us = [event["dur"] for event in events if event["name"] == "model_run"]
    artifacts.write_json(
        run.file("perf"),
        {
            "batch_size": size,
            "backend": runtime["backend"],
            "device": runtime["device"],
            "precision": runtime["precision"],
            "runtime": runtime,
            "machine": machine(),
            "images": inference["images"],
            "images_per_s": rate,
            "e2e_images_per_s": inference["e2e_images_per_s"],
            "e2e_efficiency": inference["e2e_efficiency"],
            "latency_ms": inference["latency_ms"],
            "stages": inference["stages"],
            "families": {name: {"share_percent": share} for name, share in profile.family_shares(table).items()},
            "profiled_batches": len(runs_us),
            "profiled_ms": float(np.mean(runs_us) / 1000),
            "operators_ms": float(table["total_us"].sum() / len(runs_us) / 1000),
            "flops_per_image": flops,
            "peak_flops_per_s": peak,
            "utilisation_percent": 100 * rate * flops / peak,
        },
    )
