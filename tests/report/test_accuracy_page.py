"""What 06 shows is read from `accuracy.json`: nothing is computed again from logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs import copy_of

from deit_helpers import files
from deit_helpers.data import sources
from deit_helpers.report import accuracy
from deit_helpers.report.elements import Chart, Table
from deit_helpers.run.folder import Run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    return copy_of(finished, tmp_path)


def test_the_confusion_matrix_is_the_stored_one(run: Run) -> None:
    logits, (_, labels) = np.load(run.file("logits")), sources.read_index(run)
    expected = np.zeros((3, 3), int)
    for label, answer in zip(labels, logits.argmax(axis=1), strict=True):
        expected[label, answer] += 1
    assert run.read("accuracy")["confusion"] == expected.tolist()
    run.file("logits").unlink()
    chart = accuracy.confusion_chart(run)
    assert isinstance(chart, Chart)
    assert chart.alt.startswith(f"{np.trace(expected)} of 13 right; most often ")


@pytest.mark.parametrize("content", [{"confusion": None}, {}], ids=["many classes", "scored by an older version"])
def test_without_a_stored_matrix_the_weakest_classes_are_listed(run: Run, content: dict) -> None:
    scored = run.read("accuracy")
    del scored["confusion"]
    scored["per_class"][0].update({"top1_percent": 100.0, "mistaken_for": None})
    files.write_json(run.file("accuracy"), {**scored, **content})
    table = accuracy.confusion_chart(run)
    assert isinstance(table, Table)
    assert list(table.formats) == ["class", "images", "Acc@1", "most often mistaken for"]
    assert ["apple", 5, 100.0, None] in table.rows


def test_quoted_rows_follow_the_measured_ones(run: Run) -> None:
    infer = run.at(8).read("infer")
    files.write_json(run.at(8).file("infer"), {**infer, "quoted_accuracy": [["a.md", 80.1, 95.2], ["a.md", 80.1, 95.2]]})
    table = accuracy.accuracy(run)
    names = [row[0] for row in table.rows]
    assert names[3:] == ["ONNX Runtime fp32, exported graph", "fp32 reference of this run", "imported: a.md"]
    assert table.quoted == {4, 5}
    assert dict(zip(table.formats, table.rows[5], strict=True))["Acc@5"] == 95.2
