"""What a run gave before it was measured or scored again, one generation back: `meta/predecessor.json`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..files import read_json, write_json
from . import records
from .folder import Run

FILE = "meta/predecessor.json"
Summary = dict[str, Any]


def keep(run: Run) -> Summary | None:
    """The summary for the manifest about to be written; that of the one before is kept where the figures differ."""
    now = _summary(run)
    if then := _before(run, now):
        write_json(run.folder / FILE, then)
    return now or _last(run)


def sentence(run: Run) -> str:
    """How the fastest batch size did against the time before, in words and without a test; empty where there was none."""
    now = _summary(run)
    then = _before(run, now)
    if not now or not then or not (both := now["batch_sizes"].keys() & then["batch_sizes"].keys()):
        return ""
    size = max(both, key=lambda size: now["batch_sizes"][size]["images_per_s"])
    rows = [side["batch_sizes"][size] for side in (then, now)]
    (before, top1_before), (rate, top1) = ((row["images_per_s"], row["top1_percent"]) for row in rows)
    moved = "" if then["where"] == now["where"] else f", then {then['where']}"
    day = datetime.fromisoformat(then["created"])
    speed = f"{100 * (rate / before - 1):+.1f} % images/s"
    return f"bs{size}: {speed}, {top1 - top1_before:+.2f} points Acc@1 since {day.day} {day:%b %Y}{moved}"


def _summary(run: Run) -> Summary | None:
    """Acc@1 and images/s of every batch size, when, with which commit and where measured; None while one is missing."""
    if any(records.problem(at, "score", strict=False) for at in run.at_each()):
        return None
    figures = {str(at.size): (at.read("accuracy")["top1_percent"], at.read("infer")) for at in run.at_each()}
    sizes = {n: {"top1_percent": top1, "images_per_s": of["interface_images_per_s"]} for n, (top1, of) in figures.items()}
    record = records.read_record(run.at_each()[-1], "infer")
    where = f"{run.spec.backend} {run.spec.precision_text} on {record['machine']['cpu']}"
    return {**{key: record[key] for key in ("created", "git_commit")}, "where": where, "batch_sizes": sizes}


def _last(run: Run) -> Summary | None:
    return read_json(run.folder / "manifest.json").get("summary")


def _before(run: Run, now: Summary | None) -> Summary | None:
    """The last summary, if a figure of both is not the same, else what was kept before it; a new batch size changes none."""
    last, sizes = _last(run), (now or {}).get("batch_sizes", {})
    changed = last and any(last["batch_sizes"].get(size, row) != row for size, row in sizes.items())
    return last if changed else read_json(run.folder / FILE) or None
