"""What 06 shows is read from `accuracy.json`: nothing is computed again from logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs import copy_of

from deit_helpers import files
from deit_helpers.data import sources
from deit_helpers.metrics import planner
from deit_helpers.report import accuracy
from deit_helpers.report.elements import Chart, Table
from deit_helpers.run import records
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


def test_an_accuracy_of_an_older_version_is_still_shown(timed: Run) -> None:
    new = {"kind", "drop_at_least_points", "drop_at_most_points", "images_to_decide"}
    for at in timed.at_each():
        scored = at.read("accuracy")
        checks = [{key: value for key, value in check.items() if key not in new} for check in scored["checks"]]
        old = {key: value for key, value in scored.items() if key not in ("tests", "paired_top5")}
        files.write_json(at.file("accuracy"), {**old, "checks": [{**check, "verdict": "pass"} for check in checks]})
    banner = accuracy.verdict(timed)
    assert banner.kind == "pass"
    assert "at most 1 below allowed." in banner.text
    assert accuracy.paired(timed).values["McNemar's exact p"] == "1, no significant difference"
