"""Notebooks as steps: what a fault in a cell leaves behind, what is run after it, what `--force` makes again."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from runs import REPOSITORY, copy_of, opened, with_keys

from deit_helpers import files, pipeline
from deit_helpers.errors import ArtifactError, DeitError
from deit_helpers.run import records
from deit_helpers.run.folder import Run, html_path
from deit_helpers.stages import infer
from deit_helpers.terminal import Terminal

FIXTURES = REPOSITORY / "tests" / "notebooks" / "fixtures"


@pytest.fixture
def step(project: Path) -> pipeline.Step:
    return pipeline.Step("05_infer", opened(project), "asked for")


@pytest.fixture
def screen(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, "deit-report run again", io.StringIO())


@pytest.fixture
def run_fixture(step: pipeline.Step, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Run a notebook of `notebooks/fixtures` as the step; returns the page."""

    def run(name: str) -> str:
        monkeypatch.setattr(pipeline, "notebook_source", lambda notebook: FIXTURES / f"{name}.ipynb")
        pipeline._run_notebook(step)
        return html_path(step.run.page(step.notebook)).read_text()

    return run


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("raises_spec_error", "opset: expected 9 to 18, got 99"),
        ("raises_value_error", "ValueError: logits of 3 classes, labels of 4"),
    ],
)
def test_an_error_in_a_cell_is_one_line_and_stays_on_a_page_that_is_made_again(
    step: pipeline.Step, run_fixture: Callable[[str], str], name: str, error: str
) -> None:
    with pytest.raises(DeitError) as caught:
        run_fixture(name)
    assert str(caught.value) == f"05_infer bs4: {error}"
    assert error.rpartition(": ")[2] in html_path(step.run.page(step.notebook)).read_text()
    assert files.read_json(step.run.page_record(step.notebook)) == {"stopped": str(caught.value)}
    assert pipeline._why(step.notebook, step.run)
    assert not step.run.page(step.notebook).with_suffix(".log").exists()


@pytest.mark.parametrize(
    ("name", "text"), [("verdict_fails", "bs4: FAIL, Acc@1 is 50.00 %"), ("prints_to_stderr", "a library warns")]
)
def test_a_failed_verdict_and_words_on_stderr_are_shown_and_fail_no_step(
    step: pipeline.Step, run_fixture: Callable[[str], str], capfd: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    assert text in run_fixture(name)
    assert step.run.page_record(step.notebook).exists()
    assert text not in "".join(capfd.readouterr())


def test_what_jupyter_saves_with_a_notebook_leaves_its_hash_and_a_changed_cell_does_not(tmp_path: Path) -> None:
    source = REPOSITORY / "notebooks" / "06_accuracy.ipynb"
    node = nbformat.read(source, as_version=4)
    for cell in (cell for cell in node.cells if cell.cell_type == "code"):
        cell.execution_count, cell.outputs = 3, [nbformat.v4.new_output("stream", text="said")]
        cell.metadata |= {"execution": {"iopub.status.busy": "now"}, "collapsed": False}
    node.cells.append(nbformat.v4.new_code_cell())  # Shift+Enter in the last cell makes one
    node.metadata |= {"kernelspec": {"name": "other", "display_name": "Other"}, "widgets": {}}
    nbformat.write(node, saved := tmp_path / "saved.ipynb")
    before = pipeline._notebook_sha256(source)
    assert pipeline._notebook_sha256(saved) == before
    for change in ({"source": "pass"}, {"metadata": {"tags": ["parameters"]}}, {"cell_type": "raw"}):
        changed = copy.deepcopy(node)
        changed.cells[-3].update(change)
        saved.write_text(json.dumps(changed))
        assert pipeline._notebook_sha256(saved) != before, change


def test_after_a_notebook_that_failed_only_the_report_is_made(
    project: Path, monkeypatch: pytest.MonkeyPatch, screen: Terminal
) -> None:
    run = opened(project, batch_sizes=[4])
    notebooks: list[str] = []

    def run_notebook(step: pipeline.Step, show_code: bool = False) -> None:
        notebooks.append(step.notebook)
        if step.notebook == "05_infer":
            raise DeitError("05_infer bs4: no memory")

    monkeypatch.setattr(pipeline, "_run_notebook", run_notebook)
    with pytest.raises(DeitError, match="no memory"):
        pipeline.execute(pipeline.plan(run), screen)
    assert notebooks[-2:] == ["05_infer", "report"]


def test_force_makes_the_shards_of_an_interrupted_run_again(
    uninferred: Run, monkeypatch: pytest.MonkeyPatch, screen: Terminal
) -> None:
    with pytest.raises(ArtifactError, match="1 of 4"):
        infer.infer(with_keys(uninferred, shards=[0, 0]))
    monkeypatch.setattr(pipeline, "_run_notebook", lambda step, *_: None)
    pipeline.execute([pipeline.Step("05_infer", uninferred, "forced")], screen)
    assert not (uninferred.file("infer").parent / "shards").exists()


def test_force_makes_again_what_is_asked_for_and_not_what_other_batch_sizes_measured(finished: Run) -> None:
    steps = pipeline.plan(dataclasses.replace(finished, batch_size=None), "07", "07", force=True, sizes=(8,))
    assert [(step.name, step.why == pipeline.FORCED) for step in steps if step.why] == [("07_perf bs8", True), ("report", True)]


def test_force_makes_its_own_shards_again_and_keeps_those_of_others(
    uninferred: Run, monkeypatch: pytest.MonkeyPatch, screen: Terminal
) -> None:
    with pytest.raises(ArtifactError, match="3 of 4"):
        infer.infer(with_keys(uninferred, shards=[0, 2]))
    monkeypatch.setattr(pipeline, "_run_notebook", lambda step, *_: None)
    run = with_keys(uninferred, shards=[1, 2])
    run.save_spec()
    pipeline.execute([pipeline.Step("05_infer", run, "forced")], screen)
    assert [path.name for path in (uninferred.file("infer").parent / "shards").iterdir()] == ["0000000-0000003.npz"]


def test_a_spec_that_another_command_changed_meanwhile_stops_the_run(
    uninferred: Run, monkeypatch: pytest.MonkeyPatch, screen: Terminal
) -> None:
    uninferred.save_spec()
    with_keys(uninferred, limit=2).save_spec()
    monkeypatch.setattr(pipeline, "_run_notebook", lambda step, *_: None)
    with pytest.raises(ArtifactError, match=r"spec\.yaml: another command changed it meanwhile"):
        pipeline.execute([pipeline.Step("06_accuracy", uninferred, "asked for")], screen)


@pytest.mark.parametrize("wait", [False, True])
def test_what_measures_time_waits_for_a_quiet_machine_where_that_is_asked_for(
    project: Path, monkeypatch: pytest.MonkeyPatch, screen: Terminal, wait: bool
) -> None:
    log: list[str] = []
    monkeypatch.setattr(pipeline, "_run_notebook", lambda step, show_code=False: log.append(step.notebook))
    monkeypatch.setattr(pipeline.kernels, "wait_for_quiet", lambda say: log.append("wait"))
    steps = [step for step in pipeline.plan(opened(project, batch_sizes=[4])) if step.notebook[:2] in ("05", "06", "07")]
    pipeline.execute(steps, screen, wait)
    assert log == (["wait", "05_infer", "06_accuracy", "wait", "07_perf"] if wait else ["05_infer", "06_accuracy", "07_perf"])


def test_a_batch_size_that_is_asked_for_runs_alone_and_pages_that_compare_sizes_are_made_again(
    finished: Run, tmp_path: Path
) -> None:
    run = copy_of(finished, tmp_path, batch_sizes=[1, 4, 8, 2])
    for at in (run.at(1), run.at(8)):
        html_path(at.page("06_accuracy")).touch()
    steps = pipeline.plan(run, sizes=(2,))
    others = [(step.name, bool(step.why)) for step in steps if step.run.batch_size not in (None, 2)]
    assert others == [("06_accuracy bs1", True), ("06_accuracy bs8", True)]
    assert [step.notebook[:2] for step in steps if step.run.batch_size == 2] == ["02", "03", "05", "06", "07"]


def test_batch_sizes_are_added_to_those_of_the_run_folder(uninferred: Run) -> None:
    uninferred.save_spec()
    assert pipeline.sizes_with(uninferred, (2, 8)) == [1, 4, 8, 2]
    (uninferred.folder / "spec.yaml").unlink()
    assert pipeline.sizes_with(uninferred, (2, 8)) == [2, 8]


def test_a_step_takes_what_its_stages_took_before_or_took_at_another_batch_size(uninferred: Run) -> None:
    took = records.read_record(uninferred.at(1), "infer")["seconds"]
    reasons = {step.notebook: step for step in pipeline.plan(uninferred, "05", "05") if step.run.batch_size == 4}
    assert pipeline.seconds(reasons["05_infer"]) == pytest.approx(pipeline.PAGE_S + took, abs=0.5)  # and what compares them
    assert pipeline.seconds(pipeline.Step("01_export", uninferred, "no page yet")) == pipeline.PAGE_S
    export = records.read_record(uninferred, "export")["seconds"]
    assert pipeline.seconds(pipeline.Step("01_export", uninferred, "forced")) == pipeline.PAGE_S + export
    records.forget(uninferred, "export")
    assert pipeline.seconds(pipeline.Step("01_export", uninferred, "forced")) is None


@pytest.mark.parametrize("exists", [True, False], ids=["a page is there", "no page yet"])
def test_ctrl_c_leaves_an_index_that_says_so_once_and_is_made_again(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, screen: Terminal, exists: bool
) -> None:
    run, index = copy_of(finished, tmp_path), tmp_path / "copy" / "index.html"
    html_path(run.at(8).page("05_infer")).touch()
    record = run.page_record("report")
    if exists:
        index.write_text('<body>\n<main id="main" tabindex="-1"><h1>Before</h1></main>')

    def interrupted(step: pipeline.Step, show_code: bool = False) -> None:
        record.touch()
        (run.folder / f".tmp-{os.getpid()}-logits.npy").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "_run_notebook", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pipeline.execute(pipeline.plan(run, sizes=(8,)), screen)
    page = index.read_text()
    assert page.count("Not finished:") == 1
    assert page.count("go on with: deit-report run again") == 1
    assert page.count("<h1>") == 1
    assert ("Before" in page) is exists
    assert ('href="bs8/05_infer.html"' in page) is not exists
    assert not record.exists()
    assert list(run.folder.rglob(".tmp-*")) == []


def test_ctrl_c_while_libraries_are_imported_changes_nothing(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, screen: Terminal
) -> None:
    run = copy_of(finished, tmp_path)
    steps = pipeline.plan(run, force=True, sizes=(8,))
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    (tmp_path / "papermill.py").write_text("raise KeyboardInterrupt")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "papermill", raising=False)
    with pytest.raises(KeyboardInterrupt):
        pipeline.execute(steps, screen)
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before
