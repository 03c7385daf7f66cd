"""What the waterfall's page says of a result: lost, gained, nothing, not made; in words, rows and bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs import copy_of, with_keys

from deit_helpers import files
from deit_helpers.report import waterfall as page
from deit_helpers.run import records
from deit_helpers.run.folder import Run

UNKNOWN = dict.fromkeys(("images", "top1_percent", "gained", "lost", "difference_points", "difference_ci95_points",
                         "p_value", "p_value_holm", "significant", "reason"))  # fmt: skip


def rung(name: str, top1: float | None, points: float | None = None, p_value: float = 1.0, **more: Any) -> dict[str, Any]:
    row = {**UNKNOWN, "name": name, "top1_percent": top1, "images": top1 and 400, "more_changes": []}
    if points is not None:
        row |= {"gained": 11, "lost": 29, "difference_points": points, "difference_ci95_points": [points - 3, points + 2]}
        row |= {"p_value": p_value / 2, "p_value_holm": p_value, "significant": p_value < 0.05}
    return row | more


def result(*rungs: dict[str, Any]) -> dict[str, Any]:
    total = {"gained": 1, "lost": 2, "difference_points": -0.25, "difference_ci95_points": [-1.5, 1.0], "p_value": 1.0}
    published = {"name": "DeiT-S official", "source": "a table", "images": 50000, "top1_percent": 79.9, "top5_percent": 95.0}
    return {"batch_size": 4, "images": 400, "published": published, "rungs": list(rungs), "all_changes": total}


MIXED = result(
    rung("timm", 80.75),
    rung("deit", 80.5, -0.25),
    rung("bilinear", None, reason="no images"),
    rung("pad_tokens_unmasked", 76.0, -4.5, 0.006),
    rung("device", 81.0, 5.0, 0.01, more_changes=["edits pad_tokens_unmasked → none"]),
)


@pytest.fixture
def run(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy that asks for a waterfall; its results are written by hand, and have no records."""
    monkeypatch.setattr(records, "problem", lambda run, stage, strict=True: None)
    run = with_keys(copy_of(finished, tmp_path), waterfall=["timm", "device"])
    for size in run.spec.batch_sizes:
        files.write_json(run.at(size).file("waterfall"), {**MIXED, "batch_size": size})
    return run


def test_the_sentence_says_what_was_lost_and_gained_and_what_changed_nothing() -> None:
    assert page.sentence(MIXED) == (
        "Of 400 images: lost 4.50 ± 2.50 points from pad_tokens_unmasked; gained 5.00 ± 2.50 points from device (more than one "
        "change); nothing significant from deit; not made: bilinear."
    )


def test_where_nothing_is_significant_all_changes_together_are_given() -> None:
    facts = result(rung("torch", 80.0), rung("onnx", 80.0, 0.0), rung("fp16", 79.75, -0.25))
    expected = "nothing significant from fp16, onnx; all changes together -0.25 points (-1.50 to +1.00, 95 %)."
    assert page.sentence(facts) == f"Of 400 images: {expected}"


def test_batch_sizes_that_tell_the_same_story_share_a_sentence(run: Run) -> None:
    other = result(rung("timm", 80.75), rung("device", 70.0, -10.75, 0.001))
    files.write_json(run.at(8).file("waterfall"), {**other, "batch_size": 8})
    banners = page.explained(run.at(1)).items, page.explained(with_batch(run, None)).items
    assert [[banner.title for banner in items] for items in banners] == [
        ["Where the points went, bs1."],
        ["Where the points went, bs1, bs4.", "Where the points went, bs8."],
    ]
    assert page.explained(with_keys(with_batch(run, None), waterfall=[])).items == []


def with_batch(run: Run, batch_size: int | None) -> Run:
    return type(run)(run.spec, run.folder, run.root, batch_size)


def test_losses_are_marked_and_what_was_not_made_says_why(run: Run) -> None:
    table = page.rungs(run)
    assert table.quoted == {0}
    assert [row[0] for row in table.rows][:2] == ["published: DeiT-S official", "timm"]
    assert [table.rows[i][0] for i in table.alarm] == ["pad_tokens_unmasked"]
    assert table.texts(table.rows[4])[1:6] == ["76.00", "-4.50", "-7.50\u00a0to\u00a0-2.50", "11", "29"]
    assert [row[-1] for row in table.rows][3:] == [
        "no images",
        None,
        "more than one change: edits pad_tokens_unmasked → none",
    ]
    assert "corrected for 3 tests" in table.caption


def test_bars_go_from_before_to_after_and_those_that_may_be_chance_are_hatched(run: Run) -> None:
    chart = page.rungs_chart(run)
    bars = [(bar.get_x(), bar.get_width(), bar.get_hatch() or "") for bar in chart.figure.axes[0].patches]
    assert bars == [(80.75, -0.25, "////"), (80.5, -4.5, ""), (76.0, 5.0, "")]
    drawing = chart.drawing()
    assert all(text in drawing for text in ("80.75 %", "-4.50", "+5.00", "-0.25 n.s.", "not made"))
