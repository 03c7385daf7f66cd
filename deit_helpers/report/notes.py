"""What must be said on every page: the embedded demo, an emulated device, imported figures."""

from __future__ import annotations

from ..ascend.cann import is_emulated
from ..files import read_json
from ..run.folder import Run
from .elements import Banner, Stack

DEMO_NOTE = (
    "Digits, a seeded random backbone and a head fitted on other digits. These figures exercise the pipeline; "
    "they say nothing about DeiT on ImageNet."
)
EMULATED_NOTE = "A program stood in for the device and its tools: rates are those of this computer, operator times made up."
IMPORTED_NOTE = "Another tool measured these figures elsewhere; nothing of this page was run again here."


def notes(run: Run) -> Stack:
    """What must be said on every page: the embedded demo, an emulated device, imported figures."""
    found = []
    if run.spec.checkpoint == "demo":
        found.append(Banner("note", "This is the embedded demo.", DEMO_NOTE))
    sizes = [run.at(size) for size in {*run.spec.batch_sizes, *([run.batch_size] if run.batch_size else [])}]
    records = [read_json(at.file(name)) for at in sizes for name in ("convert", "infer")]
    if is_emulated(run.spec.backend) or any(r.get("emulated") or r.get("runtime", {}).get("emulated") for r in records):
        found.append(Banner("fail", "Emulated device, no hardware measured.", EMULATED_NOTE))
    if any(record.get("imported_from") for record in records):
        found.append(Banner("inconclusive", "Imported figures.", IMPORTED_NOTE))
    quoted = {top1: where for record in records for where, top1, _ in record.get("quoted_accuracy", [])}
    if len(quoted) > 1:
        both = " and ".join(f"{top1:.2f} % ({where})" for top1, where in sorted(quoted.items()))
        text = f"Acc@1 is {both}: {max(quoted) - min(quoted):.2f} points apart, and neither can be traced to a cause."
        found.append(Banner("inconclusive", "The imported accuracies disagree.", text))
    return Stack(found)
