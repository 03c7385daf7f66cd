"""The three ways in: command line, papermill alone, and Jupyter started in `notebooks/`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup
from runs import REPOSITORY, make_project, run_tool

from deit_helpers.run import hashing

IN_ORDER = ["01_export", "02_optimize", "03_convert", "04_preprocess", "05_infer", "06_accuracy", "07_perf"]
PROMISED = [
    "export/deit.onnx",
    "export/export.json",
    "dataset/images.npy",
    "dataset/index.csv",
    "dataset/preprocess.json",
    "reference/logits.npy",
    "bs8/deit_bs8.onnx",
    "bs8/optimize.json",
    "bs8/convert.json",
    "bs8/logits.npy",
    "bs8/latency.csv",
    "bs8/infer.json",
    "bs8/perf_vision_batchsize_8_device_0.txt",
    "bs8/result.json",
    "bs8/accuracy.json",
    "bs8/predictions.csv",
    "bs8/profile.csv",
    "bs8/perf.json",
    "manifest.json",
    "index.html",
]


def test_a_run_leaves_every_promised_file_and_its_hash(finished_project: Path) -> None:
    folder = finished_project / "reports" / "mini"
    assert [name for name in PROMISED if not (folder / name).exists()] == []
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest.keys() >= {"created", "git_commit", "spec", "machine", "packages", "artifacts"}
    for name, facts in manifest["artifacts"].items():
        assert facts["sha256"] == hashing.sha256(folder / name), name
        assert facts.keys() >= {"bytes", "seconds", "inputs"}


def test_batch_sizes_agree_with_each_other_and_with_the_reference(finished_project: Path) -> None:
    folder = finished_project / "reports" / "mini"
    one, eight, reference = (np.load(folder / name / "logits.npy") for name in ("bs1", "bs8", "reference"))
    assert np.array_equal(one.argmax(1), eight.argmax(1))
    assert np.array_equal(one.argmax(1), reference.argmax(1))
    assert np.abs(one - eight).max() < 1e-4


def test_accuracy_equals_a_loop_over_the_logits(finished_project: Path) -> None:
    folder = finished_project / "reports" / "mini"
    labels = [int(line.rsplit(",", 1)[1]) for line in (folder / "dataset" / "index.csv").read_text().splitlines()[1:]]
    hits = 0
    for logits, label in zip(np.load(folder / "bs8" / "logits.npy"), labels, strict=True):
        hits += int(np.argmax(logits)) == label
    assert json.loads((folder / "bs8" / "accuracy.json").read_text())["top1_percent"] == pytest.approx(100 * hits / len(labels))


def test_a_second_run_does_nothing(finished_project: Path) -> None:
    files = [p for p in (finished_project / "reports").rglob("*") if p.is_file() and p.name != "run.log"]
    before = {p: p.stat().st_mtime_ns for p in files}
    result = run_tool("deit_helpers", "run", "params/mini.yaml", cwd=finished_project)
    assert result.returncode == 0
    assert "nothing to do" in result.stdout
    assert {p: p.stat().st_mtime_ns for p in files} == before
    assert len([p for p in (finished_project / "reports").rglob("*") if p.is_file() and p.name != "run.log"]) == len(before)


def test_papermill_alone_gives_the_same_logits_without_a_warning(finished_project: Path, tmp_path: Path) -> None:
    project = make_project(tmp_path)
    (project / "params" / "bs8.yaml").write_text("batch_size: 8\n")
    for name in IN_ORDER:
        source = str(REPOSITORY / "notebooks" / f"{name}.ipynb")
        parameters = ["-f", "params/bs8.yaml", "-p", "spec", "params/mini.yaml"]
        result = run_tool("papermill", source, f"{name}.ipynb", *parameters, "--no-progress-bar", cwd=project)
        assert result.returncode == 0, result.stderr
        assert "arn" not in result.stderr.replace("learn", ""), result.stderr
        executed = json.loads((project / f"{name}.ipynb").read_text())
        streams = [out for cell in executed["cells"] for out in cell.get("outputs", []) if out.get("name") == "stderr"]
        assert streams == [], name
    for name in ("dataset/images.npy", "bs8/deit_bs8.onnx", "bs8/logits.npy", "reference/logits.npy"):
        assert hashing.sha256(project / "reports/mini" / name) == hashing.sha256(finished_project / "reports/mini" / name), name


def test_a_notebook_runs_from_the_notebooks_folder_and_reuses_what_is_there(finished_project: Path, tmp_path: Path) -> None:
    project = tmp_path / "copy"
    shutil.copytree(finished_project, project)
    (project / "notebooks").mkdir()
    for name in ("06_accuracy", "report"):
        shutil.copy(REPOSITORY / "notebooks" / f"{name}.ipynb", project / "notebooks")
    before = (project / "reports/mini/bs8/logits.npy").stat().st_mtime_ns
    result = run_tool(
        "papermill", "06_accuracy.ipynb", "out.ipynb", "-p", "spec", "params/mini.yaml", cwd=project / "notebooks"
    )
    assert result.returncode == 0, result.stderr
    assert (project / "reports/mini/bs8/logits.npy").stat().st_mtime_ns == before


def test_a_notebook_opened_too_early_names_the_one_to_run_first(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    source = str(REPOSITORY / "notebooks" / "05_infer.ipynb")
    result = run_tool("papermill", source, "out.ipynb", "-p", "spec", "params/mini.yaml", cwd=project)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]  # of what papermill prints, after its own traceback
    assert last.startswith("ArtifactError: ")
    assert "run notebooks/02_optimize.ipynb with batch_size=8" in last
    rendered = run_tool("deit_helpers", "render", "out.ipynb", cwd=project)
    assert rendered.stdout.strip() == "out.html", rendered.stderr
    soup = BeautifulSoup((project / "out.html").read_text(), "html.parser")
    assert soup.select_one("[role=alert]").text == f"Stopped here. {last.removeprefix('ArtifactError: ')}"
    assert "papermill" not in soup.main.text


def test_an_error_in_a_notebook_is_one_line_and_a_page(tmp_path: Path) -> None:
    project = make_project(tmp_path, checkpoint="weights.pth", expected=None)
    result = run_tool("deit_helpers", "run", "params/mini.yaml", "--to", "01", cwd=project)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "no such file" in errors[0]
    assert "weights.pth" in errors[0]
    assert "Traceback" not in result.stderr
    assert "no such file" in (project / "reports/mini/export/01_export.html").read_text()
    index = BeautifulSoup((project / "reports/mini/index.html").read_text(), "html.parser")
    stopped = index.select_one(".banner.fail")
    assert stopped.text.startswith("Stopped at 01_export: ")
    assert stopped.a["href"] == "export/01_export.html"
    assert {"The images", "Where the time goes"} <= {heading.text for heading in index.select("details.empty h2")}


def test_a_failed_verdict_is_published_and_ends_in_failure(finished_project: Path, tmp_path: Path) -> None:
    project = tmp_path / "copy"
    shutil.copytree(finished_project, project)
    row = {"name": "too good", "images": 60, "top1_percent": 100.0, "top5_percent": 100.0, "source": "this test"}
    (project / "params" / "expected.yaml").write_text(json.dumps({"perfect": row}))
    result = run_tool("deit_helpers", "run", "params/mini.yaml", "-s", "expected=perfect", "--from", "06", cwd=project)
    assert result.returncode == 1
    assert "FAIL" in result.stderr.splitlines()[-1]
    report = (project / "reports/mini/index.html").read_text()
    assert "<strong>FAIL</strong> " in report
    page = BeautifulSoup((project / "reports/mini/bs8/06_accuracy.html").read_text(), "html.parser")
    assert [banner.text.split(".")[0] for banner in page.select(".banner.fail")] == [
        "Fail",
        "The verdict stops the batch run here",
    ]
    assert not any(word in page.main.text for word in ("Traceback", "papermill", "VerdictError"))
    assert "too good" in report
    again = run_tool("deit_helpers", "run", "params/mini.yaml", "-s", "expected=perfect", cwd=project)
    assert (again.returncode, "nothing to do" in again.stdout) == (1, True)  # the verdict is read from the files
    assert "FAIL" in again.stderr


def test_a_run_that_stops_early_still_has_a_report_that_says_what_is_missing(tmp_path: Path) -> None:
    project = make_project(tmp_path, batch_sizes=[8])
    result = run_tool("deit_helpers", "run", "params/mini.yaml", "--to", "04", cwd=project)
    assert result.returncode == 0, result.stderr
    report = (project / "reports/mini/index.html").read_text()
    assert "Not scored yet." in report
    assert "Not profiled." in report


def test_a_page_with_an_error_is_made_again_and_until_then_the_report_leaves_it_out(
    finished_project: Path, tmp_path: Path
) -> None:
    project = tmp_path / "copy"
    shutil.copytree(finished_project, project)
    logits = project / "reports/mini/bs8/logits.npy"
    kept = logits.read_bytes()
    logits.write_bytes(kept[:-4] + b"\0\0\0\0")
    result = run_tool("deit_helpers", "run", "params/mini.yaml", "--from", "06", "--to", "06", cwd=project)
    assert result.returncode == 1
    assert "logits.npy was changed after it was made" in result.stderr.splitlines()[-1]
    assert "Not scored: bs8." in (project / "reports/mini/index.html").read_text()
    logits.write_bytes(kept)
    assert "Stopped at 06_accuracy bs8:" in (project / "reports/mini/index.html").read_text()
    assert run_tool("deit_helpers", "run", "params/mini.yaml", cwd=project).returncode == 0
    assert "Stopped at" not in (project / "reports/mini/index.html").read_text()
    assert "changed after it was made" not in (project / "reports/mini/bs8/06_accuracy.html").read_text()
    assert "Not scored" not in (project / "reports/mini/index.html").read_text()
