"""The simplifier is a process of its own: whatever happens to it is one line, never a crash of the run."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
from graphs import exported

from deit_helpers.graph import simplify
from deit_helpers.graph.graph import fix_batch


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(exported())
    onnx.save(fix_batch(fixed, 2), tmp_path / "fixed.onnx")
    return tmp_path / "fixed.onnx"


def test_the_shape_work_of_the_symbolic_batch_is_folded(graph: Path, tmp_path: Path) -> None:
    assert simplify.simplify(graph, tmp_path / "out.onnx") is None
    assert "Where" in {node.op_type for node in onnx.load(graph).graph.node}
    assert "Where" not in {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}


def test_a_file_that_is_no_graph_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    why = simplify.simplify(tmp_path / "bad.onnx", tmp_path / "out.onnx")
    assert why is not None
    assert why.startswith("onnxsim failed with exit code 1: ")
    assert "\n" not in why


def test_the_limit_of_time_holds(graph: Path, tmp_path: Path) -> None:
    assert simplify.simplify(graph, tmp_path / "out.onnx", limit_s=0.01) == "onnxsim did not end within 0.01 s"


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux")
def test_the_limit_of_memory_holds(graph: Path, tmp_path: Path) -> None:
    why = simplify.simplify(graph, tmp_path / "out.onnx", limit_bytes=64 << 20)
    assert why is not None
    assert why.startswith("onnxsim ")
    assert not (tmp_path / "out.onnx").exists()


def test_a_crash_names_the_signal(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -SEGV $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert simplify.simplify(graph, tmp_path / "out.onnx") == "onnxsim was killed by signal 11"
