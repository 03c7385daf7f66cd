"""The last cell of every notebook: what it says to try works in a cell of one's own."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from runs import REPOSITORY, copy_of

from deit_helpers.run.folder import Run
from deit_helpers.stages import localize, rehearsal, waterfall

NOTEBOOKS = {path.stem: json.loads(path.read_text())["cells"] for path in sorted((REPOSITORY / "notebooks").glob("*.ipynb"))}


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def one_liners(notebook: str) -> list[str]:
    return re.findall(r"^- `([^`]+)`:", source(NOTEBOOKS[notebook][-1]), re.MULTILINE)


@pytest.fixture(scope="module")
def run(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A copy of the finished run with the pages that are asked for or made by hand."""
    keys: dict[str, Any] = {"waterfall": ["onnx", "device"], "rehearse": True}
    run = copy_of(finished, tmp_path_factory.mktemp("tried"), **keys)
    run.save_spec()
    for stage in (waterfall.waterfall, rehearsal.rehearsal, localize.suspects):
        stage(run)
    localize.localize(run, "onnx", "edited")
    return run


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_what_a_notebook_says_to_try_works(notebook: str, run: Run) -> None:
    assert source(NOTEBOOKS[notebook][-1]).startswith("## Try:\n")
    assert 2 <= len(one_liners(notebook)) <= 4
    parameters, setup = (source(cell) for cell in NOTEBOOKS[notebook][1:3])
    parameters = re.sub("(?m)^spec = .*", f"spec = {str(run.folder / 'spec.yaml')!r}", parameters)
    names: dict[str, Any] = {}
    exec(f"{parameters.replace('= 8', '= 4')}\n{setup}", names)
    for code in one_liners(notebook):
        value = eval(code, names)
        assert value is not None, code
        getattr(value, "_repr_html_", lambda: None)()
