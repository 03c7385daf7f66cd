"""Promises of the repository itself: notebooks, environments, README."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import yaml
from runs import REPOSITORY

from deit_helpers.run import lineage

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def cells(request: pytest.FixtureRequest) -> list[dict]:
    cells = json.loads(request.param.read_text())["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


def test_there_are_seven_notebooks_and_those_of_the_lineage() -> None:
    names = [path.stem for path in NOTEBOOKS]
    assert [name[:2] for name in names if name[0].isdigit()] == ["01", "02", "03", "04", "05", "06", "07"]
    assert names == sorted(lineage.NOTEBOOKS)


def test_every_cell_has_an_id_of_its_own(cells: list[dict]) -> None:
    ids = [cell["id"] for cell in cells]
    assert len(set(ids)) == len(ids)


def test_a_notebook_is_title_parameters_setup_then_body(cells: list[dict]) -> None:
    assert [cell["metadata"].get("tags") for cell in cells[1:3]] == [["parameters"], ["setup"]]
    sides = 'left = "torch"\nright = "onnx"' if "Localize" in cells[0]["source"] else "batch_size = (8|None)"
    one = f'spec = "params/demo.yaml"\n{sides}'
    two = 'base = "reports/demo"\nnew = "reports/demo"\nmax_drop = 1.0\nmax_slowdown = 5.0'
    assert re.fullmatch(two if cells[0]["source"].startswith("# Compare") else one, cells[1]["source"])
    title = cells[0]["source"]
    assert title.startswith("# ")
    assert len(title.split()) < 120
    assert not any("import" in cell["source"].split() for cell in cells[3:] if cell["cell_type"] == "code")


def test_every_body_cell_is_short_announced_and_ends_in_a_value(cells: list[dict]) -> None:
    for before, cell in itertools.pairwise(cells[2:]):
        if cell["cell_type"] == "markdown":
            continue
        lines = cell["source"].splitlines()
        assert before["cell_type"] == "markdown", cell["source"]
        assert len(lines) <= 12
        assert re.match(r"[\w.]+\(", lines[-1]), lines[-1]
        assert not re.search(r"^\s*(def |class |try:|%|!|from |import )", cell["source"], re.MULTILINE)


@pytest.mark.parametrize("notebook", [*NOTEBOOKS, *(REPOSITORY / "tests").rglob("*.ipynb")], ids=lambda path: path.stem)
def test_committed_notebooks_are_stripped(notebook: Path) -> None:
    for cell in json.loads(notebook.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
        assert "papermill" not in cell["metadata"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebooks_are_written_as_jupyter_writes_them(notebook: Path) -> None:
    node = nbformat.read(notebook, as_version=4)
    node.metadata.kernelspec.display_name = "Python 3 (ipykernel)"
    text = nbformat.writes(node) + "\n"
    assert notebook.read_text() == text  # otherwise one that is opened and saved shows up in `git status`


def test_environment_yml_asks_for_the_same_packages_as_pyproject() -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [d for extra in project["optional-dependencies"].values() for d in extra]
    conda = yaml.safe_load((REPOSITORY / "environment.yml").read_text())["dependencies"]
    assert conda[-1]["pip"] == [*wanted, "-e ."]


def test_the_lock_pins_everything_and_names_no_host() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    assert all(re.match(r"[\w.\[\]-]+==[\w.+!]+( ;.*)?$", line) for line in lines)
    assert "://" not in "".join(lines)


def test_listing_the_package_imports_no_runtime() -> None:
    code = (
        "import sys, deit_helpers.pipeline, deit_helpers.report.index, deit_helpers.stages.infer;"
        "import deit_helpers.model.checkpoint, deit_helpers.stages.export;"
        "sys.exit(', '.join({'torch', 'timm', 'onnxsim', 'onnxruntime'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip() == ""


def test_the_readme_shows_only_make_targets_and_files_that_exist() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    targets = set(re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", readme, re.MULTILINE)) <= targets
    paths = re.findall(r"\b(?:notebooks|params|docs)/[\w./-]+\.\w+", readme)
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []
    assert Path(REPOSITORY / "docs/report.png").stat().st_size < 400_000


def test_the_chinese_readme_has_the_sections_commands_keys_and_figures_of_the_english_one() -> None:
    english, chinese = ((REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    for what in (r"^##+ ", r"(?s)```.*?```", r"(?m)^\| (`[^|]+) \|", r"\d+(?:[.,]\d+)+", r"(?<=`)[a-z_]+: [^`]+(?=`)"):
        flags = re.M if what.startswith("^") else 0
        assert Counter(re.findall(what, chinese, flags)) == Counter(re.findall(what, english, flags)), what
    assert len(re.findall(r"^\|", chinese, re.M)) == len(re.findall(r"^\|", english, re.M))
