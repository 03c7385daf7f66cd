"""The folder of pages itself: names are told apart, and a page imports what it needs and no more."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import deit_helpers.report.elements

MODULES = sorted(Path(deit_helpers.report.elements.__file__).parent.glob("*.py"))


def defined(tree: ast.Module) -> list[str]:
    """Functions, classes and constants of a module, imports left out."""
    names = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return names + [n.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets for n in names_in(t)]


def names_in(node: ast.AST) -> list[ast.Name]:
    return [child for child in ast.walk(node) if isinstance(child, ast.Name)]


def test_no_two_things_of_the_folder_have_one_name() -> None:
    counts = Counter(name for path in MODULES for name in defined(ast.parse(path.read_text())))
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_value_hides_a_function_of_its_module(path: Path) -> None:
    tree = ast.parse(path.read_text())
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    stored = {n.id for node in functions for n in names_in(node) if isinstance(n.ctx, ast.Store)}
    assert stored & set(defined(tree)) == set()


@pytest.mark.parametrize("page", ["convert", "export", "infer", "html", "words"])
def test_a_page_without_charts_imports_no_drawing_and_no_arithmetic(page: str) -> None:
    heavy = ("matplotlib", "nbconvert", "onnx", "pandas", "PIL", "scipy")
    code = f"import sys, deit_helpers.report.{page}; sys.exit(' '.join({set(heavy)!r} & sys.modules.keys()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip() == ""


@pytest.mark.parametrize("page", ["accuracy", "index", "optimize", "perf", "preprocess"])
def test_importing_a_page_with_charts_does_not_import_what_draws_them(page: str) -> None:
    code = f"import sys, deit_helpers.report.{page} as page; page.notes; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
