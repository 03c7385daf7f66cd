"""The house keeps its shape: rooms stay small, functions short, and a stage's row names all the code that it runs."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import house
import pytest

from deit_helpers.run import lineage
from deit_helpers.run.backends import BACKENDS

# How a run is kept, files written and errors said: used by every stage, and not followed. What of `run/` decides a result
# is in the rows: recipes, edits, expected, journal.
INFRASTRUCTURE = ("files.py", "errors.py", *(f"run/{name}.py" for name in (
    "backends", "folder", "hashing", "host", "lineage", "manifest", "progress", "records", "spec", "validation")))  # fmt: skip
# What a stage uses beside its store, graph, shards or OM: statistics and vendor's formats, a change of which makes none again.
COMPARED = ("metrics/classification.py",)
TIMED = ("metrics/latency.py", "metrics/operators.py")
LEFT_OUT: dict[str, tuple[str, ...]] = {
    "export": (*COMPARED, *TIMED),
    "optimize": (*COMPARED, *TIMED),
    "preprocess": ("ascend/benchmark.py", "ascend/dumps.py"),  # `bins: true`
    "convert": ("ascend/cann.py", "ascend/npu_smi.py", "ascend/codes.py"),  # the version and the chip are in the record
    "reference": (*COMPARED, *TIMED),
    "agreement": TIMED,
    "infer": (*TIMED, "ascend/benchmark.py", "ascend/dumps.py", "ascend/cann.py", "ascend/npu_smi.py", "ascend/codes.py"),
    "waterfall": TIMED,
    "perf": ("ascend/cann.py", "ascend/npu_smi.py", "ascend/codes.py", "ascend/dumps.py"),
}


def imported(path: Path) -> set[Path]:
    """The files of the package that a file imports, also inside functions."""
    files: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        folder = path.parents[node.level - 1]
        target = folder / (node.module or "").replace(".", "/")
        for candidate in (target, *(target / alias.name for alias in node.names)):
            places = (candidate.with_suffix(".py"), candidate / "__init__.py")
            files |= {file for file in places if file.is_file() and file.stat().st_size and file.parent != house.PACKAGE.parent}
    return files - {house.PACKAGE / "__init__.py", house.PACKAGE / "stages" / "__init__.py"}  # they import what is asked for


def reached(start: Path) -> set[str]:
    """The files that a file imports, directly or not; what the infrastructure imports is its own."""
    todo, seen = [start], set[Path]()
    while todo:
        path = todo.pop()
        if path not in seen:
            seen.add(path)
            todo += [] if covers(INFRASTRUCTURE, path.relative_to(house.PACKAGE).as_posix()) else imported(path)
    return {path.relative_to(house.PACKAGE).as_posix() for path in seen}


def modules(entries: Iterable[str]) -> list[Path]:
    """The Python files that entries of a row name, those of folders too."""
    places = [house.PACKAGE / entry for entry in entries if entry != "backend"]
    return [file for place in places for file in (place.glob("*.py") if place.is_dir() else [place]) if file.suffix == ".py"]


def covers(entries: tuple[str, ...], file: str) -> bool:
    return any(file == entry or file.startswith(f"{entry}/") for entry in entries)


@pytest.mark.parametrize("stage", lineage.STAGES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_of_the_lineage_names_every_file_that_its_stage_imports(stage: str, backend: str) -> None:
    row = BACKENDS[backend]
    code = tuple(part for entry in lineage.STAGES[stage].code for part in (row.code if entry == "backend" else (entry,)))
    of_others = tuple(
        file for name, other in BACKENDS.items() if name != backend for file in other.code if file not in row.code
    )
    files = set[str]().union(*(reached(start) for start in modules(code)))
    left_out = (*INFRASTRUCTURE, *LEFT_OUT.get(stage, ()), *of_others)
    assert sorted(file for file in files if not covers(code, file) and not covers(left_out, file)) == []


def test_what_pages_are_drawn_with_is_their_code() -> None:
    pages = [*(house.PACKAGE / "report").glob("*.py"), house.PACKAGE / "audit" / "rules.py"]  # the report shows the self-audit
    files = set[str]().union(*(reached(page) for page in pages))
    assert sorted(file for file in files if not covers((*lineage.PAGE_CODE, *INFRASTRUCTURE), file)) == []


def test_nothing_is_left_out_that_no_stage_uses() -> None:
    for stage, files in LEFT_OUT.items():
        code = lineage.STAGES[stage].code
        of_backends = [file for row in BACKENDS.values() for file in row.code if "backend" in code]
        used = set[str]().union(*(reached(start) for start in modules([*code, *of_backends])))
        assert [file for file in files if file not in used] == [], stage


def test_functions_are_short() -> None:
    assert {place: lines for place, lines in house.functions().items() if lines > house.MOST["function"]} == {}


def test_rooms_stay_small() -> None:
    rooms = house.lines_by_room()
    assert sum(rooms[room] for room in house.CORE) <= house.MOST["core"]
    assert {
        room: lines
        for room, lines in rooms.items()
        if room not in house.CORE and lines > house.MOST.get(room, house.MOST["room"])
    } == {}


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("run/folder.py", "", False),
        ("ascend/cann.py", "from ..run import folder", True),
        ("metrics/latency.py", "from ..files import atomic\nfrom ..data import batches", True),
        ("report/perf.py", "from ..backends import bench", True),
    ],
)
def test_an_upward_import_breaks_the_contract(tmp_path: Path, file: str, line: str, broken: bool) -> None:
    shutil.copytree(house.PACKAGE, tmp_path / "deit_helpers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(house.PACKAGE.parent / "pyproject.toml", tmp_path)
    with (tmp_path / "deit_helpers" / file).open("a") as code:
        code.write(f"\n{line}\n")
    program = Path(sys.executable).with_name("lint-imports")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run([program, "--no-cache"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode != 0) is broken, result.stdout
    assert ("BROKEN" in result.stdout) is broken
