"""Expected figures: whose file they come from, and what is wrong with a row."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import write_spec

from deit_helpers import files, open_run
from deit_helpers.errors import SpecError
from deit_helpers.run.expected import expected_row
from deit_helpers.run.folder import Run


@pytest.mark.parametrize("whose", ["package", "project"])
def test_expected_figures_come_from_the_project_or_else_the_package(project: Path, whose: str) -> None:
    run = open_run(write_spec(project, expected="deit_small"))
    if whose == "project":
        (project / "params" / "expected.yaml").write_text(
            "deit_small: {name: x, source: y, top1_percent: 12.5, top5_percent: 20.0}"
        )
    row = expected_row(run)
    assert row is not None
    assert row["top1_percent"] == (12.5 if whose == "project" else 79.9)


def test_an_unknown_row_of_expected_figures_is_refused_with_the_nearest(project: Path) -> None:
    run = open_run(write_spec(project, expected="deit_smal"))
    with pytest.raises(SpecError, match=r"no row 'deit_smal'.*did you mean 'deit_small'\?.*rows: deit_small, "):
        expected_row(run)


def test_the_demos_figures_are_refused_for_another_checkpoint(project: Path) -> None:
    run = open_run(write_spec(project, expected="demo"))
    with pytest.raises(SpecError, match=r"row 'demo' is measured on the demo's checkpoint, not 'tiny\.pth'"):
        expected_row(run)


@pytest.mark.parametrize("row", ["{name: x, source: y, top1_percent: 50}", "{top1_percent: 50, top5_percent: 60}", "[1]"])
def test_an_incomplete_row_of_expected_figures_is_named(project: Path, row: str) -> None:
    (project / "params").mkdir(exist_ok=True)
    (project / "params" / "expected.yaml").write_text(f"short: {row}")
    run = open_run(write_spec(project, expected="short"))
    with pytest.raises(SpecError, match=r"expected\.yaml: short: "):
        expected_row(run)


def test_figures_measured_by_the_demo_are_filled_in(project: Path) -> None:
    run = Run.resolve(write_spec(project, expected="demo", checkpoint="demo", images="demo"))
    measured = {"images": 300, "top1_percent": 94.0, "top5_percent": 99.0}
    files.write_json(run.file("demo"), {**measured, "other": 1})
    row = expected_row(run)
    assert row is not None
    assert {key: row[key] for key in measured} == measured
    assert "other" not in row
    assert "measured_by_demo" not in row
