"""The command line: plans, and one clear line with a failing exit code for bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from runs import opened, write_spec

from deit_helpers import files, pipeline
from deit_helpers.__main__ import main
from deit_helpers.run.folder import Run
from deit_helpers.run.spec import RunSpec


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(arguments))
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["params/none.yaml"], "params/none.yaml: no such file"),
        (["params/test.yaml", "-s", "batchsize=8"], "unknown key 'batchsize'; did you mean 'batch_sizes'?"),
        (["params/test.yaml", "-s", "opset=eleven"], "key 'opset': expected a valid integer, got 'eleven'"),
        (["params/test.yaml", "-s", "opset"], "-s opset: expected KEY=VALUE"),
        (["params/test.yaml", "-s", "backend=onnx"], "key 'backend': expected one of onnxruntime"),
        (["params/test.yaml", "-b", "0"], "key 'batch_sizes': expected one or more different positive integers"),
        (["params/test.yaml", "-b", "-8"], "key 'batch_sizes': expected one or more different positive integers"),
        (["params/test.yaml", "-s", "expected=deit_smal"], "no row 'deit_smal'"),
        (["params/test.yaml", "--from", "06", "--to", "02"], "nothing lies between"),
        (["params/test.yaml", "--from", "9"], "no notebook '9': give a number from 01 to 07"),
        (["params/test.yaml", "-s", "run=../elsewhere"], "key 'run': expected"),
    ],
)
def test_bad_input_is_one_line_and_a_failing_exit_code(project: Path, arguments: list[str], said: str) -> None:
    write_spec(project)
    code, output = run("run", *arguments)
    assert code == 1
    assert output.startswith("error: ")
    assert said in output
    assert len(output.strip().splitlines()) == 1


def test_text_for_a_batch_size_is_refused(project: Path) -> None:
    write_spec(project)
    code, output = run("run", "params/test.yaml", "-b", "many")
    assert code == 2
    assert "'many' is not a valid integer" in output


def test_debug_shows_the_traceback(project: Path) -> None:
    result = CliRunner().invoke(main, ["--debug", "run", "params/none.yaml"])
    assert result.exit_code == 1
    assert type(result.exception).__name__ == "SpecError"


def test_a_plan_lists_every_notebook_and_writes_nothing(project: Path, class_folders: Path) -> None:
    write_spec(project, batch_sizes=[1, 8], checkpoint="hub")
    before = sorted(project.rglob("*"))
    code, output = run("run", "params/test.yaml", "--plan")
    assert code == 0
    steps, needed = output.split("\n\n")
    *lines, last = steps.splitlines()
    assert last == "in all 5 s, as its stages took in this run before (?: none did)"
    assert [line.split()[1] for line in lines if " bs" not in line] == ["01_export", "04_preprocess", "report"]
    assert len(lines) == 3 + 2 * 5
    assert all(line.startswith("run ") for line in lines)
    caption, _, *rows = needed.splitlines()
    assert "where 2.00 % of the images are right in one of the two models only (assumed: nothing was observed yet)" in caption
    assert rows == ["0.1 | – | – | – | –", "0.3 | 14,265 | – | – | –", "0.5 | 5,331 | – | – | –", "1 | 1,497 | – | – | –"]
    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(
    ("keys", "missing"),
    [
        ({"images": "nowhere"}, ["images: no such folder ", "checkpoint: no such file "]),
        ({"labels": "none.txt", "checkpoint": "hub"}, ["labels: "]),
        ({"images": "demo", "checkpoint": "demo"}, []),
        ({"checkpoint": "hub"}, []),
    ],
)
def test_a_plan_names_the_inputs_that_are_missing_in_the_words_of_the_run(
    project: Path, class_folders: Path, keys: dict[str, str], missing: list[str]
) -> None:
    write_spec(project, **keys)
    code, output = run("run", "params/test.yaml", "--plan")
    lines = [line for line in output.splitlines() if line.startswith("missing")]
    assert len(lines) == len(missing)
    assert all(text in line for text, line in zip(missing, lines, strict=True))
    assert code == bool(missing)
    assert not (project / "reports").exists()


def test_a_plan_needs_no_inputs_for_what_is_kept(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    away = finished.replace(images="nowhere", checkpoint="none.pth")
    kept = [pipeline.Step("01_export", away, ""), pipeline.Step("report", away, "a page changed")]
    assert pipeline.missing(kept) == []
    assert len(pipeline.missing([pipeline.Step("01_export", away, "forced")])) == 2


def test_a_batch_size_is_added_to_a_run_and_none_is_dropped(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_spec(project, batch_sizes=[1, 8], checkpoint="demo", images="demo")
    ran: list[str] = []
    monkeypatch.setattr(pipeline, "execute", lambda steps, *_: ran.extend(step.name for step in steps))
    for sizes in ([], ["-b", "4"], ["-b", "8"]):
        ran.clear()
        assert run("run", str(path), *sizes)[0] == 0
    assert RunSpec.load(project / "reports/test/spec.yaml").batch_sizes == (1, 8, 4)
    assert {name.rpartition(" ")[2] for name in ran if " bs" in name} == {"bs8"}


def test_a_plan_from_05_to_06_leaves_the_others_out(project: Path, class_folders: Path) -> None:
    write_spec(project, batch_sizes=[8])
    _, output = run("run", "params/test.yaml", "--plan", "--from", "05", "--to", "06")
    assert [line.split()[1] for line in output.split("\n\n")[0].splitlines()] == ["05_infer", "06_accuracy", "report", "all"]


def test_a_run_folder_that_cannot_be_written_is_named(project: Path, class_folders: Path) -> None:
    write_spec(project)
    (project / "reports").write_text("a file where the folder should be")
    code, output = run("run", "params/test.yaml")
    assert code == 1
    assert "cannot be written" in output
    assert "or run elsewhere" in output


def test_expected_figures_of_other_images_are_warned_of(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened(project, expected="deit_small")
    run.file("preprocess").parent.mkdir()
    files.write_json(run.file("preprocess"), {"dataset": "imagenette"})
    monkeypatch.setattr(pipeline, "plan", lambda *_, **__: [])
    result = CliRunner().invoke(main, ["run", "params/test.yaml"])
    assert result.exit_code == 0
    said = "warning: `expected: deit_small` is of imagenet-1k, the images look like imagenette: no published figure is known"
    assert said in result.stderr


def test_render_refuses_a_folder_that_is_no_run(project: Path) -> None:
    code, output = run("render", str(project))
    assert code == 1
    assert "it has no spec.yaml" in output


def test_doctor_shows_what_is_there_and_how_to_get_the_rest() -> None:
    code, output = run("doctor")
    assert code == 0
    assert "backend onnxruntime" in output
    assert "missing  atc" in output
