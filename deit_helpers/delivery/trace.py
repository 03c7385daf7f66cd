"""Events of a trace in Chrome's JSON format, which Perfetto opens: the batches of 05 and one batch's operators of 07.

Durations are measured; where a bar starts is not: batches, and operators within a batch, stand one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..run.folder import Run

STEPS = ("read_ms", "preprocess_ms", "wait_ms", "inference_ms", "postprocess_ms")
OPERATORS = 1000  # added to a batch size: the number of its second process


def events(run: Run) -> Iterator[dict[str, Any]]:
    """Bars of a run at a batch size; ts and dur are µs. Nothing where 05 or 07 was not run."""
    import pandas as pd

    if run.file("latency").exists():
        batches = pd.read_csv(run.file("latency"))
        steps = [name for name in STEPS if name in batches]
        yield _name(run.size, f"bs{run.size}: batches of 05, durations measured, set one after the other")
        start = 0.0
        for row in batches.to_dict("records"):
            for lane, step in enumerate(steps):
                duration = 1000 * row[step]
                if duration > 0:  # not NaN either: a tool that does not tell a step
                    facts = {"batch": int(row["batch"]), "images": int(row["images"])}
                    yield _bar(run.size, lane, step.removesuffix("_ms"), start, duration, facts)
                    start += duration
    if run.file("profile").exists():
        operators, start = pd.read_csv(run.file("profile")), 0.0
        what = f"bs{run.size}: operators of one batch, mean durations, most time first, set one after the other"
        yield _name(run.size + OPERATORS, what)
        profiled = max(int(run.read("perf").get("profiled_batches") or 1), 1)
        for row in operators.to_dict("records"):
            duration = row["total_us"] / profiled
            facts = {key: row[key] for key in ("family", "op_type", "calls")}
            yield _bar(run.size + OPERATORS, 0, str(row["name"]), start, duration, facts)
            start += duration


def _name(process: int, text: str) -> dict[str, Any]:
    return {"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": {"name": text}}


def _bar(process: int, lane: int, name: str, start: float, duration: float, facts: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "X", "name": name, "pid": process, "tid": lane, "ts": start, "dur": duration, "args": facts}
