"""The waterfall by the command line: made where the spec asks for it, linked and told on the report, gone with the key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from runs import run_tool


def test_a_run_that_asks_for_a_waterfall_shows_it_and_others_do_not(finished_project: Path, tmp_path: Path) -> None:
    project = tmp_path / "copy"
    shutil.copytree(finished_project, project)
    folder, asked = project / "reports/mini", ["-s", "waterfall=[timm, onnx, simplified, pad_tokens, device]"]
    result = run_tool("deit_helpers", "run", "params/mini.yaml", *asked, cwd=project)
    assert result.returncode == 0, result.stderr
    made = [line.split()[2] for line in result.stderr.splitlines() if " done in " in line]
    assert made == ["waterfall", "waterfall", "report"]
    report = (folder / "index.html").read_text()
    assert "Where the points went, bs1, bs8." in report
    for size in (1, 8):
        assert f'<a href="bs{size}/waterfall.html">' in report
        assert "One change a rung on the same 60 images" in (folder / f"bs{size}/waterfall.html").read_text()
    reused = [row["reused"] for row in json.loads((folder / "bs8/waterfall.json").read_text())["rungs"]]
    assert reused == [True] * 5
    again = run_tool("deit_helpers", "run", "params/mini.yaml", *asked, cwd=project)
    assert "nothing to do" in again.stdout

    without = run_tool("deit_helpers", "run", "params/mini.yaml", cwd=project)
    assert without.returncode == 0, without.stderr
    report = (folder / "index.html").read_text()
    assert "Where the points went" not in report
    assert "waterfall.html" not in report
