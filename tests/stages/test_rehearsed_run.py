"""The rehearsal of a run: once, on the smallest batch size's graph, with files that 03 can take."""

from __future__ import annotations

from pathlib import Path

from runs import copy_of, with_keys

from deit_helpers import pipeline
from deit_helpers.report import rehearsal as page
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.stages import rehearsal


def test_a_run_that_asks_for_it_is_rehearsed_once_on_its_smallest_graph(finished: Run, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path, rehearse=True)
    assert [step.notebook for step in pipeline.plan(run)].count("rehearsal") == 1
    assert not [step for step in pipeline.plan(with_keys(run, rehearse=False)) if step.notebook == "rehearsal"]
    facts = rehearsal.rehearsal(run)
    assert (facts["batch_size"], facts["images"], facts["overflowing"]) == (1, 13, [])
    assert run.file("keep_dtype").read_text().splitlines() == facts["keep"]
    assert (page.fits(run).kind == "pass") == (facts["comparison"]["fp16"]["changed"] == 0)
    assert [row[0] for row in page.blocks(run).rows] == ["embedding", "0", "1", "head"]
    assert [row[0] for row in page.comparison(run).rows] == list(facts["comparison"])
    assert page.keep_list(run).values["nodes"].startswith(facts["keep"][0] if facts["keep"] else "none")
    for size in (None, 1, 8):  # opened at any batch size it is the same, and current
        assert records.problem(run.at(size) if size else run, "rehearsal") is None
    records.forget(run.at(1), "optimize")
    assert "bs1" in (records.problem(run, "rehearsal") or "")
    assert records.problem(run.at(4), "optimize") is None


def test_atc_is_given_the_list_that_the_spec_names(finished: Run, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    run.file("keep_dtype").parent.mkdir()
    run.file("keep_dtype").write_text("/head/Gemm\n")
    named = with_keys(run, atc={"keep_dtype": str(run.file("keep_dtype"))})
    assert named.atc_files() == {"keep_dtype": run.file("keep_dtype")}
