"""What the vendor's tools wrote, here or elsewhere -> the files of 05: `logits.npy`, `latency.csv`, facts of `infer.json`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import files
from ..ascend import ais_bench, benchmark, dumps
from ..data import sources
from ..errors import ArtifactError
from ..metrics import latency
from ..run.folder import Run

_UNKNOWN: dict[str, Any] = {"images": None, "e2e_images_per_s": None, "e2e_efficiency": None}


def write_logits(run: Run, folder: Path, stems: list[str] | None = None) -> None:
    """Write `logits.npy` from one dump per image of the run; an ArtifactError says what does not fit.

    `stems` are the names under which the tool got the images, where they are not the images' own.
    """
    names, targets = sources.read_index(run)
    logits = dumps.read(folder, stems or names)
    classes = files.read_json(run.file("export")).get("classes", logits.shape[1])
    if logits.shape[1] != classes:
        hint = "let the tool write float32 or text, and name the folder of this model"
        raise ArtifactError(f"{folder}: dumps of {logits.shape[1]} values, the model has {classes} classes: {hint}")
    sources.check_labels(run, names, targets, logits.shape[1])
    with files.atomic(run.file("logits")) as temporary, temporary.open("wb") as file:
        np.save(file, logits)


class ToolResult(NamedTuple):
    """What a file says: the tool, images per second of the call alone, ms of its batches, and facts for `infer.json`."""

    tool: str
    images_per_s: float
    batch_ms: list[float]
    facts: dict[str, Any]
    text: str | None = None  # of a performance file, which is kept


def read_performance(run: Run, source: Path) -> ToolResult:
    """Read a performance file, a pure-inference file, a recipe's text (.md) or a summary. Writes nothing.

    Raises:
        ArtifactError: the file cannot be read, lacks a line or key, or was measured at another batch size.
    """
    named = re.search(r"(?<![a-z])(?:batch_?size|batch|bs)_?(\d+)", source.name)
    if named and int(named[1]) != run.size:
        raise ArtifactError(f"{source}: its name says batch size {named[1]}, imported as {run.size}: correct -b")
    if source.suffix.lower() == ".json":
        summary = ais_bench.read_summary(source)
        if summary.batch_size != run.size:
            raise ArtifactError(f"{source}: measured at batch size {summary.batch_size}, imported as {run.size}: correct -b")
        mean = {} if summary.batch_ms else {"latency_ms": _mean_alone(summary.mean_ms)}
        facts = {**_UNKNOWN, **mean, "in_flight": [summary.in_flight]}
        return ToolResult("ais_bench", summary.images_per_s, summary.batch_ms, facts)
    try:
        text = source.read_text(encoding="utf-8-sig", errors="replace")
    except (OSError, ValueError) as err:
        raise ArtifactError(f"{source}: cannot be read ({err}): name a perf_vision_…txt or a *_summary.json") from err
    if source.suffix.lower() == ".md":
        blocks, accuracies = benchmark.read_recipe(text, str(source))
        if run.size not in blocks:
            sizes = ", ".join(map(str, blocks)) or "none"
            raise ArtifactError(f"{source}: prints performance of batch sizes {sizes}, not {run.size}: correct -b")
        return _result(run.size, blocks[run.size], {"quoted_accuracy": accuracies})
    if "ave_throughputRate" in text:
        rate, image_ms = benchmark.read_pure(text, str(source))
        return ToolResult("benchmark", rate, [], {**_UNKNOWN, "latency_ms": _mean_alone(image_ms * run.size)})
    return _result(run.size, benchmark.read_perf(text, str(source)), {}, text)


def _result(size: int, performance: benchmark.Performance, facts: dict[str, Any], text: str | None = None) -> ToolResult:
    """The result that the benchmark tool's performance lines give, with further facts."""
    per_s = {name: rate * (size if name == "postprocess" else 1) for name, rate in performance.rates.items()}
    images = round(performance.rates["e2e"] * performance.e2e_ms / 1000)
    facts |= {
        "stages": [{"name": name, "images_per_s": rate, "seconds": images / rate} for name, rate in per_s.items()],
        "images": images,
        "e2e_images_per_s": performance.rates["e2e"],
        "e2e_efficiency": performance.rates["e2e"] / performance.interface_per_s,
        "latency_ms": _mean_alone(1000 * size / performance.interface_per_s),
    }
    return ToolResult("benchmark", performance.interface_per_s, [], facts, text)


def _mean_alone(mean_ms: float) -> dict[str, Any]:
    return {**latency.latency_ms([]), "mean": mean_ms}


def write_performance(run: Run, result: ToolResult, runtime: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """Write `latency.csv` and the performance file; returns the content of `infer.json`, which the caller writes.

    `runtime` is version, device and precision of what was measured; the tool's name is added, and further `facts`.
    """
    rate, samples = result.images_per_s, result.batch_ms
    if result.text is not None:
        files.write_text(run.file("perf_vision"), result.text)
    latency.write_latency(run.file("latency"), [run.size] * len(samples), {"interface": samples, "latency": samples})
    return {
        "batch_size": run.size,
        "latency_ms": latency.latency_ms(samples),
        "stages": [{"name": "inference", "images_per_s": rate, "seconds": sum(samples) / 1000 or None}],
        "padded_rows": None,
        "batches": len(samples),
        "warmup_batches": None,
        "warmup_ms": None,
        "interface_images_per_s": rate,
        "interface_batches": len(samples),
        "runtime": {**runtime, "backend": result.tool},
        "machine": None,
        **result.facts,
        **facts,
    }
