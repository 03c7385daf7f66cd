"""What pages say alike: what a figure was measured on, and what must be said on each of them."""

from __future__ import annotations

from typing import Any

from ..run.folder import Run
from ..run.marks import marks
from .elements import Banner, Stack


def notes(run: Run) -> Stack:
    """A banner for each of the run's marks, or nothing."""
    demo, emulated, imported, dataset, preprocessing, quoted = marks(run)
    banners = []
    if demo:
        text = (
            "Digits, a seeded random backbone and a head fitted on other digits. These figures exercise the pipeline; "
            "they say nothing about DeiT on ImageNet."
        )
        banners.append(Banner("note", "This is the embedded demo.", text))
    if emulated:
        text = "A program stood in for the device and its tools: rates are those of this computer, operator times made up."
        banners.append(Banner("fail", "Emulated device, no hardware measured.", text))
    if imported:
        text = "Another tool measured these figures elsewhere; nothing of this page was run again here."
        banners.append(Banner("inconclusive", "Imported figures.", text))
    if dataset:
        banners.append(Banner("inconclusive", "The expected figures are of other images.", f"{dataset}."))
    if preprocessing:
        banners.append(
            Banner("inconclusive", "The preprocessing is not the model's.", f"{preprocessing[:1].upper()}{preprocessing[1:]}.")
        )
    if len(quoted) > 1:
        both = " and ".join(f"{top1:.2f} % ({where})" for where, top1 in quoted)
        apart = quoted[-1][1] - quoted[0][1]
        text = f"Acc@1 is {both}: {apart:.2f} points apart, and neither can be traced to a cause."
        banners.append(Banner("inconclusive", "The imported accuracies disagree.", text))
    return Stack(banners)


def runtime_text(runtime: dict[str, Any], streams: bool = True) -> str:
    """Which runtime and device a figure was measured on, as a backend describes itself.

    Without `streams`, not how many batches it works on at once: batch sizes differ in it, and a profile is of one.
    """
    at_once = f", {runtime['streams']} batches at once" if streams and runtime.get("streams", 1) > 1 else ""
    return f"{runtime['backend']} {runtime['version']} ({runtime['device']}, {runtime['precision']}{at_once})"


def in_flight_text(*records: dict[str, Any]) -> str:
    """What a latency includes besides the work on one batch, where several are sent at once."""
    several = sorted({number for record in records for number in record.get("in_flight") or [1]})
    return f", from sending one to its answer with {' or '.join(map(str, several))} in flight" if several > [1] else ""
