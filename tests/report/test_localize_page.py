"""The page of localize: what it says follows from the files, in words that name module, node and figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runs import opened

from deit_helpers.errors import ArtifactError
from deit_helpers.report import localize as page
from deit_helpers.run.folder import Run

ERRORS = [0.0, 3e-7, 0.13, None, 0.1, 0.2, 0.15, 0.1]
TAPS = ["blocks.0.norm1.input", "blocks.0.norm1", "blocks.0.attn", "blocks.0.norm2.input", "blocks.0.norm2",
        "blocks.0.mlp.act", "blocks.0", "logits"]  # fmt: skip


def localized(**verdict: Any) -> dict[str, Any]:
    taps = [{"tap": tap, "computed_by": f"modules of {tap}", "left_node": tap, "right_node": f"/{tap}"} for tap in TAPS]
    for row, error in zip(taps, ERRORS, strict=True):
        if error is None:
            row["right_node"] = None
        else:
            row |= {"relative_rms": error, "max_abs_diff": error, "cosine": 1.0, "not_finite": 0, "images": 4}
    side = {"file": "a file", "precision": "fp32", "disturbance": 0.0}
    found = {"kind": "jump", "tap": "blocks.0.attn", "error": 0.13, "not_finite": 0, "tap_before": "blocks.0.norm1",
             "error_before": 3e-7, "over": "blocks.0.attn"}  # fmt: skip
    return {"left": {"name": "torch", **side}, "right": {"name": "onnx", **side}, "images": list("abcd"), "taps": taps,
            "precision": "fp32", "tolerance": 1e-4, "method": "all at once", "verdict": {**found, **verdict}}  # fmt: skip


def suspected(mistake: str | None, off_by: int | None = None) -> dict[str, Any]:
    distances = {"none": {"8": 0.9}, "bgr": {"8": 2e-6}, "bilinear": {}}
    rows = [{"mistake": name, "distance": by, "reason": None if by else "gone"} for name, by in distances.items()]
    cause = {"mistake": mistake, "distance": 0.9, "nearest": "bgr", "distance_of_nearest": 2e-6}
    return {"images": 32, "tolerance": 1e-4, "mistakes": rows, "causes": {"8": cause}, "labels": {"off_by": off_by}}


@pytest.fixture
def run(project: Path) -> Run:
    opened_run = opened(project)
    write(opened_run, localized(), suspected("bgr"))
    return opened_run


def write(run: Run, facts: dict[str, Any], known: dict[str, Any]) -> None:
    for name, content in (("localize", facts), ("suspects", known)):
        (run.folder / f"{name}.json").write_text(json.dumps(content))


def test_the_first_bad_tap_is_named_with_its_modules_node_and_figures(run: Run) -> None:
    first, second = page.outcome(run).items
    assert (first.kind, first.title) == ("fail", "onnx against torch.")
    assert first.text == (
        "The first bad tap is blocks.0.attn, computed by modules of blocks.0.attn (node /blocks.0.attn): relative error 0.13 "
        "(tolerance 0.0001); the tap before, blocks.0.norm1, has 3e-07."
    )
    assert second.kind == "fail"
    assert second.text == (
        "The device's answers at bs8 are those of the reference with one mistake: fed BGR, not RGB (distance 2e-06, "
        "without it 0.9)."
    )


@pytest.mark.parametrize(
    ("verdict", "kind", "text"),
    [
        ({"kind": "none"}, "pass", "No tap is over tolerance (0.0001)."),
        (
            {"kind": "growth"},
            "inconclusive",
            "over the tolerance without a jump, as rounding does: first at blocks.0.attn",
        ),
        ({"not_finite": 12}, "fail", "relative error 0.13, 12 values infinite or NaN (tolerance"),
        ({"over": "blocks.0"}, "fail", "; first over it is blocks.0."),
        ({"tap_before": None, "error_before": None}, "fail", "; it is the first."),
    ],
)
def test_other_findings_say_so(run: Run, verdict: dict, kind: str, text: str) -> None:
    write(run, localized(**verdict), suspected("none"))
    first, second = page.outcome(run).items
    assert (first.kind, second.kind) == (kind, "pass")
    assert text in first.text
    assert "are the reference's within rounding" in second.text


def test_labels_that_are_off_by_one_are_a_label_problem(run: Run) -> None:
    write(run, localized(), suspected(None, off_by=-1))
    *_, known, labels = page.outcome(run).items
    assert (known.kind, labels.kind, labels.title) == ("inconclusive", "fail", "A label problem.")
    assert "have no known mistake alone; the nearest is: fed BGR" in known.text
    assert "counted -1: mend labels or labels_format, not the port" in labels.text


def test_the_table_has_a_row_for_every_tap_also_for_one_that_a_side_lacks(run: Run) -> None:
    table = page.taps(run)
    assert [row[0] for row in table.rows] == TAPS
    assert table.rows[3][2:] == [None, None, None, None, "not in onnx"]
    assert table.alarm == {2, 4, 5, 6, 7}


def test_the_chart_is_logarithmic_with_the_tolerance_and_draws_exact_taps_at_the_bottom(run: Run) -> None:
    chart = page.errors_chart(run)
    (axes,) = chart.figure.axes
    taps, tolerance = axes.lines
    assert axes.get_yscale() == "log"
    assert list(taps.get_xdata()) == [0, 1, 2, 4, 5, 6, 7]
    assert list(taps.get_ydata()) == [page.LOWEST, 3e-7, 0.13, 0.1, 0.2, 0.15, 0.1]
    assert set(tolerance.get_ydata()) == {1e-4}
    assert chart.alt.startswith("7 taps, the largest error 0.2. The first bad tap is blocks.0.attn")


def test_suspects_have_a_column_for_each_batch_size_and_reasons(run: Run) -> None:
    table = page.suspects(run)
    assert list(table.formats) == ["mistake", "bs8", "not tried"]
    assert [list(row) for row in table.rows] == [
        ["nothing: as the reference", 0.9, None], ["fed BGR, not RGB", 2e-6, None], ["resized bilinear", None, "gone"],
    ]  # fmt: skip
    assert table.alarm == {1}


def test_before_05_the_page_says_what_to_run(run: Run) -> None:
    write(run, localized(), {"reason": "05 has to run first"})
    assert page.suspects(run).text == "05 has to run first."
    assert len(page.outcome(run).items) == 1


def test_a_page_without_its_files_is_one_line(run: Run) -> None:
    (run.folder / "localize.json").unlink()
    with pytest.raises(ArtifactError, match=r"localize\.json: missing or damaged: run notebooks/localize.ipynb"):
        page.sides(run)
