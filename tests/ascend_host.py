"""An emulated Ascend host for tests: its tools on PATH, its `acl` on the path of imports, no hardware anywhere."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from runs import REPOSITORY

from deit_helpers.ascend import cann

EMULATOR = REPOSITORY / "tests" / "emulator"
TOOLS = {"atc": "atc.py", "npu-smi": "npu_smi.py", "msprof": "msprof.py", f"benchmark.{os.uname().machine}": "benchmark.py"}


def install(folder: Path, *tools: str) -> Path:
    """Programs of these names that start the emulated ones with this Python."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in tools or TOOLS:
        program = folder / name
        program.write_text(f'#!/bin/sh\n# EMULATED\nexec "{sys.executable}" "{EMULATOR / TOOLS[name]}" "$@"\n')
        program.chmod(0o755)
    return folder


def make_host(folder: Path, patch: pytest.MonkeyPatch, *tools: str, cann_version: str = "8.1.RC1") -> dict[str, str]:
    """Make this process, and those it starts, an Ascend host; returns its environment."""
    home = folder / "ascend-toolkit"
    info = home / f"{os.uname().machine}-linux" / "ascend_toolkit_install.info"
    info.parent.mkdir(parents=True)
    info.write_text(f"package_name=Ascend-cann-toolkit\nversion={cann_version}\narch={os.uname().machine}\n")
    patch.setenv("ASCEND_TOOLKIT_HOME", str(home))
    patch.setenv("EMULATED_CANN", cann_version)
    patch.setenv("EMULATED_SOC", "Ascend310P3")
    patch.setenv("PATH", f"{install(folder / 'bin', *tools)}{os.pathsep}{os.environ['PATH']}")
    patch.setenv("PYTHONPATH", os.pathsep.join([str(EMULATOR), os.environ.get("PYTHONPATH", "")]))
    patch.setattr(cann, "SET_ENV", ())
    return dict(os.environ)


def make_om(folder: Path, graph: onnx.ModelProto, **flags: str) -> Path:
    """An OM made by the emulated ATC on PATH."""
    onnx.save(graph, folder / "m.onnx")
    options = {"framework": "5", "model": "m.onnx", "output": "m", "soc_version": "Ascend310P3", **flags}
    command = ["atc", *(f"--{name}={value}" for name, value in options.items())]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "m.om"


def acl(patch: pytest.MonkeyPatch) -> ModuleType:
    """The emulated `acl`, as a new process would find it."""
    patch.syspath_prepend(str(EMULATOR))
    module = importlib.import_module("acl")
    module.reset()
    return module


def faults(patch: pytest.MonkeyPatch, **calls: tuple[int, int]) -> None:
    """Let the n-th call of a function fail with a code: `faults(patch, **{"rt.malloc": (2, 207001)})`."""
    patch.setenv("EMULATED_FAULTS", json.dumps(calls))


def assert_clean(module: ModuleType | Any) -> None:
    """No rule of the contract was broken, and everything was given back."""
    assert module.violations == []
    assert module.leaks() == []
