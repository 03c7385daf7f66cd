"""What must be said on every page follows from the spec and the files of all batch sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import new_run

from deit_helpers import files
from deit_helpers.report.words import notes
from deit_helpers.run.folder import Run
from deit_helpers.run.hashing import fingerprint
from deit_helpers.run.marks import Marks, marks

NONE = Marks(demo=False, emulated=False, imported=False, quoted_accuracies=[])


@pytest.fixture
def tiny_run(tmp_path: Path) -> Run:
    """A run with nothing made yet."""
    return new_run(tmp_path)


def test_a_run_without_files_has_no_marks(tiny_run: Run) -> None:
    assert marks(tiny_run) == NONE
    assert notes(tiny_run)._repr_html_() == ""


@pytest.mark.parametrize(
    ("name", "content", "mark", "title"),
    [
        ("convert", {"emulated": True}, {"emulated": True}, "Emulated device, no hardware measured."),
        ("infer", {"runtime": {"emulated": True}}, {"emulated": True}, "Emulated device, no hardware measured."),
        ("infer", {"imported_from": ["summary.json"]}, {"imported": True}, "Imported figures."),
    ],
)
def test_a_file_of_any_batch_size_marks_the_run(tiny_run: Run, name: str, content: dict, mark: dict, title: str) -> None:
    before = fingerprint(marks(tiny_run))
    files.write_json(tiny_run.at(1).file(name), content)
    assert marks(tiny_run.at(4)) == NONE._replace(**mark)
    assert fingerprint(marks(tiny_run)) != before
    assert [banner.title for banner in notes(tiny_run).items] == [title]


def test_the_demo_is_marked_by_its_checkpoint(tiny_run: Run) -> None:
    assert marks(tiny_run.replace(checkpoint="demo")) == NONE._replace(demo=True)


def test_accuracies_that_disagree_are_quoted_from_the_lowest(tiny_run: Run) -> None:
    rows = [["the table", 79.82, 95.0], ["the log", 79.7, 95.0], ["the table", 79.82, 95.0]]
    files.write_json(tiny_run.file("infer"), {"quoted_accuracy": rows[:1]})
    assert notes(tiny_run).items == []
    files.write_json(tiny_run.file("infer"), {"quoted_accuracy": rows})
    assert marks(tiny_run).quoted_accuracies == [("the log", 79.7), ("the table", 79.82)]
    (banner,) = notes(tiny_run).items
    assert banner.text.startswith("Acc@1 is 79.70 % (the log) and 79.82 % (the table): 0.12 points apart")
