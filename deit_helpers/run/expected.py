"""The published figures a run is measured against: a row of `params/expected.yaml`, and the data set they are of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ..errors import SpecError
from ..files import read_json
from .folder import Run
from .validation import Frozen, nearest, read_yaml

MAX_DROP_POINTS = 1.0  # the users' contract, absolute points, where the row says nothing else


class ExpectedRow(Frozen):
    """A row of `params/expected.yaml`: published figures in percent, and the images that they were taken on.

    `dataset` is one of `data/datasets.py`; with `valid_classes: labels` the answers were sought among its classes only.
    """

    name: str
    source: str
    images: int | None = None
    dataset: str | None = None
    valid_classes: Literal["labels"] | None = None
    top1_percent: float | None = Field(default=None, ge=0, le=100)
    top5_percent: float | None = Field(default=None, ge=0, le=100)
    real_top1_percent: float | None = Field(default=None, ge=0, le=100)
    max_drop_points: float = Field(default=MAX_DROP_POINTS, ge=0)
    measured_by_demo: bool = False

    @model_validator(mode="after")
    def _complete(self) -> ExpectedRow:
        if not self.measured_by_demo and self.top1_percent is None:
            raise ValueError("top1_percent, and top5_percent where it is published, in percent")
        return self


def expected_row(run: Run) -> dict[str, Any] | None:
    """The row of `params/expected.yaml` that the spec names, or None. Figures measured by the demo are filled in.

    Raises:
        SpecError: no such row.
    """
    if run.spec.expected is None:
        return None
    path, name = rows_file(run), run.spec.expected
    rows = read_yaml(path)
    if name not in rows:
        raise SpecError(f"expected: no row {name!r} in {path}{nearest(name, list(rows))}; rows: {', '.join(rows)}")
    row = ExpectedRow.from_mapping(rows[name], f"{path}: {name}").model_dump(exclude_none=True, exclude={"dataset"})
    row.setdefault("top5_percent", None)  # where it is not published; the key is a promise
    if row.pop("measured_by_demo"):
        if run.spec.checkpoint != "demo":
            raise SpecError(f"expected: row {name!r} is measured on the demo's checkpoint, not {run.spec.checkpoint!r}")
        row |= {key: read_json(run.file("demo")).get(key) for key in ("images", "top1_percent", "top5_percent")}
    return row


def rows_file(run: Run) -> Path:
    """The `params/expected.yaml` of the folder the command runs in, or the one beside this package."""
    path = run.root / "params" / "expected.yaml"
    return path if path.exists() else Path(__file__).parents[2] / "params" / "expected.yaml"


def for_dataset(run: Run) -> tuple[list[str], str]:
    """The rows of `params/expected.yaml` for the data set that 04 took the images for, and a warning where the spec's row is
    of another one: both, and what to do."""
    seen = read_json(run.file("preprocess")).get("dataset")
    rows = read_yaml(rows_file(run)) if seen else {}
    datasets = {name: row.get("dataset") for name, row in rows.items() if isinstance(row, dict)}
    fitting = [name for name, dataset in datasets.items() if dataset == seen]
    named = datasets.get(str(run.spec.expected))
    if named in (None, seen):
        return fitting, ""
    todo = " or ".join(f"`expected: {name}`" for name in fitting) or "no published figure is known, leave it out"
    return fitting, f"`expected: {run.spec.expected}` is of {named}, the images look like {seen}: {todo}"


def valid_classes(run: Run) -> list[int] | None:
    """The classes among which answers are sought: those of the images, where the expected row says so, else None, all."""
    return run.read("preprocess")["label_classes"] if (expected_row(run) or {}).get("valid_classes") else None
