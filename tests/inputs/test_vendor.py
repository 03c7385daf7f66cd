"""What the vendor's tools print and write, and what comes of it: one row per kind of file, with its value or its error line.

The texts are short excerpts in the words of the tools. An outcome is a value, or a regular expression that the error matches.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded import GHOSTNET, OP_STATISTIC, OP_SUMMARY, PUBLISHED, table_of_chips
from refusals import refused
from runs import copy_of

from deit_helpers import imported
from deit_helpers.ascend import ais_bench, atc, benchmark, codes, dumps, msprof, npu_smi
from deit_helpers.report import perf as report_perf
from deit_helpers.run.folder import Run

LONG = "x" * 3000
DIGITS = "9" * 3000


def check(outcome: Any, call: Callable[[], Any]) -> None:
    """Within seconds the call gives the outcome; where that is a regular expression, it fails with one short line of it."""
    start = time.monotonic()
    if not isinstance(outcome, str):
        assert call() == outcome
        assert time.monotonic() - start < 10
        return
    with refused(outcome):
        call()
    assert time.monotonic() - start < 10


# `npu-smi info`: what it prints -> chips as (index of the card, name, health, bus, MB used, MB in all)
CHIPS = {
    "310, four chips, no huge pages": (
        ["| 1  310 | OK | 12.8  49 |", "| 0  0 | 0000:01:00.0 | 0  2621 / 8192 |", "+---+---+---+",
         "| 1  310 | OK | 12.8  49 |", "| 1  1 | 0000:02:00.0 | 0  2621 / 8192 |"],
        [(1, "310", "OK", "0000:01:00.0", 2621, 8192), (1, "310", "OK", "0000:02:00.0", 2621, 8192)],
    ),
    "310B4: no bus id": (
        ["| 0  310B4 | Alarm | 0.0  65  15 / 15 |", "| 0  0 | NA | 0  3628 / 15609 |"],
        [(0, "310B4", "Alarm", "NA", 3628, 15609)],
    ),
    "310B4: memory in use not told": (
        ["| 0  310B4 | OK | 7.2  37  15 / 15 |", "| 0  0 | NA | 0  NA / 3513 |"],
        [(0, "310B4", "OK", "NA", None, 3513)],
    ),
    "Atlas 200 DK: no bus id": (
        ["| 0  310 | OK | 12.8  58 |", "| 0  0 | NA | 0  5324 / 8192 |"], [(0, "310", "OK", "NA", 5324, 8192)],
    ),
    "310P3, power NA": (
        ["| 6  310P3 | OK | NA  50  0 / 0 |", "| 0  0 | 0000:84:00.0 | 0  1839 / 21525 |"],
        [(6, "310P3", "OK", "0000:84:00.0", 1839, 21525)],
    ),
    "910A: memory under HBM": (
        ["| 0  910A | OK | 68.6  36 |", "| 0 | 0000:C1:00.0 | 0  591 / 14795  0 / 32255 |"],
        [(0, "910A", "OK", "0000:C1:00.0", 0, 32255)],
    ),
    "bus id made anonymous, last border cut off": (
        ["| 0  910B4-1 | OK | 91.3  33  0 / 0 |", "| 0 | 0000:xx:00.0 | 0  0 / 0  3197 / 65536 |"],
        [(0, "910B4-1", "OK", "0000:xx:00.0", 3197, 65536)],
    ),
    "A3: two dies of a card, and a process": (
        ["| 0  Ascend910 | OK | 162.8  37  0 / 0 |", "| 0  0 | 0000:9C:00.0 | 0  0 / 0  3133 / 65536 |", "+------+",
         "| 0  Ascend910 | OK | -  37  0 / 0 |", "| 1  1 | 0000:9E:00.0 | 0  0 / 0  2876 / 65536 |",
         "| NPU  Chip | Process id | Process name | Process memory(MB) |", "| 1  1 | 990711 | python | 7746 |"],
        [(0, "Ascend910", "OK", "0000:9C:00.0", 3133, 65536), (0, "Ascend910", "OK", "0000:9E:00.0", 2876, 65536)],
    ),
    "950DT: four cells, empty ones, no bus id": (
        ["| 0 | Ascend950DT | OK | 380.7  44  0 / 0 |", "|   |   | NA | 0  0 / 0  6632 / 86016 |", "+===+===+===+",
         "| 1 | Ascend950DT | OK | 380.3  51  0 / 0 |", "|   |   | NA | 5  0 / 0  6711 / 86016 |"],
        [(0, "Ascend950DT", "OK", "NA", 6632, 86016), (1, "Ascend950DT", "OK", "NA", 6711, 86016)],
    ),
    "950PR: a process is no chip": (
        ["| 0 | Ascend950PR | Alarm | 205.7  71  0 / 0 |", "|   |   | 0000:71:00.0 | 100  0 / 0  90633 / 114688 |",
         "| NPU ID | Process id | Process name | Process memory(MB) |", "| 0 | 2066378 | pytest | 360 |"],
        [(0, "Ascend950PR", "Alarm", "0000:71:00.0", 90633, 114688)],
    ),
    "half a chip, then a whole one": (
        ["| 0  310P3 | OK | NA  36  0 / 0 |", "| 1  310P3 | OK | NA  36  0 / 0 |", "| 1  1 | 0000:07:00.0 | 0  1041 / 43693 |"],
        [(1, "310P3", "OK", "0000:07:00.0", 1041, 43693)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", CHIPS)
def test_chips_are_those_of_the_table(row: str) -> None:
    lines, chips = CHIPS[row]
    check(chips, lambda: npu_smi.parse(table_of_chips(*lines)).chips)


# a name that npu-smi prints -> ATC's name of the chip
@pytest.mark.parametrize(
    ("name", "soc"), [("310P3", "Ascend310P3"), ("910B4-1", "Ascend910B4-1"), ("Ascend910", None), ("Ascend950DT", None)]
)
def test_a_chips_name_gives_its_soc_version_or_does_not(name: str, soc: str | None) -> None:
    assert npu_smi.Chip(0, name, "OK", "NA", 0, 0).soc_version == soc


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Put a program on PATH that prints a text and ends with a code; gives its path."""

    def put(name: str, text: str, code: int | str) -> str:
        (tmp_path / "says.txt").write_text(text)
        path = tmp_path / name
        path.write_text(f'#!/bin/sh\ncat "{tmp_path}/says.txt"\nexit {code}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        npu_smi._ask.cache_clear()
        return str(path)

    return put


# `npu-smi info` that is of no use: what it prints, its exit code -> the error
NO_CHIPS = {
    "held by another container": (
        "DrvMngGetConsoleLogLevel failed. (g_conLogLevel=3)\n"
        "dcmi model initialized failed, because the device is used. ret is -8020\nnpu get board type failed. ret is -9005", 255,
        r"npu-smi info failed \(255\): dcmi model .* -8020: another container or process holds the device",
    ),
    "no driver": (
        "dcmi module initialize failed. ret is -8005", 1,
        r"failed \(1\): dcmi module initialize failed\. ret is -8005: check the driver and the group of your user",
    ),
    "a table without chips": (
        table_of_chips(), 0, r"failed \(0\): it printed no reason: check the driver and the group of your user",
    ),
    "nothing": ("", 1, r"failed \(1\): it printed no reason: check the driver"),
    "a long line": (f"error {LONG}", 1, r"failed \(1\): error x+…x+: check the driver"),
}  # fmt: skip


@pytest.mark.parametrize("row", NO_CHIPS)
def test_npu_smi_that_fails_says_why_and_what_to_do(row: str, program: Callable[..., str]) -> None:
    text, code, outcome = NO_CHIPS[row]
    program("npu-smi", text, code)
    check(outcome, npu_smi.info)


START = "ATC start working now, please wait for a moment.\n"
FAILED = f"{START}ATC run failed, Please check the detail log, Try 'atc --help' for more information\n"
PID = "[PID: 200452] 2026-07-03-02:49:31.770.240"
NO_PARSER = "No parser is registered for Op [Conv_52, optype [ai.onnx::11::Convx]]."
NO_KERNEL = "No supported Ops kernel and engine are found for [Conv_52], optype [Conv]."
# A failed ATC: what it prints behind the first lines, its exit code -> the error: code, operator, text, what to do.
ATC = {
    "code first": (f"{FAILED}E19010: {NO_PARSER}", 255, r"E19010 at operator Conv_52: No parser .*: run 02 without edits"),
    "code, process and time": (
        f"{FAILED}E20001: {PID} Failed to compile Op [/layers.4/Slice_5]. (optype: [StridedSliceD])\n  Possible Cause: N/A", 1,
        r"E20001 at operator /layers\.4/Slice_5: Failed to compile Op .*: compiling an operator failed",
    ),
    "current form, 2026: a flag": (
        f"{FAILED}{PID} Invalid_Argument(E10001): Value [Ascend310P2] for parameter [--soc_version] is invalid.", 255,
        r"no success line\): E10001: Value \[Ascend310P2\] .*: correct this flag",
    ),
    "current form, 2026: an operator": (
        f"{FAILED}{PID} Not_Supported_Operator(E19010): {NO_PARSER}\nTraceBack (most recent call last):\n  {NO_PARSER}", 255,
        r"E19010 at operator Conv_52: No parser",
    ),
    "inner error: the text is on the next line": (
        f"{FAILED}EZ9999: Inner Error!\nEZ9999  Aicore kernel execute failed, device_id=0\n  TraceBack", 1,
        r"EZ9999: Aicore kernel execute failed, device_id=0: an inner error",
    ),
    "inner error with process and its code again": (
        "EZ9999: Inner Error!\nEZ9999[PID: 24481] 2025-10-29-03:18:08.948.444 (EZ9999):  The first dim should be 128.", 1,
        r"\): EZ9999: The first dim should be 128\.: an inner error",
    ),
    "inner error, a rank before each line": (
        f"[rank0]: RuntimeError: EZ9999: Inner Error!\n[rank0]: EZ9999: {PID} numHeads = 8, only {{32, 64}}.", 1,
        r"\): EZ9999: numHeads = 8, only \{32, 64\}\.: an inner error",
    ),
    "internal error without a code on the next line": (
        f"{FAILED}E19999: Internal error!\n        Unknown error occurred. Please check the log.", 1,
        r"E19999: Unknown error occurred\. Please check the log\.: an inner error",
    ),
    "no kernel: the operator's name, not its type": (f"{FAILED}EZ3003: {NO_KERNEL}", 1, "EZ3003 at operator Conv_52: No supp"),
    "unsupported type": (
        f"{FAILED}EZ3002: Optype [Convx] of Ops kernel [AICORE] is unsupported.", 1, "EZ3002 at operator Convx: Optype .Convx.",
    ),
    "no IR": (
        f"{FAILED}EZ0501: IR for Op [Conv_52, optype [Conv]], is not registered.", 1, "EZ0501 at operator Conv_52.*ops package",
    ),
    "a code that is not in our list": (
        f"{FAILED}E19025: Input tensor is invalid. Reason:", 1, "E19025: Input tensor is invalid.*look the code up",
    ),
    "a code of the runtime behind its name": (
        f"[ERROR] ERR00100 PTA call acl api failed.\n{PID} AclNN_Parameter_Error(EZ1001): Dim 1 value of x[0] is not 4", 1,
        r"\): EZ1001: Dim 1 value of x\[0\] is not 4: look the code up",
    ),
    "a text of 3,000 characters": (f"{FAILED}E19014: {LONG}.", 1, r"E19014: x+…x+\.: an operator's value.*; log "),
    "no code: the driver's library": (
        "atc.bin: error while loading shared libraries: libascend_hal.so: cannot open shared object file: No such file", 127,
        r"libascend_hal\.so: cannot open .*: .*devlib.* to LD_LIBRARY_PATH",
    ),
    "no code: a Python module": (
        f"{START}Traceback (most recent call last):\nModuleNotFoundError: No module named 'decorator'\n{FAILED}", 1,
        r"ModuleNotFoundError: No module named 'decorator': install this module",
    ),
    "no code: killed": (f"{START}.....\natc: line 17: 4711 Killed  atc.bin\n", 137, r"4711 Killed +atc\.bin: memory ran out"),
    "no code: killed by the system": ("", "$(kill -9 $$)", r"code -9, .*\): Killed: memory ran out"),
    "no code: what it said last": (
        f"{START}Segmentation fault (core dumped)\n......\n\n", 139, r"Segmentation fault \(core dumped\): .*ascend/log",
    ),
    "no code, no word": (f"{FAILED}.....\n", 1, r"it printed no reason: .*ascend/log"),
}  # fmt: skip


@pytest.mark.parametrize("row", ATC)
def test_a_failed_atc_is_one_line(row: str, program: Callable[..., str], tmp_path: Path) -> None:
    text, code, outcome = ATC[row]
    path = program("atc", text, code)
    check(outcome, lambda: atc.compile_om([path], tmp_path / "m.om", tmp_path / "atc.log", tmp_path, opset=11))


@pytest.mark.parametrize(("opset", "says"), [(17, True), (11, False), (None, True)])
@pytest.mark.parametrize("code", ["E14001", "E16002", "E16005", "E19010", "EZ9010"])
def test_opset_11_is_no_advice_to_who_has_it(code: str, opset: int | None, says: bool) -> None:
    (error,) = codes.atc_errors(f"{code}: {NO_PARSER}", opset)
    assert ("set `opset: 11`" in error.advice) is says
    assert len(error.advice) > 20


# a summary of ais_bench -> (ms of the batches, images/s, batch size, mean ms, in flight)
TIMES = {"npu_compute_time_list": [60.0, 64.0, 62.5], "throughput": 1000 * 8 / (186.5 / 3)}
SUMMARIES = {
    "0.0.2: every execution": (json.dumps(TIMES), ([60.0, 64.0, 62.5], 1000 * 8 / (186.5 / 3), 8, 186.5 / 3, 1)),
    "2022: no list of times": (GHOSTNET, ([], 3438.7935677393734, 16, 4.652794558563232, 1)),
    "--threads: pairs of start and end": (
        '{"npu_compute_time_list": [[1000, 1004], [1001, 1005], [1004.5, 1008], [1005, 1008.8]], "throughput": 3636.3636}',
        ([4.0, 4.0, 3.5, pytest.approx(3.8)], 3636.3636, 8, pytest.approx(2.2), 2),
    ),
    "batches of 4 and of 8": (
        '{"npu_compute_time_list": [10, 20, 20], "throughput": 400}', "batches of 6.67 images on average: .*one batch size",
    ),
    "nothing was executed": (
        '{"NPU_compute_time": {"mean": 0.0}, "throughput": 0, "npu_compute_time_list": []}', "0 executions at 0 images/s",
    ),
    "another JSON": ('{"title": "Overall statistics"}', "no key 'NPU_compute_time'; expected a summary of ais_bench"),
    "a mean that is text": ('{"NPU_compute_time": {"mean": "4.1"}, "throughput": 1}', "cannot be read"),
    "no number": ('{"npu_compute_time_list": [NaN], "throughput": 1}', "1 executions at 1 images/s"),
    "infinite": ('{"npu_compute_time_list": [1e400], "throughput": 1}', "1 executions at 1 images/s"),
    "negative": ('{"npu_compute_time_list": [-62, 186], "throughput": 129}', "2 executions at 129 images/s"),
    "an empty file": ("", "cannot be read"),
    "times that are text": ('{"npu_compute_time_list": ["4.1"], "throughput": 1}', "cannot be read"),
    "a pair that ends before it starts": ('{"npu_compute_time_list": [[2, 1]], "throughput": 1}', "1 executions at 1 images/s"),
    "a number too large for C": (f'{{"npu_compute_time_list": [{DIGITS}], "throughput": 1}}', "cannot be read"),
    "a key of 3,000 characters": (f'{{"{LONG}": {{"{LONG}": "{LONG}"', "cannot be read"),
    "brackets without end": ("[" * 100_000, "cannot be read"),
    "a list": ("[1, 2]", "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("row", SUMMARIES)
def test_a_summary_gives_its_rate(row: str, tmp_path: Path) -> None:
    text, outcome = SUMMARIES[row]
    (tmp_path / "x_summary.json").write_text(text)
    check(outcome, lambda: ais_bench.read_summary(tmp_path / "x_summary.json"))


# a performance file of the benchmark tool -> the rate of the model alone
PERFORMANCE = {
    "labels of 5.1": (PUBLISHED[1][1], 122.054),
    "the other labels, units": (
        PUBLISHED[1][1].replace("inference]", "infer]").replace("[postprocess]", "[post]")
        .replace("122.054", "122.054samples/s"), 122.054,
    ),
    "a line is missing": (PUBLISHED[1][1].replace("[preprocess]", "[prep]"), r"^x\.txt: no line '\[preprocess\] through"),
    "a decimal comma": (PUBLISHED[1][1].replace("122.054", "122,054"), "^x.txt: Interface is '122,054', expected a number"),
    "3,000 digits": (PUBLISHED[1][1].replace("122.054", DIGITS), "x.txt: Interface is '9+…9+', expected a number"),
    "indented": ("".join(f"    {line}\n" for line in PUBLISHED[1][1].splitlines()), 122.054),
    "without spaces": (PUBLISHED[1][1].replace(": ", ":"), 122.054),
    "100,000 blank lines": ("\n" * 100_000, r"^x\.txt: no line '\[data read\]"),
    "no Interface": (PUBLISHED[1][1].replace("Interface", "interface"), "^x.txt: Interface is '', expected a number above 0"),
    "one line of 3,000 stages": (
        PUBLISHED[1][1].replace("[e2e] throughputRate", "[e2e] " * 3000), r"^x\.txt: no line '\[e2e\] throughputRate",
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", PERFORMANCE)
def test_a_performance_file_gives_its_rate(row: str) -> None:
    text, outcome = PERFORMANCE[row]
    check(outcome, lambda: benchmark.read_perf(text, "x.txt").interface_per_s)


def typed(*rows: str) -> str:
    """An op_summary of the rows `type,name,task type,duration`."""
    return "\n".join([OP_SUMMARY, *rows])


def counted(*rows: str) -> str:
    """An op_statistic of the rows `type,count,total time`."""
    return "\n".join([OP_STATISTIC, *rows])


DATED = "mindstudio_profiler_output/op_summary_20241001120000.csv"
LATER = DATED.replace("120000", "130000")
STATISTIC = DATED.replace("summary", "statistic")
VIT = ("TransData,40,800", "Conv2D,10,100", "BatchMatMulV2,240,600")
# files of a profile -> rows (family, type, name, calls, µs), most time first, or why not
PROFILES: dict[str, tuple[dict[str, str | bytes], Any]] = {
    "a task without type: EVENT_WAIT": (
        {DATED: typed("SoftmaxV2,s1,AI_CORE,30", "N/A,N/A,EVENT_WAIT,12.5", "N/A,N/A,EVENT_WAIT,1.5")},
        [("SoftmaxV2", "SoftmaxV2", "s1", 1, 30), ("Other", "unknown", "EVENT_WAIT", 2, 14)],
    ),
    "a task without type: HCCL": (
        {DATED: typed("SoftmaxV2,s1,AI_CORE,30", "N/A,hcom_allReduce_1,HCCL,50")},
        [("Other", "unknown", "hcom_allReduce_1", 1, 50), ("SoftmaxV2", "SoftmaxV2", "s1", 1, 30)],
    ),
    "task-time l0: nothing has a type": (
        {DATED: typed("N/A,N/A,AI_CORE,30", "N/A,N/A,AI_CORE,20", "N/A,N/A,N/A,1")},
        [("Other", "unknown", "AI_CORE", 2, 50), ("Other", "unknown", "unknown", 1, 1)],
    ),
    "task-time l0, types in op_statistic": (
        {DATED: typed("N/A,N/A,AI_CORE,30", "N/A,N/A,AI_CORE,20", "N/A,N/A,EVENT_WAIT,7"),
         STATISTIC: counted("SoftmaxV2,2,50", "Total,2,50")},
        [("SoftmaxV2", "SoftmaxV2", "SoftmaxV2", 2, 50), ("Other", "unknown", "unknown", 1, 7)],
    ),
    "op_statistic knows no more than op_summary": (
        {DATED: typed("SoftmaxV2,s1,AI_CORE,30", "N/A,N/A,EVENT_WAIT,7"), STATISTIC: counted("SoftmaxV2,1,30.001")},
        [("SoftmaxV2", "SoftmaxV2", "s1", 1, 30), ("Other", "unknown", "EVENT_WAIT", 1, 7)],
    ),
    "a type without name, and no duration": (
        {DATED: typed("SoftmaxV2,N/A,AI_CORE,30", "AllReduce,x,HCCL,N/A")}, [("SoftmaxV2", "SoftmaxV2", "SoftmaxV2", 1, 30)],
    ),
    "exported twice into one folder: the newest": (
        {DATED: typed("SoftmaxV2,s1,AI_CORE,30"), LATER: typed("SoftmaxV2,s1,AI_CORE,31")},
        [("SoftmaxV2", "SoftmaxV2", "s1", 1, 31)],
    ),
    "exported twice in slices: the newest": (
        {DATED.replace("_2024", "_slice_0_2024"): typed("SoftmaxV2,s1,AI_CORE,30"),
         **{LATER.replace("_2024", f"_slice_{n}_2024"): typed(f"SoftmaxV2,s1,AI_CORE,{31 + n}") for n in range(2)}},
        [("SoftmaxV2", "SoftmaxV2", "s1", 2, 63)],
    ),
    "a type that op_statistic does not know, a count it does not know": (
        {STATISTIC: counted("SoftmaxV2,2,50", "N/A,3,7", "Gelu,N/A,5")},
        [("SoftmaxV2", "SoftmaxV2", "SoftmaxV2", 2, 50), ("Other", "unknown", "unknown", 3, 7), ("Gelu", "Gelu", "Gelu", 0, 5)],
    ),
    "two devices in one folder, exported one after the other": (
        {f"op_summary_{n}_1_2023010100000{n}.csv": typed("SoftmaxV2,s1,AI_CORE,30") for n in (0, 1)},
        [("SoftmaxV2", "SoftmaxV2", "s1", 2, 60)],
    ),
    "two devices": (
        {f"device_{n}/summary/op_summary_{n}_1.csv": typed("SoftmaxV2,s1,AI_CORE,30") for n in range(2)},
        [("SoftmaxV2", "SoftmaxV2", "s1", 2, 60)],
    ),
    "op_statistic alone": (
        {STATISTIC: counted(*VIT)},
        [("TransData", "TransData", "TransData", 40, 800), ("BatchMatMulV2", "BatchMatMulV2", "BatchMatMulV2", 240, 600),
         ("Conv2D", "Conv2D", "Conv2D", 10, 100)],
    ),
    "no file": ({"readme.txt": ""}, r"no operators in op_summary\*\.csv or op_statistic\*\.csv \(none of them is there\)"),
    "a folder of that name": ({f"{DATED}/x": ""}, r"op_summary_20241001120000\.csv: cannot be read"),
    "a duration too large for C": (
        {DATED: typed(f"SoftmaxV2,s1,AI_CORE,{DIGITS}")}, r"line 2, 'Task Duration': '9+…9+' is no duration or count",
    ),
    "a count too large for C": ({STATISTIC: counted("SoftmaxV2,1e300,5")}, r"line 2, 'Count': '1e300' is no duration or count"),
    "a column twice": (
        {DATED: "OP Type,Op Name,Task Duration(us),Task Duration(us)\nGelu,g,1,2"}, [("Gelu", "Gelu", "g", 1, 1)],
    ),
    "a column of 3,000 characters": ({DATED: f"{LONG},OP Type\n1,2"}, r"no column 'Op Name'; it has: x+…x+, OP Type: export"),
    "a row longer than its header": ({DATED: typed("SoftmaxV2,s1,AI_CORE,30,9,9,9")}, "cannot be read as a table"),
    "a quote that never ends": ({DATED: typed('"SoftmaxV2,s1,AI_CORE,30')}, "cannot be read as a table"),
    "a type of 100,000 characters": (
        {DATED: typed("D" * 100_000 + "x,g,AI_CORE,1")}, [("Other", "D" * 100_000 + "x", "g", 1, 1)],
    ),
    "28,000 columns": ({DATED: "OP Type" + ",Op Nam" * 28_000}, "no column 'Op Name'; it has: OP Type, .*…"),
    "an empty file": ({DATED: ""}, "cannot be read as a table"),
    "a header alone": ({DATED: OP_SUMMARY}, r"no operators .* \(op_summary_20241001120000\.csv\): export"),
    "a name that is not UTF-8": (
        {DATED: typed("Gelu,g,AI_CORE,1").encode().replace(b",g,", b",\xe9,")}, [("Gelu", "Gelu", "\ufffd", 1, 1)],
    ),
    "a file name that is not UTF-8": ({"op_summary_\udce9.csv": "a"}, r"op_summary_\\udce9\.csv: no column 'Op Type'"),
}  # fmt: skip


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


@pytest.mark.parametrize("row", PROFILES)
def test_a_profile_gives_its_operators(row: str, tmp_path: Path) -> None:
    files, outcome = PROFILES[row]
    write(tmp_path, files)

    def rows() -> list[tuple]:
        table = msprof.read(tmp_path)[["family", "op_type", "name", "calls", "total_us"]]
        return list(table.itertuples(index=False, name=None))

    check(outcome, rows)


# a profile -> how many batches it is of; None asks for --batches
BATCHES = {
    "op_summary: most operators run once per batch": ({DATED: typed(*["Gelu,a,,1", "Gelu,b,,1", "TransData,t,,1"] * 6)}, 6),
    "op_statistic: a count divides all others": ({STATISTIC: counted(*VIT)}, 10),
    "op_statistic: none does": ({STATISTIC: counted("TransData,4,800", "BatchMatMulV3,45,600")}, None),
    "nothing has a type": ({DATED: typed("N/A,N/A,AI_CORE,30")}, None),
}


@pytest.mark.parametrize("row", BATCHES)
def test_a_profile_tells_its_batches_or_does_not(row: str, tmp_path: Path) -> None:
    files, outcome = BATCHES[row]
    assert msprof.batches(msprof.read(write(tmp_path, files))) == outcome


def npy(header: str) -> bytes:
    """A NumPy file with this header and nothing behind it."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


# the only dump of an image -> its logits
DUMPS = {
    "text": ("a_1.txt", b"1 2 3 \n4", [[1, 2, 3]]),
    "raw": ("a_0.bin", np.float32([1, 2, 3]).tobytes(), [[1, 2, 3]]),
    "text: a word of 3,000 characters": ("a_1.txt", LONG.encode(), r"a_1\.txt: cannot be read as logits \(.*x+…"),
    "text: a number too large": ("a_1.txt", f"1 {DIGITS}".encode(), r"a_1\.txt: NaN or infinite values"),
    "text: not ASCII": ("a_1.txt", b"1 \xe9", r"a_1\.txt: cannot be read as logits"),
    "npy: more values than memory": (
        "a_0.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999999,), }"), "cannot be read as logits",
    ),
    "npy: a shape too large for C": (
        "a_0.npy", npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 300},), }}"), "cannot be read as logits",
    ),
    "npy: brackets without end": ("a_0.npy", npy("(" * 5000), "cannot be read as logits"),
    "npy: a damaged archive": ("a_0.npy", b"PK\x03\x04" + b"\0" * 99, "cannot be read as logits"),
    "npy: pickled": ("a_0.npy", npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"), "cannot be read as logits"),
    "a name that is not UTF-8": ("\udce9_1.txt", b"1", r"no dump of a\.jpg, expected a_1\.txt"),
}  # fmt: skip


@pytest.mark.parametrize("row", DUMPS)
def test_a_dump_gives_its_logits(row: str, tmp_path: Path) -> None:
    name, content, outcome = DUMPS[row]
    (tmp_path / name).write_bytes(content)
    check(outcome, lambda: dumps.read(tmp_path, ["a.jpg"]).tolist())


def test_a_dump_of_no_image_is_named_also_where_its_name_is_not_utf8(tmp_path: Path) -> None:
    for name in ("a_1.txt", "\udce9_1.txt"):
        (tmp_path / name).write_text("1")
    check(r"1 dumps are of no image of this run, such as \\udce9_1\.txt", lambda: dumps.read(tmp_path, ["a.jpg"]))


# what `deit-report import` is given, beside the rate of the performance file -> of perf.json, or the error
SOURCE = ("perf.txt", PUBLISHED[1][1])
IMPORTS: dict[str, tuple[tuple[str, str], dict[str, str | bytes], dict[str, Any], Any]] = {
    "a summary of another batch size": (("sumary.json", GHOSTNET), {}, {}, "batch size 16, imported as 8: correct -b"),
    "a profile whose counts tell": (SOURCE, {STATISTIC: counted(*VIT)}, {}, (10, 0.15, 0, 0.0)),
    "a profile whose counts do not": (
        SOURCE, {STATISTIC: counted("TransData,4,800", "Pad,45,600")}, {},
        r"prof: its counts \(TransData 4, Pad 45 …\) do not tell of how many batches: say it, as --batches 10",
    ),
    "the same, with --batches": (
        SOURCE, {STATISTIC: counted("TransData,4,800", "Pad,45,600")}, {"batches": 2}, (2, 0.7, 0, 0.0),
    ),
    "a profile without types": (SOURCE, {DATED: typed(*["N/A,N/A,AI_CORE,50"] * 20)}, {"batches": 10}, (10, 0.1, 20, 1000.0)),
    "a file whose name is not UTF-8": (("\udce9.txt", ""), {}, {}, r"\\udce9\.txt: not UTF-8: rename it"),
    "a device whose name is not UTF-8": (SOURCE, {}, {"device": "\udce9"}, r"\\udce9: not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("row", IMPORTS)
def test_an_import_says_what_it_attributed(row: str, finished: Run, tmp_path: Path) -> None:
    source, prof, options, outcome = IMPORTS[row]
    run = copy_of(finished, tmp_path).at(8)
    write(tmp_path, {source[0]: source[1]})
    write(tmp_path / "prof", prof)

    def facts() -> tuple:
        imported.import_results(run, tmp_path / source[0], None, tmp_path / "prof" if prof else None, **options)
        perf = run.read("perf")
        assert ("Not attributed" in report_perf.top_operators(run).caption) is bool(perf["unattributed"]["calls"])
        assert ("Not attributed" in report_perf.families_chart(run).caption) is bool(perf["unattributed"]["calls"])
        return perf["profiled_batches"], pytest.approx(perf["operators_ms"]), *perf["unattributed"].values()

    check(outcome, facts)


def test_the_page_says_how_many_calls_and_us_are_not_attributed(finished: Run, tmp_path: Path) -> None:
    write(tmp_path / "prof", {DATED: typed("SoftmaxV2,s,AI_CORE,75", "N/A,N/A,EVENT_WAIT,20", "N/A,x,HCCL,5")})
    write(tmp_path, {SOURCE[0]: SOURCE[1]})
    run = copy_of(finished, tmp_path).at(8)
    imported.import_results(run, tmp_path / "perf.txt", None, tmp_path / "prof")
    text = "Not attributed, in Other: 2 calls without a type, 25.0 µs, 25.0 %"
    table = report_perf.top_operators(run)
    assert text in table.caption
    assert table.rows[1][:3] == ("Other", "unknown", 2)
    assert f"{text} of bs8" in report_perf.families_chart(run).caption


@pytest.mark.parametrize(
    ("text", "latency", "in_flight"),
    [
        (GHOSTNET, {"mean": 4.652794558563232, "p50": None, "p90": None, "p99": None, "n": 0}, [1]),
        (
            '{"npu_compute_time_list": [[0, 4], [0, 4]], "throughput": 8000}',
            {"mean": 4.0, "p50": 4.0, "p90": 4.0, "p99": None, "n": 2},
            [2],
        ),
    ],
    ids=["2022", "--threads"],
)
def test_a_summary_is_imported_with_what_it_says(
    text: str, latency: dict[str, Any], in_flight: list[int], finished: Run, tmp_path: Path
) -> None:
    write(tmp_path, {"x_sumary.json": text})
    run = copy_of(finished, tmp_path).at(16)
    facts = imported.import_results(run, tmp_path / "x_sumary.json", None, None)
    assert (facts["interface_images_per_s"], facts["in_flight"]) == (json.loads(text)["throughput"], in_flight)
    assert facts["latency_ms"] == latency
