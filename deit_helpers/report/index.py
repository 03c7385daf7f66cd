"""What the report shows of its own, besides tables of the other pages: the run, its pages, files and provenance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import one_line
from ..files import read_json
from ..run import records
from ..run.folder import Run, html_path
from ..run.lineage import NOTEBOOKS
from ..run.manifest import change_since
from .elements import Banner, Cell, Facts, Links, Stack, Table
from .words import notes_and_trust as notes


def shown(run: Run, stage: str, draw: Callable[[Run], Any]) -> Any:
    """What `draw` makes of the run, or a note that says which notebook must run first."""
    why = records.problem(run, stage, strict=False)
    return Banner("missing", "Not here yet.", f"{stage}: {why}; {records.how_to_make(run, stage)}") if why else draw(run)


def summary(run: Run) -> Facts:
    """What was asked for."""
    spec = run.spec
    return Facts(
        f"Run {spec.run}",
        {
            "model": spec.model,
            "checkpoint": spec.checkpoint,
            "images": f"{spec.images}, recipe {spec.recipe.describe()}",
            "backend": f"{spec.backend} {spec.precision}, batch sizes {', '.join(map(str, spec.batch_sizes))}",
        },
    )


def provenance(manifest: dict[str, Any]) -> Facts:
    """Where and with what the files of a manifest were made."""
    machine, npu = manifest["machine"], manifest["npu"] or {"chips": []}
    chips = ", ".join(f"{chip['name']} ({chip['health']}, {chip['memory_total_mb']} MB)" for chip in npu["chips"])
    measured = sorted({row["machine"] for path, row in manifest["artifacts"].items() if path.endswith("infer.json")})
    return Facts(
        "Where and with what this run was made",
        {
            "created": manifest["created"],
            "git commit": manifest["git_commit"] or "unknown",
            "measured on": ", ".join(measured) or "nothing measured yet",
            "page made on": f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}",
            **({"chips here": f"{chips}, driver {npu['driver']}"} if chips else {}),
            "packages": ", ".join(f"{name} {version}" for name, version in manifest["packages"].items()),
        },
    )


def files(manifest: dict[str, Any]) -> Table:
    """Every file of a manifest, what it was made from and its hash."""
    rows: list[list[Cell]] = [
        [path, row["bytes"], row["seconds"], row["sha256"][:16], ", ".join(row["inputs"]) or None]
        for path, row in manifest["artifacts"].items()
    ]
    header = "file | bytes:, | made in s:.1f | sha256, first 16 | made from"
    return Table("Files of this run; manifest.json has the full hashes", header, rows, folded=True)


def pages(run: Run) -> Links:
    """Links to every published page, by step."""
    groups = {
        name.replace("_", " "): {f"batch size {size}" if size else "page": run.link(path) for size, path in paths.items()}
        for name, paths in run.published().items()
    }
    return Links(groups)


def state(run: Run) -> Stack:
    """What must be said before anything else: the steps that stopped with an error, then the notes of every page."""
    stopped = []
    for notebook in filter(run.asks_for, NOTEBOOKS):
        for at in run.at_each(NOTEBOOKS[notebook].per_batch):
            if error := read_json(at.page_record(notebook)).get("stopped"):
                step, _, text = error.partition(": ")
                stopped.append(Banner("fail", f"Stopped at {step}:", text, run.link(html_path(at.page(notebook)))))
    return Stack([*stopped, *notes(run).items])


def since(run: Run) -> Stack:
    """How the figures stand to the time before, and the comparisons that were made; nothing where there are none."""
    said = change_since(run)
    text = f"{said}; `deit-report compare` tests such a difference."
    banners = [Banner("note", "Since the time before.", text)] if said else []
    for path in sorted(run.folder.glob("compare/*/compare.json")):
        if facts := read_json(path):
            against = one_line(f"Against {facts['base']['folder']}:")
            banners.append(Banner(facts["verdict"], against, f"{facts['verdict']}.", run.link(path.with_suffix(".html"))))
    return Stack(banners)
