"""Which machine and which commit of this package made a file."""

from __future__ import annotations

import functools
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil


def version_of(package: str) -> str | None:
    """Version of an installed package, None when it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def peak_memory_mib() -> float | None:
    """Most memory this process ever held, in MiB; None where the system does not say."""
    status = Path("/proc/self/status")  # getrusage would tell what the program that started this one held, where that is more
    match = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(match[1]) / 1024 if match else None


def cores() -> int:
    """How many cores this process may use: fewer than there are where it is bound to some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def physical_cores() -> int:
    """Cores this process may use, but no more than the machine has that are not two in one."""
    return min(cores(), psutil.cpu_count(logical=False) or cores())


@functools.cache
def machine() -> dict[str, Any]:
    """Processor, cores usable by this process, memory and system."""
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:[ \t]*(.+)", info.read_text(encoding="utf-8"), re.MULTILINE) if info.exists() else None
    return {
        "cpu": named[1].strip() if named else platform.processor() or platform.machine(),
        "cores": cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }


@functools.cache
def git_commit() -> str | None:
    """Commit of the checkout this package runs from, with `-dirty` for uncommitted changes; None outside git."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None
