"""One whole run by the command line, shared by the tests that only read it: the demo with a two-block model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml
from conftest import TINY

SPEC = {**TINY, "run": "mini", "checkpoint": "demo", "images": "demo", "limit": 60, "batch_sizes": [1, 8], "expected": "demo"}


def run_tool(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a Python module of the environment as a program, such as `deit_helpers run …` or `papermill …`."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=cwd, env=dict(os.environ), capture_output=True, text=True, check=False)


def make_project(folder: Path, **keys: object) -> Path:
    """A project folder with the mini spec (`params/mini.yaml`) and `params/bs8.yaml`."""
    (folder / "params").mkdir(parents=True)
    (folder / "params" / "mini.yaml").write_text(yaml.safe_dump({**SPEC, **keys}))
    (folder / "params" / "bs8.yaml").write_text("batch_size: 8\n")
    return folder


def finish(project: Path) -> Path:
    """Make a project in a new folder and run `deit-report run params/mini.yaml` in it."""
    make_project(project)
    result = run_tool("deit_helpers", "run", "params/mini.yaml", cwd=project)
    assert result.returncode == 0, result.stderr
    return project
