"""Torch's work in a process of its own: the spec and some arrays go there as files, facts or one error come back as JSON."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import child, errors
from ..errors import DeitError
from ..files import read_json, unwritable, write_json
from ..run.folder import Run
from ..run.spec import RunSpec


def work(run: Run, module: str, folder: Path, array: np.ndarray, *arguments: str, limit_s: float) -> tuple[dict[str, Any], str]:
    """Run `python -m MODULE FOLDER RUN ROOT ARGUMENTS…`, with the spec and `array` in the folder.

    Returns:
        The facts that it left, and how it failed, empty if it did not.

    Raises:
        DeitError: what went wrong there, as if it had been raised here.
    """
    try:
        (folder / "spec.yaml").write_text(run.spec.to_yaml(), encoding="utf-8")
        np.save(folder / "array.npy", array)
    except OSError as err:
        raise unwritable(folder, err) from err
    why = child.run(["-m", module, str(folder), str(run.folder), str(run.root), *arguments], limit_s)
    facts = read_json(folder / "facts.json")
    if "error" in facts:
        raise getattr(errors, facts["error"])(facts["message"])
    return facts, why or ""


@contextlib.contextmanager
def working(folder: Path, run_folder: Path, root: Path) -> Iterator[tuple[Run, np.ndarray, dict[str, Any]]]:
    """In that process: the run, the array, and the facts to fill; an error that a user can meet is left in their place."""
    child.end_with_parent()
    # torchvision imports torch's compiler, and that imports this one for GPUs: 70 MB that nothing here uses.
    sys.modules["triton"] = None  # type: ignore[assignment]
    facts: dict[str, Any] = {}
    try:
        yield Run(RunSpec.load(folder / "spec.yaml"), run_folder, root), np.load(folder / "array.npy"), facts
    except DeitError as err:
        facts = {"error": type(err).__name__, "message": str(err)}
    write_json(folder / "facts.json", facts)
