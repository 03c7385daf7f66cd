"""An emulated msprof: runs the program and writes an op_summary in the layout of the emulated CANN version.

The operators are those of the OM's graph under the names ATC gives them; durations come from a fixed formula, not a clock:
they are made up, and every name says so.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

TYPES = ["TransData", "SoftmaxV2", "BatchMatMulV2", "MatMulV2", "LayerNorm", "Gelu", "Conv2D", "Add"]
_TASK = "Model ID,Task ID,Stream ID,Op Name,OP Type"
_TIMES = "Task Type,Task Start Time,Task Duration(us),Task Wait Time(us)"
_TIMES_US = "OP State,Task Type,Task Start Time(us),Task Duration(us),Task Wait Time(us)"
_DATED = "mindstudio_profiler_output/op_summary_20250101000000.csv"
LAYOUTS = {
    "5": (
        "device_0/summary/op_summary_0_1.csv",
        f"Model Name,Model ID,Task ID,Stream ID,Infer ID,Op Name,OP Type,{_TIMES},Block Dim",
    ),
    "6": ("device_0/summary/op_summary_0_1_1.csv", f"{_TASK},{_TIMES},Block Dim,Input Shapes"),
    "8": (_DATED, f"Device_id,{_TASK},{_TIMES_US},Block Dim,HF32 Eligible,Input Shapes"),
    "9": (_DATED, f"Device_id,{_TASK},{_TIMES_US},Block Num,Mix Block Num,HF32 Eligible,Input Shapes"),
}


def main(arguments: list[str]) -> int:
    options = dict(re.fullmatch(r"--([a-z-]+)=(.*)", argument, re.DOTALL).groups() for argument in arguments)
    output = Path(options["output"])
    if not output.is_absolute():
        print("msprof: EMULATED: a relative output, and this program changes its directory")
        return 1
    report = output / "uses.jsonl"  # how often the program executed the model
    environment = {**os.environ, "EMULATED_REPORT": str(report)}
    code = subprocess.run(shlex.split(options["application"]), cwd="/", env=environment, check=False).returncode
    if code:
        print(f"msprof: EMULATED: the application failed with {code}")
        return code
    uses = report.read_text()
    if elsewhere := os.environ.get("EMULATED_REPORT"):
        with Path(elsewhere).open("a") as file:
            file.write(uses)
    calls = [json.loads(line)["calls"] for line in uses.splitlines()]
    executions = sum(count.get("mdl.execute", 0) + count.get("mdl.execute_async", 0) for count in calls)
    path, header = LAYOUTS[os.environ.get("EMULATED_CANN", "8")[0].replace("7", "8")]
    columns = header.split(",")
    rows = []
    for number, kind in enumerate(TYPES * executions):
        values = {"Op Name": f"EMULATED_{kind}", "OP Type": kind, "Task Duration(us)": f"{100 - 10 * (number % 8)}.5"}
        rows.append(",".join(values.get(column, '"8,197,384;384"' if "Shapes" in column else "0") for column in columns))
    wait = {"Op Name": "N/A", "OP Type": "N/A", "Task Type": "EVENT_WAIT", "Task Duration(us)": "2.5"}
    rows += [",".join(wait.get(column, "N/A") for column in columns)] * executions
    file = output / "PROF_000001_20250101000000000_EMULATED" / path
    file.parent.mkdir(parents=True)
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
