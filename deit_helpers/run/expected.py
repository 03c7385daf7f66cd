"""The published figures a run is measured against: a row of `params/expected.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from ..errors import SpecError
from ..files import read_json
from .folder import Run
from .validation import Frozen, nearest, read_yaml

MAX_DROP_POINTS = 1.0  # the users' contract, absolute points, where the row says nothing else


class ExpectedRow(Frozen):
    """A row of `params/expected.yaml`: published figures in percent, and the number of images they were taken on."""

    name: str
    source: str
    images: int | None = None
    top1_percent: float | None = Field(default=None, ge=0, le=100)
    top5_percent: float | None = Field(default=None, ge=0, le=100)
    max_drop_points: float = Field(default=MAX_DROP_POINTS, ge=0)
    measured_by_demo: bool = False

    @model_validator(mode="after")
    def _complete(self) -> ExpectedRow:
        if not self.measured_by_demo and (self.top1_percent is None or self.top5_percent is None):
            raise ValueError("top1_percent and top5_percent, both, in percent")
        return self


def expected_row(run: Run) -> dict[str, Any] | None:
    """The row of `params/expected.yaml` that the spec names, or None. Figures measured by the demo are filled in.

    Raises:
        SpecError: no such row.
    """
    if run.spec.expected is None:
        return None
    path = run.root / "params" / "expected.yaml"
    if not path.exists():
        path = Path(__file__).parents[2] / "params" / "expected.yaml"
    rows = read_yaml(path)
    name = run.spec.expected
    if name not in rows:
        raise SpecError(f"expected: no row {name!r} in {path}{nearest(name, list(rows))}; rows: {', '.join(rows)}")
    row = ExpectedRow.from_mapping(rows[name], f"{path}: {name}").model_dump(exclude_none=True)
    if row.pop("measured_by_demo"):
        if run.spec.checkpoint != "demo":
            raise SpecError(f"expected: row {name!r} is measured on the demo's checkpoint, not {run.spec.checkpoint!r}")
        row |= {key: read_json(run.file("demo")).get(key) for key in ("images", "top1_percent", "top5_percent")}
    return row
