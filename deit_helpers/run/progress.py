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


def phase(name: str) -> None:
    """Another stage is being made."""
    _now.clear()
    _now["phase"] = name
    _write()


def count(done: int, total: int, text: str) -> None:
    """So many images of the phase are done; written at most every EVERY_S seconds, and when all are."""
    now_s = time.monotonic()
    _now.setdefault("first", (done, now_s))  # what an interrupted run had done is no speed
    if done == total or now_s - _now.get("last", (0, 0.0))[1] >= EVERY_S:
        _now.update(last=(done, now_s), total=total, text=text)
        _write()


def _write() -> None:
    """Neither flushed to disk nor renamed: what is measured must not wait for it, and a half-written one is read again."""
    if path := os.environ.get(FILE):
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps(_now), encoding="utf-8")
