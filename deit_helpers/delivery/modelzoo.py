"""The README that Ascend's ModelZoo expects of a ported model, in Chinese or English, with this run's commands and figures.

The sections are those of its inference guides; the texts lie in `templates/`. What was not measured is said, not filled in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import files
from ..run.folder import Run


def modelzoo(run: Run, output: Path, language: str) -> None:
    """Write the README in a language of `templates/`: `en`, `zh`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # inside a table of Markdown neither a pipe nor a line break may stand, nor a tag
    environment.filters["cell"] = lambda value: " ".join(str(value).split()).replace("|", r"\|").replace("<", "&lt;")
    files.write_text(output, environment.get_template(f"modelzoo_{language}.md.j2").render(_facts(run)))


def _facts(run: Run) -> dict[str, Any]:
    """What a template shows; None or an empty list where a step was not run."""
    sizes = [_of_size(at) for at in run.at_each()]
    timed: dict[str, Any] = next((row["perf"] for row in sizes if row["perf"]), {})
    scored: dict[str, Any] = next((row["accuracy"] for row in sizes if row["accuracy"]), {})
    manifest = files.read_json(run.folder / "manifest.json")
    names = ("torch", "timm", "onnx", "onnxruntime", "onnxsim", "numpy", "pillow")
    return {
        "spec": run.spec,
        "folder": run.spec.run,
        "recipe": run.spec.recipe.describe(),
        "export": files.read_json(run.file("export")),
        "images": scored.get("images"),
        "expected": scored.get("expected"),
        "reference": scored.get("reference"),
        "runtime": timed.get("runtime", {}),
        "machine": timed.get("machine", {}),
        "packages": {name: version for name, version in manifest.get("packages", {}).items() if name in names},
        "demo": "demo" in (run.spec.checkpoint, run.spec.images),
        "ascend": run.spec.backend_row.device_model == "om",
        "emulated": any(row["emulated"] for row in sizes),
        "sizes": sizes,
    }


def _of_size(run: Run) -> dict[str, Any]:
    contents = {name: files.read_json(run.file(name)) for name in ("accuracy", "perf", "convert", "infer")}
    runtime = contents["infer"].get("runtime", {})
    emulated = bool(contents["convert"].get("emulated") or contents["infer"].get("emulated") or runtime.get("emulated"))
    return {"batch_size": run.batch_size, "emulated": emulated, **contents}
