"""What the vendor's tools wrote, here or elsewhere -> the files of 05: `logits.npy`, `latency.csv`, `infer.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import accuracy, artifacts, images, timing
from ..artifacts import Run
from ..errors import ArtifactError
from ..labels import read_index
from ..machine import machine
from . import ais_bench, benchmark, dumps

_UNKNOWN: dict[str, Any] = {"images": None, "e2e_images_per_s": None, "e2e_efficiency": None}


def write_logits(run: Run, folder: Path, stems: list[str] | None = None) -> None:
    """Write `logits.npy` from one dump per image of the run.

    Args:
        stems: the names under which the tool got the images, where they are not the images' own.

    Raises:
        ArtifactError: the dumps do not fit the images or their labels.
    """
    names, targets = read_index(run)
    logits = dumps.read(folder, stems or names)
    accuracy.check_labels(names, targets, logits.shape[1])
    with artifacts.atomic(run.file("logits")) as temporary, temporary.open("wb") as file:
        images.write_npy_header(file, "<f4", logits.shape)
        file.write(logits.tobytes())


def write_performance(run: Run, source: Path, runtime: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Write `infer.json` and `latency.csv` from a performance file, pure-inference file, recipe's text (.md) or summary.

    Args:
        runtime: version, device and precision of what was measured; the tool's name is added.
        more: further facts for `infer.json`.

    Returns:
        The content of `infer.json`.

    Raises:
        ArtifactError: the file cannot be read, lacks a line or key, or was measured at another batch size.
    """
    samples: list[float] = []
    facts: dict[str, Any] = dict(_UNKNOWN)
    tool, mean_ms = "benchmark", None
    if source.suffix == ".json":
        summary = ais_bench.read_summary(source)
        if summary.batch_size != run.size:
            raise ArtifactError(f"{source}: measured at batch size {summary.batch_size}, imported as {run.size}: correct -b")
        samples, rate, tool = summary.batch_ms, summary.images_per_s, "ais_bench"
    elif "ave_throughputRate" in (text := _text(source)):
        rate, image_ms = benchmark.read_pure(text, str(source))
        mean_ms = image_ms * run.size
    else:
        found = _performance(run, text, source, facts)
        rate, mean_ms = found.interface_per_s, 1000 * run.size / found.interface_per_s
        per_image = {name: value * (run.size if name == "postprocess" else 1) for name, value in found.rates.items()}
        facts["stages"] = [{"name": n, "images_per_s": r, "seconds": found.images / r} for n, r in per_image.items()]
        facts |= {"images": found.images, "e2e_images_per_s": found.rates["e2e"], "e2e_efficiency": found.e2e_efficiency}
    inference_s = sum(samples) / 1000 or None
    facts.setdefault("stages", [{"name": "inference", "images_per_s": rate, "seconds": inference_s}])
    timing.write_latency(run, [{"batch": i, "images": run.size, "interface": ms} for i, ms in enumerate(samples)])
    facts |= {
        "batch_size": run.size,
        "machine": machine(),
        "latency_ms": {**timing.latency_ms(samples), **({} if samples else {"mean": mean_ms})},
        "padded_rows": None,
        "batches": len(samples),
        "warmup_batches": None,
        "warmup_ms": None,
        "interface_images_per_s": rate,
        "interface_batches": len(samples),
        "runtime": {"backend": tool, **runtime},
        **more,
    }
    if devices := facts.get("devices"):
        facts["card_images_per_s"] = rate * devices
    artifacts.write_json(run.file("infer"), facts)
    return facts


def _performance(run: Run, text: str, source: Path, facts: dict[str, Any]) -> benchmark.Performance:
    """The performance lines of this batch size; those of a recipe come with the accuracies it quotes."""
    if source.suffix != ".md":
        artifacts.write_text(run.file("perf_vision"), text)
        return benchmark.read_perf(text, str(source))
    recipe = benchmark.read_recipe(text, str(source))
    if run.size not in recipe.performance:
        sizes = ", ".join(map(str, recipe.performance)) or "none"
        raise ArtifactError(f"{source}: prints performance of batch sizes {sizes}, not {run.size}: correct -b")
    facts["quoted_accuracy"] = recipe.accuracies
    return recipe.performance[run.size]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as err:
        raise ArtifactError(f"{path}: cannot be read ({err.strerror}): name a perf_vision_…txt or a *_summary.json") from err
