"""How a page says what a figure was measured on."""

from __future__ import annotations

from typing import Any


def runtime_text(runtime: dict[str, Any]) -> str:
    """Which runtime and device a figure was measured on, as a backend describes itself."""
    streams = f", {runtime['streams']} batches at once" if runtime.get("streams", 1) > 1 else ""
    return f"{runtime['backend']} {runtime['version']} ({runtime['device']}, {runtime['precision']}{streams})"


def device_text(runtime: dict[str, Any]) -> str:
    """The same without how many batches it works on at once: batch sizes differ in it, and a profile is of one."""
    return runtime_text({**runtime, "streams": 1})


def in_flight_text(*records: dict[str, Any]) -> str:
    """What a latency includes besides the work on one batch, where several are sent at once."""
    several = sorted({number for record in records for number in record.get("in_flight") or [1]})
    return f", from sending one to its answer with {' or '.join(map(str, several))} in flight" if several > [1] else ""
