"""`manifest.json`: every file of the run with the hash it really has."""

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
from deit_helpers.report import index
from deit_helpers.run import host, manifest
from deit_helpers.run.folder import Run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    return copy_of(finished, tmp_path)


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
