"""05_infer: the images of the run through the device model -> logits, a latency per batch, the stage table.

Nothing is scored here except the running figure of the progress bar. Results come in shards of a fixed number of images,
each complete or absent: an interrupted run goes on where it was, and shards may be made on several machines.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import files
from ..ascend import benchmark, dumps
from ..data import batches, sources
from ..errors import ArtifactError
from ..executors import vendor
from ..executors.local import _run_shards
from ..metrics import latency
from ..run import journal, records
from ..run.folder import Run


def infer(run: Run) -> dict[str, Any]:
    """Stage 05: run every image through the device model of this batch size.

    Returns:
        The content of `infer.json`.

    Raises:
        BackendError: the model has another batch size than the run, or its output is impossible.
        ArtifactError: `shards` of the spec leaves some out, and they are not there.
    """
    records.ensure(run, "infer", lambda: _infer(run))
    return run.read("infer")


def _infer(run: Run) -> None:
    if run.spec.backend_row.is_program:
        files.write_json(run.file("infer"), vendor.infer(run))
        return
    names, targets = sources.read_index(run)
    every = journal.of(run, len(targets))
    first, last = run.spec.shards or (0, len(every) - 1)
    key = journal.key(run)
    absent = [shard for shard in every if journal.read(shard, key) is None]
    if unusable := [shard.path.name for shard in absent if shard.path.exists()]:
        print(f"{', '.join(unusable)}: damaged, or of another model, data set, spec or code; not used")
    missing = [shard for shard in absent if shard in every[first : last + 1]]
    if missing:
        _run_shards(run, names, targets, missing, key)
    # Others may have been copied here meanwhile.
    if left := [shard.path.name for shard in absent if shard not in missing and journal.read(shard, key) is None]:
        there = f"{len(every) - len(left)} of {len(every)} shards are in {every[0].path.parent}"
        raise ArtifactError(f"{there}: make the others, such as {left[0]}, elsewhere and copy them here, or set shards: null")
    _assemble(run, every, key)
    journal.discard(run)
    if run.spec.bins:
        folder = run.file("logits").parent / f"dumpOutput_device{run.spec.device}"
        dumps.write(folder, names, np.load(run.file("logits"), mmap_mode="r"))


def _assemble(run: Run, every: list[journal.Shard], key: str) -> None:
    """The shards, in order, as the files of 05."""
    spans: list[np.ndarray] = []
    facts = []
    with files.atomic(run.file("logits")) as temporary, temporary.open("wb") as file:
        for shard in every:
            found = journal.read(shard, key)
            assert found is not None, "checked before"
            if not spans:
                file.write(batches.npy_header("<f4", (every[-1].stop, found["logits"].shape[1])))
            file.write(found.pop("logits").tobytes())
            spans.append(found.pop("spans"))
            facts.append(found)
            ours, theirs = (journal.made_by(row) for row in (facts[0], found))
            if ours != theirs:
                hint = "delete the file, or make all on alike devices"
                raise ArtifactError(f"{shard.path}: made by {theirs}, the first by {ours}: {hint}")
    _write_results(run, np.concatenate(spans), facts, every)


def _write_results(run: Run, spans: np.ndarray, facts: list[dict[str, Any]], every: list[journal.Shard]) -> None:
    count, batches = every[-1].stop, len(spans)
    columns = dict(zip(latency.SPANS, spans.T, strict=True))  # ms per batch
    sizes = np.full(batches, run.size)
    sizes[-1] -= batches * run.size - count
    wall_s = sum(row["wall_s"] for row in facts)
    seconds = {name: float(ms.sum()) / 1000 for name, ms in columns.items()} | {"e2e": wall_s}
    spent = {name: seconds["read" if name == "data read" else name] for name in benchmark.STAGES}
    stages = [{"name": name, "images_per_s": count / s, "seconds": s} for name, s in spent.items()]
    # The rate of the call alone is taken over full batches: padded rows are work, but not images.
    full = sizes == run.size if batches > 1 else sizes > 0
    interface_per_s = float(sizes[full].sum() / columns["interface"][full].sum() * 1000)
    latency.write_latency(run.file("latency"), sizes, columns)
    files.write_text(run.file("perf_vision"), benchmark.perf_vision(stages, interface_per_s, count, run.size))
    latest = facts[-1]
    files.write_json(
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
            "latency_ms": latency.latency_ms(columns["latency"]),
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
