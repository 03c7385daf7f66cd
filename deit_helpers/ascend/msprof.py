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
from pathlib import Path
from typing import TYPE_CHECKING

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
    import pandas as pd

    profiles = sorted({path for path in folder.glob("**/PROF_*") if path.is_dir()})
    if len(profiles) > 1:
        raise ToolError(f"{folder}: holds {len(profiles)} profiles, such as {profiles[0].name}: name one of them")
    summaries, statistics = (_newest(sorted(folder.glob(f"**/{kind}*.csv"))) for kind in ("op_summary", "op_statistic"))
    table, totals = _tasks(summaries), _totals(statistics)
    typed_us, known_us = (side.loc[side["op_type"] != UNKNOWN, "total_us"].sum() for side in (table, totals))
    if table.empty or ((table["op_type"] == UNKNOWN).any() and known_us > 1.01 * typed_us):
        calls, us = (table[column].sum() - totals[column].sum() for column in ("calls", "total_us"))
        rest = pd.DataFrame([[UNKNOWN, UNKNOWN, calls, max(us, 0.0)]], columns=totals.columns)
        table = pd.concat([totals, rest]) if calls > 0 else totals
    if table.empty or not table["total_us"].sum() > 0:
        names = one_line(", ".join(path.name for path in summaries + statistics) or "none of them is there", 200)
        raise ToolError(f"{folder}: no operators in op_summary*.csv or op_statistic*.csv ({names}): export the profile again")
    table = table.assign(family=[family_of_ascend(kind) for kind in table["op_type"]], calls=table["calls"].astype(int))
    return operator_table(table, "msprof")


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


def _tasks(paths: list[Path]) -> pd.DataFrame:
    """Type, name, calls and µs of the operators in op_summary. A task without a duration is left out."""
    import pandas as pd

    columns = {"op type": str, "op name": str, "task duration": float}
    tables = [_read(path, columns, optional="task type") for path in paths]
    tasks = pd.concat(tables or [pd.DataFrame(columns=[*columns, "task type"])]).dropna(subset="task duration")
    name = tasks["op name"].fillna(tasks["op type"]).fillna(tasks["task type"]).fillna(UNKNOWN)
    tasks = pd.DataFrame(
        {"op_type": tasks["op type"].fillna(UNKNOWN), "name": name, "total_us": tasks["task duration"].astype(float)}
    )
    grouped = tasks.groupby(["op_type", "name"], as_index=False)
    return grouped.agg(calls=("total_us", "size"), total_us=("total_us", "sum"))


def _totals(paths: list[Path]) -> pd.DataFrame:
    """Type, name (the type again), calls (0 for N/A) and µs of the types in op_statistic."""
    import pandas as pd

    columns = {"op type": str, "count": float, "total time": float}
    tables = [_read(path, columns) for path in paths]
    totals = pd.concat(tables or [pd.DataFrame(columns=list(columns))]).dropna(subset="total time")
    kind = totals["op type"].fillna(UNKNOWN)
    calls, total_us = totals["count"].astype(float).fillna(0), totals["total time"].astype(float)
    return pd.DataFrame({"op_type": kind, "name": kind, "calls": calls, "total_us": total_us})


def _read(path: Path, wanted: dict[str, type], optional: str | None = None) -> pd.DataFrame:
    """The wanted columns of a CSV, `op type` among them, under plain names: `Task Duration(us)` is `task duration`.

    A row of totals is left out. Read as text, without pandas: it fails on numbers too large for C, and takes long for a
    header with thousands of columns.
    """
    import pandas as pd

    header, rows, decimal_comma = _texts(path)
    plain = [name.partition("(")[0].strip().lower().replace("_", " ") for name in header]
    if missing := [name for name in wanted if name not in plain]:
        columns = one_line(", ".join(header), 160)
        raise ToolError(f"{path}: no column {missing[0].title()!r}; it has: {columns}: export it again")
    table = pd.DataFrame(index=range(len(rows)))
    for name in [*wanted, *([optional] if optional else [])]:
        place = plain.index(name) if name in plain else len(plain)
        values = [row[place] if place < len(row) and row[place] not in _MISSING else None for row in rows]
        table[name] = pd.Series(values, dtype=object)
        if wanted.get(name) is float:
            table[name] = _numbers(table[name], decimal_comma, f"{name.title()!r}", path)
    return table[table["op type"].str.lower() != "total"]


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


def _numbers(texts: pd.Series, decimal_comma: bool, column: str, path: Path) -> pd.Series:
    """A column of durations or counts, empty where the file says N/A."""
    import pandas as pd

    plain = texts.str.replace(",", "." if decimal_comma else "")
    numbers = pd.to_numeric(plain, errors="coerce")
    wrong = texts[texts.notna() & ~((numbers >= 0) & (numbers < MOST))]
    if len(wrong):
        text = one_line(wrong.iloc[0], 60)
        raise ToolError(f"{path}: line {wrong.index[0] + 2}, {column}: {text!r} is no duration or count: export it again")
    return numbers
