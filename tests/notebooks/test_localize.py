"""Localize by hand: papermill executes it, `render` publishes and links it, no run plans it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from bs4 import BeautifulSoup
from runs import REPOSITORY, run_tool


def test_localize_is_executed_by_hand_published_and_linked(finished_project: Path, tmp_path: Path) -> None:
    project = tmp_path / "copy"
    shutil.copytree(finished_project, project)
    source, page = str(REPOSITORY / "notebooks/localize.ipynb"), "reports/mini/localize.ipynb"
    parameters = ["-p", "spec", "params/mini.yaml", "-p", "left", "onnx", "-p", "right", "edited"]
    result = run_tool("papermill", source, page, *parameters, "--no-progress-bar", cwd=project)
    assert result.returncode == 0, result.stderr
    folder = project / "reports/mini"
    facts, known = (json.loads((folder / f"{name}.json").read_text()) for name in ("localize", "suspects"))
    assert (facts["left"]["name"], facts["right"]["name"], facts["verdict"]["kind"]) == ("onnx", "edited", "none")
    assert {cause["mistake"] for cause in known["causes"].values()} == {"none"}
    plan = run_tool("deit_helpers", "run", "params/mini.yaml", "--plan", cwd=project)
    assert "localize" not in plan.stdout
    assert not [line for line in plan.stdout.splitlines() if line.startswith("run ")]
    assert run_tool("deit_helpers", "render", "reports/mini", cwd=project).returncode == 0
    index, published = (BeautifulSoup((folder / name).read_text(), "html.parser") for name in ("index.html", "localize.html"))
    assert "localize.html" in {link["href"] for link in index.find_all("a")}
    assert "index.html" in {link["href"] for link in published.find_all("a")}
    assert "No tap is over tolerance (0.0001)." in published.text
    assert len(published.find_all("svg")) == 1
