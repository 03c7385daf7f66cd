"""Opening a run, the paths of its files, atomic writes, hashes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from runs import write_spec

from deit_helpers import files, open_run
from deit_helpers.errors import ArtifactError, SpecError
from deit_helpers.run import hashing
from deit_helpers.run.expected import expected_row
from deit_helpers.run.folder import Run, project_root
from deit_helpers.run.lineage import FILES
from deit_helpers.run.spec import RunSpec


@pytest.mark.parametrize(
    ("where", "spec"),
    [
        (".", "params/test.yaml"),
        (".", "reports/test/spec.yaml"),
        ("notebooks", "params/test.yaml"),
        ("notebooks", "../params/test.yaml"),
        ("notebooks", "reports/test/spec.yaml"),
        ("notebooks", "../reports/test/spec.yaml"),
    ],
)
def test_root_and_notebooks_folder_open_the_same_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, where: str, spec: str
) -> None:
    open_run(write_spec(project))
    (project / "notebooks").mkdir()
    monkeypatch.chdir(project / where)
    run = open_run(spec, 4)
    assert (run.folder, run.root) == (project / "reports" / "test", project)
    assert not (project.parent / "reports").exists()


def test_a_notebooks_folder_that_is_no_project_is_a_root_of_its_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "notebooks").mkdir()
    monkeypatch.chdir(project / "notebooks")
    assert project_root() == project / "notebooks"


def test_the_spec_of_a_run_folder_uses_that_folder(project: Path) -> None:
    copied = project / "elsewhere" / "copy" / "spec.yaml"
    (copied.parent / "meta").mkdir(parents=True)
    copied.write_text(write_spec(project).read_text())
    assert open_run(copied).folder == copied.parent
    assert not (project / "reports").exists()


def test_the_run_folder_holds_the_resolved_spec(project: Path) -> None:
    run = open_run(write_spec(project, preprocess="timm"))
    assert RunSpec.load(run.folder / "spec.yaml") == run.spec


@pytest.mark.parametrize("value", [0, -1, "8", True])
def test_a_wrong_batch_size_leaves_no_run_folder(project: Path, value: object) -> None:
    with pytest.raises(SpecError, match="batch_size: expected a positive integer"):
        open_run(write_spec(project), value)  # type: ignore[arg-type]
    assert not (project / "reports").exists()


def test_a_missing_spec_file_is_named_as_it_was_given(project: Path) -> None:
    with pytest.raises(SpecError, match=r"^params/none\.yaml: no such file"):
        open_run("params/none.yaml")


@pytest.mark.parametrize("blocked", ["reports", "reports/test", "reports/test/spec.yaml"])
def test_a_run_folder_that_cannot_be_written_is_named(project: Path, blocked: str) -> None:
    path = project / blocked
    if path.suffix:
        path.mkdir(parents=True)
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text("a file where a folder should be")
    with pytest.raises(ArtifactError, match=r"reports/test/(spec\.yaml|meta): cannot be written .*or run elsewhere"):
        open_run(write_spec(project))


def test_file_names_carry_the_batch_size_and_the_device(project: Path) -> None:
    run = open_run(write_spec(project, device=2), 8)
    assert run.relative(run.file("perf_vision")) == "bs8/perf_vision_batchsize_8_device_2.txt"
    assert run.relative(run.at(16).file("static_onnx")) == "bs16/deit_bs16.onnx"
    assert len({run.file(name) for name in FILES}) == len(FILES)


def test_a_file_of_one_batch_size_needs_a_batch_size(project: Path) -> None:
    run = open_run(write_spec(project))
    assert run.relative(run.file("onnx")) == "export/deit.onnx"
    with pytest.raises(SpecError, match="batch_size"):
        run.file("logits")


def test_paths_of_the_spec_are_relative_to_the_root(project: Path) -> None:
    run = open_run(write_spec(project))
    assert (run.checkpoint, run.image_folder) == (project / "tiny.pth", project / "pictures")
    demo = open_run(write_spec(project, checkpoint="demo", images="demo"))
    assert (demo.checkpoint, demo.image_folder) == (demo.file("demo_checkpoint"), demo.folder / "demo" / "images")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(project: Path) -> None:
    path = project / "deep" / "x.json"
    files.write_json(path, {"old": 1})

    def fail() -> None:
        with files.atomic(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert files.read_json(path) == {"old": 1}
    assert os.listdir(path.parent) == ["x.json"]


def test_a_file_is_not_there_before_it_is_complete(project: Path) -> None:
    path = project / "x.txt"
    with files.atomic(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert os.listdir(project) == ["x.txt"]


@pytest.mark.parametrize("make", [files.write_dir, lambda path: files.write_text(path, "")])
def test_a_file_where_a_folder_should_be_is_an_artifact_error(project: Path, make) -> None:
    (project / "blocked").write_text("")
    with pytest.raises(ArtifactError, match=r"blocked/x: cannot be written \(.+\); free or unlock what"):
        make(project / "blocked" / "x")


@pytest.mark.parametrize("content", [None, "", "{", "[1]", "\x00"])
def test_a_missing_or_damaged_json_file_reads_as_empty(project: Path, content: str | None) -> None:
    if content is not None:
        (project / "x.json").write_text(content)
    assert files.read_json(project / "x.json") == {}


def test_a_hash_follows_the_content(project: Path) -> None:
    path = project / "x.bin"
    for content in (b"one", b"two, longer"):
        path.write_bytes(content)
        assert hashing.sha256(path) == hashlib.sha256(content).hexdigest()


def test_a_fingerprint_ignores_the_order_of_keys() -> None:
    assert hashing.fingerprint({"a": 1, "b": 2}) == hashing.fingerprint({"b": 2, "a": 1})
    assert hashing.fingerprint({"a": 1}) != hashing.fingerprint({"a": 2})


@pytest.mark.parametrize("whose", ["package", "project"])
def test_expected_figures_come_from_the_project_or_else_the_package(project: Path, whose: str) -> None:
    run = open_run(write_spec(project, expected="deit_small"))
    if whose == "project":
        (project / "params" / "expected.yaml").write_text(
            "deit_small: {name: x, source: y, top1_percent: 12.5, top5_percent: 20.0}"
        )
    row = expected_row(run)
    assert row is not None
    assert row["top1_percent"] == (12.5 if whose == "project" else 79.9)


def test_an_unknown_row_of_expected_figures_is_refused_with_the_nearest(project: Path) -> None:
    run = open_run(write_spec(project, expected="deit_smal"))
    with pytest.raises(SpecError, match=r"no row 'deit_smal'.*did you mean 'deit_small'\?.*rows: deit_small, "):
        expected_row(run)


def test_the_demos_figures_are_refused_for_another_checkpoint(project: Path) -> None:
    run = open_run(write_spec(project, expected="demo"))
    with pytest.raises(SpecError, match=r"row 'demo' is measured on the demo's checkpoint, not 'tiny\.pth'"):
        expected_row(run)


@pytest.mark.parametrize("row", ["{name: x, source: y, top1_percent: 50}", "{top1_percent: 50, top5_percent: 60}", "[1]"])
def test_an_incomplete_row_of_expected_figures_is_named(project: Path, row: str) -> None:
    (project / "params").mkdir(exist_ok=True)
    (project / "params" / "expected.yaml").write_text(f"short: {row}")
    run = open_run(write_spec(project, expected="short"))
    with pytest.raises(SpecError, match=r"expected\.yaml: short: "):
        expected_row(run)


def test_figures_measured_by_the_demo_are_filled_in(project: Path) -> None:
    run = Run.open(write_spec(project, expected="demo", checkpoint="demo", images="demo"))
    measured = {"images": 300, "top1_percent": 94.0, "top5_percent": 99.0}
    files.write_json(run.file("demo"), {**measured, "other": 1})
    row = expected_row(run)
    assert row is not None
    assert {key: row[key] for key in measured} == measured
    assert "other" not in row
    assert "measured_by_demo" not in row
