"""05_infer: the uint8 store through the device model -> logits, a latency per batch, the stage table.

And, once per run, the fp32 reference: the exported graph on the very same tensors. Nothing is scored here except the
running figure of the progress bar.
"""

from __future__ import annotations

import time
from typing import Any, BinaryIO

import numpy as np

from . import accuracy, artifacts, freshness, images, labels, timing
from .artifacts import Run
from .ascend import benchmark, driver, dumps
from .backends import Backend, Pipelined, open_backend
from .errors import BackendError
from .machine import machine
from .spec import ASCEND_TOOLS

WARMUP_BATCHES, WARMUP_S = 3, 1.0  # warm up for so many batches, or so long, whichever ends first
REFERENCE_BATCH = 8


def infer(run: Run) -> dict[str, Any]:
    """Stage 05: run every image of the store through the device model of this batch size.

    Returns:
        The content of `infer.json`.

    Raises:
        BackendError: the model has another batch size than the run, or its output is impossible.
    """
    freshness.ensure(run, "infer", lambda: _infer(run))
    return run.read("infer")


def reference(run: Run) -> np.ndarray:
    """The fp32 reference logits (N, C): ONNX Runtime on the exported graph. Made once per run."""
    freshness.ensure(run, "reference", lambda: _reference(run))
    return np.load(run.file("reference"))


def open_model(run: Run) -> Backend:
    """The device model of this batch size in the backend of the spec; use it as a context manager."""
    spec = run.spec
    options = {"execution": spec.execution, "providers": spec.providers}
    return open_backend(spec.backend, run.file(run.device_model), spec.precision, spec.device, options)


def _infer(run: Run) -> None:
    if run.spec.backend in ASCEND_TOOLS:
        driver.infer(run)
        return
    names, targets = labels.read_index(run)
    with open_model(run) as backend:
        if backend.batch_size != run.batch_size:
            made_for = f"{backend.model}: made for batches of {backend.batch_size}"
            raise BackendError(f"{made_for}, this run has batch_size {run.batch_size}: run notebooks/02_optimize.ipynb again")
        accuracy.check_labels(names, targets, backend.classes)
        warmup_ms = _warm_up(backend, next(images.batches(run, run.size, backend.dtype)))
        with artifacts.atomic(run.file("logits")) as temporary, temporary.open("wb") as file:
            start = time.perf_counter()
            images.write_npy_header(file, "<f4", (len(targets), backend.classes))
            rows = _stream(run, backend, targets, file)
            wall_s = time.perf_counter() - start
        _write_results(run, rows, wall_s, warmup_ms, len(targets), backend.describe())
    if run.spec.bins:
        folder = run.file("logits").parent / f"dumpOutput_device{run.spec.device}"
        dumps.write(folder, names, np.load(run.file("logits"), mmap_mode="r"))


def _warm_up(backend: Backend, batch: images.Batch) -> list[float]:
    times_ms: list[float] = []
    while len(times_ms) < WARMUP_BATCHES and sum(times_ms) < 1000 * WARMUP_S:
        start = time.perf_counter_ns()
        backend.infer(batch.tensor)
        times_ms.append((time.perf_counter_ns() - start) / 1e6)
    return times_ms


def _stream(run: Run, backend: Backend, targets: np.ndarray, file: BinaryIO) -> list[dict[str, Any]]:
    """One pass over the store; returns the spans of every batch in ms.

    A pipelined backend works on a batch while the next one is read and prepared: its `inference` span is the time this
    thread was held by it, its `interface` span the time from when the device could begin (the batch was there, and the
    one before was done) until its logits were here.
    """
    size, recipe, clock = run.size, run.spec.recipe, time.perf_counter_ns
    pipeline = backend if isinstance(backend, Pipelined) and backend.asynchronous else None
    rows: list[dict[str, Any]] = []
    right = 0
    fed_at = done_at = 0

    def finish(batch: images.Batch, found: np.ndarray, called: int, returned: int, row: dict[str, Any]) -> None:
        nonlocal right
        logits = found[batch.valid]
        stop = batch.start + len(logits)
        file.write(logits.tobytes())
        right += int(np.sum(logits.argmax(axis=1) == targets[batch.start : stop]))
        bar.set_postfix_str(f"Acc@1={100 * right / stop:.1f}%", refresh=False)
        bar.update(len(logits))
        rows.append({**row, "interface": (returned - called) / 1e6, "postprocess": (clock() - returned) / 1e6})

    waiting: tuple[images.Batch, dict[str, Any]] | None = None
    with images.progress(len(targets)) as bar:
        for number, start in enumerate(range(0, len(targets), size)):
            ticks = [clock()]
            crops = images.read_store(run, start, start + size)
            ticks.append(clock())
            batch = images.pad(start, images.prepare(crops, recipe, backend.dtype), size)
            ticks.append(clock())
            found = pipeline.feed(batch.tensor) if pipeline else backend.infer(batch.tensor)
            ticks.append(clock())
            read, preprocess, inference = np.diff(ticks) / 1e6
            row = {"batch": number, "images": len(crops), "read": read, "preprocess": preprocess, "inference": inference}
            if not pipeline:
                assert found is not None
                finish(batch, found, ticks[2], ticks[3], row)
                continue
            if waiting and found is not None:
                finish(waiting[0], found, max(fed_at, done_at), ticks[3], waiting[1])
                done_at = ticks[3]
            fed_at, waiting = ticks[3], (batch, row)
        if pipeline and waiting:
            called = clock()
            found = pipeline.drain()
            returned = clock()
            waiting[1]["inference"] += (returned - called) / 1e6
            finish(waiting[0], found, max(fed_at, done_at), returned, waiting[1])
    return rows


def _write_results(
    run: Run, rows: list[dict[str, Any]], wall_s: float, warmup_ms: list[float], count: int, runtime: dict[str, Any]
) -> None:
    seconds = {span: sum(row[span] for row in rows) / 1000 for span in timing.SPANS} | {"e2e": wall_s}
    keys = {"data read": "read", "e2e": "e2e"}
    stages = [
        {"name": name, "images_per_s": count / seconds[keys.get(name, name)], "seconds": seconds[keys.get(name, name)]}
        for name in benchmark.STAGES
    ]
    # The rate of the call alone is taken over full batches: padded rows are work, but not images.
    full = [row for row in rows if row["images"] == run.size] or rows
    interface_per_s = sum(row["images"] for row in full) / sum(row["interface"] for row in full) * 1000
    timing.write_latency(run, rows)
    perf_file = benchmark.perf_vision(stages, interface_per_s, count, run.size)
    artifacts.write_text(run.file("perf_vision"), perf_file)
    artifacts.write_json(
        run.file("infer"),
        {
            "batch_size": run.batch_size,
            "images": count,
            "padded_rows": len(rows) * run.size - count,
            "batches": len(rows),
            "warmup_batches": len(warmup_ms),
            "warmup_ms": warmup_ms,
            "interface_images_per_s": interface_per_s,
            "interface_batches": len(full),
            "e2e_images_per_s": count / wall_s,
            "e2e_efficiency": seconds["interface"] / wall_s,
            "latency_ms": timing.latency_ms(row["interface"] for row in rows),
            "stages": stages,
            "runtime": runtime,
            "machine": machine(),
        },
    )


def _reference(run: Run) -> None:
    count = run.read("preprocess")["images"]
    with (
        open_backend("onnxruntime", run.file("onnx")) as backend,
        artifacts.atomic(run.file("reference")) as temporary,
        temporary.open("wb") as file,
        images.progress(count) as bar,
    ):
        images.write_npy_header(file, "<f4", (count, backend.classes))
        for batch in images.batches(run, REFERENCE_BATCH):
            file.write(backend.infer(batch.tensor)[batch.valid].tobytes())
            bar.update(int(batch.valid.sum()))
