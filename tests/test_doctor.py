"""The doctor's rows: a missing package or tool is a row with a way to get it, never an error."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import ascend_host
import onnxruntime
import pytest

from deit_helpers import doctor
from deit_helpers.ascend import npu_smi
from deit_helpers.backends import Pool, bench
from deit_helpers.run.backends import BACKENDS
from deit_helpers.run.folder import Run


def rows() -> dict[str, doctor.Finding]:
    return {row.what: row for row in doctor.examine()}


def test_what_is_here_is_shown_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool, path=None: f"/opt/{tool}" if tool == "atc" else None)
    by_name = rows()
    assert by_name["backend onnxruntime"] == ("backend onnxruntime", True, onnxruntime.__version__)
    assert by_name["atc"] == ("atc", True, "/opt/atc")
    assert by_name["machine"].ok
    assert "cores" in by_name["machine"].detail


def test_what_is_missing_is_a_row_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(doctor, "version_of", lambda _: None)
    for module in ("ort", "ov", "torch_", "pyacl"):
        monkeypatch.setitem(sys.modules, f"deit_helpers.backends.{module}", None)
    monkeypatch.setitem(sys.modules, "acl", None)
    by_name = rows()
    assert [row.what for row in by_name.values() if row.ok] == ["machine"]
    assert by_name["backend onnxruntime"].detail.endswith(": pip install onnxruntime")
    assert by_name["backend pyacl"].detail.endswith("source set_env.sh of the CANN toolkit")
    assert by_name["torch for export (01)"].detail == "pip install 'deit-report[export]'"
    assert by_name["scikit-learn for the embedded demo"].detail == "pip install 'deit-report[demo]'"
    assert "set_env.sh" in by_name["atc"].detail
    assert "NPU driver" in by_name["npu-smi"].detail


def test_with_a_run_every_backend_is_timed_and_the_fastest_named(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_BOX_S", 0.05)
    monkeypatch.setattr(bench, "STREAMS", (1,))  # so small a model and so short a time say nothing of two
    monkeypatch.setattr(doctor, "_of_this_host", lambda: [("onnxruntime", "fp32"), ("onnxruntime", "bf16"), ("torch", "fp32")])
    *timed, best = doctor.time_backends(finished)
    assert [row.what for row in timed] == [
        f"{name}, batches of 4" for name in ("onnxruntime fp32", "onnxruntime bf16", "torch fp32")
    ]
    assert [row.ok for row in timed] == [True, False, True]
    assert "fp32 only" in timed[1].detail
    rates = {row.what: float(row.detail.split()[0]) for row in timed if row.ok}
    assert best.detail.startswith(f"{max(rates, key=lambda what: rates[what])}: {max(rates.values()):.1f} images/s")


def test_what_a_runtime_compiles_first_is_not_timed(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    warm_up, time_alone = Pool.warm_up, bench.time_alone
    monkeypatch.setattr(Pool, "warm_up", lambda *given: steps.append("warm up") or warm_up(*given))
    monkeypatch.setattr(bench, "time_alone", lambda *given: steps.append("time") or time_alone(*given))
    monkeypatch.setattr(doctor, "_BOX_S", 0.05)
    monkeypatch.setattr(bench, "STREAMS", (1,))  # so small a model and so short a time say nothing of two
    monkeypatch.setattr(doctor, "_of_this_host", lambda: [("onnxruntime", "fp32")])
    doctor.time_backends(finished)
    assert (steps[0], steps[-1], steps.count("time")) == ("warm up", "time", 1)


def test_a_new_backend_gets_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        BACKENDS, "no-such-runtime", BACKENDS["torch"]._replace(target="nowhere:Nothing", install="ask its vendor")
    )
    row = rows()["backend no-such-runtime"]
    assert (row.ok, row.detail) == (False, "No module named 'nowhere': ask its vendor")


def test_an_ascend_host_shows_its_chips_and_its_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ascend_host.make_host(tmp_path, monkeypatch)
    ascend_host.acl(monkeypatch)
    by_name = rows()
    assert by_name["CANN toolkit"].detail == "8.1.RC1"
    chip = by_name["Ascend chip, device 0"]
    assert (chip.ok, chip.detail) == (True, "Ascend310P3, 994 of 21534 MB used, driver 22.0.2, health OK")
    assert by_name["backend pyacl"].detail == "EMULATED"
    monkeypatch.setenv("EMULATED_SOC", "none")
    npu_smi._ask.cache_clear()  # as a new process would ask
    assert "npu-smi info failed" in rows()["Ascend chips"].detail


def test_a_broken_installation_is_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "acl.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acl", raising=False)
    monkeypatch.delitem(sys.modules, "deit_helpers.backends.pyacl", raising=False)
    assert not rows()["backend pyacl"].ok
    (tmp_path / "npu-smi").write_text("#!/no/such/interpreter\n")
    (tmp_path / "npu-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert "npu-smi: cannot be started" in rows()["Ascend chips"].detail
