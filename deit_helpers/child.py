"""Python in a process of its own: it may crash, hang or print without end, and the one that started it lives on."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence

from .errors import one_line

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def run(arguments: Sequence[str], limit_s: float) -> str | None:
    """Run Python with `arguments` to its end; all that it prints is read meanwhile, so that it never waits for a full pipe.

    It is in the process group of this process, which an interrupt reaches as a whole; on any other exception it is killed.

    Returns:
        None, or in one line how it failed: out of time, by which signal, or the error it ended with.
    """
    command = [sys.executable, *arguments]
    try:
        process = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {limit_s:g} s"
    if process.returncode == 0:
        return None
    how = "failed with exit code" if process.returncode > 0 else "was killed by signal"
    return f"{how} {abs(process.returncode)}{_last_error(process.stderr)}"


def end_with_parent() -> None:
    """Let this process end with the one that started it, whatever ended that one. On Linux; elsewhere it runs to its limit."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _last_error(stderr: str) -> str:
    """The last `SomeError: message` of what was printed, with the lines that follow it; else the last line."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    starts = [i for i, line in enumerate(lines) if re.match(r"[A-Za-z_][\w.]*: ", line)]
    return f": {one_line(' '.join(lines[starts[-1] if starts else -1 :]), 200)}" if lines else ""
