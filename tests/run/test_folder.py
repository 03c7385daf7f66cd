"""Opening a run, the paths of its files, atomic writes, hashes."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import write_spec

from deit_helpers import open_run
from deit_helpers.errors import ArtifactError, SpecError
from deit_helpers.run.folder import project_root
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
