"""What a notebook is doing just now: a small file that the process which runs it names, and shows to the user."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

FILE = "DEIT_REPORT_PROGRESS"  # in the environment of a kernel: where to write; a notebook opened by hand has none
EVERY_S = 1.0

_now: dict[str, Any] = {}
_times: dict[str, float] = {}  # of the first count of the phase, and of the last writing


def phase(name: str) -> None:
    """Another stage is being made."""
    _now.clear()
    _times.clear()
    _now["phase"] = name
    _write()


def count(done: int, total: int, text: str) -> None:
    """So many images of the phase are done; written at most every EVERY_S seconds, and when all are."""
    now = time.monotonic()
    start = _times.setdefault("first", now)
    _now.update(done=done, total=total, text=text, first=_now.get("first", done), seconds=now - start)
    if done == total or now - _times.get("written", 0.0) >= EVERY_S:
        _times["written"] = now
        _write()


def _write() -> None:
    """Neither flushed to disk nor renamed: what is measured must not wait for it, and a half-written one is read again."""
    if path := os.environ.get(FILE):
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps(_now), encoding="utf-8")
