"""Shards of 05 in this process: reading, normalising and the model overlap."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from ..backends import Backend
from ..backends.bench import open_model
from ..data import batches, prefetch, sources
from ..errors import BackendError
from ..run import host, journal
from ..run.folder import Run
from ..run.host import machine


def _run_shards(run: Run, names: list[str], targets: np.ndarray, missing: list[journal.Shard], key: str) -> None:
    start = time.perf_counter()
    with open_model(run) as backend, batches.progress(len(targets)) as bar:
        load_s = time.perf_counter() - start - backend.tuning_s
        if backend.batch_size not in (None, run.batch_size):
            made_for = f"{backend.model}: made for batches of {backend.batch_size}"
            raise BackendError(f"{made_for}, this run has batch_size {run.batch_size}: run notebooks/02_optimize.ipynb again")
        sources.check_labels(names, targets, backend.classes)
        first = missing[0].first
        (batch,) = batches.batches(run, run.size, backend.dtype, first, first + run.size)
        warmup_ms = backend.warm_up(batch)
        facts = {
            "load_s": load_s,
            "in_flight": backend.in_flight,
            "warmup_ms": warmup_ms,
            "runtime": backend.describe(),
            "machine": machine(),
        }
        bar.update(len(targets) - sum(shard.stop - shard.first for shard in missing))
        for group in journal.consecutive(missing):
            for shard, logits, spans, wall_s in _stream(run, backend, group, targets, bar):
                own = {"key": key, "wall_s": wall_s, "peak_memory_mib": host.peak_memory_mib()}
                journal.write(shard, journal.Content(logits, spans, facts | own))


def _stream(
    run: Run, backend: Backend, group: list[journal.Shard], targets: np.ndarray, bar: tqdm
) -> Iterator[tuple[journal.Shard, np.ndarray, np.ndarray, float]]:
    """Every shard of a group as it is done: logits, spans of its batches in ms as in timing.TIMINGS, and wall seconds.

    Reading and normalising happen in threads while the backend works; `wait` is how long the backend was kept waiting for
    a batch, `inference` how long this thread was held by the backend, `interface` the call alone. The wall holds what the
    caller did with the shard before.
    """
    waits_ms: list[float] = []
    failed: list[Exception] = []
    done = right = 0
    start = before = time.perf_counter_ns()
    source = batches.batches(run, run.size, backend.dtype, group[0].first, group[-1].stop)
    with contextlib.closing(source), contextlib.closing(backend.stream(prefetch.timed(source, waits_ms, failed))) as answers:
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
