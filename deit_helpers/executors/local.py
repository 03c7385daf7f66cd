"""Shards of 05 in this process: reading, normalising and the model overlap."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from ..backends import Pool
from ..backends.bench import open_model
from ..data import batches, prefetch, sources
from ..errors import BackendError
from ..run import host, journal
from ..run.folder import Run


def run_shards(run: Run, names: list[str], targets: np.ndarray, missing: list[journal.Shard], key: str) -> None:
    """Make shards of a run, one file each as it is done.

    Args:
        targets: labels (N,) of all images of the run, for the running accuracy of the progress bar.
        key: what the shards depend on, see `journal.key`.

    Raises:
        BackendError: the model cannot be loaded, has another batch size, or fails on a batch.
        ArtifactError: an image is damaged, or images are gone since 04.
    """
    start = time.perf_counter()
    with open_model(run) as model, batches.progress(len(targets)) as bar:
        load_s = time.perf_counter() - start - model.tuning_s
        if model.batch_size not in (None, run.batch_size):
            made_for = f"{model.path}: made for batches of {model.batch_size}"
            raise BackendError(f"{made_for}, this run has batch_size {run.batch_size}: run notebooks/02_optimize.ipynb again")
        sources.check_labels(run, names, targets, model.classes)
        first = missing[0].first
        (batch,) = batches.batches(run, run.size, model.dtype, first, first + run.size)
        facts = {
            "load_s": load_s,
            "in_flight": model.in_flight,
            "interrupted_percent": host.interrupted_percent(),
            "warmup_ms": model.warm_up(batch),
            "runtime": model.describe(),
            "machine": host.machine(),
        }
        bar.update(len(targets) - sum(shard.stop - shard.first for shard in missing))
        for group in journal.consecutive(missing):
            others = host.Others()
            for shard, logits, timings_ms, wall_s in _predicted(run, model, group, targets, bar):
                of_shard = {"key": key, "wall_s": wall_s, "peak_memory_mib": host.peak_memory_mib()}
                of_shard["other_cpu_percent"], _ = others.percent()
                journal.write(shard, logits, timings_ms, facts | of_shard)


def _predicted(
    run: Run, model: Pool, group: list[journal.Shard], targets: np.ndarray, bar: tqdm
) -> Iterator[tuple[journal.Shard, np.ndarray, np.ndarray, float]]:
    """The shards of a group as they are done: logits, ms of their batches as in latency.TIMINGS, and wall seconds.

    Reading and normalising happen in threads while the model works; `wait` is how long the model was kept waiting for a
    batch, `inference` how long this thread was held by the model, `interface` the call alone. The wall holds what the caller
    did with the shard before.
    """
    right = count = 0
    waited_ms = 0.0
    shard_start_ns = start_ns = time.perf_counter_ns()
    source = batches.batches(run, run.size, model.dtype, group[0].first, group[-1].stop)
    timed = prefetch.Timed(source)
    with contextlib.closing(source), contextlib.closing(model.predictions(timed)) as predictions:
        for shard in group:
            logits, timings_ms = np.empty((shard.stop - shard.first, model.classes), np.float32), []
            for prediction in itertools.islice(predictions, -(-len(logits) // run.size)):
                taken_ns, batch = time.perf_counter_ns(), prediction.batch
                valid = prediction.logits[batch.valid]
                stop = batch.start + len(valid)
                logits[batch.start - shard.first : stop - shard.first] = valid
                right, count = right + int(np.sum(valid.argmax(axis=1) == targets[batch.start : stop])), count + len(valid)
                bar.set_postfix_str(f"Acc@1 {100 * right / count:.1f} % so far", refresh=False)
                bar.update(len(valid))
                end_ns = time.perf_counter_ns()
                wait_ms, waited_ms = timed.waited_ms - waited_ms, timed.waited_ms
                inference_ms, postprocess_ms = (taken_ns - start_ns) / 1e6 - wait_ms, (end_ns - taken_ns) / 1e6
                model_ms = inference_ms, prediction.interface_ms, prediction.latency_ms
                timings_ms.append((batch.read_ms, batch.prepare_ms, wait_ms, *model_ms, postprocess_ms))
                start_ns = end_ns
            yield shard, logits, np.array(timings_ms), (end_ns - shard_start_ns) / 1e9
            shard_start_ns, start_ns = end_ns, time.perf_counter_ns()
