"""msprof: run the device model under the vendor's profiler, and read its tables of any CANN version.

`op_summary` has a row per task, `op_statistic` one per operator type. Columns are found by name: their order, and what
stands beside them, changes with every release and with the counters that were switched on.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ToolError
from ..metrics.operators import family_of_ascend, operator_table
from . import cann

if TYPE_CHECKING:
    import pandas as pd

TIMEOUT_S = 1800


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
            last = ((process.stdout + process.stderr).strip().splitlines() or ["nothing"])[-1]
            raise ToolError(f"msprof failed ({process.returncode}): {last}: try what it watches alone: {shlex.join(program)}")
        return read(Path(folder))


def read(folder: Path) -> pd.DataFrame:
    """The operator table of a PROF folder, or of a folder that holds one.

    Returns:
        A table with COLUMNS, most time first. `op_summary` is preferred: it has the names of the operators.

    Raises:
        ToolError: no such file, or one without a column that is needed; names the file and the column.
    """
    import pandas as pd

    profiles = sorted({path for path in folder.glob("**/PROF_*") if path.is_dir()})
    if len(profiles) > 1:
        raise ToolError(f"{folder}: holds {len(profiles)} profiles, such as {profiles[0].name}: name one of them")
    summaries, statistics = (sorted(folder.glob(f"**/{kind}*.csv")) for kind in ("op_summary", "op_statistic"))
    if summaries:
        tasks = pd.concat([_read(path, {"op type": str, "op name": str, "task duration": float}) for path in summaries])
        tasks.columns = ["op_type", "name", "total_us"]
        grouped = tasks.dropna().groupby(["op_type", "name"], as_index=False)
        table = grouped.agg(calls=("total_us", "size"), total_us=("total_us", "sum"))
    else:
        totals = [_read(path, {"op type": str, "count": float, "total time": float}) for path in statistics]
        table = pd.concat([pd.DataFrame(columns=["op type", "count", "total time"]), *totals])
        table.columns = ["op_type", "calls", "total_us"]
        table = table.assign(name=table["op_type"])
    table = table[table["op_type"].str.lower() != "total"]
    if table.empty or not table["total_us"].sum() > 0:
        names = ", ".join(map(str, summaries + statistics)) or "none of them is there"
        raise ToolError(f"{folder}: no operators in op_summary*.csv or op_statistic*.csv ({names}): export the profile again")
    table = table.assign(family=[family_of_ascend(kind) for kind in table["op_type"]], calls=table["calls"].astype(int))
    return operator_table(table, "msprof")


def _read(path: Path, wanted: dict[str, type]) -> pd.DataFrame:
    """The wanted columns of a CSV under plain names: `Task Duration(us)` and `Task Duration` are the same."""
    import pandas as pd

    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline()
        file.seek(0)
        delimiter = max(",;\t", key=header.count)
        decimal = {} if delimiter == "," else {"decimal": ","}  # a locale with decimal commas
        try:
            table = pd.read_csv(file, sep=delimiter, thousands="," if delimiter == "," else None, **decimal)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as err:
            raise ToolError(f"{path}: cannot be read as a table ({err}): export it again") from err
    columns = ", ".join(map(str, table.columns))
    table.columns = [str(name).partition("(")[0].strip().lower().replace("_", " ") for name in table.columns]
    for name, kind in wanted.items():
        if name not in table:
            raise ToolError(f"{path}: no column {name.title()!r}; it has: {columns}: export it again")
        if kind is float:
            texts = table[name]
            table[name] = pd.to_numeric(texts, errors="coerce")
            wrong = texts[(table[name].isna() & texts.notna()) | (table[name] < 0) | np.isinf(table[name])]
            if len(wrong):
                row, text = wrong.index[0] + 2, wrong.iloc[0]
                raise ToolError(f"{path}: line {row}, {name.title()!r}: {text!r} is no duration or count: export it again")
    return table[list(wanted)]
