"""Expected figures: whose file they come from, and what is wrong with a row."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from runs import REPOSITORY, write_spec

from deit_helpers import files, open_run
from deit_helpers.errors import SpecError
from deit_helpers.run.expected import expected_row, for_dataset, valid_classes
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


@pytest.mark.parametrize(
    "row",
    [
        "{name: x, source: y, top5_percent: 50}",
        "{name: x, source: y, top1_percent: 5, valid_classes: all}",
        "{top1_percent: 50, top5_percent: 60}",
        "[1]",
    ],
)
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


# timm's results for DeiT-S, as quoted in the project's list of figures to anchor to.
@pytest.mark.parametrize(
    ("dataset", "images", "top1_percent", "classes"),
    [
        ("v2", 10_000, 68.53, None),
        ("sketch", 50_889, 29.435, None),
        ("a", 7_500, 18.72, "labels"),
        ("r", 30_000, 42.27, "labels"),
    ],
)
def test_deit_s_has_a_row_for_every_data_set_it_was_published_on(
    project: Path, dataset: str, images: int, top1_percent: float, classes: str | None
) -> None:
    row = expected_row(open_run(write_spec(project, expected=f"deit_small_{dataset}")))
    assert row is not None
    assert (row["images"], row["top1_percent"], row.get("valid_classes")) == (images, top1_percent, classes)
    assert row["top5_percent"] is None


def test_the_data_set_of_a_row_is_no_part_of_its_figures(project: Path) -> None:
    row = expected_row(open_run(write_spec(project, expected="deit_small")))
    keys = ("name", "images", "top1_percent", "top5_percent", "max_drop_points", "source")
    stored = yaml.safe_load((REPOSITORY / "params/expected.yaml").read_text())["deit_small"]
    assert row == {key: stored[key] for key in keys}


def seen_as(run: Run, **facts: object) -> Run:
    run.file("preprocess").parent.mkdir(parents=True, exist_ok=True)
    files.write_json(run.file("preprocess"), {"images": 1, **facts})
    return run


@pytest.mark.parametrize(
    ("expected", "dataset", "todo"),
    [
        ("deit_small", "imagenet-v2", "is of imagenet-1k, the images look like imagenet-v2: `expected: deit_small_v2`"),
        ("deit_small_v2", "imagenet-1k", "`expected: deit_small` or `expected: deit_small_timm` or"),
        ("deit_small", "imagenette", "the images look like imagenette: no published figure is known, leave it out"),
        ("deit_small", "imagenet-1k", ""),
        ("deit_small", None, ""),
        (None, "imagenet-v2", ""),
        ("no_such_row", "imagenet-v2", ""),
    ],
)
def test_a_row_of_another_data_set_is_said_with_the_row_that_fits(
    project: Path, expected: str | None, dataset: str | None, todo: str
) -> None:
    rows, text = for_dataset(seen_as(open_run(write_spec(project, expected=expected)), dataset=dataset))
    assert todo in text
    assert bool(text) == bool(todo)
    assert ("deit_small_v2" in rows) == (dataset == "imagenet-v2")
    assert (rows == []) == (dataset in (None, "imagenette"))


def test_rows_are_not_read_for_images_of_no_known_data_set(project: Path) -> None:
    (project / "params").mkdir()
    (project / "params" / "expected.yaml").write_text("[")
    assert for_dataset(seen_as(open_run(write_spec(project)))) == ([], "")


def test_valid_classes_are_those_of_the_whole_folder_where_the_row_says_so(project: Path) -> None:
    run = seen_as(open_run(write_spec(project, expected="deit_small_a")), label_classes=[6, 11, 13])
    assert valid_classes(run) == [6, 11, 13]
    assert valid_classes(run.replace(expected="deit_small_v2")) is None
    assert valid_classes(run.replace(expected=None)) is None
