"""`deit-report import`: what a vendor's tool measured elsewhere becomes the files of 05 and 07, marked as imported.

Nothing is run: logits come from dumps, rates from the performance file or summary, operators from a profile.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from . import artifacts, freshness, images, infer, perf
from .artifacts import Run
from .ascend import ais_bench, benchmark, dumps, msprof
from .errors import ArtifactError
from .labels import read_index
from .machine import machine
from .profile import OperatorProfile


def import_dumps(run: Run, folder: Path) -> Path:
    """Bring in the logits of every image of the run, one dump per image.

    Raises:
        ArtifactError: 04 was not run, or the dumps do not fit its images.
    """
    freshness.require(run, "index")
    names, _ = read_index(run)
    logits = dumps.read(folder, names)
    with artifacts.atomic(run.file("logits")) as temporary, temporary.open("wb") as file:
        images.write_npy_header(file, "<f4", logits.shape)
        file.write(logits.tobytes())
    return run.file("logits")


def import_performance(run: Run, source: Path, devices: int, device: str) -> dict[str, Any]:
    """Bring in a performance file, the text of a recipe (.md), or an ais_bench summary; returns the content of `infer.json`.

    Args:
        devices: how many devices the card has; the tool's rates are of one. An Atlas 300I (310) has 4, a 310P card 1.
        device: what was measured, in words.
    """
    empty = {"mean": None, "p50": None, "p90": None, "p99": None, "n": 0}
    facts: dict[str, Any] = {"batch_size": run.size, "imported_from": source.name, "machine": machine()}
    if source.suffix == ".json":
        summary = ais_bench.read_summary(source)
        if summary.batch_size != run.size:
            raise ArtifactError(f"{source}: measured at batch size {summary.batch_size}, imported as {run.size}: correct -b")
        samples, rate, tool = summary.batch_ms, summary.images_per_s, "ais_bench"
        facts |= {"images": None, "e2e_images_per_s": None, "e2e_efficiency": None, "stages": []}
        facts["latency_ms"] = infer.latency_ms(np.array(samples))
    else:
        recipe = benchmark.read_recipe(_text(source), str(source)) if source.suffix == ".md" else None
        if recipe and run.size not in recipe.performance:
            sizes = ", ".join(map(str, recipe.performance)) or "none"
            raise ArtifactError(f"{source}: prints performance of batch sizes {sizes}, not {run.size}: correct -b")
        found = recipe.performance[run.size] if recipe else benchmark.read_perf(_text(source), str(source))
        facts["quoted_accuracy"] = recipe.accuracies if recipe else []
        samples, rate, tool = [], found.interface_per_s, "benchmark"
        per_image = {name: value * (run.size if name == "postprocess" else 1) for name, value in found.rates.items()}
        stages = [{"name": n, "images_per_s": r, "seconds": found.images / r} for n, r in per_image.items()]
        facts |= {"images": found.images, "e2e_images_per_s": found.rates["e2e"], "e2e_efficiency": found.e2e_efficiency}
        facts |= {"stages": stages, "latency_ms": {**empty, "mean": 1000 * run.size / rate}}
        if not recipe:
            artifacts.write_text(run.file("perf_vision"), _text(source))
    with artifacts.atomic(run.file("latency")) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["batch", "images", *(f"{span}_ms" for span in infer.SPANS)])
        writer.writerows([i, run.size, "", "", "", f"{ms:.6f}", ""] for i, ms in enumerate(samples))
    facts |= {
        "padded_rows": None,
        "batches": len(samples),
        "warmup_batches": 0,
        "warmup_ms": [],
        "interface_images_per_s": rate,
        "interface_batches": len(samples),
        "devices": devices,
        "card_images_per_s": rate * devices,
        "runtime": {"backend": tool, "version": "imported", "device": device, "precision": "precision not stated"},
    }
    artifacts.write_json(run.file("infer"), facts)
    return facts


def import_profile(run: Run, facts: dict[str, Any], folder: Path | None) -> None:
    """Bring in an msprof folder, and write `perf.json` from it and from `infer.json`."""
    found: OperatorProfile | str = "no profile was imported"
    if folder is not None:
        found = OperatorProfile(msprof.read(folder), 1, None)
    graph = run.file("static_onnx")
    flops = perf.flops_per_batch(onnx.load(graph)) / run.size if graph.exists() else None
    peak = run.spec.peak_tflops * 1e12 if run.spec.peak_tflops else None
    rate = facts["interface_images_per_s"]
    runtime = facts["runtime"]
    artifacts.write_json(
        run.file("perf"),
        {
            **{
                key: facts[key]
                for key in ("batch_size", "images", "e2e_images_per_s", "e2e_efficiency", "latency_ms", "stages")
            },
            **{key: runtime[key] for key in ("backend", "device", "precision")},
            "runtime": runtime,
            "machine": facts["machine"],
            "imported_from": facts["imported_from"],
            "images_per_s": rate,
            **perf.write_profile(run, found),
            "flops_per_image": flops,
            "peak_flops_per_s": peak,
            "peak_source": "peak_tflops of the spec" if peak else None,
            "utilisation_percent": 100 * rate * flops / peak if peak and flops else None,
        },
    )


def adopt(run: Run, sources: list[str]) -> None:
    """Record the imported files, so that later stages take them as they are."""
    for stage in ("infer", "perf"):
        freshness.adopt(run, stage, sources)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as err:
        raise ArtifactError(f"{path}: cannot be read ({err.strerror}): name a perf_vision_…txt or a *_summary.json") from err
