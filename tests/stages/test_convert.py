"""03: the exact ATC command, and what is said where nothing is to be converted."""

from __future__ import annotations

import os
from pathlib import Path

import ascend_host
import onnx
import pytest
from runs import SIZES, copy_of, new_run

from deit_helpers import files
from deit_helpers.ascend import cann, npu_smi
from deit_helpers.errors import ArtifactError, ToolError
from deit_helpers.run import records
from deit_helpers.run.folder import Run
from deit_helpers.stages import convert


def test_an_unknown_chip_is_left_open_and_quoted_for_the_shell(finished: Run) -> None:
    facts = finished.read("convert")
    assert facts["soc_version"] is None
    assert "--soc_version=Ascend<Name column of npu-smi info>" in facts["command"]
    assert "'--soc_version=Ascend<Name column of npu-smi info>'" in facts["command_line"]


@pytest.mark.parametrize("size", SIZES)
def test_the_record_is_of_this_batch_size_and_says_not_needed(finished: Run, size: int) -> None:
    facts = finished.at(size).read("convert")
    assert (facts["batch_size"], facts["status"], facts["backend"]) == (size, "not needed", "onnxruntime")
    assert facts["device_model"] == f"bs{size}/deit_bs{size}.onnx"
    assert f"--input_shape=image:{size},3,224,224" in facts["command"]
    assert f"--model=bs{size}/deit_bs{size}.onnx" in facts["command"]
    assert "nothing to convert" in facts["reason"]


def test_converting_before_optimizing_names_the_notebook(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run notebooks/02_optimize\.ipynb with batch_size=4"):
        convert.convert(new_run(tmp_path))


def test_a_graph_of_another_batch_size_is_refused(finished: Run, tmp_path: Path) -> None:
    copy = copy_of(finished, tmp_path)
    files.write_json(copy.file("optimize"), copy.at(1).read("optimize"))
    records.forget(copy, "convert")
    with pytest.raises(ArtifactError, match=r"optimize\.json was changed after it was made"):
        convert.convert(copy)


@pytest.fixture
def ascend_run(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of a finished run that now asks for an NPU, on an emulated host."""
    ascend_host.make_host(tmp_path / "host", monkeypatch)
    return on_npu(copy_of(finished, tmp_path))


def on_npu(run: Run, **keys: object) -> Run:
    return run.replace(**{"backend": "pyacl", "precision": "fp16", **keys})


def test_atc_makes_the_om_and_the_log_is_kept(ascend_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    facts = convert.convert(ascend_run)
    assert (facts["status"], facts["emulated"], facts["cann"]) == ("done", True, "8.1.RC1")
    assert (facts["soc_version"], facts["device_model"]) == ("Ascend310P3", "bs4/deit_bs4.om")
    assert ascend_run.file("om").is_file()
    log = ascend_run.file("atc_log").read_text()
    assert "ATC run success, welcome to the next use." in log
    assert "ATC start working now" in capsys.readouterr().out  # live
    wanted = ["--precision_mode=force_fp16", "--op_select_implmode=high_performance", "--optypelist_for_implmode=Gelu"]
    assert set(facts["command"]) >= {*wanted, "--enable_small_channel=1", "--input_shape=image:4,3,224,224"}


def test_an_om_is_made_once_until_graph_command_or_cann_change(ascend_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    convert.convert(ascend_run)
    made = ascend_run.file("om").stat().st_mtime_ns
    convert.convert(ascend_run)
    assert ascend_run.file("om").stat().st_mtime_ns == made
    assert records.problem(on_npu(ascend_run, atc={"log": "info"}), "convert") is not None
    home = Path(os.environ["ASCEND_TOOLKIT_HOME"])
    info = next(home.glob("*/ascend_toolkit_install.info"))
    info.write_text("version=9.0.0\n")
    assert records.problem(ascend_run, "convert") == "made with CANN 8.1.RC1, now 9.0.0"
    info.unlink()  # a host without CANN has no say
    assert records.problem(ascend_run, "convert") is None


def test_static_aipp_is_written_and_handed_over(ascend_run: Run) -> None:
    run = on_npu(ascend_run, aipp="static")
    facts = convert.convert(run)
    assert "--insert_op_conf=bs4/aipp.cfg" in facts["command"]
    text = run.file("aipp").read_text()
    assert "min_chn_0: 123.675" in text
    assert "var_reci_chn_1: 0.017507\n" in text
    assert "mean_chn" not in text.replace("min_chn", "")


def test_flags_of_the_spec_are_added_or_replace_ours(ascend_run: Run) -> None:
    run = on_npu(ascend_run, atc={"precision_mode_v2": "origin", "output_type": "FP16", "enable_small_channel": 0})
    command = convert.convert(run)["command"]
    assert set(command) >= {"--precision_mode_v2=origin", "--output_type=FP16", "--enable_small_channel=0"}
    assert not any(argument.startswith("--precision_mode=") for argument in command)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"soc_version": "Ascend310P2"},
            r"code 1, no OM, no success line\): E10001: Value \[Ascend310P2\].* Name column of npu-smi",
        ),
        ({"precision": "bf16"}, "E10001: .*not on Ascend310P3"),
        ({"atc": {"fusion_switch_file": "absent.cfg"}}, r"E10410: File \[absent.cfg\] does not exist"),
        ({"atc": {"enable_small_channel": 2}}, "E10006: .*correct this flag in `atc` of the spec"),
        ({"atc": {"precision_mode": "force_fp16", "precision_mode_v2": "fp16"}}, "E10047: .*leave out one of the two flags"),
        ({"atc": {"input_shape": "picture:4,3,224,224"}}, r"E10016 at operator picture: Opname \[picture\]"),
        ({"atc": {"input_shape": "image:8,3,224,224"}}, "E10001: .*the model has"),
        ({"atc": {"colour": "blue"}}, "unknown command line flag"),
    ],
)
def test_what_atc_refuses_is_one_line_with_code_advice_and_log(ascend_run: Run, keys: dict, message: str) -> None:
    with pytest.raises(ToolError, match=message) as caught:
        convert.convert(on_npu(ascend_run, **keys))
    assert str(ascend_run.file("atc_log")) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not ascend_run.file("om").exists()


def test_the_opset_is_checked_before_atc_starts(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ascend_host.make_host(tmp_path / "host", monkeypatch, cann_version="5.1.RC1")
    copy = on_npu(copy_of(finished, tmp_path))
    files.write_json(copy.file("optimize"), {**copy.read("optimize"), "opset": 17})
    monkeypatch.setattr(records, "require", lambda *_: None)
    with pytest.raises(ToolError, match=r"opset 17: ATC of CANN 5\.1\.RC1 takes 9 to 13: set opset: 11"):
        convert.convert(copy)
    assert not copy.file("atc_log").exists()


def test_atc_names_an_operator_it_does_not_know(ascend_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMULATED_CANN", "5.1")  # says 8.1 of itself, and takes 9 to 13 only
    graph = onnx.load(ascend_run.file("static_onnx"))
    graph.opset_import[0].version = 14
    onnx.save(graph, ascend_run.file("static_onnx"))
    monkeypatch.setattr(records, "require", lambda *_: None)
    files.write_json(ascend_run.file("optimize"), {**ascend_run.read("optimize"), "opset": 14})
    with pytest.raises(ToolError, match=r"EZ9010 at operator .*: No parser is registered for Op .*set `opset: 11`"):
        convert.convert(ascend_run)


def test_without_atc_the_command_and_what_to_copy_are_said(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cann, "SET_ENV", ())
    copy = on_npu(copy_of(finished, tmp_path))
    with pytest.raises(ToolError, match=r"ATC is not on this host\. Copy .* --from 03.*`command_line` in .*convert\.json"):
        convert.convert(copy)
    facts = copy.read("convert")
    assert facts["command_line"].startswith("atc --framework=5")
    assert (facts["status"], facts["device_model"]) == ("missing", None)
    assert "--soc_version=Ascend<Name column of npu-smi info>" in facts["command"]


def test_an_om_named_after_the_system_is_found(ascend_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMULATED_OM_NAMES", "long")
    run = on_npu(ascend_run)
    convert.convert(run)
    assert [path.name for path in run.file("om").parent.glob("*.om")] == [run.file("om").name]


def test_another_chip_makes_the_om_again(ascend_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run = on_npu(ascend_run)
    convert.convert(run)
    assert records.problem(run, "convert") is None
    monkeypatch.setenv("EMULATED_SOC", "Ascend910B3")
    npu_smi._ask.cache_clear()  # as a new process would find it
    assert "made with chip 310P3, now 910B3" in (records.problem(run, "convert") or "")


def test_flags_replace_ours_name_files_and_can_be_left_out(ascend_run: Run) -> None:
    flags = {"optypelist_for_implmode": None, "op_select_implmode": "high_precision_for_all", "soc_version": "Ascend310P1"}
    command = convert.convert(on_npu(ascend_run, atc=flags))["command"]
    assert "--soc_version=Ascend310P1" in command
    assert not [flag for flag in command if "optypelist" in flag]


def test_a_file_that_a_flag_names_is_an_input(ascend_run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "keep.txt"
    kept.write_text("a\n")
    run = on_npu(ascend_run, atc={"keep_dtype": str(kept)})
    assert f"--keep_dtype={kept}" in convert.convert(run)["command"]
    kept.write_text("b\n")
    assert "atc: keep_dtype changed" in (records.problem(run, "convert") or "")
