"""A whole run on an emulated Ascend host, by the command line: same answers, every page says what it is."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import ascend_host
import numpy as np
import pytest
from runs import run_tool

NOTE = "Emulated device, no hardware measured."


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file to which every process that used the device reports."""
    ascend_host.make_host(tmp_path / "host", monkeypatch)
    report = tmp_path / "acl.jsonl"
    monkeypatch.setenv("EMULATED_REPORT", str(report))
    return report


def run_copy(finished: Path, project: Path, *settings: str, again: bool = False) -> Path:
    """Run a copy of a finished project with these settings; `again`, there is nothing to do. Returns its run folder."""
    shutil.copytree(finished, project)
    options = [part for setting in settings for part in ("-s", setting)]
    result = run_tool("deit_helpers", "run", "params/mini.yaml", *options, cwd=project)
    assert result.returncode == 0, result.stderr
    if again:
        repeated = run_tool("deit_helpers", "run", "params/mini.yaml", *options, cwd=project)
        assert "nothing to do" in repeated.stdout, repeated.stderr
    return project / "reports" / "mini"


def assert_same_answers(folder: Path, finished: Path, size: int, tolerance: float) -> int:
    """The logits are those of ONNX Runtime, and so is every top-1; returns how many images there are."""
    logits, expected = (np.load(base / f"bs{size}/logits.npy") for base in (folder, finished / "reports/mini"))
    np.testing.assert_allclose(logits, expected, atol=tolerance)
    assert (logits.argmax(axis=1) == expected.argmax(axis=1)).all()
    return len(logits)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [(("execution=async", "aipp=static", "batch_sizes=[8]"), 0.02), (("execution=sync", "batch_sizes=[1]"), 1e-3)],
)
def test_a_whole_run_on_the_device(
    finished_project: Path, tmp_path: Path, host: Path, settings: tuple[str, ...], tolerance: float
) -> None:
    folder = run_copy(finished_project, tmp_path / "copy", "backend=pyacl", "precision=fp16", *settings, again=True)
    (size,) = json.loads((folder / "manifest.json").read_text())["spec"]["batch_sizes"]
    assert_same_answers(folder, finished_project, size, tolerance)

    pages = [
        folder / "index.html",
        *(page for part in ("export", "dataset", f"bs{size}") for page in folder.glob(f"{part}/0*.html")),
    ]
    assert len(pages) >= 8
    assert [page.name for page in pages if NOTE not in page.read_text()] == []
    for name in ("infer", "perf"):
        runtime = json.loads((folder / f"bs{size}/{name}.json").read_text())["runtime"]
        assert runtime["emulated"] is True
        assert "EMULATED" in runtime["device"]
    facts = json.loads((folder / f"bs{size}/perf.json").read_text())
    waits = facts["profiled_batches"]  # one each
    assert facts["unattributed"] == {"calls": waits, "total_us": 2.5 * waits}
    assert f"Not attributed, in Other: {waits} calls" in (folder / f"bs{size}/07_perf.html").read_text()
    assert "EMULATED_TransData" in (folder / f"bs{size}/profile.csv").read_text()

    uses = [json.loads(line) for line in host.read_text().splitlines()]
    assert len(uses) == 3  # 05, pure inference of 07, and the program that msprof watches
    assert [use["violations"] + use["leaks"] for use in uses] == [[]] * len(uses)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        (("backend=benchmark",), 1e-3),
        (("backend=benchmark", "aipp=static", "atc={output_type: FP16}"), 0.02),
        (("backend=ais_bench", "aipp=static"), 0.02),
        (("backend=ais_bench",), 1e-3),
    ],
)
def test_a_host_with_only_the_vendors_programs(
    finished_project: Path, tmp_path: Path, host: Path, settings: tuple[str, ...], tolerance: float
) -> None:
    """The same answers from files, in the layout each of them wants; a last batch that is not full included."""
    folder = run_copy(finished_project, tmp_path / "copy", "precision=fp16", "batch_sizes=[8]", *settings)
    assert assert_same_answers(folder, finished_project, 8, tolerance) % 8
    tool = settings[0].partition("=")[2]
    infer = json.loads((folder / "bs8/infer.json").read_text())
    assert infer["runtime"]["backend"] == tool
    assert infer["runtime"]["emulated"] is True
    assert infer["latency_ms"]["n"] == (infer["batches"] if tool == "ais_bench" else 0)
    assert NOTE in (folder / "export/01_export.html").read_text()
    assert NOTE in (folder / "index.html").read_text()
    with (folder / "bs8/profile.csv").open() as file:
        (transdata,) = (row for row in csv.DictReader(file) if row["name"] == "EMULATED_TransData")
    assert int(transdata["calls"]) == json.loads((folder / "bs8/perf.json").read_text())["profiled_batches"]
    uses = [json.loads(line) for line in host.read_text().splitlines()]
    assert [use["violations"] + use["leaks"] for use in uses] == [[]] * len(uses)


@pytest.mark.parametrize("tool", ["ais_bench", "benchmark"])
def test_a_tool_that_fails_is_one_line_and_its_log_is_kept(
    finished_project: Path, tmp_path: Path, host: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    project = tmp_path / "copy"
    shutil.copytree(finished_project, project)
    monkeypatch.setenv("EMULATED_FAULTS", json.dumps({"mdl.execute": [3, 507011]}))
    options = ("-s", f"backend={tool}", "-s", "precision=fp16", "-s", "batch_sizes=[8]", "--to", "05")
    result = run_tool("deit_helpers", "run", "params/mini.yaml", *options, cwd=project)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: 05_infer bs8: {tool} failed (exit code 1, no "), result.stderr
    assert "EMULATED: ACL error 507011: see " in last
    folder = project / "reports/mini/bs8"
    assert "507011" in (folder / f"{tool}.log").read_text()
    assert list(folder.glob("inputs-*")) == []


def test_a_fault_of_the_device_is_one_line_and_the_report_stays(
    finished_project: Path, tmp_path: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "copy"
    shutil.copytree(finished_project, project)
    monkeypatch.setenv("EMULATED_FAULTS", json.dumps({"mdl.execute": [3, 507011]}))
    options = ("-s", "backend=pyacl", "-s", "precision=fp16", "-s", "batch_sizes=[8]", "--to", "05")
    result = run_tool("deit_helpers", "run", "params/mini.yaml", *options, cwd=project)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: 05_infer bs8: acl.mdl.execute on device 0 for deit_bs8.om: error 507011, the execution of")
    assert [json.loads(line)["leaks"] for line in host.read_text().splitlines()] == [[]]
    assert os.listdir(project / "reports/mini")


def test_a_run_folder_copied_to_the_host_runs_there_by_its_own_spec(finished_project: Path, tmp_path: Path, host: Path) -> None:
    """No project, no images, no notebooks beside it: only the folder."""
    folder = tmp_path / "carried" / "mini"
    shutil.copytree(finished_project / "reports" / "mini", folder)
    shutil.rmtree(folder / "demo" / "images")
    options = ("-s", "backend=pyacl", "-s", "precision=fp16", "-s", "batch_sizes=[8]", "--from", "03")
    result = run_tool("deit_helpers", "run", "mini/spec.yaml", *options, cwd=folder.parent)
    assert result.returncode == 0, result.stderr
    assert not (folder.parent / "reports").exists()
    assert NOTE in (folder / "index.html").read_text()
