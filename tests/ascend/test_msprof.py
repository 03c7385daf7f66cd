"""msprof's tables of four CANN generations give one operator table; what cannot be read is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from deit_helpers.ascend import msprof
from deit_helpers.errors import ToolError
from deit_helpers.metrics import operators

TASKS = [
    ("trans_1", "TransData", 40.0), ("trans_1", "TransData", 44.5), ("soft", "SoftmaxV2", 30.25),
    ("bmm", "BatchMatMulV2", 20.0),
    ("mm", "MatMulV2", 10.0), ("ln", "LayerNorm", 5.0), ("ge", "Gelu", 4.0), ("cv", "Conv2D", 3.0), ("ad", "Add", 2.0),
    ("tr", "TransposeD", 1.0), ("gx", "GatherV2", 0.5),
]  # fmt: skip
EXPECTED = {
    "TransData": 85.5, "SoftmaxV2": 30.25, "BatchMatMulV2": 20.0, "MatMulV2": 10.0, "LayerNorm": 5.0, "Gelu": 4.0,
    "Conv2D": 3.0, "Elementwise": 2.0, "Other": 0.5,
}  # fmt: skip
# CANN -> place and header of op_summary, as recorded
GENERATIONS = {
    "5.1": (
        "device_0/summary/op_summary_0_1.csv",
        "Model Name,Model ID,Task ID,Stream ID,Infer ID,Op Name,OP Type,Task Type,Task Start Time,Task Duration(us),"
        "Task Wait Time(us),Block Dim,Input Shapes",
    ),
    "6.0": (
        "device_0/summary/op_summary_0_1_1.csv",
        "Model ID,Task ID,Stream ID,Op Name,OP Type,Task Type,Task Start Time,Task Duration(us),Task Wait Time(us),Block Dim,"
        "Input Shapes,Input Data Types,Input Formats,Output Shapes,Output Data Types,Output Formats,aicore_time(us)",
    ),
    "8.0": (
        "mindstudio_profiler_output/op_summary_20241001120000.csv",
        "Device_id,Model ID,Task ID,Stream ID,Op Name,OP Type,OP State,Task Type,Task Start Time(us),Task Duration(us),"
        "Task Wait Time(us),Block Dim,HF32 Eligible,Input Shapes",
    ),
    "9.0": (
        "mindstudio_profiler_output/op_summary_20260301120000.csv",
        "Device_id,Model ID,Task ID,Stream ID,Op Name,OP Type,OP State,Task Type,Task Start Time(us),Task Duration(us),"
        "Task Wait Time(us),Block Num,Mix Block Num,HF32 Eligible,Input Shapes,cube_utilization(%)",
    ),
}


def summary(folder: Path, place: str, header: str, delimiter: str = ",", encoding: str = "utf-8", v3: bool = False) -> Path:
    rows = [header.replace(",", delimiter)]
    for name, kind, duration in TASKS:
        shown = kind.replace("V2", "V3") if v3 and "MatMul" in kind else kind
        number = str(duration) if delimiter == "," else str(duration).replace(".", ",")
        values = {"Op Name": name, "OP Type": shown, "Task Duration(us)": number, "Input Shapes": '"8,197,384;384"'}
        rows.append(delimiter.join(values.get(column, "N/A") for column in header.split(",")))
    path = folder / "PROF_000001_20221217075609326_GLKQJOGROQGOLIIB" / place
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(rows) + "\n", encoding=encoding)
    return path


def families(folder: Path) -> dict[str, float]:
    table = msprof.read(folder)
    assert table.columns.to_list() == operators.COLUMNS
    assert set(table["backend"]) == {"msprof"}
    assert table["share_percent"].sum() == pytest.approx(100)
    return table.groupby("family")["total_us"].sum().to_dict()


@pytest.mark.parametrize("generation", GENERATIONS)
def test_four_generations_give_the_same_families(tmp_path: Path, generation: str) -> None:
    summary(tmp_path, *GENERATIONS[generation], v3=generation == "9.0")
    assert families(tmp_path) == EXPECTED
    transdata = msprof.read(tmp_path).iloc[0]
    assert (transdata["op_type"], transdata["name"], transdata["calls"]) == ("TransData", "trans_1", 2)


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "utf-8"), ("\t", "utf-8"), (",", "utf-8-sig")])
def test_locale_variants_are_read(tmp_path: Path, delimiter: str, encoding: str) -> None:
    summary(tmp_path, *GENERATIONS["8.0"], delimiter=delimiter, encoding=encoding)
    assert families(tmp_path) == EXPECTED


def test_slices_are_added_up_and_tasks_without_a_duration_left_out(tmp_path: Path) -> None:
    path = summary(tmp_path, *GENERATIONS["8.0"])
    header = GENERATIONS["8.0"][1]
    values = {"OP Type": "AllReduce", "Op Name": "x"}
    path.write_text(path.read_text() + ",".join(values.get(column, "N/A") for column in header.split(",")) + "\n")
    for n in range(2):
        path.with_name(f"op_summary_slice_{n}_20241001120000.csv").write_text(path.read_text())
    path.unlink()
    assert families(tmp_path) == {family: 2 * total for family, total in EXPECTED.items()}


@pytest.mark.parametrize(
    "header",
    [
        "Model Name,OP Type,Core Type,Count,Total Time(us),Min Time(us),Avg Time(us),Max Time(us),Ratio(%)",
        "OP Type,Core Type,Count,Total Time(us),Min Time(us),Avg Time(us),Max Time(us),Ratio(%)",
        "Device_id,OP Type,Core Type,Count,Total Time(us),Min Time(us),Avg Time(us),Max Time(us),Ratio(%)",
    ],
)
def test_op_statistic_serves_where_there_is_no_summary(tmp_path: Path, header: str) -> None:
    rows = [header]
    for kind, count, total in (("TransData", 4, "935253.6"), ("BatchMatMulV3", 45, "19941.5")):
        values = {"OP Type": kind, "Count": str(count), "Total Time(us)": total}
        rows.append(",".join(values.get(column, "0") for column in header.split(",")))
    (tmp_path / "op_statistic_0_1.csv").write_text("\n".join(rows))
    table = msprof.read(tmp_path)
    assert table[["family", "calls", "total_us"]].to_numpy().tolist() == [
        ["TransData", 4, 935253.6],
        ["BatchMatMulV2", 45, 19941.5],
    ]


def test_a_missing_column_names_file_and_column(tmp_path: Path) -> None:
    path = summary(tmp_path, "op_summary_0_1.csv", "Op Name,OP Type,Task Type")
    with pytest.raises(ToolError, match=rf"{path}: no column 'Task Duration'; it has: Op Name, OP Type, Task Type: export"):
        msprof.read(tmp_path)


def test_an_empty_folder_and_an_empty_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"no operators in op_summary\*\.csv or op_statistic\*\.csv \(none of them is there\)"):
        msprof.read(tmp_path)
    (tmp_path / "op_summary_0_1.csv").touch()
    with pytest.raises(ToolError, match=r"op_summary_0_1\.csv: cannot be read as a table"):
        msprof.read(tmp_path)


@pytest.mark.parametrize(
    ("op_type", "family"),
    [
        ("BatchMatMul", "BatchMatMulV2"), ("BatchMatMulV3", "BatchMatMulV2"), ("MatMulV3", "MatMulV2"), ("MatMul", "MatMulV2"),
        ("SoftmaxV2", "SoftmaxV2"), ("LayerNormV4", "LayerNorm"), ("AddLayerNorm", "LayerNorm"), ("GeluV2", "Gelu"),
        ("TransData", "TransData"), ("ConfusionTransposeD", "TransData"), ("SplitVD", "TransData"), ("ConcatD", "TransData"),
        ("Add", "Elementwise"), ("Muls", "Elementwise"), ("RealDiv", "Elementwise"), ("Conv2D", "Conv2D"), ("Pad", "TransData"),
        ("PadD", "TransData"), ("ConcatV2D", "TransData"), ("PadV3D", "TransData"), ("ReduceMeanD", "Other"),
    ],
)  # fmt: skip
def test_types_of_every_version_have_their_family(op_type: str, family: str) -> None:
    assert operators.family_of_ascend(op_type) == family


@pytest.mark.parametrize("value", ["abc", "-99.5", "inf", "1 234.5"])
def test_a_duration_that_cannot_be_names_file_and_line(tmp_path: Path, value: str) -> None:
    path = summary(tmp_path, *GENERATIONS["8.0"])
    path.write_text(path.read_text().replace("30.25", value))
    with pytest.raises(ToolError, match=rf"{path}: line 4, 'Task Duration': .* is no duration or count"):
        msprof.read(tmp_path)


def test_two_profiles_are_not_added_up(tmp_path: Path) -> None:
    for name in ("PROF_1", "PROF_2"):
        (tmp_path / name).mkdir()
    with pytest.raises(ToolError, match="holds 2 profiles, such as PROF_1: name one of them"):
        msprof.read(tmp_path)
