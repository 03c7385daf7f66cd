"""The CANN toolkit of this host: its environment, its version, and which ONNX opsets that version takes."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .. import files
from ..errors import ToolError

BENCHMARK = f"benchmark.{platform.machine()}"
SET_ENV = (
    "/usr/local/Ascend/ascend-toolkit/set_env.sh",
    "/usr/local/Ascend/cann/set_env.sh",  # 8.5 and newer
    "/usr/local/Ascend/nnae/set_env.sh",
    "~/Ascend/ascend-toolkit/set_env.sh",
    "~/Ascend/cann/set_env.sh",
)
# First version -> ONNX opsets its ATC documents. 5.1's page was not found: its neighbours 5.0.4 and 6.0.1 agree.
# From 8.0 on the pages say "see each operator"; the registrations of the operators a ViT needs go from 8 to 18.
OPSETS = {(5, 0): (9, 13), (7, 0): (9, 18)}


@functools.lru_cache(maxsize=4)
def _sourced(script: Path) -> dict[str, str]:
    process = subprocess.run(
        ["bash", "-c", '. "$0" >/dev/null; env -0', str(script)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if process.returncode or "PATH=" not in process.stdout:
        last = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        raise ToolError(f"{script}: sourcing it failed ({last}): repair the CANN installation")
    return dict(line.split("=", 1) for line in process.stdout.split("\0") if "=" in line)


def environment() -> dict[str, str]:
    """The environment for the vendor's tools: this process's if it was prepared, else that of `set_env.sh`.

    Raises:
        ToolError: there is a `set_env.sh`, but it fails.
    """
    script = next((path for name in SET_ENV if (path := Path(name).expanduser()).is_file()), None)
    if shutil.which("atc") or script is None:
        return dict(os.environ)
    return _sourced(script)


def tool(name: str) -> str | None:
    """Path of one of the vendor's programs, None when this host has it neither on PATH nor behind `set_env.sh`."""
    return shutil.which(name, path=environment().get("PATH"))


def module_file(name: str) -> Path | None:
    """File of a Python module of the vendor, None when this Python does not have it. Imports nothing."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin) if spec and spec.origin and Path(spec.origin).is_file() else None


def is_emulated(backend: str) -> bool:
    """Whether this host only pretends to have the device: what drives it says so in its source."""
    modules = {"pyacl": "acl", "ais_bench": "ais_bench"}
    path = module_file(modules[backend]) if backend in modules else tool(BENCHMARK) if backend == "benchmark" else None
    return path is not None and b"EMULATED" in Path(path).read_bytes()[:4096]


def describe(backend: str, soc: str | None, device: int, precision: str) -> dict[str, Any]:
    """What runs an OM here, for the report."""
    emulated = is_emulated(backend)
    name = soc or "Ascend, unknown chip"
    return {
        "backend": backend,
        "version": f"CANN {version() or 'of unknown version'}",
        "device": f"{name} EMULATED, no hardware" if emulated else f"{name} device {device}",
        "hardware": name,
        "precision": precision,
        "emulated": emulated,
    }


def without_driver() -> dict[str, str]:
    """What ATC needs besides where there is no NPU driver: stubs of its libraries, which a program that runs must not see."""
    home = environment().get("ASCEND_TOOLKIT_HOME")
    stubs = Path(home or "/nowhere") / f"{platform.machine()}-linux" / "devlib"
    if tool("npu-smi") or not stubs.is_dir():
        return {}
    return {"LD_LIBRARY_PATH": os.pathsep.join([str(stubs), environment().get("LD_LIBRARY_PATH", "")])}


def logged(arguments: list[str], log: Path, cwd: Path, variables: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a program of the vendor, its output going to a log and to stdout as it comes.

    Returns:
        Exit code and the whole log, whose first line is the command.
    """
    with files.atomic(log) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(shlex.join(arguments) + "\n")
        options: dict[str, Any] = {"cwd": cwd, "env": {**environment(), **(variables or {})}, "text": True, "errors": "replace"}
        try:
            process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        except (OSError, ValueError) as err:
            hint = "install it again, and look at the flags it gets"
            raise ToolError(f"{arguments[0]}: cannot be started ({err}): {hint}") from err
        with process:
            try:
                for line in process.stdout or ():
                    file.write(line)
                    sys.stdout.write(line)
                code = process.wait()
            finally:
                process.kill()  # also after Ctrl-C: a program left alone would write its results later, if it still can
    return code, log.read_text(encoding="utf-8")


def version() -> str | None:
    """Version of the toolkit, such as `8.1.RC1`; None when it does not say.

    Source: `ascend_toolkit_install.info`, where installed toolkits keep it; never seen on a real host.
    """
    variables = environment()
    for name in ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"):
        home = Path(variables.get(name) or "/nowhere")
        for place in (home / f"{platform.machine()}-linux", home):
            info = place / "ascend_toolkit_install.info"
            if info.is_file() and (line := re.search(r"^version=(\S+)", info.read_text(errors="replace"), re.MULTILINE)):
                return line[1]
    return None


def check_opset(opset: int, cann: str | None) -> None:
    """Check that ATC of this version takes an opset; a version that is not known is not judged.

    Raises:
        ToolError: it does not; the message says which opsets it takes.
    """
    numbers = re.match(r"(\d{1,4})\.(\d{1,4})\b", cann or "")
    if not numbers:
        return
    ranges = [opsets for first, opsets in OPSETS.items() if first <= (int(numbers[1]), int(numbers[2]))]
    low, high = ranges[-1] if ranges else (opset, opset)
    if not low <= opset <= high:
        raise ToolError(f"opset {opset}: ATC of CANN {cann} takes {low} to {high}: set opset: 11 and run from 01 again")
