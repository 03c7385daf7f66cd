"""Which machine and which commit of this package made a file, and how much of the machine others had meanwhile."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import platform
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

LEAST_S = 0.5  # the system counts in ticks of 10 ms, of which a shorter time has too few
PIECE, PIECES_S = bytes(2**18), 0.3  # hashed in a fraction of a millisecond, without Python's lock; again for so long


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


class Others:
    """What others have of the cores that this process may use, since this was made or last asked."""

    def __init__(self) -> None:
        self._seconds = _seconds()

    def percent(self) -> tuple[float | None, float | None]:
        """Percent of the cores' time, and that of other guests alone; None after too short a time, or where none is counted."""
        before, self._seconds = self._seconds, _seconds()
        clock, counted, steal, busy, own = (now - then for then, now in zip(before, self._seconds, strict=True))
        if clock < LEAST_S or counted < clock / 2:  # a single core counts as fast as the clock
            return None, None
        return 100 * (max(busy - own, 0.0) + steal) / counted, 100 * steal / counted


def _seconds() -> tuple[float, ...]:
    """Of the clock; as the system counts them on these cores: in all, for other guests, of programs, of our own ones."""
    rows = psutil.cpu_times(percpu=True)
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(rows))
    rows = [rows[i] for i in mine] if max(mine) < len(rows) else rows  # where a core is off, numbers are no places
    counted = {name: sum(getattr(row, name) for row in rows) for name in rows[0]._fields if not name.startswith("guest")}
    busy, own = sum(counted.get(name, 0.0) for name in ("user", "nice", "system")), 0.0
    for process in (me := psutil.Process(), *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):  # it has just ended
            own += sum(process.cpu_times()[:4])  # user and system, and those of its children that ended
    return time.perf_counter(), sum(counted.values()), counted.get("steal", 0.0), busy, own


def interrupted_percent() -> float:
    """How much of its time a small workload on all cores, the same piece again and again, stood still.

    A piece that took three times as long as the shortest was interrupted. It is what `Others` says beside a program that
    asks for all cores, but needs no counts of a system, and shows a hypervisor that keeps silent, too.
    """
    threads = min(cores(), 8)  # more would wait for Python's lock
    with ThreadPoolExecutor(threads) as pool:
        pieces_s = [piece_s for of_thread in pool.map(_pieces_s, [PIECES_S] * threads) for piece_s in of_thread]
    shortest_s = min(pieces_s)
    return 100 * sum(piece_s - shortest_s for piece_s in pieces_s if piece_s > 3 * shortest_s) / sum(pieces_s)


def _pieces_s(duration_s: float) -> list[float]:
    clock_s = [time.perf_counter()]
    while clock_s[-1] < clock_s[0] + duration_s:
        hashlib.sha256(PIECE)
        clock_s.append(time.perf_counter())
    return [after - before for before, after in itertools.pairwise(clock_s)]


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
