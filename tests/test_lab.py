"""A notebook saved by Jupyter beside git: clean as long as nobody edits it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from runs import REPOSITORY

from deit_helpers import lab


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git repository with a notebook of ours and the filter that the Makefile sets up, from this environment."""
    plan = subprocess.run(["make", "-nB", ".venv/.ready"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    (setup,) = (line for line in plan.splitlines() if "filter.notebook.clean" in line)
    ours = Path(sys.executable).with_name("nbstripout")
    (tmp_path / "01_export.ipynb").write_bytes((REPOSITORY / "notebooks/01_export.ipynb").read_bytes())
    (tmp_path / ".gitattributes").write_bytes((REPOSITORY / ".gitattributes").read_bytes())
    who = "git -c user.name=a -c user.email=a@b"
    commands = [
        "git init -q",
        setup.replace(f"{REPOSITORY}/.venv/bin/nbstripout", str(ours)),
        "git add .",
        f"{who} commit -qm 1",
    ]
    for command in commands:
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    return tmp_path


def save(path: Path, source: str = "") -> None:
    """Save the notebook as Jupyter does after all cells were run, the last one with another source."""
    node = nbformat.read(REPOSITORY / "notebooks/01_export.ipynb", as_version=4)
    for count, cell in enumerate(cell for cell in node.cells if cell.cell_type == "code"):
        cell.execution_count, cell.outputs = count, [nbformat.v4.new_output("stream", text="said")]
    node.cells[-1].source += source
    node.cells.append(nbformat.v4.new_code_cell())  # Shift+Enter in the last cell makes one
    node.metadata["language_info"] |= {"version": "3.11.7", "codemirror_mode": {"name": "ipython"}, "file_extension": ".py"}
    nbformat.write(node, path)
    lab.mark_clean(os_path=str(path), model={"type": "notebook"}, contents_manager=None)


def status(checkout: Path) -> str:
    return subprocess.run(["git", "status", "--short"], cwd=checkout, capture_output=True, text=True, check=True).stdout


def test_a_notebook_that_was_run_and_saved_is_clean_and_keeps_its_outputs(checkout: Path) -> None:
    save(checkout / "01_export.ipynb")
    assert status(checkout) == ""
    assert "said" in (checkout / "01_export.ipynb").read_text()


def test_an_edited_notebook_is_modified_and_a_new_one_is_not_added(checkout: Path) -> None:
    save(checkout / "01_export.ipynb", " more")
    save(checkout / "new.ipynb")
    assert status(checkout) == " M 01_export.ipynb\n?? new.ipynb\n"


def test_saving_outside_of_git_is_quiet(tmp_path: Path) -> None:
    save(tmp_path / "alone.ipynb")
