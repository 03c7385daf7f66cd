"""What this machine can run, what is missing and how to get it. Changes nothing."""

from __future__ import annotations

import shutil
from typing import NamedTuple

from .backends import REGISTRY
from .hashing import version_of
from .machine import machine


class Finding(NamedTuple):
    """One row: what was looked for, whether it is there, what was found or how to get it."""

    what: str
    ok: bool
    found: str


# What only some hosts need: package -> (what for, how to get it)
_OPTIONAL = {
    "torch": ("export (01)", "pip install 'deit-report[export]'"),
    "timm": ("export (01)", "pip install 'deit-report[export]'"),
    "onnxsim": ("optimize (02)", "pip install 'deit-report[export]'"),
    "onnx-ir": ("optimize (02)", "pip install 'deit-report[export]'"),
    "scikit-learn": ("the embedded demo", "pip install 'deit-report[demo]'"),
    "openvino": ("backend openvino, in a later version", "pip install 'deit-report[openvino]'"),
}
_TOOLS = {
    "atc": "convert (03) for Ascend: source set_env.sh of the CANN toolkit",
    "npu-smi": "an Ascend device: install the NPU driver",
}


def examine() -> list[Finding]:
    """Look at machine, packages, backends and tools."""
    host = machine()
    rows = [Finding("machine", True, f"{host['cpu']}, {host['cores']} cores, {host['memory_gib']} GiB")]
    for name, (_, hint) in REGISTRY.items():
        version = version_of(name)
        rows.append(Finding(f"backend {name}", version is not None, version or hint))
    for name, (purpose, hint) in _OPTIONAL.items():
        version = version_of(name)
        rows.append(Finding(f"{name} for {purpose}", version is not None, version or hint))
    for tool, hint in _TOOLS.items():
        path = shutil.which(tool)
        rows.append(Finding(tool, path is not None, path or hint))
    return rows
