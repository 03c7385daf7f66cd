"""`manifest.json`: what a run was made of, by whom (machine, packages, commit), and the hash of every file."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from . import artifacts, freshness, stages
from .artifacts import Run
from .ascend import npu_smi
from .errors import ToolError
from .hashing import version_of
from .machine import git_commit, machine

PACKAGES = (
    "deit-report",
    "numpy",
    "pillow",
    "onnx",
    "onnxruntime",
    "onnx-ir",
    "onnxsim",
    "torch",
    "timm",
    "torchvision",
    "papermill",
    "nbconvert",
)


def write_manifest(run: Run) -> dict[str, Any]:
    """Collect the records of all stages into `manifest.json` and return it."""
    files = {}
    for stage, at in stages_of(run):
        record = freshness.read_record(at, stage)
        for path, facts in record.get("outputs", {}).items():
            files[path] = {
                "sha256": facts["sha256"],
                "bytes": facts["bytes"],
                "seconds": record["seconds"],
                "inputs": record["inputs"],
                "packages": record["packages"],
                "machine": record["machine"]["cpu"],
                "git_commit": record["git_commit"],
            }
    manifest = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "spec": run.spec.model_dump(mode="json"),
        "machine": machine(),
        "npu": _npu(),
        "packages": {name: version for name in PACKAGES if (version := version_of(name))},
        "artifacts": files,
    }
    artifacts.write_json(run.folder / "manifest.json", manifest)
    return manifest


def _npu() -> dict[str, Any] | None:
    """Driver and chips of this host as npu-smi says, None without the tool or where it fails."""
    try:
        report = npu_smi.info()
    except ToolError:
        return None
    return {"driver": report.driver, "chips": [chip._asdict() for chip in report.chips]} if report else None


def stages_of(run: Run) -> list[tuple[str, Run]]:
    """Every stage of a run in order, with the run opened at the batch size it belongs to."""
    at_sizes = [run.at(size) for size in run.spec.batch_sizes]
    return [(stage, at) for stage, row in stages.STAGES.items() for at in (at_sizes if row.per_batch else at_sizes[:1])]
