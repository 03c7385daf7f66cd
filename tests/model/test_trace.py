"""The torch half of 01, a process of its own: torch prints its whole graph when it fails, and nobody waits for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from runs import TINY, opened, run_tool, write_spec

from deit_helpers import child
from deit_helpers.errors import DeitError, GraphError, SpecError
from deit_helpers.model import trace

DINOV2 = {"model": "vit_small_patch14_dinov2", "model_args": {**TINY["model_args"], "num_classes": 3}}


def traced(project: Path, limit_s: float = 100, **keys: Any) -> Any:
    """`trace` of a model with random weights on crops of 224 pixels."""
    spec = {**TINY, **keys}
    weights = timm.create_model(spec["model"], **spec["model_args"]).state_dict()
    torch.save(weights, project / "x.pth")
    run = opened(project, checkpoint="x.pth", **spec)
    return trace.trace(run, np.zeros((1, 3, 224, 224), np.float32), project / "x.onnx", limit_s)


@pytest.mark.parametrize(
    ("keys", "kind", "message"),
    [
        (
            {**DINOV2, "model_args": {**DINOV2["model_args"], "dynamic_img_size": True}}, GraphError,
            r"_dinov2: .* operator aten::_upsample_bicubic2d_aa at opset 11; no opset of it has it: take another",
        ),
        (DINOV2, SpecError, r"crops of 224 px, .* cannot take them \(.*518.*\); `preprocess: model` makes them"),
        (
            {"opset": 9, "model": "swin_tiny_patch4_window7_224", "model_args": {}}, GraphError,
            r"torch's exporter failed .*SymbolicValueError: Unsupported: ONNX export of Pad in opset 9.*; try another",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_one_line(project: Path, keys: dict[str, Any], kind: type[DeitError], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        traced(project, **keys)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_limit_of_time_holds(project: Path) -> None:
    with pytest.raises(GraphError, match=r"vit_tiny_patch16_224 at opset 11: torch's exporter did not end within 0\.1 s; try"):
        traced(project, limit_s=0.1)


def test_a_crash_names_the_signal(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = project / "python"
    program.write_text("#!/bin/sh\nkill -KILL $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(child.sys, "executable", str(program))
    with pytest.raises(GraphError, match="torch's exporter was killed by signal 9; try"):
        traced(project)


def test_a_notebook_whose_export_fails_ends_in_one_line(class_folders: Path, project: Path) -> None:
    torch.save(timm.create_model("volo_d1_224").state_dict(), project / "volo.pth")
    write_spec(project, model="volo_d1_224", model_args={}, checkpoint="volo.pth", opset=11)
    result = run_tool("deit_helpers", "run", "params/test.yaml", "--to", "01", cwd=project)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert line.endswith("operator aten::col2im at opset 11; the first opset that has it is 18: set opset: 18")
