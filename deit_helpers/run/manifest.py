"""`manifest.json`: what a run was made of, by whom (machine, packages, commit), the hash of every file, and its figures.

The figures of the time before they were measured or scored again stay in `meta/predecessor.json`, one generation back.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from typing import Any

from ..ascend import npu_smi
from ..errors import ToolError
from ..files import read_json, write_json
from . import records
from .folder import Run
from .host import git_commit, machine, version_of
from .lineage import NOTEBOOK_OF, STAGES

PREDECESSOR = "meta/predecessor.json"
_OF_STAGES = [name for stage in STAGES.values() for name in stage.packages if name != "backend"]
PACKAGES = list(dict.fromkeys(["deit-report", *_OF_STAGES, "torchvision", "papermill", "nbconvert"]))
Summary = dict[str, Any]


def write_manifest(run: Run) -> dict[str, Any]:
    """Collect the records of all stages into `manifest.json` and return it."""
    now = _summary(run)
    if before := _before(run, now):
        write_json(run.folder / PREDECESSOR, before)
    files, report = dict[str, Any](), None
    for stage, at in all_stages(run):
        files |= artifacts(records.read_record(at, stage))
    with contextlib.suppress(ToolError):  # a tool that fails says nothing of driver and chips
        report = npu_smi.info()
    manifest = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "spec": run.spec.model_dump(mode="json"),
        "machine": machine(),
        "npu": {"driver": report.driver, "chips": [chip._asdict() for chip in report.chips]} if report else None,
        "packages": {name: version for name in PACKAGES if (version := version_of(name))},
        "artifacts": files,
        "summary": now or _last(run),
    }
    write_json(run.folder / "manifest.json", manifest)
    return manifest


def artifacts(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the manifest says of the files of a stage's record, by their path."""
    rows = {}
    for path, facts in record.get("outputs", {}).items():
        made = {key: record[key] for key in ("seconds", "inputs", "packages", "git_commit")}
        rows[path] = {"sha256": facts["sha256"], "bytes": facts["bytes"], **made, "machine": record["machine"]["cpu"]}
    return rows


def all_stages(run: Run) -> list[tuple[str, Run]]:
    """Every stage that a run asks for, in order, with the run opened at the batch size it belongs to."""
    once = run.at(run.spec.batch_sizes[0])
    asked = {stage: row for stage, row in STAGES.items() if run.asks_for(NOTEBOOK_OF[stage])}
    return [(stage, at) for stage, row in asked.items() for at in (run.at_each() if row.per_batch else [once])]


def change_since(run: Run) -> str:
    """How the fastest batch size did against the time before, in words and without a test; empty where there was none."""
    now = _summary(run)
    then = _before(run, now)
    if not now or not then or not (both := now["batch_sizes"].keys() & then["batch_sizes"].keys()):
        return ""
    size = max(both, key=lambda size: now["batch_sizes"][size]["images_per_s"])
    rows = [side["batch_sizes"][size] for side in (then, now)]
    (before, top1_before), (rate, top1) = ((row["images_per_s"], row["top1_percent"]) for row in rows)
    moved = "" if then["where"] == now["where"] else f", then {then['where']}"
    day = datetime.fromisoformat(then["created"])
    speed = f"{100 * (rate / before - 1):+.1f} % images/s"
    return f"bs{size}: {speed}, {top1 - top1_before:+.2f} points Acc@1 since {day.day} {day:%b %Y}{moved}"


def _summary(run: Run) -> Summary | None:
    """Acc@1 and images/s of every batch size, when, with which commit and where measured; None while one is missing."""
    if any(records.problem(at, "score", strict=False) for at in run.at_each()):
        return None
    figures = {str(at.size): (at.read("accuracy")["top1_percent"], at.read("infer")) for at in run.at_each()}
    sizes = {n: {"top1_percent": top1, "images_per_s": of["interface_images_per_s"]} for n, (top1, of) in figures.items()}
    record = records.read_record(run.at_each()[-1], "infer")
    where = f"{run.spec.backend} {run.spec.precision_text} on {record['machine']['cpu']}"
    return {**{key: record[key] for key in ("created", "git_commit")}, "where": where, "batch_sizes": sizes}


def _last(run: Run) -> Summary | None:
    return read_json(run.folder / "manifest.json").get("summary")


def _before(run: Run, now: Summary | None) -> Summary | None:
    """The last summary, if a figure of both is not the same, else what was kept before it; a new batch size changes none."""
    last, sizes = _last(run), (now or {}).get("batch_sizes", {})
    changed = last and any(last["batch_sizes"].get(size, row) != row for size, row in sizes.items())
    return last if changed else read_json(run.folder / PREDECESSOR) or None
