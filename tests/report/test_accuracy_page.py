"""What 06 shows is read from `accuracy.json`: nothing is computed again from logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import copy_of

from deit_helpers import files
from deit_helpers.data import sources
from deit_helpers.metrics import planner
from deit_helpers.report import accuracy
from deit_helpers.report.elements import Banner, Chart
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.stages import accuracy as stage


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    return copy_of(finished, tmp_path)


@pytest.fixture
def scored_anew() -> Callable[[Run], None]:
    """Score files that have no records."""
    return lambda run: files.write_json(run.file("accuracy"), stage._score.__wrapped__(run))  # type: ignore[attr-defined]


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


def test_without_a_stored_matrix_a_note_says_where_the_answers_are(run: Run) -> None:
    files.write_json(run.file("accuracy"), {**run.read("accuracy"), "confusion": None})
    note = accuracy.confusion_chart(run)
    assert isinstance(note, Banner)
    assert "bs4/predictions.csv" in note.text


def class_row(index: int, images: int, top1: float, gained: int, lost: int, p_value: float = 1.0) -> dict[str, Any]:
    before = top1 + 100 * (lost - gained) / images
    row = {"class": index, "images": images, "top1_percent": top1, "mistaken_for": None if top1 == 100 else (index + 1) % 3}
    return {**row, "reference_top1_percent": before, "gained": gained, "lost": lost, "p_value_holm": p_value}


def test_the_classes_that_lost_most_come_first_then_the_weakest(run: Run) -> None:
    rows = [class_row(0, 50, 60.0, 4, 1), class_row(1, 50, 100.0, 0, 0), class_row(2, 50, 40.0, 1, 9, 0.04)]
    rows += [class_row(index, 50, 70.0 + index, 3, 3) for index in range(3, 24)]
    files.write_json(run.file("accuracy"), {**run.read("accuracy"), "per_class": rows})
    table = accuracy.class_differences(run)
    assert len(table.rows) == 20
    assert table.rows[0] == ["cedar", 50, 40.0, 56.0, 1, 9, 0.04, "apple"]
    assert [row[0] for row in table.rows[1:]] == [str(index) for index in range(3, 22)]  # apple gained, berry has all right
    assert table.alarm == {0}
    told = "below the reference's in 1 of 24 classes, above it in 1; bs4; classes have 40 % to 100 %; 20 are listed"
    assert told in table.caption


def test_the_table_of_classes_equals_a_count_over_the_logits(run: Run, scored_anew: Callable[[Run], None]) -> None:
    np.save(run.file("logits"), np.roll(np.load(run.file("reference")), 1, axis=0))
    scored_anew(run)
    frame = accuracy.class_differences(run).df.set_index("class")
    (_, labels), answers = sources.read_index(run), [np.load(run.file(name)).argmax(1) for name in ("logits", "reference")]
    for index, word in enumerate(("apple", "berry", "cedar")):
        here, before = (values[labels == index] == index for values in answers)
        assert frame.loc[word, "Acc@1"] == pytest.approx(100 * here.mean())
        assert frame.loc[word, "reference's"] == pytest.approx(100 * before.mean())
        assert frame.loc[word, "gained"] == np.sum(here & ~before)
        assert frame.loc[word, "lost"] == np.sum(before & ~here)


def test_quoted_rows_follow_the_measured_ones(run: Run) -> None:
    infer = run.at(8).read("infer")
    files.write_json(run.at(8).file("infer"), {**infer, "quoted_accuracy": [["a.md", 80.1, 95.2], ["a.md", 80.1, 95.2]]})
    table = accuracy.accuracy(run)
    names = [row[0] for row in table.rows]
    assert names[3:] == ["ONNX Runtime fp32, exported graph", "fp32 reference of this run", "imported: a.md"]
    assert table.quoted == {4, 5}
    assert dict(zip(table.formats, table.rows[5], strict=True))["Acc@5"] == 95.2


@pytest.fixture
def timed(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run as if 05 had taken 0.1 s an image; what these tests write into its files counts as current."""
    monkeypatch.setattr(records, "problem", lambda *_, **__: None)
    for at in run.at_each():
        files.write_json(at.file("infer"), {**at.read("infer"), "e2e_images_per_s": 10.0})
        files.write_json(at.file("accuracy"), {**at.read("accuracy"), "cause": None})  # so few are next to guessing
    return run


def test_the_planner_goes_by_what_was_observed_and_by_this_runs_rate(timed: Run) -> None:
    for at in timed.at_each():
        scored = at.read("accuracy")
        pairs = {**scored["paired"], "only_this_right": 1, "only_reference_right": 1}
        files.write_json(at.file("accuracy"), {**scored, "paired": pairs})
    table = accuracy.plan(timed)
    assert "where 15.38 % of the images are right in one of the two models only (as observed here)" in table.caption
    margins = table.df.set_index("loss in points")
    assert list(margins.index) == [0.1, 0.3, 0.5, 1.0]
    images = planner.paired_images(1.0, 2 / 13)
    assert margins.loc[1.0, "against the reference"] == images
    assert margins.loc[1.0, "minutes"] == pytest.approx((images or 0) / 600)
    assert margins["against the published figure"].isna().all()  # the spec names none


def test_few_images_are_inconclusive_and_the_banner_says_what_would_settle_it(timed: Run) -> None:
    banner = accuracy.verdict(timed)
    assert banner.kind == "inconclusive"
    assert "On 13 images Acc@1 is " in banner.text
    assert "up to 20.58 points may be lost" in banner.text  # 1 - 0.05^(1/13)
    assert "299 would settle it (power 80 %, 0.5 minutes at this run's rate)" in banner.text
    assert "Of 6 tests all must pass, which needs no correction; each may fail at 5 % / 6." in banner.text
