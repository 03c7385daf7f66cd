"""msprof: run the device model under the vendor's profiler, and read its tables of any CANN version.

`op_summary` has a row per task, `op_statistic` one per operator type. Columns are found by name: their order, and what
stands beside them, changes with every release and with the counters that were switched on.
"""

from __future__ import annotations

import csv
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ToolError, one_line
from ..metrics.operators import UNKNOWN, family_of_ascend, operator_table
from . import cann, codes
from .benchmark import MOST

if TYPE_CHECKING:
    import pandas as pd

TIMEOUT_S = 1800
_MISSING = frozenset({"", "N/A", "NA"})


def profile(program: list[str], cwd: Path) -> pd.DataFrame | str:
    """Run a program under msprof and read its tables as `read` does; or the reason why not, in a sentence.

    Raises:
        ToolError: msprof ran and failed, or wrote nothing that can be read.
    """
    path = cann.tool("msprof")
    if path is None:
        return "msprof is not on this host: source set_env.sh of CANN, or `deit-report import` what it wrote elsewhere"
    with tempfile.TemporaryDirectory(prefix="deit-report-msprof-") as folder:
        command = [path, f"--output={folder}", f"--application={shlex.join(program)}", "--model-execution=on", "--task-time=on"]
        try:
            # msprof changes its working directory: only absolute paths may be handed to it, and the root is set here.
            process = subprocess.run(
                command, cwd=cwd, env=cann.environment(), capture_output=True, text=True, errors="replace",
                timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        except OSError as err:
            raise ToolError(f"{path}: cannot be started ({err.strerror}): install the toolkit again") from err
        except subprocess.TimeoutExpired as err:
            raise ToolError(f"msprof did not end within {TIMEOUT_S} s: free the device and run 07 again") from err
        if process.returncode:
            why = codes.failure("msprof", process.stdout + process.stderr, "try what it watches alone")
            raise ToolError(f"msprof failed ({process.returncode}): {why}: {shlex.join(program)}")
        return read(Path(folder))


def read(folder: Path) -> pd.DataFrame:
    """The operator table of a PROF folder, or of a folder that holds one.

    Returns:
        A table with COLUMNS, most time first. `op_summary` is preferred: it has the names of the operators. Its tasks without
        a type (waits, communication, all of them under `--task-time=l0`) are UNKNOWN, but where `op_statistic` knows more
        types: then the table is of types, and UNKNOWN what that file does not account for.

    Raises:
        ToolError: no such file, or one without a column that is needed; names the file and the column.
    """
    profiles = sorted({path for path in folder.glob("**/PROF_*") if path.is_dir()})
    if len(profiles) > 1:
        raise ToolError(f"{folder}: holds {len(profiles)} profiles, such as {profiles[0].name}: name one of them")
    summaries, statistics = (_newest(sorted(folder.glob(f"**/{kind}*.csv"))) for kind in ("op_summary", "op_statistic"))
    rows = [row for path in summaries for row in _rows(path, ("op type", "op name"), ("task duration",))]
    totals = [row for path in statistics for row in _rows(path, ("op type",), ("count", "total time"))]
    typed_us, known_us = (sum(row.us for row in side if row.op_type != UNKNOWN) for side in (rows, totals))
    if not rows or (any(row.op_type == UNKNOWN for row in rows) and known_us > 1.01 * typed_us):
        calls = len(rows) - sum(row.calls for row in totals)
        us = sum(row.us for row in rows) - sum(row.us for row in totals)
        rows = [*totals, _Row(UNKNOWN, UNKNOWN, calls, max(us, 0.0))] if calls > 0 else totals
    if not sum(row.us for row in rows) > 0:
        names = one_line(", ".join(path.name for path in summaries + statistics) or "none of them is there", 200)
        raise ToolError(f"{folder}: no operators in op_summary*.csv or op_statistic*.csv ({names}): export the profile again")
    return operator_table([(family_of_ascend(row.op_type), *row) for row in rows], "msprof")


def batches(table: pd.DataFrame) -> int | None:
    """How many batches a table of `read` is of, None where its counts do not tell.

    Most operators run once per batch. A table of types alone tells where the count of one divides all others: a ViT has one
    convolution.
    """
    table = table[table["op_type"] != UNKNOWN]
    if (table["name"] != table["op_type"]).any():
        return int(table["calls"].mode()[0])
    least = 0 if table.empty else int(table["calls"].min())
    return least if least and not (table["calls"] % least).any() else None


def _newest(paths: list[Path]) -> list[Path]:
    """Of files that are alike but for the time of the export, at the end of their names, those of the last, in all slices."""
    exports: dict[tuple[Path, str], dict[str, list[Path]]] = {}
    for path in paths:
        stem, _, time = re.sub(r"_slice_\d+", "", path.stem).rpartition("_")
        name, time = (stem, time) if len(time) >= 14 and time.isdecimal() else (path.stem, "")
        exports.setdefault((path.parent, name), {}).setdefault(time, []).append(path)
    return [path for times in exports.values() for path in times[max(times)]]


class _Row(NamedTuple):
    """A row of a table: of a task, or of all tasks of a type, whose name is the type again."""

    op_type: str
    name: str
    calls: int
    us: float


def _rows(path: Path, texts: tuple[str, ...], numbers: tuple[str, ...]) -> Iterator[_Row]:
    """The tasks in op_summary, or the types in op_statistic. One without its time, the last of `numbers`, is left out."""
    for row in _read(path, texts, numbers):
        if numbers[-1] in row:
            kind = row.get("op type", UNKNOWN)
            name = row.get("op name") or row.get("op type") or row.get("task type") or UNKNOWN
            calls = int(row.get("count", 0)) if "count" in numbers else 1  # those of N/A are 0
            yield _Row(kind, name, calls, row[numbers[-1]])


def _read(path: Path, texts: tuple[str, ...], numbers: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The rows of a CSV under plain names, `Task Duration(us)` is `task duration`, without what is missing or N/A.

    A row of totals is left out. Read without pandas: it fails on numbers too large for C, and takes long for a header with
    thousands of columns.
    """
    header, rows, decimal_comma = _texts(path)
    plain = [name.partition("(")[0].strip().lower().replace("_", " ") for name in header]
    if missing := [name for name in (*texts, *numbers) if name not in plain]:
        columns = one_line(", ".join(header), 160)
        raise ToolError(f"{path}: no column {missing[0].title()!r}; it has: {columns}: export it again")
    places = {name: plain.index(name) for name in (*texts, *numbers, "task type") if name in plain}
    for line, row in enumerate(rows, 2):
        values: dict[str, Any] = {
            name: row[place] for name, place in places.items() if place < len(row) and row[place] not in _MISSING
        }
        for name in (name for name in numbers if name in values):
            values[name] = _number(values[name], decimal_comma, f"{path}: line {line}, {name.title()!r}")
        if values.get("op type", "").lower() != "total":
            yield values


def _texts(path: Path) -> tuple[list[str], list[list[str]], bool]:
    """Header and rows of a CSV, and whether it is of a locale with decimal commas."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(",;\t", key=first.count)
            header, *rows = csv.reader(file, delimiter=delimiter, strict=True)
        if longer := [row for row in rows if len(row) > len(header)]:
            raise ValueError(f"a row of {len(longer[0])} fields below a header of {len(header)}")
    except (csv.Error, ValueError, OSError) as err:
        raise ToolError(f"{path}: cannot be read as a table ({one_line(err)}): export it again") from err
    return header, rows, delimiter != ","


def _number(text: str, decimal_comma: bool, place: str) -> float:
    """A duration or count, as the file's locale writes it."""
    try:
        number = float(text.replace(",", "." if decimal_comma else ""))
    except ValueError:
        number = -1.0
    if not 0 <= number < MOST:
        raise ToolError(f"{place}: {one_line(text, 60)!r} is no duration or count: export it again")
    return number
