"""`npu-smi info` of two driver generations, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import ascend_host
import pytest

from deit_helpers.ascend import npu_smi
from deit_helpers.errors import ToolError


def test_the_table_of_a_310p_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ascend_host.make_host(tmp_path, monkeypatch, "npu-smi")
    report = npu_smi.info()
    assert report is not None
    assert report.driver == "22.0.2"
    assert report.chips == [npu_smi.Chip(0, "310P3", "OK", "0000:86:00.0", 994, 21534)]
    assert npu_smi.soc_version(0) == "Ascend310P3"


def test_the_table_of_a_910b_host_has_its_memory_under_hbm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ascend_host.make_host(tmp_path, monkeypatch, "npu-smi")
    monkeypatch.setenv("EMULATED_SOC", "Ascend910B3")
    report = npu_smi.info()
    assert report is not None
    assert report.driver == "25.3.rc1"
    assert report.chips == [npu_smi.Chip(0, "910B3", "OK", "0000:C1:00.0", 41697, 65536)]


def test_other_borders_a_missing_banner_and_a_process_table() -> None:
    text = """
| 1       Ascend910       | Warning         | 90.4         36                15   / 15             |
=========================================================================================
| 0       1         | 0000:01:00.0    | 12           1074 / 21534      3 / 32768            |
| NPU     Chip              | Process id    | Process name             | Process memory(MB)        |
"""
    report = npu_smi.parse(text)
    assert report.driver is None
    assert [(chip.npu, chip.health, chip.memory_total_mb, chip.soc_version) for chip in report.chips] == [
        (1, "Warning", 32768, None)
    ]


def test_a_chip_that_is_not_there_and_a_name_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ascend_host.make_host(tmp_path, monkeypatch, "npu-smi")
    with pytest.raises(ToolError, match="device 3: npu-smi lists 1 chips, 0 to 0: set device"):
        npu_smi.soc_version(3)
    bare = npu_smi.Report(None, [npu_smi.Chip(0, "Ascend910", "OK", "", 0, 0)])
    monkeypatch.setattr(npu_smi, "info", lambda: bare)
    with pytest.raises(ToolError, match="npu-smi calls the chip Ascend910: set what `npu-smi info -t board` says"):
        npu_smi.soc_version(0)


def test_without_the_tool_and_with_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert npu_smi.info() is None
    with pytest.raises(ToolError, match="there is no npu-smi to ask: set it in the spec, such as soc_version: Ascend310P3"):
        npu_smi.soc_version(0)
    ascend_host.make_host(tmp_path, monkeypatch, "npu-smi")
    monkeypatch.setenv("EMULATED_SOC", "none")
    asked = npu_smi._ask.cache_info().misses
    for _ in range(2):
        with pytest.raises(ToolError, match=r"npu-smi info failed \(1\): dcmi model initialized failed"):
            npu_smi.info()
    assert npu_smi._ask.cache_info().misses == asked + 1  # a tool that fails, perhaps after half a minute, is asked once
