"""What the house weighs: `python tests/house.py` prints lines by room and the longest functions; `test_house.py` checks."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "deit_helpers"
CORE = ("run", "data", "metrics", "stages", "report", "pipeline.py", "__main__.py")  # what notebooks touch
# Lines. The core was to be 4,500; since then it reads what users really have, tests verdicts, four more notebooks, a verdict
# card, a live line, and pages in two languages. It has to come down again: CONTRIBUTING.
MOST = {"core": 7080, "room": 1100, "all": 7600, "function": 40}


def lines_by_room() -> Counter[str]:
    """Lines of Python in every folder and file directly under the package, docstrings and comments included."""
    counts: Counter[str] = Counter()
    for path in PACKAGE.rglob("*.py"):
        counts[path.relative_to(PACKAGE).parts[0]] += len(path.read_text(encoding="utf-8").splitlines())
    return counts


def functions() -> dict[str, int]:
    """Lines of every function, its docstring left out, by place."""
    lengths = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                documented = ast.get_docstring(node) is not None
                doc = node.body[0].end_lineno - node.body[0].lineno + 1 if documented else 0  # type: ignore[operator]
                lengths[f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"] = node.end_lineno - node.lineno + 1 - doc  # type: ignore[operator]
    return lengths


def main() -> None:
    rooms = lines_by_room()
    for room, lines in sorted(rooms.items(), key=lambda row: (row[0] not in CORE, row[0])):
        print(f"{lines:6}  {room}{'' if room not in CORE else '  (core)'}")
    print(f"{sum(rooms[room] for room in CORE):6}  core, at most {MOST['core']}")
    print(f"{rooms.total():6}  in all, aim {MOST['all']}")
    for place, lines in sorted(functions().items(), key=lambda row: -row[1])[:12]:
        print(f"{lines:6}  {place}")


if __name__ == "__main__":
    main()
