"""The doctor's rows: a missing package or tool is a row with a way to get it, never an error."""

from __future__ import annotations

import shutil

import onnxruntime
import pytest

from deit_helpers import backends, doctor


def rows() -> dict[str, doctor.Finding]:
    return {row.what: row for row in doctor.examine()}


def test_what_is_here_is_shown_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: f"/opt/{tool}")
    found = rows()
    assert found["backend onnxruntime"] == ("backend onnxruntime", True, onnxruntime.__version__)
    assert found["atc"] == ("atc", True, "/opt/atc")
    assert found["machine"].ok
    assert "cores" in found["machine"].found


def test_what_is_missing_is_a_row_that_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(doctor, "version_of", lambda _: None)
    found = rows()
    assert [row.what for row in found.values() if row.ok] == ["machine"]
    assert found["backend onnxruntime"].found == "pip install onnxruntime"
    assert found["torch for export (01)"].found == "pip install 'deit-report[export]'"
    assert found["scikit-learn for the embedded demo"].found == "pip install 'deit-report[demo]'"
    assert "set_env.sh" in found["atc"].found
    assert "NPU driver" in found["npu-smi"].found


def test_a_new_backend_gets_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.REGISTRY, "no-such-runtime", ("nowhere:Nothing", "ask its vendor"))
    assert rows()["backend no-such-runtime"] == ("backend no-such-runtime", False, "ask its vendor")
