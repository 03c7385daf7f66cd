"""localize, executed by hand: two versions of the network -> `localize.json`; known mistakes -> `suspects.json`.

Neither has a record: they depend on what the notebook was given, and say themselves what that was.
"""

from __future__ import annotations

from typing import Any

from ..evidence import suspects as known
from ..evidence import taps
from ..files import write_json
from ..run.folder import Run


def localize(run: Run, left: str, right: str) -> dict[str, Any]:
    """Compare `left` with `right` tap by tap, see `taps.localize`; returns the content of `localize.json`."""
    facts = taps.localize(run, left, right)
    write_json(run.folder / "localize.json", facts)
    return facts


def suspects(run: Run) -> dict[str, Any]:
    """Search the known mistakes for one that explains the logits of 05; returns the content of `suspects.json`."""
    facts = known.find(run)
    write_json(run.folder / "suspects.json", facts)
    return facts
