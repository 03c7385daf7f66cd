"""msprof: run the device model under the vendor's profiler, and read its tables of any CANN version.

`op_summary` has a row per task, `op_statistic` one per operator type. Columns are found by name: their order, and what
stands beside them, changes with every release and with the counters that were switched on.

`python -m deit_helpers.ascend.msprof SPEC BATCH_SIZE BATCHES` is the program that msprof watches.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from .. import images, infer
from ..artifacts import Run, open_run
from ..errors import ToolError
from ..profile import COLUMNS, OperatorProfile, with_shares
from ..spec import ASCEND_TOOLS
from . import cann, driver

TIMEOUT_S = 1800
_NAME, _TYPE, _DURATION, _COUNT, _TOTAL = "op name", "op type", "task duration", "count", "total time"


class _Table(NamedTuple):
    path: Path
    rows: list[dict[str, str]]
    decimal_comma: bool

    def number(self, text: str) -> float:
        return float(text.replace(",", ".") if self.decimal_comma else text.replace(",", ""))


def profile(run: Run, batches: int) -> OperatorProfile | str:
    """Run so many batches of the store under msprof and read its tables; or the reason why not, in a sentence.

    Raises:
        ToolError: msprof ran and failed, or wrote nothing that can be read.
    """
    path = cann.tool("msprof")
    if path is None:
        return "msprof is not on this host: source set_env.sh of CANN, or `deit-report import` what it wrote elsewhere"
    with tempfile.TemporaryDirectory(prefix="deit-report-msprof-") as folder:
        if run.spec.backend in ASCEND_TOOLS:
            program = driver.pure_inference(run, batches)
        else:
            program = [sys.executable, "-m", __name__, str(run.folder / "spec.yaml"), str(run.size), str(batches)]
        command = [path, f"--output={folder}", f"--application={shlex.join(program)}", "--model-execution=on", "--task-time=on"]
        try:
            # msprof changes its working directory: only absolute paths may be handed to it, and the root is set here.
            done = subprocess.run(
                command, cwd=run.root, env=cann.environment(), capture_output=True, text=True, errors="replace",
                timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as err:
            raise ToolError(f"msprof did not end within {TIMEOUT_S} s: free the device and run 07 again") from err
        if done.returncode:
            said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
            raise ToolError(f"msprof failed ({done.returncode}): {said[-1]}: try what it watches alone: {shlex.join(program)}")
        return OperatorProfile(read(Path(folder)), batches, None)


def read(folder: Path) -> pd.DataFrame:
    """The operator table of a PROF folder, or of a folder that holds one.

    Returns:
        A table with COLUMNS, most time first. `op_summary` is preferred: it has the names of the operators.

    Raises:
        ToolError: no such file, or one without a column that is needed; names the file and the column.
    """
    found = {kind: sorted(folder.glob(f"**/{kind}*.csv")) for kind in ("op_summary", "op_statistic")}
    totals: dict[tuple[str, str], list[float]] = {}
    if found["op_summary"]:
        for path in found["op_summary"]:
            table = _read(path, _NAME, _TYPE, _DURATION)
            for row in table.rows:
                if row[_TYPE] in ("", "N/A") or row[_DURATION] in ("", "N/A"):
                    continue
                entry = totals.setdefault((row[_TYPE], row[_NAME]), [0, 0.0])
                entry[0] += 1
                entry[1] += table.number(row[_DURATION])
    else:
        for path in found["op_statistic"]:
            table = _read(path, _TYPE, _COUNT, _TOTAL)
            for row in table.rows:
                entry = totals.setdefault((row[_TYPE], row[_TYPE]), [0, 0.0])
                entry[0] += int(table.number(row[_COUNT]))
                entry[1] += table.number(row[_TOTAL])
    if not totals:
        names = ", ".join(str(path) for paths in found.values() for path in paths) or "none of them is there"
        raise ToolError(f"{folder}: no operators in op_summary*.csv or op_statistic*.csv ({names}): export the profile again")
    rows = [(family_of_ascend(kind), kind, name, int(calls), us) for (kind, name), (calls, us) in totals.items()]
    return with_shares(pd.DataFrame(rows, columns=COLUMNS[:5]), "pyacl")


_FAMILIES = {
    "SoftmaxV2": "softmax",
    "BatchMatMulV2": "batchmatmul",
    "MatMulV2": "matmul",
    "LayerNorm": "layernorm addlayernorm",
    "Gelu": "gelu fastgelu",
    "Conv2D": "conv2 conv2d",
    "TransData": "transdata transpose confusiontranspose reshape concat split slice stridedslice pad squeeze",
    "Elementwise": "add sub mul muls adds div realdiv pow sqrt cast reciprocal tanh erf",
}


def family_of_ascend(op_type: str) -> str:
    """The family of an Ascend operator type, whatever its version: BatchMatMulV3, MatMulV2, ConcatD, AddLayerNorm."""
    plain = re.sub(r"(?:V?D)?(?:V\d+)?$", "", op_type).lower()  # the D of ConcatD, the VD of SplitVD, a version
    return next((family for family, names in _FAMILIES.items() if plain in names.split()), "Other")


def _read(path: Path, *wanted: str) -> _Table:
    """A CSV with the wanted columns under plain names: `Task Duration(us)` and `Task Duration` are the same."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    columns = [name.partition("(")[0].strip().lower().replace("_", " ") for name in rows[0]] if rows else []
    for name in wanted:
        if name not in columns:
            there = ", ".join(rows[0]) if rows else "nothing"
            raise ToolError(f"{path}: no column {name.title()!r}; it has: {there}: export it again")
    places = {name: columns.index(name) for name in wanted}
    complete = [row for row in rows[1:] if len(row) > max(places.values())]
    return _Table(path, [{name: row[i].strip() for name, i in places.items()} for row in complete], delimiter != ",")


def main(spec: str, batch_size: int, batches: int) -> None:
    """Run the first images of the store through the device model, as many batches as asked for."""
    run = open_run(spec, batch_size)
    with infer.open_model(run) as backend:
        batch = next(images.batches(run, batch_size, backend.dtype)).tensor
        for _ in range(batches):
            backend.infer(batch)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
