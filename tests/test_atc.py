"""03: the exact ATC command, and what is said where nothing is to be converted."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from pipeline import SIZES, copy_of, finished, new_run

from deit_helpers import artifacts, freshness
from deit_helpers.artifacts import Run
from deit_helpers.ascend import atc
from deit_helpers.errors import ArtifactError, ToolError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finished(tmp_path_factory)


def test_the_command_is_the_recipes_argument_for_argument() -> None:
    found = atc.command(PurePosixPath("bs8/deit_bs8.onnx"), "image", [8, 3, 224, 224], "Ascend310P3")
    assert found == [
        "atc",
        "--framework=5",
        "--model=bs8/deit_bs8.onnx",
        "--output=bs8/deit_bs8",
        "--input_format=NCHW",
        "--input_shape=image:8,3,224,224",
        "--log=error",
        "--soc_version=Ascend310P3",
    ]


def test_an_unknown_chip_is_left_open_and_quoted_for_the_shell(run: Run) -> None:
    found = run.read("convert")
    assert found["soc_version"] is None
    assert "--soc_version=Ascend<Name column of npu-smi info>" in found["command"]
    assert "'--soc_version=Ascend<Name column of npu-smi info>'" in found["command_line"]


@pytest.mark.parametrize("size", SIZES)
def test_the_record_is_of_this_batch_size_and_says_not_needed(run: Run, size: int) -> None:
    found = run.at(size).read("convert")
    assert (found["batch_size"], found["status"], found["backend"]) == (size, "not needed", "onnxruntime")
    assert found["device_model"] == f"bs{size}/deit_bs{size}.onnx"
    assert f"--input_shape=image:{size},3,224,224" in found["command"]
    assert f"--model=bs{size}/deit_bs{size}.onnx" in found["command"]
    assert "nothing to convert" in found["reason"]


def test_converting_before_optimizing_names_the_notebook(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run notebooks/02_optimize\.ipynb with batch_size=4"):
        atc.convert(new_run(tmp_path))


def test_a_graph_of_another_batch_size_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = copy_of(run, tmp_path)
    artifacts.write_json(copy.file("optimize"), copy.at(1).read("optimize"))
    freshness.forget(copy, "convert")
    with pytest.raises(ArtifactError, match=r"optimize\.json was changed after it was made"):
        atc.convert(copy)
    monkeypatch.setattr(freshness, "require", lambda *_: None)
    with pytest.raises(ToolError, match="graph of batch size 1, this run has 4"):
        atc.convert(copy)
