"""`manifest.json`: what a run was made of, by whom (machine, packages, commit), and the hash of every file."""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from typing import Any

from ..ascend import npu_smi
from ..errors import ToolError
from ..files import write_json
from . import predecessor, records
from .folder import Run
from .host import git_commit, machine, version_of
from .lineage import NOTEBOOK_OF, STAGES

_OF_STAGES = [name for stage in STAGES.values() for name in stage.packages if name != "backend"]
PACKAGES = list(dict.fromkeys(["deit-report", *_OF_STAGES, "torchvision", "papermill", "nbconvert"]))


def write_manifest(run: Run) -> dict[str, Any]:
    """Collect the records of all stages into `manifest.json` and return it."""
    files = {}
    for stage, at in all_stages(run):
        record = records.read_record(at, stage)
        for path, facts in record.get("outputs", {}).items():
            made = {key: record[key] for key in ("seconds", "inputs", "packages", "git_commit")}
            files[path] = {"sha256": facts["sha256"], "bytes": facts["bytes"], **made, "machine": record["machine"]["cpu"]}
    report = None
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
        "summary": predecessor.keep(run),
    }
    write_json(run.folder / "manifest.json", manifest)
    return manifest


def all_stages(run: Run) -> list[tuple[str, Run]]:
    """Every stage that a run asks for, in order, with the run opened at the batch size it belongs to."""
    once = run.at(run.spec.batch_sizes[0])
    asked = {stage: row for stage, row in STAGES.items() if run.asks_for(NOTEBOOK_OF[stage])}
    return [(stage, at) for stage, row in asked.items() for at in (run.at_each() if row.per_batch else [once])]
