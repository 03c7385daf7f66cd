"""What a run gave before it was measured or scored again, one generation back: `meta/predecessor.json`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..files import read_json, write_json
from . import records
from .folder import Run

FILE = "meta/predecessor.json"


def summary(run: Run) -> dict[str, Any] | None:
    """Acc@1 and images/s of every batch size, when, with which commit and where measured; None while one is missing."""
    sizes, infer = {}, dict[str, Any]()
    for at in run.at_each():
        if records.problem(at, "score", strict=False):
            return None
        infer, scored = at.read("infer"), at.read("accuracy")
        sizes[str(at.size)] = {"top1_percent": scored["top1_percent"], "images_per_s": infer["interface_images_per_s"]}
    record = records.read_record(at, "infer")
    where = f"{run.spec.backend} {run.spec.precision_text} on {record['machine']['cpu']}"
    return {"created": record["created"], "git_commit": record["git_commit"], "where": where, "batch_sizes": sizes}


def keep(run: Run, manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The summary for the next manifest. That of `manifest`, the one before, is kept if a figure of both is not the same."""
    now, then = summary(run), manifest.get("summary")
    if now and then and any(then["batch_sizes"].get(size, row) != row for size, row in now["batch_sizes"].items()):
        write_json(run.folder / FILE, then)
    return now or then


def sentence(run: Run) -> str:
    """How the fastest batch size did against the time before, in words, without a test; empty where there was none."""
    then, now = read_json(run.folder / FILE), summary(run)
    both = (
        [(row["images_per_s"], n) for n, row in now["batch_sizes"].items() if n in then["batch_sizes"]] if then and now else []
    )
    if not both or not now:
        return ""
    rate, size = max(both)
    before, top1 = then["batch_sizes"][size], now["batch_sizes"][size]["top1_percent"]
    faster = f"{100 * (rate / before['images_per_s'] - 1):+.1f} % images/s"
    moved = "" if then["where"] == now["where"] else f", then {then['where']}"
    day = datetime.fromisoformat(then["created"])
    return f"bs{size}: {faster}, {top1 - before['top1_percent']:+.2f} points Acc@1 since {day.day} {day:%b %Y}{moved}"
