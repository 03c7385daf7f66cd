"""What 02 and the report show of certificates: every row, alarms marked, nothing said that the file does not hold."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from runs import copy_of

from deit_helpers import files
from deit_helpers.report import optimize
from deit_helpers.run import records
from deit_helpers.run.folder import Run


@pytest.fixture
def spoilt(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose file says that an allowed edit is no identity, and that the simplifier crashed."""
    facts = finished.read("optimize")
    bad: dict[str, Any] = {"name": "pad_tokens_unmasked", "verdict": "not equal", "exact": False}
    bad |= {"max_abs_diff": 0.25, "top1_agreement": 75.0}
    changes: dict[str, Any] = {"softmax_tokens_before": [197], "softmax_tokens_after": [208], "operators_added": {"Add": 12}}
    edit = {**copy.deepcopy(facts["edits"][0]), **bad, **changes, "operators_removed": {"Mul": 3}}
    crashed = {**facts["edits"][0], "applied": False, "reason": "onnxsim was killed by signal 11"}
    damaged = copy_of(finished, tmp_path)
    content = {**facts, "edits": [crashed, edit], "chain": {**edit, "name": "chain"}, "inexact_edits": ["pad_tokens_unmasked"]}
    files.write_json(damaged.file("optimize"), content)
    monkeypatch.setattr(records, "problem", lambda *_, **__: None)
    return damaged


def test_an_equal_chain_is_said_to_be_the_same_function(finished: Run) -> None:
    banner = optimize.inexact(finished)
    assert (banner.kind, banner.title) == ("pass", "Still the same function.")
    table = optimize.certificates(finished)
    assert [row[0] for row in table.rows] == ["simplify", "chain"]
    assert not table.alarm


def test_an_inexact_edit_is_marked_and_said_first(spoilt: Run) -> None:
    table = optimize.certificates(spoilt)
    assert table.alarm == {1, 2}
    assert table._repr_html_().count('<tr class="alarm">') == 2
    edit = dict(zip(table.formats, table.rows[1], strict=True))
    assert (edit["edit"], edit["verdict"], edit["tokens per softmax"]) == ("pad_tokens_unmasked", "not equal", "197 → 208")
    assert (edit["tensors"], edit["runs"]) == (20, f"{len(run_ms(spoilt, 'before'))} / {len(run_ms(spoilt, 'after'))}")
    banner = optimize.inexact(spoilt)
    assert banner.kind == "fail"
    assert "pad_tokens_unmasked changes what the model computes: logits move by up to 0.25, 75 %" in banner.text


def run_ms(run: Run, side: str) -> list[float]:
    return run.read("optimize")["edits"][1][f"batch_ms_{side}"]


def test_the_edits_say_what_they_do_and_claim(spoilt: Run) -> None:
    rows = [dict(zip(optimize.edits(spoilt).formats, row, strict=True)) for row in optimize.edits(spoilt).rows]
    assert rows[0]["claims"] == "the same function"
    assert rows[0]["input"] == "batch×3×224×224 float32 → 4×3×224×224 float32"
    assert rows[1]["operators"] == "+12 Add −3 Mul"


def test_without_static_shapes_nothing_is_claimed_about_alignment(finished: Run, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path)
    side = {"matrices": [], "broken_runs": None}
    content = {**finished.read("optimize"), "alignment": {"before": side, "after": side}, "block": {"before": [], "after": []}}
    files.write_json(copy.file("optimize"), content)
    assert "broken runs are not counted: the graph could not be simplified" in optimize.alignment(copy).caption
    assert "No attention of the usual form with static shapes" in optimize.attention_block(copy)._repr_html_()


def test_a_simplifier_that_failed_is_a_row_with_its_reason(spoilt: Run) -> None:
    table = optimize.certificates(spoilt)
    assert table.rows[0][1] == "not applied: onnxsim was killed by signal 11"
    rows = [row for row in optimize.graphs(spoilt).rows if row[0] == 4]
    assert [row[1:3] for row in rows] == [
        ["simplify", "not applied: onnxsim was killed by signal 11"],
        ["pad_tokens_unmasked", "not equal"],
    ]


def test_operators_are_counted_by_step(finished: Run) -> None:
    table = optimize.operators(finished)
    facts = finished.read("optimize")
    where = next(row for row in table.rows if row[0] == "Where")
    assert where == ["Where", facts["operators_before"]["Where"], 0]
    assert table.rows[-1] == ["all", sum(facts["operators_before"].values()), sum(facts["operators_after"].values())]


def test_many_kinds_of_operators_are_only_counted() -> None:
    kinds = {f"op{i}": 2 for i in range(optimize.MOST_KINDS + 1)}
    assert optimize.operators_changed({"operators_added": {}, "operators_removed": kinds}) == "+0 −18, 9 kinds"
    assert optimize.operators_changed({"operators_added": {}, "operators_removed": {}}) == "none"


def test_the_alignment_table_says_it_is_a_model(finished: Run) -> None:
    table = optimize.alignment(finished)
    assert table.caption.startswith("A model, not a measurement")
    assert "34 tensors break an aligned run before the edits, 34 after" in table.caption
    scores = next(row for row in table.rows if row[:2] == ["Softmax", "input"])
    assert scores[2:4] == ["197×197", "208×208"]
    assert (scores[-2], scores[-1]) == (2, 2)


def test_the_picture_names_what_is_out_of_alignment(finished: Run) -> None:
    chart = optimize.attention_block(finished)
    assert "Softmax" in chart.alt
    assert "results out of alignment: LayerNorm, MatMul, Add" in chart.alt
    assert "197×197" in chart._repr_html_()
