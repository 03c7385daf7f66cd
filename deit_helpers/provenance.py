"""`manifest.json`: what a run was made of, by whom (machine, packages, commit), and the hash of every file."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import artifacts, freshness
from .artifacts import Run
from .hashing import version_of

PACKAGES = (
    "deit-report",
    "numpy",
    "pillow",
    "onnx",
    "onnxruntime",
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
                "made_by": record["packages"],
            }
    manifest = {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "spec": run.spec.model_dump(mode="json"),
        "machine": machine(),
        "packages": {name: version for name in PACKAGES if (version := version_of(name))},
        "artifacts": files,
    }
    artifacts.write_json(run.folder / "manifest.json", manifest)
    return manifest


def stages_of(run: Run) -> list[tuple[str, Run]]:
    """Every stage of a run in order, with the run opened at the batch size it belongs to."""
    at_sizes = [run.at(size) for size in run.spec.batch_sizes]
    return [(stage, at) for stage, row in freshness.STAGES.items() for at in (at_sizes if row.per_batch else at_sizes[:1])]


def machine() -> dict[str, Any]:
    """Processor, cores usable by this process, memory and system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        cpu = platform.processor()
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": cpu or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory_bytes / 2**30),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }


def git_commit() -> str | None:
    """Commit of the checkout this package runs from, with `-dirty` for uncommitted changes; None outside git."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
