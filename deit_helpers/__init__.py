"""Helpers behind the notebooks that prove a vision transformer's port to an accelerator: right, and fast."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .explore import OpenedRun

__version__ = "0.1.0"


def open_run(spec: str | Path, batch_size: int | None = None) -> OpenedRun:
    """Open a run for a notebook, from the repository root or from `notebooks/` alike; the demo is prepared first.

    Args:
        spec: a spec file, or the `spec.yaml` inside a run folder, which then is the run folder.
        batch_size: a positive integer, or None for the page across batch sizes.

    Raises:
        SpecError: a wrong spec or batch size.
        ArtifactError: the run folder cannot be written.
    """
    from . import demo
    from .explore import OpenedRun
    from .model import timm_config

    run = timm_config.resolved(OpenedRun.resolve(spec, batch_size))
    run.save_spec()
    demo.prepare(run)
    return run
