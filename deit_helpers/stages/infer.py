"""05_infer: the images of the run through the device model -> logits, a latency per batch, the stage table.

Nothing is scored here except the running figure of the progress bar. Results come in shards of a fixed number of images,
each complete or absent: an interrupted run goes on where it was, and shards may be made on several machines.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .. import files
from ..ascend import benchmark, dumps
from ..data import batches, sources
from ..errors import ArtifactError
from ..executors import vendor
from ..executors.local import run_shards
from ..metrics import latency
from ..run import journal
from ..run.folder import Run
from ..run.journal import Shard
from ..run.records import makes


def infer(run: Run) -> dict[str, Any]:
    """Stage 05: run every image through the device model of this batch size; returns the content of `infer.json`.

    Raises:
        BackendError: the model has another batch size than the run, or its output is impossible.
        ArtifactError: `shards` of the spec leaves some out, and they are not there.
    """
    facts = _infer(run)
    journal.discard(run)  # only now: everything is written and recorded
    return facts


@makes("infer")
def _infer(run: Run) -> dict[str, Any]:
    if run.spec.backend_row.is_program:
        return vendor.infer(run)
    names, labels = sources.read_index(run)
    shards, key = journal.shards(run, len(labels)), journal.key(run)
    _make_missing(run, names, labels, shards, key)
    timings, facts = _assemble(run, shards, key)
    if run.spec.bins:
        folder = run.file("logits").parent / f"dumpOutput_device{run.spec.device}"
        dumps.write(folder, names, np.load(run.file("logits"), mmap_mode="r"))
    return _write_rates(run, timings, facts) | {
        "shards": [
            {"first": shard.first, "stop": shard.stop, "seconds": row["wall_s"], "cpu": row["machine"]["cpu"]}
            for shard, row in zip(shards, facts, strict=True)
        ],
        "runtime": facts[-1]["runtime"],
        "machine": facts[-1]["machine"],
    }


def _make_missing(run: Run, names: list[str], labels: np.ndarray, shards: list[Shard], key: str) -> None:
    """Make the shards that are not here, of those that the spec asks for; the others must be here, else an ArtifactError."""
    first, last = run.spec.shards or (0, len(shards) - 1)
    absent = [shard for shard in shards if journal.read(shard, key) is None]
    if unusable := [shard.path.name for shard in absent if shard.path.exists()]:
        text = f"{', '.join(unusable)}: damaged, or of another model, data set, spec or code; not used"
        print(text, file=sys.stderr)  # on the page
    missing = [shard for shard in absent if shard in shards[first : last + 1]]
    if missing:
        run_shards(run, names, labels, missing, key)
    # Others may have been copied here meanwhile.
    if left := [shard.path.name for shard in absent if shard not in missing and journal.read(shard, key) is None]:
        present = f"{len(shards) - len(left)} of {len(shards)} shards are in {shards[0].path.parent}"
        raise ArtifactError(f"{present}: make the others, such as {left[0]}, elsewhere and copy them here, or set shards: null")


def _assemble(run: Run, shards: list[Shard], key: str) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Write `logits.npy` from the shards in order, unless different runtimes or hardware made them.

    Returns the timings of all batches in ms, a column for each of `latency.TIMINGS`, and the facts of every shard.
    """
    timings, facts = list[np.ndarray](), list[dict[str, Any]]()
    with files.atomic(run.file("logits")) as temporary, temporary.open("wb") as file:
        for shard in shards:
            content = journal.read(shard, key)
            assert content is not None, "checked before"
            logits, timings_ms, made = content
            if not timings:
                file.write(batches.npy_header("<f4", (shards[-1].stop, logits.shape[1])))
            file.write(logits.tobytes())
            timings.append(timings_ms)
            facts.append(made)
            ours, theirs = (journal.made_by(row) for row in (facts[0], facts[-1]))
            if ours != theirs:
                hint = "delete the file, or make all on alike devices"
                raise ArtifactError(f"{shard.path}: made by {theirs}, the first by {ours}: {hint}")
    return np.concatenate(timings), facts


def _write_rates(run: Run, timings: np.ndarray, facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Write `latency.csv` and the performance file, and return what `infer.json` says of the rates."""
    count, batch_count = run.read("preprocess")["images"], len(timings)
    columns = dict(zip(latency.TIMINGS, timings.T, strict=True))  # ms per batch
    sizes = np.full(batch_count, run.size)
    sizes[-1] -= batch_count * run.size - count
    wall_s = sum(row["wall_s"] for row in facts)
    seconds = {name: float(ms.sum()) / 1000 for name, ms in columns.items()} | {"e2e": wall_s}
    spent = {name: seconds["read" if name == "data read" else name] for name in benchmark.ROWS}
    stages = [{"name": name, "images_per_s": count / s, "seconds": s} for name, s in spent.items()]
    # The rate of the call alone is taken over full batches: padded rows are work, but not images.
    full = sizes == run.size if batch_count > 1 else sizes > 0
    interface_per_s = float(sizes[full].sum() / columns["interface"][full].sum() * 1000)
    latency.write_latency(run.file("latency"), sizes, columns)
    files.write_text(run.file("perf_vision"), benchmark.perf_vision(stages, interface_per_s, count, run.size))
    warmup_ms = facts[-1]["warmup_ms"]
    calls_ms = latency.together(columns["interface"][full], facts[-1]["in_flight"])  # as 07 times them
    counted_s = sum(row["wall_s"] for row in facts if row["other_cpu_percent"] is not None)
    other = sum((row["other_cpu_percent"] or 0.0) * row["wall_s"] for row in facts) / counted_s if counted_s else None
    return {
        "batch_size": run.batch_size,
        "images": count,
        "padded_rows": batch_count * run.size - count,
        "batches": batch_count,
        "load_s": facts[-1]["load_s"],
        "warmup_batches": len(warmup_ms),
        "warmup_ms": warmup_ms,
        "interface_images_per_s": interface_per_s,
        # a device that works while batches are copied shows its own time only in the warm-up
        "interface_batches": len(warmup_ms) if run.spec.execution == "async" else int(full.sum()),
        "e2e_images_per_s": count / wall_s,
        "e2e_efficiency": count / wall_s / interface_per_s,
        # Not faster than the device: where several batches are in flight it works while this thread waits.
        "images_per_s_without_waiting": count / max(wall_s - seconds["wait"], seconds["interface"]),
        "peak_memory_mib": max((row["peak_memory_mib"] for row in facts if row["peak_memory_mib"]), default=None),
        "latency_ms": latency.latency_ms(columns["latency"]),
        "in_flight": sorted({row["in_flight"] for row in facts}),  # alike machines may differ in what is fastest
        "stages": stages,
        **latency.trust(other, facts[-1]["interrupted_percent"], latency.blocks_percent(calls_ms)),
    }
