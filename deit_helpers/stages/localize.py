"""localize, executed by hand: two versions of the network -> `localize.json`; known mistakes -> `suspects.json`.

Both lie beside the notebook's page and have no record: they depend on what the notebook was given, and say so themselves.
"""

from __future__ import annotations

from typing import Any

from ..evidence import suspects as known
from ..evidence import taps
from ..files import write_json
from ..run.folder import Run


def localize(run: Run, left: str, right: str) -> dict[str, Any]:
    """Compare `left` with `right` tap by tap; returns the content of `localize.json`. Raises as `taps.localize`."""
    return _write(run, "localize", taps.localize(run, left, right))


def suspects(run: Run) -> dict[str, Any]:
    """Search the known mistakes for one that explains the logits of 05; returns the content of `suspects.json`."""
    return _write(run, "suspects", known.find(run))


def _write(run: Run, name: str, facts: dict[str, Any]) -> dict[str, Any]:
    write_json(run.page("localize").with_name(f"{name}.json"), facts)
    return facts
