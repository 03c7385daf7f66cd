"""05_infer: the images of the run through the device model -> logits, a latency per batch, the stage table.

And, once per run, the fp32 reference: the exported graph on the very same tensors. Nothing is scored here except the
running figure of the progress bar. Results come in shards of a fixed number of images, each complete or absent: an
interrupted run goes on where it was, and shards may be made on several machines.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from . import accuracy, artifacts, freshness, images, labels, model, shards, streaming, timing, tuning
from .artifacts import Run
from .ascend import benchmark, driver, dumps
from .backends import Backend, open_backend
from .errors import ArtifactError, BackendError
from .machine import machine
from .spec import ASCEND_TOOLS

REFERENCE_BATCH = 8


def infer(run: Run) -> dict[str, Any]:
    """Stage 05: run every image through the device model of this batch size.

    Returns:
        The content of `infer.json`.

    Raises:
        BackendError: the model has another batch size than the run, or its output is impossible.
        ArtifactError: `shards` of the spec leaves some out, and they are not there.
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
    path = run.checkpoint if run.device_model == "checkpoint" else run.file(run.device_model)
    options = {
        "execution": spec.execution,
        "providers": spec.providers,
        "cache": run.folder / "cache",
        "batch_size": run.size,
        "module": functools.partial(model.build, run, fused_attention=True),
        "recipe": spec.recipe,
    }

    def load(**keys: int) -> Backend:
        runtime = {**spec.runtime, **keys}
        return open_backend(spec.backend, path, spec.precision_text, spec.device, {**options, "runtime": runtime})

    return tuning.fastest(load)


def _infer(run: Run) -> None:
    if run.spec.backend in ASCEND_TOOLS:
        driver.infer(run)
        return
    names, targets = labels.read_index(run)
    every = shards.of(run, len(targets))
    first, last = run.spec.shards or (0, len(every) - 1)
    key = shards.key(run)
    absent = [shard for shard in every if shards.read(shard, key) is None]
    if unusable := [shard.path.name for shard in absent if shard.path.exists()]:
        print(f"{', '.join(unusable)}: damaged, or of another model, data set, spec or code; not used")
    missing = [shard for shard in absent if shard in every[first : last + 1]]
    if missing:
        _run_shards(run, names, targets, missing, key)
    # Others may have been copied here meanwhile.
    if left := [shard.path.name for shard in absent if shard not in missing and shards.read(shard, key) is None]:
        there = f"{len(every) - len(left)} of {len(every)} shards are in {every[0].path.parent}"
        raise ArtifactError(f"{there}: make the others, such as {left[0]}, elsewhere and copy them here, or set shards: null")
    _assemble(run, every, key)
    shards.discard(run)
    if run.spec.bins:
        folder = run.file("logits").parent / f"dumpOutput_device{run.spec.device}"
        dumps.write(folder, names, np.load(run.file("logits"), mmap_mode="r"))


def _run_shards(run: Run, names: list[str], targets: np.ndarray, missing: list[shards.Shard], key: str) -> None:
    start = time.perf_counter()
    with open_model(run) as backend, images.progress(len(targets)) as bar:
        load_s = time.perf_counter() - start - backend.tuning_s
        if backend.batch_size not in (None, run.batch_size):
            made_for = f"{backend.model}: made for batches of {backend.batch_size}"
            raise BackendError(f"{made_for}, this run has batch_size {run.batch_size}: run notebooks/02_optimize.ipynb again")
        accuracy.check_labels(names, targets, backend.classes)
        first = missing[0].first
        (batch,) = images.batches(run, run.size, backend.dtype, first, first + run.size)
        warmup_ms = backend.warm_up(batch)
        facts = {
            "load_s": load_s,
            "in_flight": backend.in_flight,
            "warmup_ms": warmup_ms,
            "runtime": backend.describe(),
            "machine": machine(),
        }
        bar.update(len(targets) - sum(shard.stop - shard.first for shard in missing))
        for group in shards.consecutive(missing):
            for shard, logits, spans, wall_s in _stream(run, backend, group, targets, bar):
                own = {"key": key, "wall_s": wall_s, "peak_memory_mib": timing.peak_memory_mib()}
                shards.write(shard, logits, spans, facts | own)


def _stream(
    run: Run, backend: Backend, group: list[shards.Shard], targets: np.ndarray, bar: tqdm
) -> Iterator[tuple[shards.Shard, np.ndarray, np.ndarray, float]]:
    """Every shard of a group as it is done: logits, spans of its batches in ms as in timing.SPANS, and wall seconds.

    Reading and normalising happen in threads while the backend works; `wait` is how long the backend was kept waiting for
    a batch, `inference` how long this thread was held by the backend, `interface` the call alone. The wall holds what the
    caller did with the shard before.
    """
    waits_ms: list[float] = []
    failed: list[Exception] = []
    done = right = 0
    start = before = time.perf_counter_ns()
    source = images.batches(run, run.size, backend.dtype, group[0].first, group[-1].stop)
    with contextlib.closing(source), contextlib.closing(backend.stream(streaming.timed(source, waits_ms, failed))) as answers:
        for shard in group:
            logits, rows = np.empty((shard.stop - shard.first, backend.classes), np.float32), []
            for batch, found, interface_ms, latency_ms in answers:
                answered = time.perf_counter_ns()
                valid = found[batch.valid]
                stop = batch.start + len(valid)
                logits[batch.start - shard.first : stop - shard.first] = valid
                right += int(np.sum(valid.argmax(axis=1) == targets[batch.start : stop]))
                done += len(valid)
                bar.set_postfix_str(f"Acc@1={100 * right / done:.1f}%", refresh=False)
                bar.update(len(valid))
                after = time.perf_counter_ns()
                held_ms = (answered - before) / 1e6 - sum(waits_ms)
                spent = [batch.read_ms, batch.prepare_ms, sum(waits_ms), held_ms, interface_ms, latency_ms]
                rows.append([*spent, (after - answered) / 1e6])
                waits_ms.clear()
                before = after
                if stop == shard.stop:
                    break
            else:  # the images ended before the shard did
                raise failed[0]
            yield shard, logits, np.array(rows), (after - start) / 1e9
            start, before = after, time.perf_counter_ns()


def _assemble(run: Run, every: list[shards.Shard], key: str) -> None:
    """The shards, in order, as the files of 05."""
    spans: list[np.ndarray] = []
    facts = []
    with artifacts.atomic(run.file("logits")) as temporary, temporary.open("wb") as file:
        for shard in every:
            found = shards.read(shard, key)
            assert found is not None, "checked before"
            if not spans:
                file.write(images.npy_header("<f4", (every[-1].stop, found["logits"].shape[1])))
            file.write(found.pop("logits").tobytes())
            spans.append(found.pop("spans"))
            facts.append(found)
            ours, theirs = (shards.made_by(row) for row in (facts[0], found))
            if ours != theirs:
                hint = "delete the file, or make all on alike devices"
                raise ArtifactError(f"{shard.path}: made by {theirs}, the first by {ours}: {hint}")
    _write_results(run, np.concatenate(spans), facts, every)


def _write_results(run: Run, spans: np.ndarray, facts: list[dict[str, Any]], every: list[shards.Shard]) -> None:
    count, batches = every[-1].stop, len(spans)
    columns = dict(zip(timing.SPANS, spans.T, strict=True))  # ms per batch
    sizes = np.full(batches, run.size)
    sizes[-1] -= batches * run.size - count
    wall_s = sum(row["wall_s"] for row in facts)
    seconds = {name: float(ms.sum()) / 1000 for name, ms in columns.items()} | {"e2e": wall_s}
    spent = {name: seconds["read" if name == "data read" else name] for name in benchmark.STAGES}
    stages = [{"name": name, "images_per_s": count / s, "seconds": s} for name, s in spent.items()]
    # The rate of the call alone is taken over full batches: padded rows are work, but not images.
    full = sizes == run.size if batches > 1 else sizes > 0
    interface_per_s = float(sizes[full].sum() / columns["interface"][full].sum() * 1000)
    timing.write_latency(run, sizes, columns)
    artifacts.write_text(run.file("perf_vision"), benchmark.perf_vision(stages, interface_per_s, count, run.size))
    latest = facts[-1]
    artifacts.write_json(
        run.file("infer"),
        {
            "batch_size": run.batch_size,
            "images": count,
            "padded_rows": batches * run.size - count,
            "batches": batches,
            "load_s": latest["load_s"],
            "warmup_batches": len(latest["warmup_ms"]),
            "warmup_ms": latest["warmup_ms"],
            "interface_images_per_s": interface_per_s,
            # a device that works while batches are copied shows its own time only in the warm-up
            "interface_batches": len(latest["warmup_ms"]) if run.spec.execution == "async" else int(full.sum()),
            "e2e_images_per_s": count / wall_s,
            "e2e_efficiency": seconds["interface"] / wall_s,
            # Not faster than the device: where several batches are in flight it works while this thread waits.
            "images_per_s_without_waiting": count / max(wall_s - seconds["wait"], seconds["interface"]),
            "peak_memory_mib": max((row["peak_memory_mib"] for row in facts if row["peak_memory_mib"]), default=None),
            "latency_ms": timing.latency_ms(columns["latency"]),
            "in_flight": sorted({row["in_flight"] for row in facts}),  # alike machines may differ in what is fastest
            "stages": stages,
            "shards": [
                {"first": shard.first, "stop": shard.stop, "seconds": row["wall_s"], "cpu": row["machine"]["cpu"]}
                for shard, row in zip(every, facts, strict=True)
            ],
            "runtime": latest["runtime"],
            "machine": latest["machine"],
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
        file.write(images.npy_header("<f4", (count, backend.classes)))
        for answer in backend.stream(images.batches(run, REFERENCE_BATCH)):
            file.write(answer.logits[answer.batch.valid].tobytes())
            bar.update(int(answer.batch.valid.sum()))
