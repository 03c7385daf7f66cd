"""What must be said on every page: the embedded demo, an emulated device, imported figures."""

from __future__ import annotations

from ..run.folder import Run
from ..run.marks import marks
from .elements import Banner, Stack

DEMO_NOTE = (
    "Digits, a seeded random backbone and a head fitted on other digits. These figures exercise the pipeline; "
    "they say nothing about DeiT on ImageNet."
)
EMULATED_NOTE = "A program stood in for the device and its tools: rates are those of this computer, operator times made up."
IMPORTED_NOTE = "Another tool measured these figures elsewhere; nothing of this page was run again here."


def notes(run: Run) -> Stack:
    """A banner for each of the run's marks, or nothing."""
    demo, emulated, imported, quoted = marks(run)
    banners = []
    if demo:
        banners.append(Banner("note", "This is the embedded demo.", DEMO_NOTE))
    if emulated:
        banners.append(Banner("fail", "Emulated device, no hardware measured.", EMULATED_NOTE))
    if imported:
        banners.append(Banner("inconclusive", "Imported figures.", IMPORTED_NOTE))
    if len(quoted) > 1:
        both = " and ".join(f"{top1:.2f} % ({where})" for where, top1 in quoted)
        apart = quoted[-1][1] - quoted[0][1]
        text = f"Acc@1 is {both}: {apart:.2f} points apart, and neither can be traced to a cause."
        banners.append(Banner("inconclusive", "The imported accuracies disagree.", text))
    return Stack(banners)
