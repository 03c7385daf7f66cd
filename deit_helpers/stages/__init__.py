"""One file per notebook, and the reference of 05: `stages.infer.infer(run)`. A module is imported when it is first used."""

from __future__ import annotations

import importlib
from types import ModuleType

_STAGES = (
    "export", "optimize", "convert", "preprocess", "infer", "reference", "accuracy", "perf",
    "waterfall", "rehearsal", "localize",
)  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    if name in _STAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"no stage {name!r}; the stages are {', '.join(_STAGES)}")


def __dir__() -> list[str]:
    return list(_STAGES)
