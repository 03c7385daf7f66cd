"""`manifest.json`: every file of the run with the hash it really has; and what the run gave the time before."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path

import ascend_host
import numpy as np
import pytest
from runs import SIZES, copy_of, new_run

from deit_helpers.ascend import npu_smi
from deit_helpers.files import read_json, write_json
from deit_helpers.report import index
from deit_helpers.run import host, manifest, records
from deit_helpers.run.folder import Run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy of the finished run whose report was made."""
    run = copy_of(finished, tmp_path)
    manifest.write_manifest(run)
    return run


def test_the_chips_of_an_ascend_host_are_in_the_manifest(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert manifest.write_manifest(run)["npu"] is None
    ascend_host.make_host(tmp_path / "host", monkeypatch, "npu-smi")
    npu = manifest.write_manifest(run)["npu"]
    assert (npu["driver"], npu["chips"][0]["name"], npu["chips"][0]["health"]) == ("22.0.2", "310P3", "OK")
    assert index.provenance(manifest.write_manifest(run)).values["chips here"] == "310P3 (OK, 21534 MB), driver 22.0.2"
    monkeypatch.setenv("EMULATED_SOC", "none")  # the tool fails: no reason to lose the report
    npu_smi._ask.cache_clear()  # as a new process would ask
    assert manifest.write_manifest(run)["npu"] is None


def test_the_manifest_hashes_every_file_of_the_run(run: Run) -> None:
    contents = manifest.write_manifest(run)
    assert json.loads((run.folder / "manifest.json").read_text()) == contents
    files = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()}
    made = {name for name in files if not name.startswith("meta/")} - {"spec.yaml", "manifest.json"}
    assert contents["artifacts"].keys() == made
    assert {f"bs{size}/deit_bs{size}.onnx" for size in SIZES} <= made
    for name, facts in contents["artifacts"].items():
        content = (run.folder / name).read_bytes()
        assert (facts["sha256"], facts["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
        assert facts.keys() >= {"seconds", "inputs"}


def test_the_inputs_of_a_file_are_the_hashes_of_others(run: Run) -> None:
    files = manifest.write_manifest(run)["artifacts"]
    assert files["bs4/logits.npy"]["inputs"]["static_onnx"] == files["bs4/deit_bs4.onnx"]["sha256"]
    assert files["bs4/deit_bs4.onnx"]["inputs"]["onnx"] == files["export/deit.onnx"]["sha256"]
    assert files["bs4/accuracy.json"]["inputs"]["logits"] == files["bs4/logits.npy"]["sha256"]


def test_the_manifest_says_where_and_with_what(run: Run) -> None:
    contents = manifest.write_manifest(run)
    assert contents["spec"]["batch_sizes"] == list(SIZES)
    assert contents["packages"]["numpy"] == np.__version__
    assert contents["machine"].keys() == {"cpu", "cores", "memory_gib", "system"}
    assert 1 <= contents["machine"]["cores"] <= (os.cpu_count() or 1)
    assert contents["created"].endswith("+00:00")


def test_a_run_with_nothing_made_has_an_empty_list(tmp_path: Path) -> None:
    assert manifest.write_manifest(new_run(tmp_path))["artifacts"] == {}


@pytest.mark.parametrize("error", [FileNotFoundError("git"), subprocess.CalledProcessError(128, "git")])
def test_outside_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(subprocess, "run", fail)
    assert host.git_commit.__wrapped__() is None


def test_a_package_that_is_not_installed_has_no_version() -> None:
    assert host.version_of("no-such-package-at-all") is None


def measure_again(run: Run, faster: float) -> None:
    """Let 05 have been run again, so much faster at batch size 4, and the report be made anew."""
    at = run.at(4)
    write_json(
        at.file("infer"), at.read("infer") | {"interface_images_per_s": faster * at.read("infer")["interface_images_per_s"]}
    )
    for stage in ("infer", "score"):
        records.forget(at, stage)
        records.ensure(at, stage, lambda: None)
    said = manifest.change_since(run)  # as a page says it that is made before the manifest
    manifest.write_manifest(run)
    assert manifest.change_since(run) == said


def test_a_first_report_and_one_that_changes_nothing_keep_nothing(run: Run) -> None:
    manifest.write_manifest(run)
    assert not (run.folder / manifest.PREDECESSOR).exists()
    assert manifest.change_since(run) == ""


def test_the_figures_of_the_time_before_are_kept_and_compared(run: Run) -> None:
    before = read_json(run.folder / "manifest.json")["summary"]
    measure_again(run, 100.0)  # now the fastest
    assert read_json(run.folder / manifest.PREDECESSOR) == before
    write_json(run.folder / manifest.PREDECESSOR, before | {"created": "2025-11-20T08:00:00+00:00"})
    assert manifest.change_since(run) == "bs4: +9900.0 % images/s, +0.00 points Acc@1 since 20 Nov 2025"
    manifest.write_manifest(run)  # nothing changed
    assert read_json(run.folder / manifest.PREDECESSOR)["created"] == "2025-11-20T08:00:00+00:00"
    write_json(run.folder / manifest.PREDECESSOR, before | {"where": "torch fp32 on another"})
    assert manifest.change_since(run).endswith(", then torch fp32 on another")


def test_a_report_of_a_run_that_stopped_halfway_is_no_generation(run: Run) -> None:
    before = read_json(run.folder / "manifest.json")["summary"]
    records.forget(run.at(8), "infer")
    assert manifest.write_manifest(run)["summary"] == before
    records.ensure(run.at(8), "infer", lambda: None)
    measure_again(run, 1.5)
    assert read_json(run.folder / manifest.PREDECESSOR) == before


def test_another_batch_size_alone_is_no_generation(run: Run) -> None:
    summary = read_json(run.folder / "manifest.json")["summary"]
    del summary["batch_sizes"]["8"]
    write_json(run.folder / "manifest.json", {"summary": summary})
    manifest.write_manifest(run)
    assert not (run.folder / manifest.PREDECESSOR).exists()
